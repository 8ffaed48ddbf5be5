package foreign

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/internal/kerneltest"
	"berth/oci"
)

func TestMain(m *testing.M) {
	oci.InitMain()
	signal.Notify(make(chan os.Signal, 1), syscall.SIGCHLD) // its goroutine never ends: it is there before leaks are counted
	kerneltest.Main(m)
}

func TestLastError(t *testing.T) {
	for log, want := range map[string]string{
		"": "",
		`{"level":"error","msg":"first"}` + "\n" + `{"level":"warning","msg":"no"}` + "\n" + `{"level":"error","msg":"second\n"}`: "second",
		"not json\n" + `{"level":"fatal","msg":"x"}` + "\ntail":                                                                   "x",
		`{"level":"error"}`: "",
	} {
		if got := lastError([]byte(log)); got != want {
			t.Errorf("%q: %q, want %q", log, got, want)
		}
	}
}

func FuzzLastError(f *testing.F) {
	f.Add([]byte(`{"level":"error","msg":"x"}`))
	f.Fuzz(func(t *testing.T, log []byte) {
		if got := lastError(log); got != strings.TrimSpace(got) {
			t.Errorf("%q: %q", log, got)
		}
	})
}

func TestStartErrors(t *testing.T) {
	for text, code := range map[string]int{
		`runc create failed: unable to start container process: exec: "nope": executable file not found in $PATH`: 127,
		"executable file `nope` not found in $PATH: No such file or directory":                                    127,
		`exec: "nope": stat nope: no such file or directory`:                                                      127,
		`exec: "nope": permission denied`:                                                                         126,
		"cgroups: cannot find nope":                                                                               0,
		"mount: permission denied":                                                                                0,
	} {
		err := startError("nope", errors.New(text))
		var s *oci.StartError
		if errors.As(err, &s) != (code != 0) || code != 0 && s.Code != code || err.Error() != text {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// runtimes are the programs that Debian packages.
func eachRuntime(t *testing.T, test func(t *testing.T, f *oci.Foreign)) {
	kerneltest.Root(t)
	hideUnified(t)
	for _, name := range []string{"runc", "crun"} {
		t.Run(name, func(t *testing.T) {
			path, err := exec.LookPath(name)
			if err != nil {
				path = "/usr/sbin/" + name
			}
			if _, err := os.Stat(path); err != nil {
				t.Skipf("%s is not installed", name)
			}
			test(t, &oci.Foreign{Name: name, Path: path})
		})
	}
}

// hideUnified covers the second hierarchy of a hybrid machine, in this world only: crun refuses to work beside one that has
// a controller.
func hideUnified(t *testing.T) {
	const unified = "/sys/fs/cgroup/unified"
	if _, err := os.Stat(unified + "/cgroup.controllers"); err != nil {
		return
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "tmpfs", unified).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() { exec.Command("umount", unified).Run() })
}

func newBundle(t *testing.T, f *oci.Foreign, args ...string) *oci.Bundle {
	t.Helper()
	root := t.TempDir()
	for _, d := range []string{"bin", "etc", "proc", "dev"} {
		if err := os.Mkdir(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("needs busybox-static: ", err)
	}
	if err := errors.Join(os.WriteFile(root+"/bin/busybox", data, 0o755), os.WriteFile(root+"/etc/passwd", []byte("guest:x:7:8::/g:/bin/sh\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "id", "sleep", "echo"} {
		if err := os.Symlink("busybox", root+"/bin/"+name); err != nil {
			t.Fatal(err)
		}
	}
	id := strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-"))
	return &oci.Bundle{
		ID: id, Dir: t.TempDir(), Foreign: f, User: "guest",
		Rootfs: []specs.Mount{{Destination: "/", Type: "bind", Source: root, Options: []string{"bind"}}},
		Spec: &specs.Spec{
			Version: specs.Version, Root: &specs.Root{Path: root},
			Process: &specs.Process{Args: args, Env: []string{"PATH=/bin"}},
			Mounts:  []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}, {Destination: "/dev", Type: "tmpfs", Source: "tmpfs"}},
			Linux: &specs.Linux{
				CgroupsPath: kerneltest.CgroupParent() + "/" + id,
				Namespaces:  []specs.LinuxNamespace{{Type: "mount"}, {Type: "pid"}, {Type: "ipc"}, {Type: "uts"}},
			},
		},
	}
}

func newKeeper(t *testing.T) *Keeper {
	k := new(Keeper)
	t.Cleanup(k.Close)
	return k
}

// output gives a process pipes for its output; what it wrote is read with the func.
func output(t *testing.T) (oci.Stdio, func() string) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	w.Fd() // blocking, as programs expect
	t.Cleanup(func() { r.Close(); w.Close() })
	return oci.Stdio{Stdout: w, Stderr: w}, func() string {
		w.Close()
		var b bytes.Buffer
		if _, err := b.ReadFrom(r); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
}

func TestRunAndExec(t *testing.T) {
	eachRuntime(t, func(t *testing.T, f *oci.Foreign) {
		b := newBundle(t, f, "sh", "-c", "id; echo $HOME; sleep 1000")
		k := newKeeper(t)
		io, first := output(t)
		p, err := k.Create(context.Background(), b, io, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := p.Delete(); err != nil {
				t.Error(err)
			}
			if left, _ := os.ReadDir(filepath.Join(b.Dir, "state")); len(left) > 0 {
				t.Errorf("the runtime still knows %v", left)
			}
		}()
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		x := specs.Process{Args: []string{"sh", "-c", "id; exit 5"}, Env: []string{"PATH=/bin"}}
		stdio, more := output(t)
		e, err := k.Exec(context.Background(), p.Pid(), b, oci.ExecSpec{Process: x, User: "0:9"}, stdio)
		if err != nil {
			t.Fatal(err)
		}
		if exit, err := e.Wait(); err != nil || exit.Code != 5 {
			t.Errorf("exec ended with %+v, %v", exit, err)
		}
		if got := more(); !strings.Contains(got, "uid=0 gid=9") {
			t.Errorf("exec said %q", got)
		}
		x.Args = []string{"nope"}
		var s *oci.StartError
		if _, err := k.Exec(context.Background(), p.Pid(), b, oci.ExecSpec{Process: x}, oci.Stdio{}); !errors.As(err, &s) || s.Code != 127 {
			t.Errorf("exec of nothing: %v", err)
		}
		if pids, err := p.Pids(); err != nil || len(pids) < 1 || pids[0] != p.Pid() {
			t.Errorf("processes %v, %v; the first is %d", pids, err, p.Pid())
		}
		if err := errors.Join(p.Pause(), p.Resume(), p.Signal(9)); err != nil {
			t.Error(err)
		}
		if exit, err := p.Wait(); err != nil || exit.Code != 137 || exit.Signal != 9 {
			t.Errorf("ended with %+v, %v", exit, err)
		}
		if err := p.KillRest(); err != nil {
			t.Error(err)
		}
		if got := first(); !strings.Contains(got, "uid=7(guest) gid=8") || !strings.Contains(got, "/g\n") {
			t.Errorf("the program said %q", got)
		}
	})
}

func TestConsoleAndInit(t *testing.T) {
	eachRuntime(t, func(t *testing.T, f *oci.Foreign) {
		b := newBundle(t, f, "sh", "-c", "test -t 0 && echo terminal; exit 6")
		b.Init = true
		b.Spec.Mounts = append(b.Spec.Mounts, specs.Mount{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"newinstance", "ptmxmode=0666"}})
		k := newKeeper(t)
		p, err := k.Create(context.Background(), b, oci.Stdio{Console: true}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := p.Delete(); err != nil {
				t.Error(err)
			}
		}()
		defer p.Console().Close()
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		if exit, err := p.Wait(); err != nil || exit.Code != 6 {
			t.Errorf("ended with %+v, %v", exit, err)
		}
		said := make([]byte, 100)
		if n, err := p.Console().Read(said); err != nil || !strings.Contains(string(said[:n]), "terminal") {
			t.Errorf("%q, %v", said[:n], err)
		}
	})
}

func TestFailuresLeaveNothing(t *testing.T) {
	eachRuntime(t, func(t *testing.T, f *oci.Foreign) {
		b := newBundle(t, f, "nope")
		k := newKeeper(t)
		_, err := k.Create(context.Background(), b, oci.Stdio{}, nil)
		var s *oci.StartError
		if !errors.As(err, &s) || s.Code != 127 || !strings.Contains(err.Error(), "nope") {
			t.Errorf("a missing program: %v", err)
		}
		b = newBundle(t, &oci.Foreign{Name: "gone", Path: "/nowhere/gone"}, "sh")
		if _, err := k.Create(context.Background(), b, oci.Stdio{}, nil); err == nil || !strings.Contains(err.Error(), "OCI runtime gone: ") {
			t.Errorf("a missing runtime: %v", err)
		}
	})
}

// The words of a runtime-spec that a runtime gets hold no name of ours.
func TestPlainSpecs(t *testing.T) {
	kerneltest.Root(t)
	b := newBundle(t, &oci.Foreign{Name: "x", Path: "/x"}, "sh")
	b.Spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN"}}
	var got []byte
	if err := b.Plain(b.Dir, func(spec *specs.Spec, _ []string) (err error) {
		if _, err := os.Stat(filepath.Join(spec.Root.Path, "bin/busybox")); err != nil {
			t.Errorf("the root: %v", err)
		}
		got, err = json.Marshal(spec.Process)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	want := `{"user":{"uid":7,"gid":8,"additionalGids":[8]},"args":["sh"],"env":["PATH=/bin","HOME=/g"],"cwd":"/","capabilities":{"bounding":["CAP_CHOWN"]}}`
	if string(got) != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	if left, err := os.ReadDir(filepath.Join(b.Dir, "rootfs")); err != nil || len(left) > 0 {
		t.Errorf("the mount is seen outside: %v, %v", left, err)
	}
}
