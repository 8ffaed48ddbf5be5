package oci

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/internal/kerneltest"
	"berth/kernel"
)

func TestStartErrors(t *testing.T) {
	eachBuilder(t, func(t *testing.T, r runner) {
		root := newRoot(t)
		write(t, root, "bin/plain", "#!/bin/sh\n", 0o644)
		write(t, root, "bin/noformat", "neither script nor program", 0o755)
		write(t, root, "bin/nointerpreter", "#!/no/such/shell\n", 0o755)
		write(t, root, "bin/private", "#!/bin/sh\n", 0o700)
		for _, c := range []struct {
			user string
			args []string
			code int
			text string
		}{
			{"", []string{"foo"}, 127, `exec: "foo": executable file not found in $PATH`},
			{"", []string{"/x"}, 127, `exec: "/x": stat /x: no such file or directory`},
			{"", []string{"/bin/sh/x"}, 127, `exec: "/bin/sh/x": stat /bin/sh/x: not a directory`},
			{"", []string{"/etc"}, 126, `exec: "/etc": is a directory: permission denied`},
			{"", []string{"/bin/plain"}, 126, `exec: "/bin/plain": permission denied`},
			{"", []string{"plain"}, 126, `exec: "plain": permission denied`},
			{"", []string{"/bin/noformat"}, 126, `exec /bin/noformat: exec format error`},
			{"", []string{"nointerpreter"}, 127, `exec /bin/nointerpreter: no such file or directory`},
			{"alice", []string{"private"}, 126, `exec /bin/private: permission denied`},
			{"nobody", []string{"true"}, 0, `unable to find user nobody: no matching entries in passwd file`},
			{"root:nogroup", []string{"true"}, 0, `unable to find group nogroup: no matching entries in group file`},
		} {
			b := newBundle(t, root, c.args...)
			b.User = c.user
			_, err := r.try(t, b)
			var s *StartError
			if err == nil || err.Error() != c.text || (c.code != 0) != errors.As(err, &s) || s != nil && s.Code != c.code {
				t.Errorf("%v: got %v %+v, want %d %s", c.args, err, s, c.code, c.text)
			}
		}
	})
}

func TestExitCodes(t *testing.T) {
	eachBuilder(t, func(t *testing.T, r runner) {
		root := newRoot(t)
		for script, want := range map[string]Exit{
			"exit 0": {}, "exit 42": {Code: 42}, "exit 255": {Code: 255},
			"kill -9 $$; echo process 1 is immune to itself; exit 5": {Code: 5},
		} {
			res := r.run(t, newBundle(t, root, sh(script)...))
			if res.exit.Code != want.Code || res.exit.Signal != want.Signal || res.exit.At.IsZero() {
				t.Errorf("%s: %+v", script, res.exit)
			}
		}
		p := r.start(t, newBundle(t, root, "sleep", "1000"))
		if err := p.Signal(9); err != nil {
			t.Error(err)
		}
	})
}

func TestUsers(t *testing.T) {
	eachBuilder(t, func(t *testing.T, r runner) {
		root := newRoot(t)
		for _, c := range []struct {
			user, want string
			add        []string
		}{
			{"", "uid=0(root) gid=0(root) groups=0(root),10(wheel) /root", nil},
			{"alice", "uid=1000(alice) gid=1000(alice) groups=10(wheel),1000(alice) /home/alice", nil},
			{"1000", "uid=1000(alice) gid=1000(alice) groups=10(wheel),1000(alice) /home/alice", nil},
			{"alice:audio", "uid=1000(alice) gid=29(audio) groups=29(audio) /home/alice", nil},
			{"7:8", "uid=7 gid=8 groups=8 /", nil},
			{"7", "uid=7 gid=0(root) groups=0(root) /", nil},
			{"alice", "uid=1000(alice) gid=1000(alice) groups=5,10(wheel),29(audio),1000(alice) /home/alice", []string{"audio", "5"}},
		} {
			b := newBundle(t, root, sh("echo $(id) $HOME")...)
			b.User, b.GroupAdd = c.user, c.add
			if res := r.run(t, b); strings.TrimSpace(res.out) != c.want {
				t.Errorf("%s: got %s want %s", c.user, res.out, c.want)
			}
		}
		umask := uint32(0o077)
		b := newBundle(t, root, sh("id -u; id -g; id -G; umask; echo $HOME")...)
		b.UserFromSpec = true
		b.Spec.Process.User = specs.User{UID: 12, GID: 13, AdditionalGids: []uint32{14, 15}, Umask: &umask}
		b.Spec.Process.Env = append(b.Spec.Process.Env, "HOME=/given")
		if res := r.run(t, b); res.out != "12\n13\n13 14 15\n0077\n/given\n" {
			t.Errorf("from the spec: %s", res.out)
		}
	})
}

