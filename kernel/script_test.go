package kernel

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// cwd is AT_FDCWD as a call's argument.
var cwd = Arg{value: ^uintptr(99)} // -100

func reap(t testing.TB, pid int) syscall.WaitStatus {
	t.Helper()
	var st syscall.WaitStatus
	if err := retry(func() error { _, err := syscall.Wait4(pid, &st, 0, nil); return err }); err != nil {
		t.Fatal(err)
	}
	return st
}

func TestForkedScriptExecutes(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	high, err := HighDup(w)
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	var s Script
	s.Dup(s.F(high), 1)
	s.CloseOnExec(3)
	s.Exec("/bin/busybox", []string{"echo", "hello", "there"}, nil)
	c, err := s.Fork(0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.PidFD.Close()
	high.Close()
	if err := c.Started(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	n, _ := r.Read(buf)
	if got := string(buf[:n]); got != "hello there\n" {
		t.Errorf("child said %q", got)
	}
	if st := reap(t, c.Pid); st.ExitStatus() != 0 {
		t.Errorf("child ended with %v", st)
	}
}

func TestScriptErrorsNameTheCall(t *testing.T) {
	var s Script
	s.For("open the tree")
	s.Allow(s.Open(cwd, "/no/such/file", os.O_RDONLY, 0), unix.ENOENT)
	missing := s.Open(cwd, "/no/such/file", os.O_RDONLY, 0)
	s.Close(missing)
	err := s.Run()
	if !errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(err.Error(), "open the tree: ") {
		t.Errorf("got %v", err)
	}
	var f Script
	f.For("exec /nope")
	f.Exec("/nope", []string{"x"}, nil)
	c, err := f.Fork(0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.PidFD.Close()
	var se *ScriptError
	if err := c.Started(); !errors.As(err, &se) || !se.Exec || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if st := reap(t, c.Pid); st.ExitStatus() != 126 {
		t.Errorf("child ended with %v", st)
	}
}

func TestToleratedCallSkipsItsUsers(t *testing.T) {
	var s Script
	r := s.Allow(s.Open(cwd, "/no/such/file", os.O_RDONLY, 0), unix.ENOENT)
	s.Close(r) // would be EBADF
	if err := s.Run(); err != nil {
		t.Error(err)
	}
}

func BenchmarkForkScript(b *testing.B) {
	for b.Loop() {
		var s Script
		s.CloseOnExec(3)
		s.Exec("/bin/busybox", []string{"true"}, nil)
		c, err := s.Fork(0)
		if err != nil {
			b.Fatal(err)
		}
		if err := c.Started(); err != nil {
			b.Fatal(err)
		}
		c.PidFD.Close()
		reap(b, c.Pid)
	}
}

func BenchmarkVforkExec(b *testing.B) {
	for b.Loop() {
		pid, err := syscall.ForkExec("/bin/busybox", []string{"true"}, &syscall.ProcAttr{})
		if err != nil {
			b.Fatal(err)
		}
		reap(b, pid)
	}
}
