package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/internal/kerneltest"
	"berth/kernel"
)

// Each test here is a published escape from a runtime, tried with a root file system or a program that was made for it.

// CVE-2019-5736: a program that is executed in the container reaches the runtime's own binary by /proc/PID/exe and overwrites it.
func TestOurProgramCantBeOverwritten(t *testing.T) {
	eachBuilder(t, func(t *testing.T, r runner) {
		root := newRoot(t)
		b := newBundle(t, root, sh(`while :; do for p in /proc/[0-9]*; do case $(readlink $p/exe) in /bin/busybox|"") ;; *) echo "found $(readlink $p/exe)"
			(echo overwritten > $p/exe) 2>&1;; esac; done; done`)...)
		b.Spec.Process.Capabilities.Bounding = append([]string{"CAP_SYS_PTRACE"}, defaultCaps...)
		b.Spec.Process.Capabilities.Effective, b.Spec.Process.Capabilities.Permitted = b.Spec.Process.Capabilities.Bounding, b.Spec.Process.Capabilities.Bounding
		before, err := os.Stat("/proc/self/exe")
		if err != nil {
			t.Fatal(err)
		}
		p := r.start(t, b)
		for range 30 {
			if res, err := execIn(t, p, b, execSpec(b, "/bin/true")); err != nil || res.exit.Code != 0 {
				t.Fatalf("%+v, %v", res, err)
			}
		}
		after, err := os.Stat("/proc/self/exe")
		if err != nil || after.Size() != before.Size() || !after.ModTime().Equal(before.ModTime()) {
			t.Errorf("our program was changed: %v, %v", after, err)
		}
		// The classical way: the image's program is a link to the runtime's, which is then executed inside.
		for _, link := range []string{"/proc/self/exe", "/proc/1/exe"} {
			os.Remove(root + "/bin/evil")
			if err := os.Symlink(link, root+"/bin/evil"); err != nil {
				t.Fatal(err)
			}
			_, err = execIn(t, p, b, execSpec(b, "/proc/self/exe"))
			if err == nil && link == "/proc/self/exe" {
				t.Errorf("%s could be executed", link)
			}
		}
		hostile := newBundle(t, root, "/bin/evil")
		if res, err := r.try(t, hostile); err == nil && r.options.builder == "direct" {
			t.Errorf("the runtime's program ran: %+v", res)
		}
	})
}

// The sealed copy is what the re-executed init and Bundle.Init are: nothing can write it.
func TestSealedCopyIsSealed(t *testing.T) {
	kerneltest.Root(t)
	self, err := kernel.SealedSelf()
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	if f, err := os.OpenFile(kernel.ProcFD(self), os.O_RDWR, 0); err == nil {
		if _, err := f.Write([]byte("x")); err == nil {
			t.Error("it can be written")
		}
		if err := f.Truncate(0); err == nil {
			t.Error("it can be cut")
		}
		f.Close()
	}
	b := newBundle(t, newRoot(t), sh("(echo x > /proc/1/exe) 2>&1; (: >> /proc/1/exe) 2>&1; exit 0")...)
	b.Init = true
	if res := (runner{}).run(t, b); strings.Count(res.out, "can't create") == 0 && strings.Count(res.out, "error") == 0 {
		t.Errorf("process 1 could be written: %+v", res)
	}
}

