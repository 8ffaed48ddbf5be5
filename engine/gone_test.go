package engine

import (
	"errors"
	"strconv"
	"testing"

	"berth/fault"

	api "github.com/moby/moby/api/types/container"
)

// TestAWaitAfterTheRemoval: a client waits when its container of --rm has gone already.
func TestAWaitAfterTheRemoval(t *testing.T) {
	w := newWorld(t)
	id := w.create(func(r *CreateRequest) { r.HostConfig.AutoRemove = true }, "sh", "-c", "exit 6")
	removed, err := w.Containers.Wait(id, api.WaitConditionRemoved)
	if err != nil {
		t.Fatal(err)
	}
	defer removed.Close()
	w.start(id)
	receive(t, removed)
	late, err := w.Containers.Wait(id, api.WaitConditionNotRunning)
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	if code := receive(t, late); code != 6 {
		t.Errorf("code %d", code)
	}
	if _, err := w.Containers.Wait(id[:12], ""); !errors.Is(err, fault.NotFound) {
		t.Errorf("by a part of the ID, which another container may have: %v", err)
	}
}

func TestTheOldestCodesAreForgotten(t *testing.T) {
	var g gone
	for n := range keptCodes + 1 {
		g.put(strconv.Itoa(n), n)
	}
	if _, ok := g.get("0"); ok || len(g.codes) != keptCodes || len(g.order) != keptCodes {
		t.Errorf("%d codes, %d in order; the oldest is there: %v", len(g.codes), len(g.order), ok)
	}
	if code, ok := g.get(strconv.Itoa(keptCodes)); !ok || code != keptCodes {
		t.Errorf("the newest: %d, %v", code, ok)
	}
}
