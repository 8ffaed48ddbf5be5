package engine

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"berth/container"
	"berth/fault"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
)

func policy(name api.RestartPolicyMode, most int) func(*CreateRequest) {
	return func(r *CreateRequest) {
		r.HostConfig.RestartPolicy = api.RestartPolicy{Name: name, MaximumRetryCount: most}
	}
}

// await waits until a container's record is as wanted.
func (w *world) await(id, what string, as func(*container.Record) bool) *container.Record {
	w.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		i, err := w.Containers.index.Get(id)
		if err != nil {
			w.t.Fatalf("%s: %v", what, err)
		}
		if r := i.record(); as(r) {
			return r
		} else if time.Now().After(deadline) {
			w.t.Fatalf("%s: %+v", what, r.State)
		}
	}
}

func (w *world) awaitStatus(id string, s container.Status) *container.Record {
	w.t.Helper()
	return w.await(id, "is not "+string(s), func(r *container.Record) bool { return r.State.Status == s })
}

// crash kills the first process behind the engine's back.
func (w *world) crash(id string) {
	w.t.Helper()
	i, err := w.Containers.index.Get(id)
	if err != nil {
		w.t.Fatal(err)
	}
	p, err := os.FindProcess(i.record().State.Pid)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		w.t.Fatal(err)
	}
}

// backoff brings a running container into a wait of a minute for its restart.
func (w *world) backoff(id string) {
	w.t.Helper()
	i, err := w.Containers.index.Get(id)
	if err != nil {
		w.t.Fatal(err)
	}
	i.op.Lock()
	r := i.record().Clone()
	r.State.RestartDelay = container.LongestDelay
	i.snap.Store(r)
	i.op.Unlock()
	w.crash(id)
	w.awaitStatus(id, container.Restarting)
}

// actions lists what was told of a container.
func (w *world) actions(id string) (all []string) {
	w.t.Helper()
	past, s, err := w.Events.Subscribe(EventsRequest{Since: time.Unix(0, 1), Filters: Filters{"container": {id}, "type": {"container"}}})
	if err != nil {
		w.t.Fatal(err)
	}
	s.Close()
	for m := range past {
		all = append(all, string(m.Action))
	}
	return all
}

func TestRestartOnFailureGivesUp(t *testing.T) {
	w := newWorld(t)
	id := w.create(policy("on-failure", 2), "sh", "-c", "echo run; exit 3")
	w.start(id)
	r := w.awaitStatus(id, container.Exited)
	if r.State.RestartCount != 2 || r.State.ExitCode != 3 || w.log(id) != "run\nrun\nrun\n" {
		t.Errorf("%+v, %q", r.State, w.log(id))
	}
	if got := strings.Join(w.actions(id), " "); got != "create start die start die start die" {
		t.Errorf("events: %s", got)
	}
	well := w.create(policy("on-failure", 0), "true")
	w.start(well)
	if r := w.awaitStatus(well, container.Exited); r.State.RestartCount != 0 {
		t.Errorf("%+v", r.State)
	}
}

func TestRestartAlwaysUntilStopped(t *testing.T) {
	w := newWorld(t)
	id := w.create(policy("always", 0), "sh", "-c", "sleep 0.02; exit 0")
	next, err := w.Containers.Wait(id, api.WaitConditionNextExit)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	w.start(id)
	if code := receive(t, next); code != 0 {
		t.Errorf("next exit: %d", code)
	}
	w.await(id, "was not restarted", func(r *container.Record) bool { return r.State.RestartCount >= 2 })
	if err := w.Containers.Stop(t.Context(), id, StopOptions{}); err != nil {
		t.Fatal(err)
	}
	r := w.awaitStatus(id, container.Exited)
	if !r.State.ManualStop {
		t.Errorf("%+v", r.State)
	}
	w.wait(id, "")
	// A start by hand begins to count anew.
	w.start(id)
	w.await(id, "did not count anew", func(r *container.Record) bool { return r.State.RestartCount == 1 && !r.State.ManualStop })
	if err := w.Containers.Kill(t.Context(), id, "TERM"); err != nil && !errors.Is(err, fault.Conflict) {
		t.Error(err)
	}
	w.awaitStatus(id, container.Exited)
}

func TestVerbsDuringTheWaitForARestart(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	c := w.Containers
	for name, do := range map[string]struct {
		verb func(id string) error
		want container.Status
		kind fault.Kind
	}{
		"stop":      {func(id string) error { return c.Stop(ctx, id, StopOptions{}) }, container.Exited, ""},
		"kill":      {func(id string) error { return c.Kill(ctx, id, "") }, container.Exited, ""},
		"hang up":   {func(id string) error { return c.Kill(ctx, id, "HUP") }, container.Restarting, fault.Conflict},
		"start":     {func(id string) error { return c.Start(ctx, id) }, container.Running, ""},
		"restart":   {func(id string) error { return c.Restart(ctx, id, StopOptions{}) }, container.Running, ""},
		"pause":     {func(id string) error { return c.Pause(ctx, id) }, container.Restarting, fault.Conflict},
		"remove":    {func(id string) error { return c.Remove(ctx, id, RemoveOptions{}) }, container.Restarting, fault.Conflict},
		"remove -f": {func(id string) error { return c.Remove(ctx, id, RemoveOptions{Force: true}) }, "", ""},
		"exec": {func(id string) error {
			_, err := c.ExecCreate(ctx, id, api.ExecCreateRequest{Cmd: []string{"true"}})
			return err
		}, container.Restarting, fault.Conflict},
		"policy no": {func(id string) error {
			r := UpdateRequest{}
			r.RestartPolicy.Name = "no"
			_, err := c.Update(ctx, id, r)
			return err
		}, container.Exited, ""},
		"policy unless-stopped": {func(id string) error {
			r := UpdateRequest{}
			r.RestartPolicy.Name = "unless-stopped"
			_, err := c.Update(ctx, id, r)
			return err
		}, container.Restarting, ""},
	} {
		t.Run(name, func(t *testing.T) {
			id := w.create(policy("always", 0), "sleep", "1000")
			w.start(id)
			w.backoff(id)
			waiter, err := c.Wait(id, "")
			if err != nil {
				t.Fatal(err)
			}
			defer waiter.Close()
			if err := do.verb(id); fault.Of(err) != do.kind {
				t.Errorf("%v", err)
			}
			if do.want == "" {
				if _, err := c.index.Get(id); !errors.Is(err, fault.NotFound) {
					t.Errorf("still there: %v", err)
				}
			} else if got := w.status(id); got != api.ContainerState(do.want) {
				t.Errorf("%s, want %s", got, do.want)
			}
			if do.want == container.Exited || do.want == "" {
				if code := receive(t, waiter); code != 137 {
					t.Errorf("code %d", code)
				}
			}
			if i, err := c.index.Get(id); err == nil {
				i.op.Lock()
				if (i.again != nil) != (i.record().State.Status == container.Restarting) {
					t.Error("a wait goes on for a container that does not need it, or the other way")
				}
				i.op.Unlock()
			}
		})
	}
}