func TestWorkingDirectory(t *testing.T) {
	eachBuilder(t, func(t *testing.T, r runner) {
		root := newRoot(t)
		b := newBundle(t, root, sh("pwd; stat -c %u .")...)
		b.Spec.Process.Cwd = "/srv/made/here"
		if _, err := r.try(t, b); err == nil || !strings.Contains(err.Error(), "chdir to cwd") {
			t.Errorf("a missing directory: %v", err)
		}
		b.MakeCwd, b.User = true, "alice"
		if res := r.run(t, b); res.out != "/srv/made/here\n1000\n" {
			t.Errorf("got %+v", res)
		}
	})
}

func TestTerminal(t *testing.T) {
	eachBuilder(t, func(t *testing.T, r runner) {
		b := newBundle(t, newRoot(t), sh("tty; stty size; test -c /dev/console && echo console; stat -c %u $(tty); read line; echo got $line; read never")...)
		b.User = "alice"
		b.Spec.Process.ConsoleSize = &specs.Box{Height: 33, Width: 77}
		p, err := create(context.Background(), b, Stdio{Console: true}, nil, r.options)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Delete()
		master := p.Console()
		defer master.Close()
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(master)
		expect := func(want string) {
			t.Helper()
			if line, err := lines.ReadString('\n'); strings.TrimSpace(line) != want {
				t.Errorf("got %q, %v, want %q", line, err, want)
			}
		}
		expect("/dev/pts/0")
		expect("33 77")
		expect("console")
		expect("1000")
		fmt.Fprintf(master, "hello\n")
		expect("hello")
		expect("got hello")
		fmt.Fprintf(master, "\x03")
		if e, err := p.Wait(); err != nil || e.Code != 130 {
			t.Errorf("after ^C: %+v, %v", e, err)
		}
	})
}

func TestInitOwnsTheTerminal(t *testing.T) {
	eachBuilder(t, func(t *testing.T, r runner) {
		b := newBundle(t, newRoot(t), sh("read line; echo got $line; exit 6")...)
		b.Init = true
		p, err := create(context.Background(), b, Stdio{Console: true}, nil, r.options)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Delete()
		defer p.Console().Close()
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(p.Console(), "hello\n")
		lines := bufio.NewReader(p.Console())
		for _, want := range []string{"hello", "got hello"} {
			if line, err := lines.ReadString('\n'); strings.TrimSpace(line) != want {
				t.Errorf("got %q, %v, want %q", line, err, want)
			}
		}
		if e, err := p.Wait(); err != nil || e.Code != 6 {
			t.Errorf("%+v, %v", e, err)
		}
	})
}

func TestExecTerminal(t *testing.T) {
	kerneltest.Root(t)
	b := newBundle(t, newRoot(t), "sleep", "1000")
	p := sleeper(t, b)
	e := execSpec(b, "sh", "-c", "tty; stty size; exit 3")
	e.Process.ConsoleSize = &specs.Box{Height: 5, Width: 6}
	x, err := Exec(context.Background(), p.Pid(), b, e, Stdio{Console: true})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Console().Close()
	lines := bufio.NewReader(x.Console())
	for _, want := range []string{"/dev/pts/0", "5 6"} {
		if line, err := lines.ReadString('\n'); strings.TrimSpace(line) != want {
			t.Errorf("got %q, %v", line, err)
		}
	}
	if e, err := x.Wait(); err != nil || e.Code != 3 {
		t.Errorf("%+v, %v", e, err)
	}
}

