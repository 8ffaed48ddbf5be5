package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/fault"
	"berth/oci"
)

func TestStartAndExitCode(t *testing.T) {
	l := launcher(t, 1)
	r := request(t, "/bin/sh", "-c", "echo out; echo err >&2; exit 42")
	s := start(t, l, r)
	if s.Pid() <= 0 || s.StartedAt().IsZero() || s.ID() != r.Bundle.ID {
		t.Errorf("pid %d, started %v, ID %s", s.Pid(), s.StartedAt(), s.ID())
	}
	if exit := wait(t, s); exit.Code != 42 || exit.At.IsZero() {
		t.Errorf("exit %+v", exit)
	}
	recorded, err := l.Exit(s.ID())
	if err != nil || recorded.Code != 42 {
		t.Errorf("recorded %+v, %v", recorded, err)
	}
	got := map[string]string{}
	for _, line := range logLines(t, r.Log.Path) {
		var e struct{ Log, Stream, Time string }
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.Time == "" {
			t.Errorf("log line %q: %v", line, err)
		}
		got[e.Stream] += e.Log
	}
	if got["stdout"] != "out\n" || got["stderr"] != "err\n" {
		t.Errorf("log %q", got)
	}
	<-s.Done()
	if _, err := s.Pids(deadline(t)); !errors.Is(err, fault.Conflict) {
		t.Errorf("pids of an ended container: %v", err)
	}
	if _, err := l.Open(s.ID()); !errors.Is(err, fault.Unavailable) {
		t.Errorf("open an ended container: %v", err)
	}
	// Again, without Forget: the old state makes room.
	again, err := l.Start(deadline(t), r)
	if err != nil {
		t.Fatal(err)
	}
	if exit := wait(t, again); exit.Code != 42 {
		t.Errorf("second run: %+v", exit)
	}
	again.Close()
}

func TestStartFails(t *testing.T) {
	l := launcher(t, 1)
	for _, c := range []struct {
		args []string
		code int
		text string
	}{
		{[]string{"nowhere"}, 127, `exec: "nowhere": executable file not found in $PATH`},
		{[]string{"/etc"}, 126, "permission denied"},
	} {
		r := request(t, c.args...)
		a, client := peerOf(t, Attachment{Stdout: true})
		r.Attach = []Attachment{a}
		_, err := l.Start(deadline(t), r)
		var start *oci.StartError
		if !errors.As(err, &start) || start.Code != c.code || !strings.Contains(err.Error(), c.text) {
			t.Errorf("start %v: %v", c.args, err)
		}
		if got := readToEnd(t, client); got != "" {
			t.Errorf("client got %q", got)
		}
	}
	if ids, err := l.List(); err != nil || len(ids) != 0 {
		t.Errorf("left: %v, %v", ids, err)
	}
	r := request(t, "/bin/true")
	r.Log.Driver = "carrier-pigeon"
	if _, err := l.Start(deadline(t), r); !errors.Is(err, fault.Unsupported) {
		t.Errorf("unknown log driver: %v", err)
	}
	r.Bundle.ID = "../up"
	if _, err := l.Start(deadline(t), r); !errors.Is(err, fault.Invalid) {
		t.Errorf("hostile ID: %v", err)
	}
}

func TestTwiceTheSameContainer(t *testing.T) {
	l := launcher(t, 2)
	r := request(t, "/bin/sleep", "1000")
	s := start(t, l, r)
	if _, err := l.Start(deadline(t), r); !errors.Is(err, fault.Conflict) {
		t.Errorf("second start: %v", err)
	}
	if err := l.Forget(s.ID()); !errors.Is(err, fault.Conflict) {
		t.Errorf("forget a running container: %v", err)
	}
	if err := l.Reap(s.ID()); !errors.Is(err, fault.Conflict) {
		t.Errorf("reap a running container: %v", err)
	}
	if _, err := s.Pids(deadline(t)); err != nil {
		t.Errorf("the first one suffered: %v", err)
	}
}

