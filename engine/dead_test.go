package engine

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"berth/container"
	"berth/fault"

	api "github.com/moby/moby/api/types/container"
)

// TestARemovalThatFails makes the record undeletable: the container is dead, says why, can only be removed again, and that works
// when the cause is gone, by a user or by the next engine.
func TestARemovalThatFails(t *testing.T) {
	w := newWorld(t)
	c, ctx := w.Containers, t.Context()
	block := func(id string) (unblock func()) {
		record := filepath.Join(c.store.Dir(id), "record.json")
		must(t, os.Rename(record, record+".kept"), os.MkdirAll(filepath.Join(record, "x"), 0o700))
		return func() { must(t, os.RemoveAll(record), os.Rename(record+".kept", record)) }
	}
	one, two := w.create(policy("always", 0), "sleep", "1000"), w.create(nil, "true")
	w.start(one)
	unblock, unblockTwo := block(one), block(two)
	for _, id := range []string{one, two} {
		if err := c.Remove(ctx, id, RemoveOptions{Force: true}); err == nil {
			t.Error("removed")
		}
		d, err := c.Inspect(ctx, id, false)
		if err != nil || d.State.Status != api.StateDead || !d.State.Dead || d.State.Running || d.State.Restarting || d.State.Error == "" || d.State.Pid != 0 {
			t.Errorf("%+v, %v", d.State, err)
		}
		list, err := c.List(ctx, ListRequest{All: true, Filters: Filters{"id": {id}, "status": {"dead"}}})
		if err != nil || len(list) != 1 || list[0].Status != "Dead" {
			t.Errorf("%+v, %v", list, err)
		}
		for verb, err := range map[string]error{
			"start": c.Start(ctx, id), "restart": c.Restart(ctx, id, StopOptions{}), "rename": c.Rename(ctx, id, "other"), "pause": c.Pause(ctx, id), "kill": c.Kill(ctx, id, ""),
		} {
			if !errors.Is(err, fault.Conflict) {
				t.Errorf("%s: %v", verb, err)
			}
		}
		if err := c.Stop(ctx, id, StopOptions{}); !errors.Is(err, fault.NotModified) {
			t.Errorf("stop: %v", err)
		}
	}
	unblock()
	must(t, c.Remove(ctx, one, RemoveOptions{}))
	if _, err := c.Inspect(ctx, one, false); !errors.Is(err, fault.NotFound) {
		t.Error(err)
	}
	must(t, w.Engine.Close())
	unblockTwo()
	w.open()
	if _, err := w.Containers.Inspect(ctx, two, false); !errors.Is(err, fault.NotFound) {
		t.Error(err)
	}
}

// TestRemovingIsSeen: while a removal is under way it is shown as such, and nothing else begins.
func TestRemovingIsSeen(t *testing.T) {
	w := newWorld(t)
	c, ctx := w.Containers, t.Context()
	id := w.create(policy("always", 0), "true")
	i, err := c.index.Get(id)
	must(t, err)
	i.op.Lock()
	r := i.record().Clone()
	r.State.Status = container.Removing
	i.snap.Store(r)
	i.op.Unlock()
	if s := w.status(id); s != api.StateRemoving {
		t.Errorf("%s", s)
	}
	for verb, err := range map[string]error{"start": c.Start(ctx, id), "restart": c.Restart(ctx, id, StopOptions{}), "remove": c.Remove(ctx, id, RemoveOptions{})} {
		if !errors.Is(err, fault.Conflict) {
			t.Errorf("%s: %v", verb, err)
		}
	}
	must(t, c.Remove(ctx, id, RemoveOptions{Force: true})) // it went by itself
	i.op.Lock()
	r = r.Clone()
	r.State.Status = container.Created
	i.snap.Store(r)
	i.op.Unlock()
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}