// CVE-2024-21626: a working directory that is one of the runtime's own descriptors leads to the host.
func TestWorkingDirectoryStaysInside(t *testing.T) {
	eachBuilder(t, func(t *testing.T, r runner) {
		host, err := os.Open("/") // what a careless runtime leaves open
		if err != nil {
			t.Fatal(err)
		}
		defer host.Close()
		root := newRoot(t)
		sleeping := newBundle(t, root, "sleep", "1000")
		p := r.start(t, sleeping)
		for n := 3; n < 100; n++ {
			for _, dir := range []string{"/proc/self/fd/%d", "/proc/thread-self/fd/%d", "/proc/1/fd/%d", "/link"} {
				cwd := strings.Replace(dir, "%d", fmt.Sprint(n), 1)
				if dir == "/link" {
					os.Remove(root + "/link")
					if err := os.Symlink(fmt.Sprintf("/proc/self/fd/%d", n), root+"/link"); err != nil {
						t.Fatal(err)
					}
				}
				e := execSpec(sleeping, "/bin/sh", "-c", "pwd; ls")
				e.Process.Cwd = cwd
				if res, err := execIn(t, p, sleeping, e); err == nil {
					t.Fatalf("exec in %s: %+v", cwd, res)
				}
			}
		}
		for _, n := range []int{3, 4, 5, 6, 7, 8, 9, 10, 64, 65, 66, 67, 68, 69, 70} {
			b := newBundle(t, root, "/bin/sh", "-c", "pwd; ls")
			b.Spec.Process.Cwd = fmt.Sprintf("/proc/self/fd/%d", n)
			// A descriptor on the container's own root may be there; anything else is refused.
			if res, err := r.try(t, b); err == nil && !strings.HasPrefix(res.out, "/\nbin\ndev\netc\nlink\nproc\nsys\ntmp\n") {
				t.Errorf("run in %s: %+v", b.Spec.Process.Cwd, res)
			}
		}
	})
}

// No descriptor of the runtime's is open in the program, whatever it was when the container was made.
func TestNoFileLeaksInside(t *testing.T) {
	eachBuilder(t, func(t *testing.T, r runner) {
		host, err := os.Open("/")
		if err != nil {
			t.Fatal(err)
		}
		defer host.Close()
		leak, err := kernel.LeakyDup(host)
		if err != nil {
			t.Fatal(err)
		}
		defer leak.Close()
		b := newBundle(t, newRoot(t), sh("for f in /proc/self/fd/*; do echo ${f##*/}; done")...)
		want := "0\n1\n2\n3\n" // 3 is the shell's own, on the directory
		if res := r.run(t, b); res.out != want {
			t.Errorf("open in the container: %s", res.out)
		}
		p := r.start(t, newBundle(t, newRoot(t), "sleep", "1000"))
		if res, err := execIn(t, p, b, execSpec(b, b.Spec.Process.Args...)); err == nil && res.out != want {
			t.Errorf("open in the exec: %s", res.out)
		}
	})
}

// CVE-2025-31133: the image puts a link where the runtime expects /dev/null, and what is "masked" by it becomes the link's target, writable.
func TestMaskIsTheRealNullDevice(t *testing.T) {
	eachBuilder(t, func(t *testing.T, r runner) {
		root := newRoot(t)
		if err := os.Symlink("/proc/sys/kernel/core_pattern", root+"/dev/null"); err != nil {
			t.Fatal(err)
		}
		for _, tmpfs := range []bool{true, false} {
			b := newBundle(t, root, sh("stat -c '%F %t:%T' /proc/keys /dev/null; (echo x > /proc/sys/kernel/core_pattern) 2>&1")...)
			if !tmpfs {
				b.Spec.Mounts = append(b.Spec.Mounts[:1:1], b.Spec.Mounts[3:4]...) // /dev is the image's own
			}
			res := r.run(t, b)
			if !strings.HasPrefix(res.out, "character special file 1:3\ncharacter special file 1:3\n") || !strings.Contains(res.out, "Read-only") {
				t.Errorf("tmpfs on /dev %v: got %s%s", tmpfs, res.out, res.err)
			}
		}
	})
}

