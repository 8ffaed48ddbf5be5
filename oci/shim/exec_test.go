package shim

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"berth/fault"
	"berth/kernel"
	"berth/oci"
)

func TestExec(t *testing.T) {
	l := launcher(t, 1)
	ctx := deadline(t)
	r := request(t, "/bin/sleep", "1000")
	s := start(t, l, r)

	e := execRequest("one", "/bin/sh", "-c", "cat; echo err >&2; ps | head -2; exit 5")
	a, client := peerOf(t, Attachment{Stdin: true, Stdout: true, Stderr: true, Frames: true})
	e.Attach = []Attachment{a}
	pid, err := s.Exec(ctx, e)
	if err != nil || pid <= 0 {
		t.Fatal(pid, err)
	}
	st, err := s.State(ctx)
	if err != nil || !slices.Equal(st.Execs, []string{"one"}) {
		t.Errorf("state %+v, %v", st, err)
	}
	write(t, client, "in\n")
	kernel.CloseWrite(client)
	got := frames(t, readToEnd(t, client))
	if !strings.HasPrefix(got[1], "in\n") || !strings.Contains(got[1], "sleep 1000") || got[2] != "err\n" {
		t.Errorf("client got %q", got)
	}
	for range 2 { // also afterwards
		if exit, err := s.ExecWait(ctx, "one"); err != nil || exit.Code != 5 {
			t.Errorf("exit %+v, %v", exit, err)
		}
	}
	if _, err := s.Exec(ctx, execRequest("one", "/bin/true")); !errors.Is(err, fault.Exists) {
		t.Errorf("the same ID again: %v", err)
	}
	if err := s.ExecSignal(ctx, "one", 15); !errors.Is(err, fault.Conflict) {
		t.Errorf("signal to an ended exec: %v", err)
	}
	if _, err := s.ExecWait(ctx, "two"); !errors.Is(err, fault.NotFound) {
		t.Errorf("unknown exec: %v", err)
	}
	var notFound *oci.StartError
	if _, err := s.Exec(ctx, execRequest("none", "nowhere")); !errors.As(err, &notFound) || notFound.Code != 127 {
		t.Errorf("missing program: %v", err)
	}
	if _, err := s.ExecWait(ctx, "none"); !errors.Is(err, fault.NotFound) {
		t.Errorf("an exec that never was: %v", err)
	}
}

func TestExecTerminal(t *testing.T) {
	l := launcher(t, 1)
	ctx := deadline(t)
	s := start(t, l, request(t, "/bin/sleep", "1000"))
	e := execRequest("tty", "/bin/sh", "-c", "stty size; read x; stty size; sleep 1000")
	e.Terminal, e.Size = true, ConsoleSize{Height: 12, Width: 34}
	a, client := peerOf(t, Attachment{Stdin: true, Stdout: true})
	e.Attach = []Attachment{a}
	if _, err := s.Exec(ctx, e); err != nil {
		t.Fatal(err)
	}
	readUntil(t, client, "12 34\r\n")
	if err := s.ExecResize(ctx, "tty", ConsoleSize{Height: 56, Width: 78}); err != nil {
		t.Fatal(err)
	}
	write(t, client, "\n")
	readUntil(t, client, "56 78\r\n")
	if err := s.ExecSignal(ctx, "tty", 9); err != nil {
		t.Fatal(err)
	}
	if exit, err := s.ExecWait(ctx, "tty"); err != nil || exit.Code != 137 {
		t.Errorf("exit %+v, %v", exit, err)
	}
}

// TestManyExecs runs them side by side, and counts the supervisor's descriptors afterwards.
func TestManyExecs(t *testing.T) {
	l := launcher(t, 1)
	ctx := deadline(t)
	s := start(t, l, request(t, "/bin/sleep", "1000"))
	fds := func() int { return len(openFiles(t, s.state.Shim)) }
	before := fds()
	const n = keptExits + 20
	var all sync.WaitGroup
	slots := make(chan bool, 10)
	for i := range n {
		slots <- true
		all.Go(func() {
			defer func() { <-slots }()
			id := fmt.Sprint(i)
			e := execRequest(id, "/bin/sh", "-c", fmt.Sprintf("echo %d; exit %d", i, i))
			a, client := peerOf(t, Attachment{Stdout: true})
			e.Attach = []Attachment{a}
			if _, err := s.Exec(ctx, e); err != nil {
				t.Error(err)
				return
			}
			exit, err := s.ExecWait(ctx, id)
			if err != nil || exit.Code != i {
				t.Errorf("exec %d: %+v, %v", i, exit, err)
			}
			if got, err := io.ReadAll(client); string(got) != id+"\n" {
				t.Errorf("exec %d: got %q, %v", i, got, err)
			}
		})
	}
	all.Wait()
	eventually(t, "all files closed", func() bool { return fds() <= before })
}

// TestExecLeavesBackground: a child in the background that holds the output doesn't keep the exec from ending.
func TestExecLeavesBackground(t *testing.T) {
	l := launcher(t, 1)
	ctx := deadline(t)
	s := start(t, l, request(t, "/bin/sleep", "1000"))
	e := execRequest("bg", "/bin/sh", "-c", "sleep 1000 & echo hi")
	a, client := peerOf(t, Attachment{Stdout: true})
	e.Attach = []Attachment{a}
	if _, err := s.Exec(ctx, e); err != nil {
		t.Fatal(err)
	}
	if got := readToEnd(t, client); got != "hi\n" {
		t.Errorf("got %q", got)
	}
	if exit, err := s.ExecWait(ctx, "bg"); err != nil || exit.Code != 0 {
		t.Errorf("exit %+v, %v", exit, err)
	}
}

// TestExecsEndWithTheContainer: they are told of before the container's end is.
func TestExecsEndWithTheContainer(t *testing.T) {
	l := launcher(t, 1)
	ctx := deadline(t)
	s := start(t, l, request(t, "/bin/sleep", "1000"))
	if _, err := s.Exec(ctx, execRequest("x", "/bin/sleep", "1000")); err != nil {
		t.Fatal(err)
	}
	answer, err := s.post(&call{Op: opExecWait, ExecID: "x"})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Signal(ctx, 9); err != nil {
		t.Fatal(err)
	}
	if exit := wait(t, s); exit.Code != 137 {
		t.Errorf("exit %+v", exit)
	}
	if a := <-answer; a == nil || a.Exit == nil || a.Exit.Code != 137 {
		t.Errorf("the exec's end: %+v", a)
	}
}
