package engine

import (
	"testing"

	"berth/fault"
)

// A program that was started a moment ago has no handler yet, and is not killed for that.
func TestStopOfAYoungProgram(t *testing.T) {
	w := newWorld(t)
	heard := 0
	for range 10 {
		id := w.create(nil, "sh", "-c", "sleep 0.03; trap 'exit 5' TERM; while :; do sleep 0.02; done")
		w.start(id)
		if err := w.Containers.Stop(t.Context(), id, StopOptions{}); err != nil && fault.Of(err) != fault.NotModified {
			t.Fatal(err)
		}
		if w.wait(id, "") == 5 {
			heard++
		}
	}
	if heard < 5 { // a slow machine may need longer than it is given
		t.Errorf("%d of 10 could end by themselves", heard)
	}
}
