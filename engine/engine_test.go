package engine

import (
	"errors"
	"strings"
	"testing"

	"berth/fault"

	api "github.com/moby/moby/api/types/container"
)

func TestRunInForeground(t *testing.T) {
	w := newWorld(t)
	got := w.run(nil, "sh", "-c", "echo out; echo err >&2; exit 7")
	if got.code != 7 || got.out != "out\n" || got.errOut != "err\n" {
		t.Errorf("%+v", got)
	}
	if list, err := w.Containers.List(t.Context(), ListRequest{All: true}); err != nil || len(list) != 0 {
		t.Errorf("left: %+v, %v", list, err)
	}
	id := w.create(nil, "true")
	w.start(id)
	if code := w.wait(id, ""); code != 0 {
		t.Errorf("true: %d", code)
	}
	d, err := w.Containers.Inspect(t.Context(), id[:12], false)
	if err != nil || d.State.Status != api.StateExited || d.State.ExitCode != 0 || d.State.Running || d.State.Pid != 0 {
		t.Errorf("%+v, %v", d.State, err)
	}
	w.start(id)
	w.wait(id, "")
}

func TestStartFailures(t *testing.T) {
	w := newWorld(t)
	for program, want := range map[string]struct {
		code int
		text string
	}{
		"nothing-here": {127, `exec: "nothing-here": executable file not found in $PATH`},
		"/bin/none":    {127, `exec: "/bin/none": stat /bin/none: no such file or directory`},
		"/bin/data":    {126, "permission denied"},
	} {
		id := w.create(nil, program)
		err := w.Containers.Start(t.Context(), id)
		if !errors.Is(err, fault.Invalid) || !strings.HasPrefix(err.Error(), startPrefix) || !strings.Contains(err.Error(), want.text) {
			t.Errorf("%s: %v", program, err)
		}
		d, err := w.Containers.Inspect(t.Context(), id, false)
		if err != nil || d.State.Status != api.StateCreated || d.State.ExitCode != want.code || !strings.Contains(d.State.Error, want.text) {
			t.Errorf("%s: %+v, %v", program, d.State, err)
		}
	}
}

func TestOneEnginePerDataRoot(t *testing.T) {
	w := newWorld(t)
	if e, err := Open(t.Context(), w.config); !errors.Is(err, fault.Conflict) {
		t.Errorf("a second engine: %v", err)
		if e != nil {
			e.Close()
		}
	}
	if got := w.run(nil, "true"); got.code != 0 {
		t.Errorf("the first one is disturbed: %+v", got)
	}
	if _, err := Open(t.Context(), Config{DataRoot: "here", ExecRoot: "/x"}); !errors.Is(err, fault.Invalid) {
		t.Errorf("a relative root: %v", err)
	}
}