// probeName is what the test binary is called as a program of a container that shows its rights.
const probeName = "/bin/probe"

func probe() {
	data, _ := os.ReadFile("/proc/self/status")
	fmt.Printf("euid %d egid %d %s\n", os.Geteuid(), os.Getegid(), status(string(data), "CapEff")["CapEff"])
	os.Exit(0)
}

func TestEntryWithSetuidOrFileCapabilities(t *testing.T) {
	eachBuilder(t, func(t *testing.T, r runner) {
		self, err := os.ReadFile("/proc/self/exe")
		if err != nil {
			t.Fatal(err)
		}
		// cap_net_raw=ep, version 2 (linux/capability.h, struct vfs_cap_data)
		const netRaw = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
		for _, c := range []struct {
			name string
			mode os.FileMode
			caps bool
			nnp  bool
			want string
		}{
			{"plain", 0o755, false, false, "euid 1000 egid 1000 0000000000000000\n"},
			{"setuid", 0o755 | os.ModeSetuid, false, false, "euid 0 egid 1000 00000000a80425fb\n"},
			{"setgid", 0o755 | os.ModeSetgid, false, false, "euid 1000 egid 0 0000000000000000\n"},
			{"file capabilities", 0o755, true, false, "euid 1000 egid 1000 0000000000002000\n"},
			{"setuid, no new privileges", 0o755 | os.ModeSetuid, false, true, "euid 1000 egid 1000 0000000000000000\n"},
			{"file capabilities, no new privileges", 0o755, true, true, "euid 1000 egid 1000 0000000000000000\n"},
		} {
			root := newRoot(t)
			write(t, root, probeName, string(self), 0o755)
			if err := os.Chmod(root+probeName, c.mode); err != nil {
				t.Fatal(err)
			}
			if c.caps {
				dir, err := os.Open(root + "/bin")
				if err != nil {
					t.Fatal(err)
				}
				if err := kernel.SetXattrIn(dir, "probe", "security.capability", netRaw); err != nil {
					t.Fatal(err)
				}
				dir.Close()
			}
			b := newBundle(t, root, probeName)
			b.User, b.Spec.Process.NoNewPrivileges = "alice", c.nnp
			if res := r.run(t, b); res.out != c.want {
				t.Errorf("%s: got %s%s, want %s", c.name, res.out, res.err, c.want)
			}
		}
	})
}

// TestInitTakesSignalsFromTheStart: whoever has started a container may stop it at once.
func TestInitTakesSignalsFromTheStart(t *testing.T) {
	eachBuilder(t, func(t *testing.T, r runner) {
		for range 10 {
			b := newBundle(t, newRoot(t), "sleep", "100")
			b.Init, b.Spec.Process.Rlimits = true, []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Hard: 20, Soft: 20}}
			p, err := create(context.Background(), b, Stdio{}, nil, r.options)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(p.Start(), p.Signal(15)); err != nil {
				t.Error(err)
			}
			if e, err := p.Wait(); err != nil || e.Code != 143 {
				t.Errorf("%+v, %v", e, err)
			}
			if err := p.Delete(); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestInitReaps(t *testing.T) {
	eachBuilder(t, func(t *testing.T, r runner) {
		b := newBundle(t, newRoot(t), sh("test $$ -ne 1 && (sh -c 'exec sleep 0' & exit 0); cat /proc/1/comm; readlink /proc/1/exe; exit 9")...)
		b.Init = true
		res := r.run(t, b)
		if res.exit.Code != 9 || !strings.Contains(res.out, "memfd:") {
			t.Errorf("got %+v", res)
		}
		b = newBundle(t, newRoot(t), sh("kill -TERM $$")...)
		b.Init = true
		if res := r.run(t, b); res.exit.Code != 143 {
			t.Errorf("got %+v", res)
		}
	})
}
