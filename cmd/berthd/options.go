package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"berth/image"

	"github.com/docker/go-units"
	"github.com/spf13/pflag"
)

// options are the daemon's flags, with dockerd's names.
type options struct {
	hosts         []string
	dataRoot      string
	execRoot      string
	pidfile       string
	group         string
	groupGiven    bool
	driver        string
	driverOptions []string
	networks      networks
	cgroupParent  string
	usernsRemap   string
	debug         bool
	level         slog.Level
	cleanup       bool
	imageSize     string
	images        image.Limits
	defaults      defaults
	registries    registries
	validate      bool
	done          bool // help or version was printed
}

func parse(args []string) (*options, error) {
	o := &options{}
	var level, file string
	var printVersion bool
	f := pflag.NewFlagSet("berthd", pflag.ContinueOnError)
	f.SortFlags = false
	f.SetOutput(io.Discard)
	f.StringArrayVarP(&o.hosts, "host", "H", nil, "listen here: unix:///path or tcp://127.0.0.1:port; repeatable (default unix:///run/berth/berth.sock)")
	f.StringVar(&o.dataRoot, "data-root", "/var/lib/berth", "where images, containers and volumes are kept")
	f.StringVar(&o.execRoot, "exec-root", "/run/berth", "where run state is kept; best on a tmpfs")
	f.StringVarP(&o.pidfile, "pidfile", "p", "", "file to write the process number to (default EXEC-ROOT/berthd.pid)")
	f.StringVarP(&o.group, "group", "G", "docker", "group that may use the unix sockets")
	f.StringVarP(&o.driver, "storage-driver", "s", "", "storage driver: overlay2, fuse-overlayfs, btrfs, zfs or vfs, only by name also devicemapper or aufs (default: the one that has data here, else the first of the five that works)")
	f.StringArrayVar(&o.driverOptions, "storage-opt", nil, "option of the storage driver: overlay2.size=10G; repeatable")
	f.StringVar(&o.imageSize, "max-image-size", "", "refuse images whose layers take more than this on disk, such as 20g (default: what the disk has)")
	f.Int64Var(&o.images.Files, "max-image-files", 0, "refuse images with more files than this (default: what the disk has)")
	f.StringVar(&file, "config-file", defaultFile, "JSON file with settings; what stands there can't be a flag as well")
	f.BoolVar(&o.validate, "validate", false, "check the flags and the file, and end")
	f.StringVar(&o.cgroupParent, "cgroup-parent", "/berth", "control group above all containers")
	f.StringVar(&o.usernsRemap, "userns-remap", "", "run containers as the ids that /etc/subuid and /etc/subgid set aside for: default, user[:group] or uid[:gid]")
	o.defaults.declare(f)
	o.networks.declare(f)
	o.registries.declare(f)
	f.BoolVarP(&o.debug, "debug", "D", false, "log requests and decisions; same as --log-level debug")
	f.StringVarP(&level, "log-level", "l", "info", "debug, info, warn or error")
	f.BoolVar(&o.cleanup, "cleanup", false, "remove the bridge, firewall table and control groups that an engine made here, and end")
	f.BoolVarP(&printVersion, "version", "v", false, "print the version and end")
	f.StringVarP(&o.dataRoot, "graph", "g", "/var/lib/berth", "old name of --data-root")
	f.MarkHidden("graph")
	o.defaults.declareOthers(f)
	if err := f.Parse(args); err != nil {
		if err == pflag.ErrHelp {
			fmt.Printf("Usage: berthd [options]\n\nThe daemon of berth, a container engine.\n\nOptions:\n%s", f.FlagUsages())
			o.done = true
			return o, nil
		}
		return nil, fmt.Errorf("%w\nSee 'berthd --help'", err)
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q: berthd takes only options\nSee 'berthd --help'", f.Arg(0))
	}
	if printVersion {
		fmt.Printf("berth version %s, build %s\n", version, commit)
		o.done = true
		return o, nil
	}
	if err := o.defaults.readFile(f, file, f.Changed("config-file")); err != nil {
		return nil, err
	}
	if err := o.defaults.noteOthers(f); err != nil {
		return nil, err
	}
	o.groupGiven = f.Changed("group")
	if err := errors.Join(o.defaults.finish(), o.registries.finish(), o.networks.finish(), o.finish(level)); err != nil {
		return nil, err
	}
	if o.validate {
		fmt.Println("configuration OK")
		o.done = true
	}
	return o, nil
}

// finish fills in what depends on other options.
func (o *options) finish(level string) (err error) {
	if level == "fatal" || level == "panic" { // levels of dockerd that we don't tell apart
		level = "error"
	}
	if err := o.level.UnmarshalText([]byte(level)); err != nil {
		return fmt.Errorf("--log-level %s: it must be debug, info, warn or error", level)
	}
	if o.debug {
		o.level = slog.LevelDebug
	}
	for _, dir := range []*string{&o.dataRoot, &o.execRoot} {
		if *dir, err = filepath.Abs(*dir); err != nil {
			return err
		}
	}
	if o.pidfile == "" {
		o.pidfile = filepath.Join(o.execRoot, "berthd.pid")
	}
	if name := os.Getenv("DOCKER_DRIVER"); name != "" { // before the flag, as the field has it
		o.driver = name
	}
	if o.imageSize != "" {
		if o.images.Bytes, err = units.RAMInBytes(o.imageSize); err != nil {
			return fmt.Errorf("--max-image-size %s: %w", o.imageSize, err)
		}
	}
	if o.images.Bytes < 0 || o.images.Files < 0 {
		return fmt.Errorf("--max-image-size and --max-image-files can't be negative")
	}
	if len(o.hosts) == 0 {
		o.hosts = []string{"unix:///run/berth/berth.sock"}
	}
	if !strings.HasPrefix(o.cgroupParent, "/") {
		o.cgroupParent = "/" + o.cgroupParent
	}
	if os.Geteuid() != 0 && !o.validate {
		return fmt.Errorf("berthd needs root: it makes namespaces, mounts and network links. Try: sudo berthd")
	}
	return nil
}
