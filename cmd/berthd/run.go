package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"berth/daemon"
	"berth/engine"
	"berth/engine/storage"
	"berth/kernel/cgroup"
)

// run serves until a signal ends it.
func run(ctx context.Context, o *options) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: o.level}))
	slog.SetDefault(log)
	lock, err := claim(o)
	if err != nil {
		return err
	}
	defer lock.Close()
	config, err := engineConfig(o, log)
	if err != nil {
		return err
	}
	for _, w := range o.defaults.warnings {
		log.Warn(w)
	}
	if o.cleanup {
		return cleanUp(ctx, o, config)
	}
	if os.Getenv("BERTH_AUTOSTARTED") != "" {
		leaveTerminal(o, log)
	}
	if err := writePid(o.pidfile); err != nil {
		return err
	}
	defer os.Remove(o.pidfile)
	e, err := engine.Open(ctx, config)
	if err != nil {
		return err
	}
	if err := e.Images.Registry.Configure(o.registries.hosts); err != nil {
		return errors.Join(err, e.Close())
	}
	e.Builds.Granted = o.defaults.builder.grants()
	return errors.Join(serve(ctx, o, e, log), e.Close())
}

// cleanUp takes back what an engine made outside its roots. It refuses while containers run on it.
func cleanUp(ctx context.Context, o *options, config engine.Config) error {
	config.Spares, config.Network.Pool = 0, -1
	e, err := engine.Open(ctx, config)
	if err != nil {
		return err
	}
	running, err := e.Containers.List(ctx, engine.ListRequest{})
	if err == nil && len(running) > 0 {
		err = fmt.Errorf("%d containers run, the first is %s: stop them before cleaning up", len(running), running[0].Names[0])
	}
	if err != nil {
		return errors.Join(err, e.Close())
	}
	return errors.Join(e.Cleanup(), cgroup.Load(o.cgroupParent).Delete())
}

// writePid writes our number to path. The number of a daemon that lives is not overwritten; that of a dead one is.
func writePid(path string) error {
	if old, err := os.ReadFile(path); err == nil {
		pid := strings.TrimSpace(string(old))
		comm, err := os.ReadFile("/proc/" + pid + "/comm")
		if err == nil && string(comm) == "berthd\n" && pid != strconv.Itoa(os.Getpid()) {
			return fmt.Errorf("process %s, a berthd that still runs, has %s: stop it, or give this one its own --pidfile", pid, path)
		}
	}
	return os.WriteFile(path, []byte(strconv.Itoa(os.Getpid())), 0o644)
}

func serve(ctx context.Context, o *options, e *engine.Engine, log *slog.Logger) error {
	listeners, err := daemon.Listen(o.hosts, o.group, o.groupGiven)
	if err != nil {
		return err
	}
	server := daemon.New(e, daemon.Config{Version: version, Log: log})
	served := make(chan error, 1)
	go func() { served <- server.Serve(listeners) }()
	tell("ready")
	log.Info("berthd answers", "version", version, "hosts", o.hosts)
	again := make(chan os.Signal, 1)
	signal.Notify(again, syscall.SIGHUP)
	defer signal.Stop(again)
	for ctx.Err() == nil {
		select {
		case err := <-served:
			return err
		case <-again:
			if err := reload(e, log); err != nil {
				log.Error("the settings stay as they were", "error", err)
			}
		case <-ctx.Done():
		}
	}
	log.Info("berthd ends; containers go on")
	grace, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	return errors.Join(server.Shutdown(grace), <-served)
}

// orphanTime is how long something that a killed daemon forked may live on.
const orphanTime = time.Second

// claim makes the roots and holds them until the closing of what it returns: two daemons on one
// data root or one exec root would undo each other's work.
func claim(o *options) (held locks, err error) {
	defer func() {
		if err != nil {
			held.Close()
		}
	}()
	for _, root := range []struct{ flag, dir, lock string }{{"--data-root", o.dataRoot, "lock"}, {"--exec-root", o.execRoot, "run.lock"}} {
		if err := os.MkdirAll(root.dir, 0o711); err != nil {
			return held, fmt.Errorf("make %s: %w; give another %s", root.dir, err, root.flag)
		}
		lock, err := os.OpenFile(filepath.Join(root.dir, root.lock), os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return held, err
		}
		held = append(held, lock)
		err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		// A daemon that was killed in the middle of a fork holds it until what it forked has noticed.
		for deadline := time.Now().Add(orphanTime); err != nil && time.Now().Before(deadline); {
			time.Sleep(orphanTime / 100)
			err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		}
		if err != nil {
			return held, fmt.Errorf("another berthd uses %s; stop it, or give this one its own --data-root and --exec-root", root.dir)
		}
	}
	return held, nil
}

// locks are the roots' lock files.
type locks []*os.File

// Close gives the roots back.
func (l locks) Close() {
	for _, f := range l {
		f.Close()
	}
}

func engineConfig(o *options, log *slog.Logger) (engine.Config, error) {
	self, err := os.Executable()
	if err != nil {
		return engine.Config{}, err
	}
	oci := filepath.Join(filepath.Dir(self), "berth-oci")
	if _, err := os.Stat(oci); err != nil {
		return engine.Config{}, fmt.Errorf("%w; berth-oci must stand beside berthd", err)
	}
	return engine.Config{
		DataRoot: o.dataRoot, ExecRoot: o.execRoot, CgroupParent: o.cgroupParent,
		UsernsRemap: o.usernsRemap, Storage: storage.Config{Driver: o.driver, Options: o.driverOptions}, ImageLimits: o.images, Network: o.networks.config, Names: o.networks.names, OCIPath: oci, Packer: self,
		Spares: 3, Defaults: o.defaults.set, BuildCache: o.defaults.collection,
		Version: version, GitCommit: commit, BuildTime: buildTime, Debug: o.debug, Log: log,
	}, nil
}

// leaveTerminal puts a daemon that a client started into a control group of
// its own: a terminal's end, which kills by group, must not end it.
func leaveTerminal(o *options, log *slog.Logger) {
	g, _, err := cgroup.Create(o.cgroupParent+"/engine", nil)
	if err == nil {
		err = g.Add(os.Getpid())
	}
	if err != nil {
		log.Warn("the daemon stays in its starter's control group and may end with it", "error", err)
	}
}

// tell writes one line to the descriptor that whoever started us waits on.
func tell(word string) {
	fd, err := strconv.Atoi(os.Getenv("BERTH_READY_FD"))
	if err != nil {
		return
	}
	os.Unsetenv("BERTH_READY_FD")
	f := os.NewFile(uintptr(fd), "ready")
	fmt.Fprintln(f, strings.ReplaceAll(word, "\n", "; "))
	f.Close()
}
