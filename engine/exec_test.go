package engine

import (
	"errors"
	"strings"
	"testing"

	"berth/fault"

	api "github.com/moby/moby/api/types/container"
)

// Whose exec ends with its container still asks for its code.
func TestExecsOfAContainerThatEnds(t *testing.T) {
	w := newWorld(t)
	c := w.Containers
	id := w.create(nil, "sleep", "1000")
	w.start(id)
	var execs []string
	for range 2 {
		e, err := c.ExecCreate(t.Context(), id, api.ExecCreateRequest{Cmd: []string{"sleep", "1000"}, Tty: true})
		if err != nil {
			t.Fatal(err)
		}
		execs = append(execs, e)
	}
	ran, never := execs[0], execs[1]
	if err := c.ExecStart(t.Context(), ran, ExecStartRequest{}); err != nil {
		t.Fatal(err)
	}
	if err := c.Kill(t.Context(), id, ""); err != nil {
		t.Fatal(err)
	}
	w.wait(id, "")
	if d, err := c.ExecInspect(ran); err != nil || d.Running || d.ExitCode == nil || *d.ExitCode != 137 {
		t.Errorf("%+v, %v", d, err)
	}
	if err := c.ExecResize(t.Context(), ran, 4, 4); !errors.Is(err, fault.Conflict) || !strings.Contains(err.Error(), id+" is not running") {
		t.Errorf("%v", err)
	}
	if _, err := c.ExecInspect(never); !errors.Is(err, fault.NotFound) {
		t.Errorf("%v", err)
	}
	if d, err := c.Inspect(t.Context(), id, false); err != nil || len(d.ExecIDs) > 0 {
		t.Errorf("%v, %v", d.ExecIDs, err)
	}
	if err := c.Remove(t.Context(), id, RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ExecInspect(ran); !errors.Is(err, fault.NotFound) {
		t.Errorf("%v", err)
	}
}
