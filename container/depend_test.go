package container

import (
	"errors"
	"strings"
	"testing"

	"berth/fault"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
)

func TestParseDependency(t *testing.T) {
	for in, want := range map[string]Need{
		"db": {Ref: "db", Until: Started, Told: true}, "/db:started": {Ref: "db", Until: Started, Told: true}, "db:healthy": {Ref: "db", Until: Ready, Told: true},
	} {
		if got, err := ParseDependency(in); err != nil || got != want {
			t.Errorf("%s: %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", ":started", "db:", "db:order", "db:healthy:x"} {
		if _, err := ParseDependency(in); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", in, err)
		}
	}
}

func TestNeeds(t *testing.T) {
	r := &Record{
		HostConfig: &container.HostConfig{
			NetworkMode: "container:net", IpcMode: "container:ipc", PidMode: "container:pid", Links: []string{"/linked:/web/alias", "other:o"}, VolumesFrom: []string{"data:ro"},
		},
		Settings: Settings{DependsOn: []string{"db:healthy", "cache"}},
	}
	want := []Need{
		{Ref: "net", Until: Started, Joins: true}, {Ref: "ipc", Until: Started, Joins: true}, {Ref: "pid", Until: Started, Joins: true},
		{Ref: "db", Until: Ready, Told: true}, {Ref: "cache", Until: Started, Told: true},
		{Ref: "linked", Until: InOrder}, {Ref: "other", Until: InOrder}, {Ref: "data", Until: InOrder},
	}
	if diff := cmp.Diff(want, Needs(r)); diff != "" {
		t.Error(diff)
	}
	if got := Needs(&Record{HostConfig: &container.HostConfig{NetworkMode: "bridge", PidMode: "host"}}); got != nil {
		t.Errorf("%+v", got)
	}
}

func TestMeets(t *testing.T) {
	healthy, ill := &container.Health{Status: container.Healthy}, &container.Health{Status: container.Unhealthy}
	for _, c := range []struct {
		until       Condition
		s           State
		met, coming bool
	}{
		{InOrder, State{Status: Restarting}, false, true},
		{InOrder, State{Status: Restarting, RestartCount: 1}, true, true},
		{InOrder, State{Status: Exited}, true, false},
		{Started, State{Status: Running}, true, false},
		{Started, State{Status: Paused}, true, false},
		{Started, State{Status: Restarting, RestartCount: 9}, false, true},
		{Started, State{Status: Exited}, false, false},
		{Started, State{Status: Created}, false, false},
		{Ready, State{Status: Running, Health: healthy}, true, true},
		{Ready, State{Status: Running, Health: ill}, false, true},
		{Ready, State{Status: Running}, false, false},
		{Ready, State{Status: Exited, Health: ill}, false, false},
		{Ready, State{Status: Restarting, Health: ill}, false, true},
	} {
		if met, coming := (Need{Until: c.until}).Meets(&Record{State: c.s}); met != c.met || !met && coming != c.coming {
			t.Errorf("%s, %+v: met %v, coming %v", c.until, c.s, met, coming)
		}
	}
}

func TestCycle(t *testing.T) {
	graph := map[string]string{"a": "b c", "b": "d", "c": "d", "d": "", "x": "y", "y": "z w", "z": "y", "w": "x", "s": "s"}
	needs := func(name string) []string { return strings.Fields(graph[name]) }
	for from, want := range map[string]string{"a": "", "d": "", "x": "x y w x", "y": "y z y", "s": "s s", "none": ""} {
		if got := strings.Join(Cycle(from, needs), " "); got != want {
			t.Errorf("%s: %s", from, got)
		}
	}
}

func FuzzDependency(f *testing.F) {
	for _, seed := range []string{"db", "/db:started", "db:healthy", ":", "a:b:c", "//"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, err := ParseDependency(text)
		if err != nil || n.Ref[0] == '/' { // no container has such a name
			return
		}
		if again, err := ParseDependency(n.Ref + ":" + string(n.Until)); err != nil || again != n {
			t.Errorf("%q: %+v, then %+v, %v", text, n, again, err)
		}
	})
}