func TestFloodIsLoggedWhole(t *testing.T) {
	l := launcher(t, 1)
	const lines = 200_000
	r := request(t, "/bin/seq", fmt.Sprint(lines))
	s := start(t, l, r)
	if exit := wait(t, s); exit.Code != 0 {
		t.Errorf("exit %+v", exit)
	}
	got := logLines(t, r.Log.Path)
	if len(got) != lines {
		t.Fatalf("%d lines", len(got))
	}
	for i, line := range got {
		if want := fmt.Sprintf(`{"log":"%d\n","stream":"stdout","time":"`, i+1); !strings.HasPrefix(line, want) {
			t.Fatalf("line %d is %q", i, line)
		}
	}
}

func TestSignal(t *testing.T) {
	l := launcher(t, 1)
	ctx := deadline(t)
	r := request(t, "/bin/sh", "-c", "trap 'echo term; exit 7' TERM; echo ready; while :; do sleep 0.01; done")
	a, client := peerOf(t, Attachment{Stdout: true})
	r.Attach = []Attachment{a}
	s := start(t, l, r)
	readUntil(t, client, "ready")
	if err := s.Signal(ctx, 15); err != nil {
		t.Fatal(err)
	}
	if exit := wait(t, s); exit.Code != 7 || exit.Signal != 0 {
		t.Errorf("exit %+v", exit)
	}
	if err := s.Signal(ctx, 15); !errors.Is(err, fault.Conflict) {
		t.Errorf("signal after the end: %v", err)
	}
	s = start(t, l, request(t, "/bin/sleep", "1000"))
	if err := s.Signal(ctx, 9); err != nil {
		t.Fatal(err)
	}
	if exit := wait(t, s); exit.Code != 137 || exit.Signal != 9 {
		t.Errorf("exit %+v", exit)
	}
}

func TestPauseAndPids(t *testing.T) {
	l := launcher(t, 1)
	ctx := deadline(t)
	r := request(t, "/bin/sh", "-c", "sleep 1000 & echo up; wait")
	a, client := peerOf(t, Attachment{Stdout: true})
	r.Attach = []Attachment{a}
	s := start(t, l, r)
	readUntil(t, client, "up")
	pids, err := s.Pids(ctx)
	if err != nil || len(pids) != 2 {
		t.Errorf("pids %v, %v", pids, err)
	}
	if err := s.Pause(ctx); err != nil {
		t.Fatal(err)
	}
	if st, err := s.State(ctx); err != nil || !st.Paused {
		t.Errorf("state %+v, %v", st, err)
	}
	if _, err := s.Exec(ctx, execRequest("x", "/bin/true")); !errors.Is(err, fault.Conflict) {
		t.Errorf("exec in a paused container: %v", err)
	}
	if err := s.Resume(ctx); err != nil {
		t.Fatal(err)
	}
	if st, err := s.State(ctx); err != nil || st.Paused {
		t.Errorf("state %+v, %v", st, err)
	}
}

// TestMemoryLimit shows that the group's count arrives in the exit.
func TestMemoryLimit(t *testing.T) {
	l := launcher(t, 1)
	r := request(t, "/bin/sh", "-c", "dd if=/dev/zero bs=64M count=1 | wc -c; dd if=/dev/zero of=/dev/null bs=64M count=1")
	limit := int64(16 << 20)
	r.Bundle.Spec.Linux.Resources = memoryLimit(limit)
	r.Bundle.Spec.Process.Args = []string{"/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1"}
	s := start(t, l, r)
	if exit := wait(t, s); exit.Code != 137 || !exit.OOMKilled {
		t.Errorf("exit %+v", exit)
	}
}

// TestOthersHoldTheOutput has a process outside of the container keep the pipe open: the exit doesn't wait for it.
func TestOthersHoldTheOutput(t *testing.T) {
	l := launcher(t, 1)
	r := request(t, "/bin/sh", "-c", "echo up; read line; echo last")
	r.OpenStdin, r.StdinOnce = true, true
	a, client := peerOf(t, Attachment{Stdin: true, Stdout: true})
	r.Attach = []Attachment{a}
	s := start(t, l, r)
	readUntil(t, client, "up\n")
	held, err := os.OpenFile(filepath.Join("/proc", fmt.Sprint(s.Pid()), "fd/1"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	write(t, client, "go\n")
	if got := readToEnd(t, client); got != "last\n" {
		t.Errorf("client got %q", got)
	}
	if exit := wait(t, s); exit.Code != 0 {
		t.Errorf("exit %+v", exit)
	}
}
