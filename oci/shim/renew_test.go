package shim

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"berth/kernel"
)

// renewed waits until the supervisor has begun anew, after it was idle for a while.
func renewed(t *testing.T, s *Shim) {
	t.Helper()
	eventually(t, "a new life", func() bool {
		st, err := s.State(deadline(t))
		if err != nil {
			t.Fatal(err)
		}
		return st.Lives > 0
	})
}

func openFiles(t *testing.T, pid int) (list []string) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		target, _ := os.Readlink(dir + "/" + e.Name())
		if !strings.HasPrefix(target, "anon_inode:[event") && !strings.HasPrefix(target, "/memfd:") {
			list = append(list, target)
		}
	}
	slices.Sort(list)
	return list
}

// without is list less what is in other, each as often as it is there.
func without(list, other []string) []string {
	list = slices.Clone(list)
	for _, o := range other {
		if k := slices.Index(list, o); k >= 0 {
			list = slices.Delete(list, k, k+1)
		}
	}
	return list
}

// TestRenew shows that nobody notices when a supervisor begins anew.
func TestRenew(t *testing.T) {
	l := launcher(t, 1)
	ctx := deadline(t)
	r := request(t, "/bin/sh", "-c", "printf half; while read x; do echo got $x; echo err $x >&2; done; exit 8")
	r.OpenStdin, r.StdinOnce = true, true
	s := start(t, l, r)
	if _, err := s.Exec(ctx, execRequest("before", "/bin/sh", "-c", "exit 3")); err != nil {
		t.Fatal(err)
	}
	if exit, err := s.ExecWait(ctx, "before"); err != nil || exit.Code != 3 {
		t.Fatal(exit, err)
	}
	waiting, err := s.post(&call{Op: opWait})
	if err != nil {
		t.Fatal(err)
	}
	second, err := l.Open(s.ID())
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if _, err := second.State(ctx); err != nil {
		t.Fatal(err)
	}
	shim := s.state.Shim
	before := openFiles(t, shim)
	renewed(t, s)
	// Before, the last files of the exec that has ended may still be open.
	if after := openFiles(t, shim); len(without(after, before)) > 0 {
		t.Errorf("open files before:\n%s\nafter:\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
	if st, err := second.State(ctx); err != nil || st.Shim != shim || st.Pid != s.Pid() || !st.StartedAt.Equal(s.StartedAt()) {
		t.Errorf("state by another connection: %+v, %v", st, err)
	}
	third, err := l.Open(s.ID())
	if err != nil {
		t.Fatal(err)
	}
	third.Close()
	if exit, err := s.ExecWait(ctx, "before"); err != nil || exit.Code != 3 {
		t.Errorf("the result of an exec of the life before: %+v, %v", exit, err)
	}
	e := execRequest("after", "/bin/echo", "hello")
	a, client := peerOf(t, Attachment{Stdout: true})
	e.Attach = []Attachment{a}
	if _, err := s.Exec(ctx, e); err != nil {
		t.Fatal(err)
	}
	if got := readToEnd(t, client); got != "hello\n" {
		t.Errorf("exec: %q", got)
	}
	if pids, err := s.Pids(ctx); err != nil || len(pids) != 1 {
		t.Errorf("pids %v, %v", pids, err)
	}
	b, typist := peerOf(t, Attachment{Stdin: true, Stdout: true, Stderr: true, Logs: true})
	if err := s.Attach(ctx, b); err != nil {
		t.Fatal(err)
	}
	write(t, typist, "x\n")
	readUntil(t, typist, "err x\n")
	kernel.CloseWrite(typist)
	if answer := <-waiting; answer == nil || answer.Exit == nil || answer.Exit.Code != 8 {
		t.Errorf("who waited since before got %+v", answer)
	}
	log := logLines(t, r.Log.Path)
	if len(log) != 2 || !slices.ContainsFunc(log, func(l string) bool { return strings.HasPrefix(l, `{"log":"halfgot x\n","stream":"stdout"`) }) {
		t.Errorf("log %q", log)
	}
}

func TestRenewTerminal(t *testing.T) {
	l := launcher(t, 1)
	ctx := deadline(t)
	r := request(t, "/bin/sh", "-c", "stty size; while read x; do stty size; done")
	r.Terminal, r.OpenStdin = true, true
	r.Size = ConsoleSize{Height: 11, Width: 22}
	s := start(t, l, r)
	if _, err := s.State(ctx); err != nil { // from now on it has all its files
		t.Fatal(err)
	}
	before := openFiles(t, s.state.Shim)
	renewed(t, s)
	if after := openFiles(t, s.state.Shim); len(without(after, before)) > 0 {
		t.Errorf("open files before:\n%s\nafter:\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
	if err := s.Resize(ctx, ConsoleSize{Height: 33, Width: 44}); err != nil {
		t.Fatal(err)
	}
	a, client := peerOf(t, Attachment{Stdin: true, Stdout: true, Logs: true})
	if err := s.Attach(ctx, a); err != nil {
		t.Fatal(err)
	}
	write(t, client, "\n")
	got := readUntil(t, client, "33 44\r\n")
	if !strings.HasPrefix(got, "11 22\r\n") {
		t.Errorf("got %q", got)
	}
	write(t, client, "\x04")
	if exit := wait(t, s); exit.Code != 0 {
		t.Errorf("exit %+v", exit)
	}
}

// TestNoRenewWhileInUse: a client or an exec puts it off.
func TestNoRenewWhileInUse(t *testing.T) {
	l := launcher(t, 1)
	ctx := deadline(t)
	r := request(t, "/bin/sleep", "1000")
	a, client := peerOf(t, Attachment{Stdout: true})
	r.Attach = []Attachment{a}
	s := start(t, l, r)
	if _, err := s.Exec(ctx, execRequest("x", "/bin/sleep", "1000")); err != nil {
		t.Fatal(err)
	}
	idle := start(t, l, request(t, "/bin/sleep", "1000")) // started later, so its turn comes later
	renewed(t, idle)
	if st, err := s.State(ctx); err != nil || st.Lives != 0 {
		t.Errorf("state %+v, %v", st, err)
	}
	client.Close()
	if err := s.ExecSignal(ctx, "x", 9); err != nil {
		t.Fatal(err)
	}
	if exit, err := s.ExecWait(ctx, "x"); err != nil || exit.Code != 137 {
		t.Errorf("exec: %+v, %v", exit, err)
	}
	renewed(t, s)
}
