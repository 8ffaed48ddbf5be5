package isolation

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/test/testengine"
)

// session is a shell with tools that waits for its input.
type session struct {
	in   io.WriteCloser
	kill func()
	wait func() error
}

func openDebug(t *testing.T, e *testengine.Engine, name string) session {
	t.Helper()
	cmd := e.Command("berth", "debug", name)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	ready, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer // a client that can't write would end
	cmd.Stdout, cmd.Stderr = out, out
	err = cmd.Start()
	out.Close()
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(in, "echo ready")
	if line := make([]byte, 6); err == nil {
		if _, err = io.ReadFull(ready, line); err != nil || string(line) != "ready\n" {
			t.Fatalf("the shell says %q, %v", line, err)
		}
	}
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		io.Copy(&said, ready)
		ready.Close()
	}()
	return session{in, func() { cmd.Process.Kill() }, func() error {
		err := cmd.Wait()
		<-heard
		if err != nil {
			err = fmt.Errorf("%w: %s", err, said.String())
		}
		return err
	}}
}

// held are the roots that keep an image's layers for tools.
func held(t *testing.T, e *testengine.Engine) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(e.Data, "layers/roots/tools-*"))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestDebugIsNoWayOut tries, as root inside the container, to get at anything by way of a session with tools.
func TestDebugIsNoWayOut(t *testing.T) {
	e := testengine.Start(t)
	e.Busybox(t)
	e.Run(t, "run", "-d", "--name", "spy", "busybox", "sleep", "1000")
	before, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	s := openDebug(t, e, "spy")
	inside := func(script string) string {
		out, err := e.Try("exec", "spy", "sh", "-c", `P=$(ps -o pid,args | awk '/proc.fs.bin/ && !/awk/ {print $1; exit}'); { `+script+"\n} 2>&1; true")
		if err != nil {
			t.Errorf("%s: %v", script, err)
		}
		return out
	}
	for _, c := range []struct{ what, script, want string }{
		{"its files are its streams", `for f in /proc/$P/fd/*; do readlink $f; done | grep -v '^pipe:'`, ""},
		{"its tools can't be changed", `echo x >/proc/$P/root/proc/fs/bin/sh`, "Read-only file system"},
		{"nor can what isn't there", `touch /proc/$P/root/proc/fs/bin/new`, "Read-only file system"},
		{"above its tools is the container", `cd /proc/$P/root/proc/fs/../..; ls -di . / | sed 's/ .*//' | uniq | wc -l`, "1\n"},
		{"its directory is in the container", `ls -di /proc/$P/cwd/. /. | sed 's/ *\([0-9]*\) .*/\1/' | uniq | wc -l`, "1\n"},
		{"its mount namespace can't be joined", `nsenter -t $P -m true`, "Operation not permitted"},
		{"no mount shows the host", `sed 's/^[0-9]* [0-9]* //' /proc/$P/mountinfo | grep -v ' /proc/fs ' | sort >/tmp/theirs; sed 's/^[0-9]* [0-9]* //' /proc/1/mountinfo | grep -v ' /proc/fs ' | sort | cmp - /tmp/theirs`, ""},
		{"it has no more rights", `grep -E 'Cap|Seccomp|NoNew' /proc/$P/status >/tmp/theirs; grep -E 'Cap|Seccomp|NoNew' /proc/self/status | cmp - /tmp/theirs`, ""},
		{"the container has no tools", `ls /proc/fs/bin`, "No such file"},
	} {
		if got := inside(c.script); c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: got %q", c.what, got)
		}
	}
	if after, err := os.ReadFile("/proc/self/mountinfo"); err != nil || string(after) != string(before) {
		t.Errorf("the host's mounts changed: %v", err)
	}
	if len(held(t, e)) != 1 {
		t.Errorf("held: %v", held(t, e))
	}
	s.in.Close()
	if err := s.wait(); err != nil {
		t.Error(err)
	}
	testengine.Eventually(t, 10*time.Second, func() error {
		if left := held(t, e); len(left) > 0 {
			return fmt.Errorf("left: %v", left)
		}
		return nil
	})
}

// TestDebugLeavesNothing kills the client, and the daemon, in the middle of sessions.
func TestDebugLeavesNothing(t *testing.T) {
	e := testengine.Start(t)
	e.Busybox(t)
	e.Run(t, "run", "-d", "--name", "app", "busybox", "sleep", "1000")
	quiet := func() error {
		if left := held(t, e); len(left) > 0 {
			return fmt.Errorf("left: %v", left)
		}
		if out, err := e.Try("ps", "-aq"); err != nil || strings.Count(out, "\n") != 1 {
			return fmt.Errorf("containers: %q, %v", out, err)
		}
		out, err := e.Try("top", "app")
		if strings.Count(out, "\n") != 2 {
			err = errors.Join(err, fmt.Errorf("processes: %s", out))
		}
		return err
	}
	for _, target := range []string{"app", "busybox:latest"} {
		s := openDebug(t, e, target)
		if quiet() == nil {
			t.Fatalf("%s: the session can't be seen", target)
		}
		s.kill()
		s.wait()
		testengine.Eventually(t, 20*time.Second, quiet)
	}
	for _, target := range []string{"app", "busybox:latest"} {
		s := openDebug(t, e, target)
		// The shell speaks before the engine has answered that it was started; that answer is not to be lost.
		testengine.Eventually(t, 10*time.Second, func() error {
			if out, err := e.Try("ps", "-q", "--filter", "status=running"); err != nil || target != "app" && strings.Count(out, "\n") != 2 {
				return fmt.Errorf("running: %q, %v", out, err)
			}
			return nil
		})
		e.Kill()
		e.Up(t)
		if _, err := fmt.Fprintln(s.in, "ls / >/dev/null"); err != nil {
			t.Errorf("%s: the session broke with the daemon: %v, %v", target, err, s.wait())
		}
		s.kill()
		s.wait()
		testengine.Eventually(t, 20*time.Second, quiet)
	}
}
