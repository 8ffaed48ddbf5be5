package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/container"
	"berth/fault"

	api "github.com/moby/moby/api/types/container"
)

// parent is the process that started pid.
func parent(t *testing.T, pid int) int {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	var state string
	var ppid int
	if _, err := fmt.Sscan(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), &state, &ppid); err != nil {
		t.Fatal(err)
	}
	return ppid
}

// awaitGone waits until a process is no more.
func awaitGone(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err != nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("process %d does not end", pid)
		}
	}
}

func TestRestore(t *testing.T) {
	w := newWorld(t)
	onBridge := func(r *CreateRequest) { r.HostConfig.NetworkMode = "bridge" }
	dir := t.TempDir()
	waits := func(r *CreateRequest) { onBridge(r); r.HostConfig.Binds = []string{dir + ":/signal"} }
	loop := []string{"sh", "-c", "while [ ! -e /signal/end ]; do sleep 0.01; done; echo last; exit 9"}
	stays := w.create(onBridge, "sh", "-c", "i=0; while :; do echo line $i; i=$((i+1)); sleep 0.02; done")
	ends, endsAndGoes := w.create(waits, loop...), w.create(func(r *CreateRequest) { waits(r); r.HostConfig.AutoRemove = true }, loop...)
	ended, lost, created := w.create(nil, "sh", "-c", "exit 4"), w.create(nil, "sleep", "1000"), w.create(nil, "true")
	for _, id := range []string{stays, ends, endsAndGoes, ended, lost} {
		w.start(id)
	}
	w.awaitLog(stays, "line 3")
	w.wait(ended, "")
	inspect := func(id string) Inspection {
		t.Helper()
		d, err := w.Containers.Inspect(t.Context(), id, false)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	before, endsPid, goesPid, lostPid := inspect(stays), inspect(ends).State.Pid, inspect(endsAndGoes).State.Pid, inspect(lost).State.Pid
	// The engine's end is a close here, as this process holds what a kill would close; the rest is the same.
	if err := w.Engine.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "end"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	supervisor, err := os.FindProcess(parent(t, lostPid))
	if err != nil {
		t.Fatal(err)
	}
	if err := supervisor.Kill(); err != nil {
		t.Fatal(err)
	}
	half := container.NewID()
	if err := os.Mkdir(w.Containers.store.Dir(half), 0o700); err != nil {
		t.Fatal(err)
	}
	awaitGone(t, endsPid)
	awaitGone(t, goesPid)
	awaitGone(t, supervisor.Pid)
	w.open()

	after := inspect(stays)
	if after.State.Pid != before.State.Pid || after.State.StartedAt != before.State.StartedAt ||
		after.NetworkSettings.Networks["bridge"].IPAddress != before.NetworkSettings.Networks["bridge"].IPAddress {
		t.Errorf("%+v; before %+v", after.State, before.State)
	}
	w.awaitLog(stays, "line 30")
	text := w.log(stays)
	for n := range 30 {
		if !strings.Contains(text, fmt.Sprintf("line %d\n", n)) {
			t.Errorf("line %d is missing", n)
		}
	}
	for id, want := range map[string]int{ends: 9, ended: 4, lost: 137, created: 0} {
		if code := w.wait(id, ""); code != want {
			t.Errorf("%+v; want code %d", inspect(id).State, want)
		}
	}
	if text := w.log(ends); text != "last\n" {
		t.Errorf("log of one that ended meanwhile: %q", text)
	}
	if s := w.status(created); s != api.StateCreated {
		t.Errorf("created: %s", s)
	}
	waiter, err := w.Containers.Wait(endsAndGoes, api.WaitConditionRemoved)
	if err == nil { // its supervisor was still at work when the engine opened
		if code := receive(t, waiter); code != 9 {
			t.Errorf("code %d", code)
		}
	}
	if _, err := w.Containers.Inspect(t.Context(), endsAndGoes, false); !errors.Is(err, fault.NotFound) {
		t.Errorf("one that removes itself: %v", err)
	}
	if _, err := os.Stat(w.Containers.store.Dir(half)); err == nil {
		t.Error("a half-made one is left")
	}
	for _, id := range []string{lost, ended, stays} {
		if err := w.Containers.Restart(t.Context(), id, StopOptions{Timeout: new(0)}); err != nil {
			t.Error(err)
		}
	}
}
