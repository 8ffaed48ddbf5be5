package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"berth/internal/kerneltest"
)

// engineNames lists the engines; ours is first, the others are divided by it.
var engineNames = []string{"berth", "docker.io", "podman", buildkitName, bareName}

func newEngine(name string) (engine, error) {
	dir, err := os.MkdirTemp("/var/tmp", "berth-bench-")
	if err != nil {
		return nil, err
	}
	b := base{dir: dir, parent: kerneltest.CgroupParent() + "/" + name}
	switch name {
	case "berth":
		self, err := filepath.Abs("bin")
		return &berth{base: b, bin: self}, err
	case "docker.io":
		return &docker{base: b, root: filepath.Join(cache(), "docker.io")}, nil
	case buildkitName:
		return &docker{base: b, root: filepath.Join(cache(), "docker.io"), buildkit: true}, nil
	case "podman":
		return &podman{base: b}, nil
	case bareName:
		return &bare{base: b}, nil
	}
	return nil, fmt.Errorf("no engine is called %s", name)
}

func cache() string {
	if dir := os.Getenv("BERTH_TEST_CACHE"); dir != "" {
		return dir
	}
	return "/var/cache/berth-test"
}

// base is what the engines have in common: a directory, a cgroup parent and background processes.
type base struct {
	dir, parent string
	procs       []*exec.Cmd
	open        shops
}

func (b *base) common() *base { return b }

func (b *base) background(cmd *exec.Cmd) error {
	log, err := os.OpenFile(filepath.Join(b.dir, filepath.Base(cmd.Path)+".log"), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	b.procs = append(b.procs, cmd)
	return nil
}

func (b *base) stop() {
	for i := len(b.procs) - 1; i >= 0; i-- {
		b.procs[i].Process.Signal(syscall.SIGTERM)
		b.procs[i].Wait()
	}
	b.open.close()
	os.RemoveAll(b.dir)
}

func (b *base) daemon() int {
	if len(b.procs) == 0 {
		return 0
	}
	return b.procs[len(b.procs)-1].Process.Pid
}

// importBusybox gives the engine its image and waits until it answers.
func importBusybox(e engine, dir string) error {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return fmt.Errorf("busybox is missing: it comes with the package busybox-static")
	}
	script := `set -e; cd "$1"; mkdir -p root/bin; cp "$2" root/bin/busybox; for n in sh true sleep; do ln -s busybox root/bin/$n; done; tar -C root -cf busybox.tar .`
	if out, err := exec.Command("sh", "-c", script, "sh", dir, busybox).CombinedOutput(); err != nil {
		return fmt.Errorf("make an image: %w: %s", err, out)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		out, err := e.client("import", dir+"/busybox.tar", "busybox:latest").CombinedOutput()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("import: %w: %s", err, out)
		}
	}
}

type berth struct {
	base
	bin string
}

func (e *berth) start() error {
	if err := os.MkdirAll("/run/berth", 0o755); err != nil {
		return err
	}
	err := e.background(exec.Command(e.bin+"/berthd", "--data-root", e.dir+"/data", "--cgroup-parent", e.parent))
	if err != nil {
		return err
	}
	return importBusybox(e, e.dir)
}

func (e *berth) client(args ...string) *exec.Cmd { return exec.Command(e.bin+"/berth", args...) }
func (e *berth) supervisors() []string           { return []string{"berth-oci"} }

type docker struct {
	base
	root     string // where Debian's packages were unpacked
	buildkit bool   // which of its builders is measured
}

func (e *docker) start() error {
	if _, err := os.Stat(e.root + "/usr/sbin/dockerd"); err != nil {
		return fmt.Errorf("no unpacked docker.io: %w", err)
	}
	path := "PATH=" + e.root + "/usr/bin:" + e.root + "/usr/sbin:" + e.root + "/sbin:/usr/sbin:/sbin:" + os.Getenv("PATH")
	env := append(os.Environ(), path, "LD_LIBRARY_PATH="+e.root+"/usr/lib/x86_64-linux-gnu")
	cmd := exec.Command(e.root+"/usr/sbin/dockerd", "--data-root", e.dir+"/data", "--exec-root", "/run/docker", "--cgroup-parent", e.parent,
		"--exec-opt", "native.cgroupdriver=cgroupfs", "--storage-driver", "overlay2", "--pidfile", "/run/docker.pid")
	cmd.Env = env
	if err := e.background(cmd); err != nil {
		return err
	}
	return importBusybox(e, e.dir)
}

func (e *docker) client(args ...string) *exec.Cmd {
	cmd := exec.Command(e.root+"/usr/bin/docker", args...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix:///var/run/docker.sock", "DOCKER_CONFIG="+e.dir+"/client", "DOCKER_BUILDKIT=0")
	if e.buildkit {
		cmd.Env = append(cmd.Env, "DOCKER_BUILDKIT=1")
	}
	return cmd
}
func (e *docker) supervisors() []string { return []string{"containerd-shim"} }

type podman struct{ base }

func (e *podman) start() error {
	if _, err := exec.LookPath("podman"); err != nil {
		return fmt.Errorf("podman is not installed")
	}
	return importBusybox(e, e.dir)
}

func (e *podman) client(args ...string) *exec.Cmd {
	all := []string{"--root", e.dir + "/data", "--runroot", "/run/podman", "--cgroup-manager", "cgroupfs", "--storage-driver", "overlay", "--events-backend", "file", "--runtime", "runc"}
	if args[0] == "run" || args[0] == "create" {
		args = append([]string{args[0], "--cgroup-parent", e.parent}, args[1:]...)
	}
	if args[0] == "pull" || args[0] == "push" {
		args = append([]string{args[0], "--tls-verify=false"}, args[1:]...)
	}
	if args[0] == "rm" { // without a time it waits ten seconds for a program that does not handle TERM
		args = append([]string{"rm", "-t", "0"}, args[1:]...)
	}
	return exec.Command("podman", append(all, args...)...)
}
func (e *podman) supervisors() []string { return []string{"conmon"} }

// rss is a process's resident memory in MB.
func rss(pid int) (float64, error) {
	if pid == 0 {
		return 0, fmt.Errorf("no daemon")
	}
	return field(fmt.Sprintf("/proc/%d/status", pid), "VmRSS:")
}

// field reads a "Name:  N kB" line, in MB.
func field(path, name string) (float64, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for _, line := range bytes.Split(data, []byte("\n")) {
		if rest, ok := bytes.CutPrefix(line, []byte(name)); ok {
			kb, err := strconv.ParseFloat(strings.Fields(string(rest))[0], 64)
			return kb / 1024, err
		}
	}
	return 0, fmt.Errorf("%s has no %s", path, name)
}

// supervisorPSS is the proportional memory of the supervisors of n containers, for each of them.
func supervisorPSS(e engine, n int) (float64, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	total, found := 0.0, 0
	for _, entry := range entries {
		command, err := os.ReadFile("/proc/" + entry.Name() + "/cmdline")
		if err != nil || len(command) == 0 {
			continue
		}
		program := filepath.Base(strings.SplitN(string(command), "\x00", 2)[0])
		for _, s := range e.supervisors() {
			if strings.HasPrefix(program, s) {
				if mb, err := field("/proc/"+entry.Name()+"/smaps_rollup", "Pss:"); err == nil {
					total, found = total+mb, found+1
				}
			}
		}
	}
	if found < n {
		return 0, fmt.Errorf("found %d supervisors of %d containers", found, n)
	}
	return total / float64(n), nil
}