// TestRestartSurvivesTheEngine ends the engine while containers wait for their restart, run, and rest.
func TestRestartSurvivesTheEngine(t *testing.T) {
	w := newWorld(t)
	long := []string{"sleep", "1000"}
	waits, due, stopped := w.create(policy("always", 0), long...), w.create(policy("on-failure", 0), long...), w.create(policy("unless-stopped", 0), long...)
	always, never := w.create(policy("always", 0), long...), w.create(policy("always", 0), long...)
	endsMeanwhile, rests := w.create(policy("always", 0), long...), w.create(policy("on-failure", 0), long...)
	for _, id := range []string{waits, due, stopped, always, endsMeanwhile, rests} {
		w.start(id)
	}
	w.backoff(waits)
	w.backoff(due)
	for _, id := range []string{stopped, always, rests} {
		if err := w.Containers.Stop(t.Context(), id, StopOptions{Timeout: new(0)}); err != nil {
			t.Fatal(err)
		}
	}
	// The time of one of them comes while there is no engine.
	i, err := w.Containers.index.Get(due)
	if err != nil {
		t.Fatal(err)
	}
	i.op.Lock()
	r := i.record().Clone()
	r.State.RestartAt = time.Now().Add(-time.Second)
	if err := w.Containers.saveState(i, r); err != nil {
		t.Fatal(err)
	}
	i.op.Unlock()
	pid := w.awaitStatus(endsMeanwhile, container.Running).State.Pid
	if err := w.Engine.Close(); err != nil {
		t.Fatal(err)
	}
	p, err := os.FindProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	p.Kill()
	awaitGone(t, pid)
	w.open()
	for _, id := range []string{due, always, endsMeanwhile} {
		w.awaitStatus(id, container.Running)
	}
	if got := w.awaitStatus(endsMeanwhile, container.Running).State.RestartCount; got != 1 {
		t.Errorf("one that ended meanwhile has count %d", got)
	}
	for id, want := range map[string]container.Status{waits: container.Restarting, stopped: container.Exited, rests: container.Exited, never: container.Created} {
		if r := w.awaitStatus(id, want); want == container.Restarting && r.State.RestartCount != 1 {
			t.Errorf("%+v", r.State)
		}
	}
	if all := w.actions(endsMeanwhile); !slices.Contains(all, string(events.ActionDie)) || !slices.Contains(all, string(events.ActionStart)) {
		t.Errorf("events: %v", all)
	}
}

func TestAFailedRestartIsTriedAgain(t *testing.T) {
	w := newWorld(t)
	owner := w.create(nil, "sleep", "1000")
	w.start(owner)
	id := w.create(func(r *CreateRequest) {
		policy("always", 0)(r)
		r.HostConfig.NetworkMode = api.NetworkMode("container:" + owner)
	}, "sleep", "1000")
	w.start(id)
	if err := w.Containers.Kill(t.Context(), owner, ""); err != nil {
		t.Fatal(err)
	}
	w.crash(id)
	w.await(id, "no failed tries", func(r *container.Record) bool {
		return r.State.RestartCount >= 2 && strings.Contains(r.State.Error, "non running container")
	})
	w.start(owner)
	if r := w.awaitStatus(id, container.Running); r.State.Error != "" {
		t.Errorf("%+v", r.State)
	}
}

func TestRestartPolicyAndRemovalAtTheEndExclude(t *testing.T) {
	w := newWorld(t)
	r := CreateRequest{Config: &api.Config{Image: "busybox"}, HostConfig: &api.HostConfig{AutoRemove: true}}
	policy("always", 0)(&r)
	if _, _, err := w.Containers.Create(t.Context(), "", r); !errors.Is(err, fault.Invalid) || err.Error() != "can't create 'AutoRemove' container with restart policy" {
		t.Errorf("%v", err)
	}
	id := w.create(func(r *CreateRequest) { r.HostConfig.AutoRemove = true }, "true")
	u := UpdateRequest{}
	u.RestartPolicy.Name = "always"
	_, err := w.Containers.Update(t.Context(), id, u)
	if want := "Cannot update container " + id + ": Restart policy cannot be updated because AutoRemove is enabled for the container"; !errors.Is(err, fault.Conflict) || err.Error() != want {
		t.Errorf("%v", err)
	}
}
