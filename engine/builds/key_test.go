package builds

import (
	"context"
	"testing"

	"berth/build"

	"github.com/docker/go-units"
)

// TestExcludedFilesAreThoseThatAreNotCopied changes a file whose path in the context an exclusion names, and whose path below the source it
// does not: the file is copied, so that the step is done again.
func TestExcludedFilesAreThoseThatAreNotCopied(t *testing.T) {
	w := newWorld(t)
	o := Options{Text: []byte("FROM scratch\nCOPY --exclude=src/keep --exclude=gone src/ /out/\n")}
	for _, text := range []string{"one", "two"} {
		c := w.client(map[string]string{"src/keep": text, "src/gone": "left out"})
		w.built(o, c, Output{Name: "0", Type: "tar", Attrs: map[string]string{}})
		if _, files := w.members(c.outs["0"].Bytes()); files["out/keep"] != text || files["out/gone"] != "" {
			t.Errorf("with %q there is %q", text, files)
		}
	}
}

// TestProgramsAreRunAgainInOtherSurroundings counts runs.
func TestProgramsAreRunAgainInOtherSurroundings(t *testing.T) {
	w := newWorld(t)
	runs := 0
	w.Builder.Run = func(context.Context, build.Program) (int, error) { runs++; return 0, nil }
	for k, c := range []struct {
		settings build.Settings
		again    bool
	}{
		{build.Settings{}, true},
		{build.Settings{}, false},
		{build.Settings{Hosts: []string{"a:10.0.0.1"}}, true},
		{build.Settings{Hosts: []string{"a:10.0.0.2"}}, true},
		{build.Settings{Hosts: []string{"a:10.0.0.2"}, Memory: 1 << 30, CPUShares: 7}, false},
		{build.Settings{Ulimits: []*units.Ulimit{{Name: "nofile", Soft: 1, Hard: 2}}}, true},
		{build.Settings{Ulimits: []*units.Ulimit{{Name: "nofile", Soft: 2, Hard: 2}}}, true},
		{build.Settings{ShmSize: 1 << 20}, true},
		{build.Settings{SecurityOpt: []string{"seccomp=unconfined"}}, true},
		{build.Settings{Ulimits: []*units.Ulimit{}, Hosts: []string{}}, false},
	} {
		before := runs
		w.built(Options{Text: []byte("FROM scratch\nRUN [\"x\"]\n"), Settings: c.settings}, w.client(nil), Output{Name: "0", Type: "cacheonly"})
		if again := runs != before; again != c.again {
			t.Errorf("%d: %+v: run again: %v", k, c.settings, again)
		}
	}
}

// TestMountsHaveAnOrder turns two mounts around, of which one lies in the other.
func TestMountsHaveAnOrder(t *testing.T) {
	w := newWorld(t)
	runs := 0
	w.Builder.Run = func(context.Context, build.Program) (int, error) { runs++; return 0, nil }
	outer, inner := "--mount=type=tmpfs,target=/a", "--mount=type=tmpfs,target=/a/b"
	for want, mounts := range []string{outer + " " + inner, inner + " " + outer} {
		for range 2 {
			w.built(Options{Text: []byte("FROM scratch\nRUN " + mounts + " [\"x\"]\n")}, w.client(nil), Output{Name: "0", Type: "cacheonly"})
		}
		if runs != want+1 {
			t.Errorf("%s: %d runs", mounts, runs)
		}
	}
}
