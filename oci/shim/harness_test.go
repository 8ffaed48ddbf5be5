package shim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	logs "berth/container"
	"berth/internal/kerneltest"
	"berth/kernel"
	"berth/oci"
)

func TestMain(m *testing.M) {
	oci.InitMain()
	if len(os.Args) > 1 && os.Args[1] == "shim" {
		os.Exit(Main(os.Args[2:]))
	}
	if len(os.Args) > 2 && os.Args[1] == helperArg {
		os.Exit(logs.LogHelper(os.Args[2], os.Stdin, os.Stdout))
	}
	if len(os.Args) > 4 && os.Args[1] == "daemon" {
		os.Exit(daemonMain(os.Args[2], os.Args[3], os.Args[4]))
	}
	kerneltest.Main(m)
}

// limit is more than anything here may take, on a busy machine too.
const limit = 60 * time.Second

func background() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), limit)
}

func deadline(t testing.TB) context.Context {
	ctx, cancel := background()
	t.Cleanup(cancel)
	return ctx
}

// launcher returns a Launcher whose supervisors are this test binary.
func launcher(t testing.TB, spares int) *Launcher {
	t.Helper()
	kerneltest.Root(t)
	l, err := NewLauncher("/proc/self/exe", filepath.Join(t.TempDir(), "containers"), spares)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

var applets = []string{"sh", "cat", "echo", "sleep", "true", "false", "printf", "seq", "stty", "yes", "head", "kill", "ps", "id", "dd", "tr", "wc", "sed", "ls", "readlink"}

// root makes a root file system of busybox.
func root(t testing.TB) string {
	t.Helper()
	const busybox = "/bin/busybox"
	if _, err := os.Stat(busybox); err != nil {
		t.Skip("needs a static busybox at " + busybox)
	}
	dir := t.TempDir()
	for _, d := range []string{"bin", "proc", "dev", "sys", "tmp", "etc"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(busybox)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "bin/busybox"), data, 0o755)
	}
	for _, a := range applets {
		err = errors.Join(err, os.Symlink("busybox", filepath.Join(dir, "bin", a)))
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

var lastID atomic.Int64

// bundle describes a container that runs args.
func bundle(t testing.TB, args ...string) oci.Bundle {
	t.Helper()
	return describe(fmt.Sprintf("c%d", lastID.Add(1)), root(t), args...)
}

func describe(id, root string, args ...string) oci.Bundle {
	caps := []string{"CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SETGID"}
	return oci.Bundle{
		ID:           id,
		UserFromSpec: true,
		Spec: &specs.Spec{
			Version:  specs.Version,
			Hostname: id,
			Root:     &specs.Root{Path: root},
			Process: &specs.Process{
				Args: args, Cwd: "/", Env: []string{"PATH=/bin"},
				Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
			},
			Mounts: []specs.Mount{
				{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
				{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755"}},
				{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}},
			},
			Linux: &specs.Linux{
				CgroupsPath: kerneltest.CgroupParent() + "/" + id,
				Namespaces: []specs.LinuxNamespace{
					{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace},
					{Type: specs.UTSNamespace}, {Type: specs.NetworkNamespace},
				},
			},
		},
	}
}

// request is a plain container with a log.
func request(t testing.TB, args ...string) Request {
	t.Helper()
	return Request{
		Bundle: bundle(t, args...),
		Log:    Log{Driver: LogJSONFile, Path: filepath.Join(t.TempDir(), "json.log")},
	}
}

// start runs r; the container is dead and forgotten when the test ends.
func start(t testing.TB, l *Launcher, r Request) *Shim {
	t.Helper()
	s, err := l.Start(deadline(t), r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { discard(t, l, s) })
	return s
}

// discard ends a container, whatever became of it.
func discard(t testing.TB, l *Launcher, s *Shim) {
	t.Helper()
	ctx := deadline(t)
	s.Signal(ctx, 9)
	s.Wait(ctx)
	s.Close()
	if err := l.Forget(s.ID()); err != nil {
		t.Error(err)
	}
}

func wait(t testing.TB, s *Shim) oci.Exit {
	t.Helper()
	exit, err := s.Wait(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	return exit
}

// peerOf returns an attachment and the client's end of its connection.
func peerOf(t testing.TB, a Attachment) (Attachment, *os.File) {
	t.Helper()
	mine, its, err := kernel.SocketPair("client")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mine.Close() })
	mine.SetDeadline(time.Now().Add(limit))
	a.Conn = its
	return a, mine
}

// readAll reads to the end of the stream.
func readToEnd(t testing.TB, f *os.File) string {
	t.Helper()
	data, err := io.ReadAll(f)
	if err != nil {
		t.Fatalf("%v after %q", err, data)
	}
	return string(data)
}

// readUntil reads until what came contains want.
func readUntil(t testing.TB, f *os.File, want string) string {
	t.Helper()
	var got []byte
	buf := make([]byte, 4096)
	for !bytes.Contains(got, []byte(want)) {
		n, err := f.Read(buf)
		got = append(got, buf[:n]...)
		if err != nil {
			t.Fatalf("want %q, got %q, then %v", want, got, err)
		}
	}
	return string(got)
}

func write(t testing.TB, f *os.File, text string) {
	t.Helper()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(limit); ; {
		if ok() {
			return
		}
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("%s: not within %v", what, limit)
		}
	}
}

// build compiles a program of this module, as supervisors are smaller than a test binary.
func build(t testing.TB, pkg string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), filepath.Base(pkg))
	cmd := osexec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", pkg, err, text)
	}
	return out
}

func logLines(t testing.TB, path string) []string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
}

func execRequest(id string, args ...string) ExecRequest {
	return ExecRequest{ID: id, Spec: oci.ExecSpec{
		UserFromSpec: true,
		Process:      specs.Process{Args: args, Cwd: "/", Env: []string{"PATH=/bin"}},
	}}
}

func memoryLimit(bytes int64) *specs.LinuxResources {
	return &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &bytes, Swap: &bytes}}
}
