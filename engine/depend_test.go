package engine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"berth/container"
	"berth/fault"

	api "github.com/moby/moby/api/types/container"
)

// named makes a container with a name that sleeps.
func (w *world) named(name string, change func(*CreateRequest)) string {
	w.t.Helper()
	r := CreateRequest{Config: &api.Config{Image: "busybox", Cmd: []string{"sleep", "1000"}}, HostConfig: &api.HostConfig{NetworkMode: "none"}}
	if change != nil {
		change(&r)
	}
	id, _, err := w.Containers.Create(w.t.Context(), name, r)
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

func dependsOn(names ...string) func(*CreateRequest) {
	return func(r *CreateRequest) { r.Settings.DependsOn = names }
}

// TestTheEngineStartsInOrder brings a stack of containers down while there is no engine.
func TestTheEngineStartsInOrder(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	always := policy("always", 0)
	db := w.named("db", func(r *CreateRequest) {
		checked("[ -e /signal/ready ]", always)(r)
		r.HostConfig.Binds = []string{dir + ":/signal"}
	})
	// Made in an order that does not help.
	web := w.named("web", func(r *CreateRequest) { always(r); dependsOn("db:healthy")(r) })
	proxy := w.named("proxy", func(r *CreateRequest) { always(r); r.HostConfig.NetworkMode = api.NetworkMode("container:" + web) })
	extra := w.named("extra", func(r *CreateRequest) { always(r); dependsOn("proxy")(r); r.HostConfig.VolumesFrom = []string{"db"} })
	if err := os.WriteFile(dir+"/ready", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	all := []string{db, web, proxy, extra}
	for _, id := range all {
		w.start(id)
	}
	var pids []int
	for _, id := range all {
		pids = append(pids, w.awaitStatus(id, container.Running).State.Pid)
	}
	if err := os.Remove(dir + "/ready"); err != nil {
		t.Fatal(err)
	}
	if err := w.Engine.Close(); err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		if p, err := os.FindProcess(pid); err == nil {
			p.Kill()
		}
		awaitGone(t, pid)
	}
	w.open()
	w.awaitHealth(db, api.Unhealthy)
	for _, id := range all[1:] {
		if s := w.status(id); s != api.StateRestarting {
			t.Errorf("before the first one is healthy: %s", s)
		}
	}
	if err := os.WriteFile(dir+"/ready", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	var last time.Time
	for _, id := range all {
		r := w.awaitStatus(id, container.Running)
		if r.State.StartedAt.Before(last) {
			t.Errorf("%s was started too early", r.Name)
		}
		last = r.State.StartedAt
	}
}

// TestAReboot takes the run state away with the processes, as a power cut does.
func TestAReboot(t *testing.T) {
	w := newWorld(t)
	always, failure := w.named("always", policy("always", 0)), w.named("failure", policy("on-failure", 5))
	unless, none := w.named("unless", policy("unless-stopped", 0)), w.named("none", nil)
	var pids []int
	for _, id := range []string{always, failure, unless, none} {
		w.start(id)
		pids = append(pids, w.awaitStatus(id, container.Running).State.Pid)
	}
	must(t, w.Containers.Stop(t.Context(), unless, StopOptions{Timeout: new(0)}), w.Engine.Close())
	for _, pid := range pids {
		if p, err := os.FindProcess(pid); err == nil {
			p.Kill()
		}
		awaitGone(t, pid)
	}
	w.settled()
	must(t, os.RemoveAll(filepath.Join(w.config.ExecRoot, "containers")))
	w.open()
	for id, want := range map[string]container.Status{always: container.Running, failure: container.Running, unless: container.Exited, none: container.Exited} {
		r := w.awaitStatus(id, want)
		if want == container.Running && r.State.RestartCount != 0 || id == none && r.State.ExitCode != 255 {
			t.Errorf("%s: %+v", r.Name, r.State)
		}
	}
}

// settled waits until the supervisors of containers that have ended are gone.
func (w *world) settled() {
	w.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		left, err := filepath.Glob(filepath.Join(w.config.ExecRoot, "containers", "*", "exit.json"))
		all, _ := filepath.Glob(filepath.Join(w.config.ExecRoot, "containers", "*"))
		if err == nil && len(left) == len(all) {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("%d of %d supervisors have recorded an exit", len(left), len(all))
		}
	}
}

// TestWhatNobodyBringsIsNotWaitedFor: the engine's start goes on past needs that can't be met, and past rings.
func TestWhatNobodyBringsIsNotWaitedFor(t *testing.T) {
	w := newWorld(t)
	always := policy("always", 0)
	rests := w.named("rests", nil)
	a := w.named("aa", func(r *CreateRequest) { always(r); dependsOn("rests:healthy")(r) })
	b := w.named("bb", func(r *CreateRequest) { always(r); dependsOn("aa:healthy")(r) })
	w.start(rests) // has no health check
	if err := w.Containers.Start(t.Context(), a); !errors.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "has no health check") {
		t.Errorf("%v", err)
	}
	// A ring can only come to be by a rename.
	for _, id := range []string{a, b} {
		i, _ := w.Containers.index.Get(id)
		i.op.Lock()
		r := i.record().Clone()
		r.Settings.DependsOn = []string{map[string]string{a: "bb", b: "aa"}[id]}
		r.State.Status, r.State.StartedAt = container.Exited, time.Now()
		if err := errors.Join(w.Containers.store.Save(r), w.Containers.saveState(i, r)); err != nil {
			t.Fatal(err)
		}
		i.op.Unlock()
	}
	if err := w.Containers.Start(t.Context(), a); !errors.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "they need each other: aa needs bb needs aa") {
		t.Errorf("%v", err)
	}
	if err := w.Engine.Close(); err != nil {
		t.Fatal(err)
	}
	w.open()
	w.awaitStatus(a, container.Running)
	w.awaitStatus(b, container.Running)
}

