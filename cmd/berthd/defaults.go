package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"berth/engine/disk"
	"berth/engine/request"

	"github.com/docker/go-units"
	api "github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"
)

// defaults are the flags that containers without a setting of their own get.
type defaults struct {
	set              request.Defaults
	runtimes         []string
	ulimits          []string
	logOpts          []string
	execOpts         []string
	cgroupns, ipc    string
	shmSize, seccomp string
	initPath         string
	selinux          bool
	builder          builder
	warnings         []string
	collection       disk.Collection
}

func (d *defaults) declare(f *pflag.FlagSet) {
	f.StringVar(&d.set.Runtime, "default-runtime", "", "OCI runtime of containers that name none (default berth, the built-in one)")
	f.StringArrayVar(&d.runtimes, "add-runtime", nil, "register an OCI runtime: NAME=PATH; repeatable")
	f.StringVar(&d.cgroupns, "default-cgroupns-mode", "private", "cgroup namespace of containers: host or private")
	f.StringVar(&d.ipc, "default-ipc-mode", "private", "IPC namespace of containers: shareable or private")
	f.StringVar(&d.shmSize, "default-shm-size", "64M", "size of /dev/shm")
	f.StringArrayVar(&d.ulimits, "default-ulimit", nil, "resource limit of containers: NAME=SOFT[:HARD]; repeatable")
	f.IntVar(&d.set.StopTimeout, "default-stop-timeout", 0, "seconds between a container's stop signal and KILL (default 10)")
	f.BoolVar(&d.set.Init, "init", false, "put a small init in front of every container's program")
	f.StringVar(&d.initPath, "init-path", "", "taken for other engines' sake: the init is built in")
	f.StringVar(&d.set.LogDriver, "log-driver", "json-file", "log driver of containers")
	f.StringArrayVar(&d.logOpts, "log-opt", nil, "option of the log driver: NAME=VALUE; repeatable")
	f.BoolVar(&d.set.NoNewPrivileges, "no-new-privileges", false, "containers' processes can't gain rights by executing programs")
	f.StringVar(&d.seccomp, "seccomp-profile", "builtin", "seccomp profile of containers: a file, builtin or unconfined")
	f.BoolVar(&d.selinux, "selinux-enabled", false, "taken for other engines' sake: labels are not set")
	f.Int64Var(&d.set.CPURealtimePeriod, "cpu-rt-period", 0, "period of real time scheduling of all containers together, in microseconds (cgroup v1)")
	f.Int64Var(&d.set.CPURealtime, "cpu-rt-runtime", 0, "real time scheduling of all containers in each period, in microseconds (cgroup v1)")
	f.StringArrayVar(&d.execOpts, "exec-opt", nil, "option of the runtime; repeatable")
	f.StringArrayVar(&d.set.CDISpecDirs, "cdi-spec-dir", []string{"/etc/cdi", "/var/run/cdi"}, "directory with CDI device descriptions; repeatable, \"\" for none")
}

// finish reads what the flags say.
func (d *defaults) finish() (err error) {
	s := &d.set
	s.CgroupnsMode, s.IpcMode = api.CgroupnsMode(d.cgroupns), api.IpcMode(d.ipc)
	if s.ShmSize, err = units.RAMInBytes(d.shmSize); err != nil {
		return fmt.Errorf("--default-shm-size %s: %w", d.shmSize, err)
	}
	for _, text := range d.runtimes {
		name, path, ok := strings.Cut(text, "=")
		if !ok || name == "" || path == "" {
			return fmt.Errorf("--add-runtime %s: write NAME=PATH", text)
		}
		if err := d.addRuntime(name, request.Runtime{Path: path}); err != nil {
			return err
		}
	}
	for _, text := range d.ulimits {
		u, err := units.ParseUlimit(text)
		if err != nil {
			return fmt.Errorf("--default-ulimit %s: %w", text, err)
		}
		d.addUlimit(u)
	}
	for _, text := range d.logOpts {
		key, value, ok := strings.Cut(text, "=")
		if !ok {
			return fmt.Errorf("--log-opt %s: write NAME=VALUE", text)
		}
		if s.LogOpts == nil {
			s.LogOpts = map[string]string{}
		}
		s.LogOpts[key] = value
	}
	for _, text := range d.execOpts {
		switch key, value, _ := strings.Cut(text, "="); {
		case key != "native.cgroupdriver":
			return fmt.Errorf("--exec-opt %s: the only option is native.cgroupdriver", text)
		case value != "cgroupfs":
			return fmt.Errorf("--exec-opt %s: control groups are made directly: leave it out, or say native.cgroupdriver=cgroupfs", text)
		}
	}
	if d.initPath != "" {
		d.warnings = append(d.warnings, "--init-path has no effect: the init is built in")
	}
	if d.selinux {
		d.warnings = append(d.warnings, "--selinux-enabled has no effect: containers are not labeled")
	}
	s.CDISpecDirs = nonEmpty(s.CDISpecDirs)
	if err := d.readProfile(); err != nil {
		return err
	}
	return s.Check()
}

func nonEmpty(list []string) (kept []string) {
	for _, s := range list {
		if s != "" {
			kept = append(kept, s)
		}
	}
	return kept
}

// readProfile puts a file's content in the place of its name.
func (d *defaults) readProfile() error {
	switch d.seccomp {
	case "", "builtin":
		d.set.Seccomp = ""
	case "unconfined":
		d.set.Seccomp = d.seccomp
	default:
		path, err := filepath.Abs(d.seccomp)
		if err != nil {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("opening seccomp profile (%s) failed: %w", path, err)
		}
		d.set.Seccomp, d.set.SeccompPath = string(text), path
	}
	return nil
}

func (d *defaults) addRuntime(name string, r request.Runtime) error {
	if _, twice := d.set.Runtimes[name]; twice {
		return fmt.Errorf("runtime '%s' was already registered", name)
	}
	if d.set.Runtimes == nil {
		d.set.Runtimes = request.Runtimes{}
	}
	d.set.Runtimes[name] = r
	return nil
}

func (d *defaults) addUlimit(u *units.Ulimit) {
	if d.set.Ulimits == nil {
		d.set.Ulimits = map[string]*units.Ulimit{}
	}
	d.set.Ulimits[u.Name] = u
}
