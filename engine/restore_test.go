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
	"berth/oci"

	api "github.com/moby/moby/api/types/container"
)

func TestPlan(t *testing.T) {
	const immediately = -1
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	record := func(s container.Status, auto bool) *container.Record {
		return &container.Record{HostConfig: &api.HostConfig{AutoRemove: auto}, State: container.State{Status: s, Pid: 7, RemoveVolumes: s == container.Removing}}
	}
	restarts := func(s container.Status, policy api.RestartPolicyMode, manual bool) *container.Record {
		r := record(s, false)
		r.HostConfig.RestartPolicy.Name = policy
		r.State.StartedAt, r.State.ManualStop, r.State.RestartDelay = now.Add(-2*time.Hour), manual, time.Minute
		return r
	}
	exit := &oci.Exit{Code: 3, OOMKilled: true, At: now.Add(-time.Hour)}
	for name, c := range map[string]struct {
		o        observed
		want     action
		code     int
		stopShim bool
		volumes  bool
		again    time.Duration // after which its policy starts it, or 0
	}{
		"always, ended meanwhile":           {o: observed{record: restarts(container.Running, "always", false), root: true, shim: deadShim, exit: exit}, want: finish, code: 3, again: container.FirstDelay},
		"always, stopped meanwhile":         {o: observed{record: restarts(container.Running, "always", true), root: true, shim: deadShim, exit: exit}, want: finish, code: 3, again: immediately},
		"unless-stopped, stopped meanwhile": {o: observed{record: restarts(container.Running, "unless-stopped", true), root: true, shim: deadShim, exit: exit}, want: finish, code: 3},
		"unless-stopped, supervisor killed": {o: observed{record: restarts(container.Running, "unless-stopped", false), root: true, shim: deadShim}, want: finish, code: 137, again: container.FirstDelay},
		"on-failure, rebooted":              {o: observed{record: restarts(container.Running, "on-failure", false), root: true}, want: finish, code: 255, again: immediately},
		"on-failure, stopped and rebooted":  {o: observed{record: restarts(container.Running, "on-failure", true), root: true}, want: finish, code: 255},
		"always, rested":                    {o: observed{record: restarts(container.Exited, "always", true), root: true}, want: finish, again: immediately},
		"unless-stopped, rested":            {o: observed{record: restarts(container.Exited, "unless-stopped", false), root: true}, want: finish, again: immediately},
		"unless-stopped, stopped":           {o: observed{record: restarts(container.Exited, "unless-stopped", true), root: true}, want: keep},
		"waiting for its restart":           {o: observed{record: restarts(container.Restarting, "always", false), root: true}, want: keep},
		"its restart was not announced":     {o: observed{record: restarts(container.Restarting, "always", false), root: true, shim: aliveShim}, want: keep, stopShim: true},
		"rested, with a supervisor left":    {o: observed{record: restarts(container.Exited, "always", false), root: true, shim: aliveShim}, want: finish, stopShim: true, again: immediately},

		"unreadable":                       {o: observed{broken: errors.New("x"), root: true, shim: aliveShim}, want: leave},
		"a root alone":                     {o: observed{root: true}, want: sweep},
		"a supervisor alone":               {o: observed{shim: aliveShim}, want: sweep, stopShim: true},
		"a record without root":            {o: observed{record: record(container.Created, false)}, want: sweep},
		"created":                          {o: observed{record: record(container.Created, false), root: true}, want: keep},
		"created, gone with its engine":    {o: observed{record: record(container.Created, true), root: true}, want: remove, volumes: true},
		"started, not announced":           {o: observed{record: record(container.Created, false), root: true, shim: aliveShim}, want: keep, stopShim: true},
		"running":                          {o: observed{record: record(container.Running, false), root: true, shim: aliveShim}, want: adopt},
		"running, removes itself":          {o: observed{record: record(container.Running, true), root: true, shim: aliveShim}, want: adopt},
		"paused":                           {o: observed{record: record(container.Paused, false), root: true, shim: aliveShim}, want: adopt},
		"ended meanwhile":                  {o: observed{record: record(container.Running, false), root: true, shim: deadShim, exit: exit}, want: finish, code: 3},
		"supervisor killed":                {o: observed{record: record(container.Running, false), root: true, shim: deadShim}, want: finish, code: 137},
		"rebooted":                         {o: observed{record: record(container.Paused, false), root: true}, want: finish, code: 255},
		"ended meanwhile, removes itself":  {o: observed{record: record(container.Running, true), root: true, shim: deadShim, exit: exit}, want: remove, code: 3, volumes: true},
		"exited":                           {o: observed{record: record(container.Exited, false), root: true, shim: deadShim, exit: exit}, want: keep},
		"exited, not yet removed":          {o: observed{record: record(container.Exited, true), root: true}, want: remove, volumes: true},
		"half removed":                     {o: observed{record: record(container.Removing, false), root: true}, want: remove, volumes: true},
		"dead":                             {o: observed{record: record(container.Dead, false), root: true}, want: remove},
		"dead, with a supervisor left":     {o: observed{record: record(container.Dead, false), root: true, shim: aliveShim}, want: remove, stopShim: true},
		"a half-made one with a dead shim": {o: observed{root: true, shim: deadShim}, want: sweep},
	} {
		t.Run(name, func(t *testing.T) {
			got := plan(c.o, now)
			if got.action != c.want || got.stopShim != c.stopShim || got.volumes != c.volumes || got.state.ExitCode != c.code {
				t.Errorf("%+v", got)
			}
			if c.again != 0 {
				if got.state.Status != container.Restarting || got.state.RestartDelay != max(0, c.again) || got.state.Wait(now.Add(-time.Hour)) != max(0, c.again) {
					t.Errorf("state %+v", got.state)
				}
				return
			}
			if c.code != 0 && (got.state.Status != container.Exited || got.state.Pid != 0 || got.state.FinishedAt.IsZero()) {
				t.Errorf("state %+v", got.state)
			}
		})
	}
}

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