func TestAStartBringsWhatItDependsOn(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	db := w.named("db", func(r *CreateRequest) {
		checked("[ -e /signal/ready ]", nil)(r)
		r.HostConfig.Binds = []string{dir + ":/signal"}
		r.Config.Healthcheck.Retries = 10000
	})
	cache := w.named("cache", nil)
	web := w.named("web", dependsOn("cache", "db:healthy"))
	front := w.named("front", dependsOn("/web"))
	started := make(chan error, 1)
	go func() { started <- w.Containers.Start(context.Background(), front) }()
	w.awaitStatus(cache, container.Running)
	w.await(db, "is not asked", func(r *container.Record) bool { return r.State.Health != nil && len(r.State.Health.Log) > 0 })
	if s := w.status(web); s != api.StateCreated {
		t.Errorf("before db is healthy: %s", s)
	}
	if err := os.WriteFile(dir+"/ready", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{web, front} {
		if s := w.status(id); s != api.StateRunning {
			t.Errorf("%s", s)
		}
	}
	// A client that leaves ends the wait, and one that comes to nothing says why.
	for _, id := range []string{front, web, db} {
		if err := w.Containers.Stop(t.Context(), id, StopOptions{Timeout: new(0)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(dir + "/ready"); err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(t.Context())
	go func() { started <- w.Containers.Start(ctx, web) }()
	w.awaitStatus(db, container.Running)
	leave()
	if err := <-started; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	go func() { started <- w.Containers.Start(t.Context(), web) }()
	w.await(db, "is not waited for", func(*container.Record) bool { return w.Events.Listeners() > 0 })
	if err := w.Containers.Kill(t.Context(), db, ""); err != nil {
		t.Fatal(err)
	}
	if err := <-started; !errors.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "container db is exited, unhealthy") {
		t.Errorf("%v", err)
	}
}

func TestDependenciesAreChecked(t *testing.T) {
	w := newWorld(t)
	create := func(name string, on ...string) error {
		r := CreateRequest{Config: &api.Config{Image: "busybox"}}
		dependsOn(on...)(&r)
		_, _, err := w.Containers.Create(t.Context(), name, r)
		return err
	}
	for _, on := range []string{"nobody", "x:sometime"} {
		if err := create("web", on); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", on, err)
		}
	}
	a := w.named("aa", nil)
	w.named("bb", dependsOn("aa"))
	if err := w.Containers.Remove(t.Context(), a, RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := create("aa", "bb"); !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "the container would depend on itself: aa needs bb needs aa") {
		t.Errorf("%v", err)
	}
}

// TestJoinedContainersFollow: a container that lives in another's network is started anew with it.
func TestJoinedContainersFollow(t *testing.T) {
	w := newWorld(t)
	owner := w.named("owner", policy("always", 0))
	w.start(owner)
	joined := w.named("joined", func(r *CreateRequest) { r.HostConfig.NetworkMode = "container:owner" })
	other := w.named("other", dependsOn("owner"))
	w.start(joined)
	w.start(other)
	namespaces := func() bool {
		a, errA := os.Readlink(netOf(w, owner))
		b, errB := os.Readlink(netOf(w, joined))
		return errA == nil && errB == nil && a == b
	}
	before := w.awaitStatus(other, container.Running).State.StartedAt
	if err := w.Containers.Restart(t.Context(), owner, StopOptions{Timeout: new(0)}); err != nil {
		t.Fatal(err)
	}
	w.await(joined, "is cut off", func(r *container.Record) bool { return r.State.Status == container.Running && namespaces() })
	w.crash(owner)
	w.await(owner, "is not restarted", func(r *container.Record) bool {
		return r.State.RestartCount == 1 && r.State.Status == container.Running
	})
	w.await(joined, "is cut off", func(r *container.Record) bool { return r.State.Status == container.Running && namespaces() })
	if r := w.awaitStatus(other, container.Running); r.State.StartedAt != before {
		t.Error("one that only depends on it was restarted")
	}
}

func netOf(w *world, id string) string {
	i, err := w.Containers.index.Get(id)
	if err != nil {
		w.t.Fatal(err)
	}
	return "/proc/" + strconv.Itoa(i.record().State.Pid) + "/ns/net"
}