// CVE-2025-52565: the image makes /dev/pts or /dev/console lead elsewhere, and the terminal is bound over something in /proc.
func TestConsoleIsTheRealTerminal(t *testing.T) {
	eachBuilder(t, func(t *testing.T, r runner) {
		for name, prepare := range map[string]func(root string) error{
			"console": func(root string) error { return os.Symlink("/proc/sys/kernel/core_pattern", root+"/dev/console") },
			"pts":     func(root string) error { return os.Symlink("/proc", root+"/dev/pts") },
			"ptmx":    func(root string) error { return os.Symlink("/proc/sysrq-trigger", root+"/dev/ptmx") },
		} {
			root := newRoot(t)
			if err := prepare(root); err != nil {
				t.Fatal(err)
			}
			b := newBundle(t, root, sh("mount | grep core_pattern; (echo x > /proc/sys/kernel/core_pattern) 2>&1; stat -c %F /dev/console")...)
			b.Spec.Mounts = append(b.Spec.Mounts[:1:1], b.Spec.Mounts[2:]...) // /dev is the image's own
			b.Spec.Mounts = b.Spec.Mounts[:3]
			p, err := create(context.Background(), b, Stdio{Console: true}, nil, r.options)
			if err != nil {
				if name != "pts" {
					t.Errorf("%s: %v", name, err)
				}
				continue // refused
			}
			var out []byte
			if err := p.Start(); err != nil {
				t.Error(err)
			}
			buf := make([]byte, 4096)
			for {
				n, err := p.Console().Read(buf)
				out = append(out, buf[:n]...)
				if err != nil {
					break
				}
			}
			p.Wait()
			p.Console().Close()
			if err := p.Delete(); err != nil {
				t.Error(err)
			}
			if text := string(out); strings.Contains(text, "core_pattern type") || !strings.Contains(text, "Read-only") || !strings.Contains(text, "character special file") {
				t.Errorf("%s: the container showed %s", name, text)
			}
		}
	})
}

// CVE-2025-52881: what the runtime writes to /proc lands somewhere else, because the image made /proc a link, or put a fake tree there.
func TestWritesGoToTheRealProc(t *testing.T) {
	eachBuilder(t, func(t *testing.T, r runner) {
		root := newRoot(t)
		if err := errors.Join(os.Remove(root+"/proc"), os.MkdirAll(root+"/fake/sys/kernel", 0o755), os.MkdirAll(root+"/fake/self", 0o755)); err != nil {
			t.Fatal(err)
		}
		for _, f := range []string{"fake/sys/kernel/msgmax", "fake/self/oom_score_adj"} {
			write(t, root, f, "untouched", 0o666)
		}
		if err := os.Symlink("/fake", root+"/proc"); err != nil {
			t.Fatal(err)
		}
		b := newBundle(t, root, "true")
		b.Spec.Linux.Sysctl = map[string]string{"kernel.msgmax": "4321"}
		score := 500
		b.Spec.Process.OOMScoreAdj = &score
		if _, err := r.try(t, b); err == nil || !strings.Contains(err.Error(), "ordinary directory") {
			t.Errorf("a link in place of /proc was taken: %v", err)
		}
		// A real directory with a fake tree: the procfs covers it, and all writes go to the real one.
		if err := errors.Join(os.Remove(root+"/proc"), os.Rename(root+"/fake", root+"/proc")); err != nil {
			t.Fatal(err)
		}
		b = newBundle(t, root, sh("cat /proc/sys/kernel/msgmax /proc/self/oom_score_adj")...)
		b.Spec.Linux.Sysctl, b.Spec.Process.OOMScoreAdj = map[string]string{"kernel.msgmax": "4321"}, &score
		if res := r.run(t, b); res.out != "4321\n500\n" {
			t.Errorf("got %s%s", res.out, res.err)
		}
		for _, f := range []string{"proc/sys/kernel/msgmax", "proc/self/oom_score_adj"} {
			if data, _ := os.ReadFile(filepath.Join(root, f)); string(data) != "untouched" {
				t.Errorf("%s has %q", f, data)
			}
		}
	})
}

