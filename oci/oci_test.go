package oci

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/internal/kerneltest"
)

func TestMain(m *testing.M) {
	if os.Args[0] == probeName {
		probe()
	}
	InitMain()
	kerneltest.Main(m)
}

const busybox = "/bin/busybox"

// newRoot makes a root file system from the static busybox.
func newRoot(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"bin", "etc", "tmp", "proc", "sys", "dev"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(busybox)
	if err != nil {
		t.Skip("needs busybox-static: ", err)
	}
	write(t, dir, "bin/busybox", string(data), 0o755)
	for _, name := range []string{"sh", "true", "cat", "ls", "id", "sleep", "env", "grep", "mount", "readlink", "stat", "pwd", "echo", "ps", "kill",
		"tty", "stty", "hostname", "test", "touch", "mknod", "dd", "head", "ulimit", "find", "umount", "chroot", "wc"} {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	write(t, dir, "etc/passwd", "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n", 0o644)
	write(t, dir, "etc/group", "root:x:0:\nwheel:x:10:root,alice\nalice:x:1000:\naudio:x:29:\n", 0o644)
	return dir
}

func write(t testing.TB, dir, name, data string, mode os.FileMode) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(data), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

var serial atomic.Int64

var defaultCaps = []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE"}

// newBundle is a bundle as an engine makes it, that runs args.
func newBundle(t testing.TB, root string, args ...string) *Bundle {
	id := fmt.Sprintf("c%d", serial.Add(1))
	return &Bundle{
		ID: id,
		Spec: &specs.Spec{
			Version:  specs.Version,
			Hostname: "box",
			Root:     &specs.Root{Path: root},
			Process: &specs.Process{
				Args: args, Cwd: "/", Env: []string{"PATH=/usr/bin:/bin"},
				Capabilities: &specs.LinuxCapabilities{Bounding: defaultCaps, Effective: defaultCaps, Permitted: defaultCaps},
			},
			Mounts: []specs.Mount{
				{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
				{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
				{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
				{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
				{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"}},
				{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
				{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
			},
			Linux: &specs.Linux{
				CgroupsPath: kerneltest.CgroupParent() + "/" + id,
				Namespaces:  []specs.LinuxNamespace{{Type: "mount"}, {Type: "network"}, {Type: "pid"}, {Type: "ipc"}, {Type: "uts"}},
				MaskedPaths: []string{"/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
					"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"},
				ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
			},
		},
	}
}

// result is what a container did.
type result struct {
	out, err string
	exit     Exit
}

// runner makes containers with one of the builders.
type runner struct{ options options }

// eachBuilder runs a test over both ways of making a container.
func eachBuilder(t *testing.T, test func(t *testing.T, r runner)) {
	kerneltest.Root(t)
	for _, name := range []string{"direct", "indirect"} {
		t.Run(name, func(t *testing.T) { test(t, runner{options{builder: name}}) })
	}
}

// run takes a bundle through its whole life.
func (r runner) run(t testing.TB, b *Bundle) result {
	t.Helper()
	res, err := r.try(t, b)
	if err != nil {
		t.Fatalf("run %v: %v", b.Spec.Process.Args, err)
	}
	return res
}

func (r runner) try(t testing.TB, b *Bundle) (res result, err error) {
	t.Helper()
	out, outW, wait := pipe(t)
	errs, errW, waitErr := pipe(t)
	p, err := create(context.Background(), b, Stdio{Stdout: outW, Stderr: errW}, nil, r.options)
	outW.Close()
	errW.Close()
	defer func() { wait(); waitErr(); res.out, res.err = out.String(), errs.String() }()
	if err != nil {
		return res, err
	}
	defer func() {
		if err := p.Delete(); err != nil {
			t.Errorf("delete: %v", err)
		}
	}()
	if err := p.Start(); err != nil {
		return res, err
	}
	res.exit, err = p.Wait()
	return res, err
}

func pipe(t testing.TB) (*bytes.Buffer, *os.File, func()) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	done := make(chan struct{})
	go func() {
		io.Copy(&buf, r)
		r.Close()
		close(done)
	}()
	return &buf, w, func() { <-done }
}

func TestRunsAProgram(t *testing.T) {
	eachBuilder(t, func(t *testing.T, r runner) {
		res := r.run(t, newBundle(t, newRoot(t), "sh", "-c", "echo hello; echo oops >&2; hostname; id; echo $$; ulimit -n; exit 3"))
		if res.out != "hello\nbox\nuid=0(root) gid=0(root) groups=0(root),10(wheel)\n1\n1024\n" || res.err != "oops\n" || res.exit.Code != 3 {
			t.Errorf("got %+v", res)
		}
	})
}
