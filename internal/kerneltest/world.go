// Package kerneltest runs a package's tests on the real kernel, in a world of their own.
//
// It is not a mock and not for production code. Invariant: a test process
// never sees the host's network, mounts, processes or cgroups other than its
// own parent group, and whatever a killed run left behind is swept by the next.
//
// A world is made of new mount, network, pid, ipc and uts namespaces with
// private /run and /tmp-like scratch space, and one cgroup parent per hierarchy:
//
//	outer (sweeps, waits) ── clone ──> init (pid 1, mounts, reaps) ── fork ──> the tests
package kerneltest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	stageVar  = "BERTH_TEST_STAGE" // "", "init" or "world"
	parentVar = "BERTH_TEST_CGROUP"
	prefix    = "berth-test-"
)

// Main is called by a package's TestMain. As root it runs the tests in a
// world; otherwise it runs them as they are, and those that call Root skip.
// It does not return.
func Main(m *testing.M) {
	if os.Geteuid() != 0 {
		os.Exit(m.Run())
	}
	os.Exit(World(func() int {
		if observed(os.Args) {
			return m.Run()
		}
		return checkLeaks(m.Run)
	}))
}

// observed tells whether the test program was told to fuzz or to profile, for
// which the testing package itself keeps goroutines and files.
func observed(args []string) bool {
	for _, arg := range args {
		name, _, _ := strings.Cut(arg, "=")
		switch name {
		case "-test.fuzz", "-test.fuzzworker", "-test.cpuprofile", "-test.trace":
			return true
		}
	}
	return false
}

// World runs inside in a world, by executing this program there again with the same
// arguments, and returns its exit code. The caller does nothing before it that must not be done three times.
func World(inside func() int) int {
	switch os.Getenv(stageVar) {
	case "world":
		return inside()
	case "init":
		return initWorld()
	}
	return Enter(os.Args)
}

// Root skips the test unless it runs as root in a world.
func Root(t testing.TB) {
	t.Helper()
	if os.Getenv(stageVar) != "world" {
		t.Skip("needs root: namespaces and mounts of its own are made for this test")
	}
}

// CgroupParent is the group below which this world's cgroups belong, such as "/berth-test-4711".
func CgroupParent() string { return os.Getenv(parentVar) }

// InWorld tells whether this process runs inside a world already.
func InWorld() bool { return os.Getenv(stageVar) == "world" }

// Enter runs argv (a program that calls Main, or any other) in a fresh world
// and returns its exit code. It sweeps before and after.
func Enter(argv []string) int {
	sweep()
	self, err := os.Executable()
	if err != nil {
		return complain(err)
	}
	cmd := exec.Command(self, argv[1:]...)
	cmd.Args[0] = argv[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	parent := "/" + prefix + strconv.Itoa(os.Getpid())
	cmd.Env = append(os.Environ(), stageVar+"=init", parentVar+"="+parent)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		return complain(err)
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	go func() {
		for s := range signals {
			cmd.Process.Signal(s)
		}
	}()
	err = cmd.Wait()
	signal.Stop(signals)
	close(signals)
	for _, dir := range groups(strings.TrimPrefix(parent, "/")) {
		RemoveCgroup(dir)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return complain(err)
	}
	if code := cmd.ProcessState.ExitCode(); code >= 0 {
		return code
	}
	return complain(err)
}

func complain(err error) int {
	fmt.Fprintln(os.Stderr, "kerneltest:", err)
	return 1
}

// initWorld is process 1 of the world: it sets the namespaces up, starts the tests and reaps.
func initWorld() int {
	if err := prepare(); err != nil {
		return complain(err)
	}
	signal.Ignore(syscall.SIGINT)
	self, err := os.Executable()
	if err != nil {
		return complain(err)
	}
	os.Setenv(stageVar, "world")
	tests, err := os.StartProcess(self, os.Args, &os.ProcAttr{
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
	})
	if err != nil {
		return complain(err)
	}
	quit := make(chan os.Signal, 4)
	signal.Notify(quit, syscall.SIGQUIT, syscall.SIGTERM)
	go func() {
		for s := range quit {
			tests.Signal(s)
		}
	}()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return complain(err)
		}
		if pid != tests.Pid {
			continue
		}
		if status.Signaled() {
			return 128 + int(status.Signal())
		}
		return status.ExitStatus()
	}
}

func prepare() error {
	mount := func(source, target, kind string, flags uintptr, data string) error {
		if err := unix.Mount(source, target, kind, flags, data); err != nil {
			return fmt.Errorf("mount %s on %s: %w", kind, target, err)
		}
		return nil
	}
	err := errors.Join(
		mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""),
		mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"),
		sysfs(mount),
		loopbackUp(),
	)
	if err != nil {
		return err
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(os.TempDir(), &fs); err != nil {
		return err
	}
	if fs.Type == unix.OVERLAYFS_SUPER_MAGIC { // an overlay can't carry another one's upper layer
		return mount("tmpfs", os.TempDir(), "tmpfs", unix.MS_NOSUID, "mode=1777")
	}
	return nil
}

// sysfs shows the new network namespace's links in /sys and keeps the cgroup hierarchies in reach.
func sysfs(mount func(string, string, string, uintptr, string) error) error {
	const groups = "/sys/fs/cgroup"
	fd, err := unix.OpenTree(unix.AT_FDCWD, groups, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return fmt.Errorf("open_tree %s: %w", groups, err)
	}
	defer unix.Close(fd)
	if err := mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, groups, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("move_mount to %s: %w", groups, err)
	}
	return nil
}

func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, ifr)
}

// sweep removes the groups of test runs whose process is gone.
func sweep() {
	for _, dir := range groups(prefix + "*") {
		pid, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(dir), prefix))
		if err == nil && unix.Kill(pid, 0) == unix.ESRCH {
			RemoveCgroup(dir)
		}
	}
}

// groups lists the directories called pattern at the top of all hierarchies, v1 and v2.
func groups(pattern string) []string {
	v2, _ := filepath.Glob("/sys/fs/cgroup/" + pattern)
	v1, _ := filepath.Glob("/sys/fs/cgroup/*/" + pattern)
	return append(v1, v2...)
}

// RemoveCgroup kills what is in the group dir and below, and removes it.
func RemoveCgroup(dir string) error {
	for range 100 {
		filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.Name() == "cgroup.procs" {
				killAll(path)
			}
			return nil
		})
		var left error
		var dirs []string
		filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		for i := len(dirs) - 1; i >= 0; i-- {
			if err := unix.Rmdir(dirs[i]); err != nil && err != unix.ENOENT {
				left = &os.PathError{Op: "rmdir", Path: dirs[i], Err: err}
			}
		}
		if left == nil {
			return nil
		}
		unix.Select(0, nil, nil, nil, &unix.Timeval{Usec: 20_000})
	}
	return fmt.Errorf("cgroup %s can't be removed", dir)
}

func killAll(procs string) {
	data, _ := os.ReadFile(procs)
	for _, line := range strings.Fields(string(data)) {
		if pid, err := strconv.Atoi(line); err == nil && pid > 0 {
			unix.Kill(pid, unix.SIGKILL)
		}
	}
}