// CVE-2019-19921 and CVE-2021-30465: mount targets that are links out of the root.
func TestMountTargetsStayInside(t *testing.T) {
	eachBuilder(t, func(t *testing.T, r runner) {
		outside := t.TempDir()
		write(t, outside, "file", "host", 0o644)
		root := newRoot(t)
		for name, target := range map[string]string{"abs": outside, "up": "../../../../../../../../" + outside, "loop": "loop", "etc/resolv.conf": "/run/missing/stub.conf"} {
			if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
				t.Fatal(err)
			}
		}
		source := t.TempDir()
		write(t, source, "inner", "container", 0o644)
		for _, dest := range []string{"/abs", "/up", "/up/deeper"} {
			b := newBundle(t, root, "cat", dest+"/inner")
			b.Spec.Mounts = append(b.Spec.Mounts, specs.Mount{Type: "bind", Source: source, Destination: dest, Options: []string{"bind"}})
			if res := r.run(t, b); res.out != "container" {
				t.Errorf("%s: %+v", dest, res)
			}
		}
		if entries, _ := os.ReadDir(outside); len(entries) != 1 {
			t.Errorf("something was made outside: %v", entries)
		}
		b := newBundle(t, root, "cat", "/run/missing/stub.conf")
		b.Spec.Mounts = append(b.Spec.Mounts, specs.Mount{Type: "bind", Source: source + "/inner", Destination: "/etc/resolv.conf", Options: []string{"bind"}})
		if res := r.run(t, b); res.out != "container" {
			t.Errorf("a dangling link: %+v", res)
		}
		b = newBundle(t, root, "true")
		b.Spec.Mounts = append(b.Spec.Mounts, specs.Mount{Type: "bind", Source: source, Destination: "/loop/x", Options: []string{"bind"}})
		if _, err := r.try(t, b); err == nil {
			t.Error("a loop of links was taken")
		}
	})
}

// Tables that are no files: a FIFO would hang the runtime, a device be read for ever.
func TestPasswdIsAFile(t *testing.T) {
	eachBuilder(t, func(t *testing.T, r runner) {
		root := newRoot(t)
		os.Remove(root + "/etc/passwd")
		fifo, err := kernel.NewFIFO(root + "/etc/passwd")
		if err != nil {
			t.Fatal(err)
		}
		fifo.Close()
		if _, err := r.try(t, newBundle(t, root, "true")); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("a FIFO: %v", err)
		}
		os.Remove(root + "/etc/passwd")
		if err := os.Symlink("/proc/self/environ", root+"/etc/passwd"); err != nil {
			t.Fatal(err)
		}
		r.try(t, newBundle(t, root, "true")) // whatever it says, it comes back
	})
}

// kill -9 of whoever sets a container up leaves no process: the gate's other end is gone.
func TestAbandonedContainerEnds(t *testing.T) {
	eachBuilder(t, func(t *testing.T, r runner) {
		p, err := create(context.Background(), newBundle(t, newRoot(t), "sleep", "1000"), Stdio{}, nil, r.options)
		if err != nil {
			t.Fatal(err)
		}
		p.gate.Close() // as the end of the process does
		p.gate = nil
		if e, err := p.Wait(); err != nil || e.Code == 0 {
			t.Errorf("%+v, %v", e, err)
		}
		p.child.Close()
		if err := p.Delete(); err != nil {
			t.Error(err)
		}
	})
}

// CVE-2019-16884: something else in the place of procfs, or of what confines by it.
func TestProcIsNotReplaced(t *testing.T) {
	eachBuilder(t, func(t *testing.T, r runner) {
		root, dir := newRoot(t), t.TempDir()
		write(t, dir, "f", "emulated", 0o644)
		for _, m := range []specs.Mount{
			{Destination: "/proc", Type: "bind", Source: dir, Options: []string{"rbind"}},
			{Destination: "/proc", Type: "tmpfs", Source: "tmpfs"},
			{Destination: "/proc/sys", Type: "bind", Source: dir, Options: []string{"rbind"}},
			{Destination: "/proc/fs", Type: "tmpfs", Source: "tmpfs"},
			{Destination: "/x/../proc/kcore", Type: "bind", Source: dir + "/f", Options: []string{"bind"}},
		} {
			b := newBundle(t, root, "true")
			b.Spec.Mounts = append(b.Spec.Mounts, m)
			if res, err := r.try(t, b); err == nil || !strings.Contains(err.Error(), "/proc") {
				t.Errorf("%s over %s: %+v, %v", m.Type, m.Destination, res, err)
			}
		}
		b := newBundle(t, root, "cat", "/proc/meminfo")
		b.Spec.Mounts = append(b.Spec.Mounts, specs.Mount{Destination: "/proc/meminfo", Type: "bind", Source: dir + "/f", Options: []string{"bind", "ro"}})
		if res := r.run(t, b); res.out != "emulated" {
			t.Errorf("%+v", res)
		}
	})
}
