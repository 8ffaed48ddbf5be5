package container

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"berth/fault"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
)

var update = flag.Bool("update", false, "print doc/states.md anew")

func TestEveryPairOfStateAndEvent(t *testing.T) {
	allowed := map[string]string{
		"created start": "running", "created fail": "created", "created remove": "removing",
		"running exit": "exited", "running pause": "paused", "running restart": "restarting",
		"paused unpause": "running", "paused exit": "exited", "paused restart": "restarting",
		"restarting start": "running", "restarting fail": "exited", "restarting exit": "exited", "restarting restart": "restarting",
		"exited start": "running", "exited fail": "exited", "exited restart": "restarting", "exited remove": "removing",
		"removing remove failed": "dead", "dead remove": "removing",
	}
	for _, s := range append(Statuses(), "") {
		for _, e := range Events() {
			got, err := Next(s, e)
			want, ok := allowed[string(s)+" "+string(e)]
			if ok && (err != nil || string(got) != want) {
				t.Errorf("%s + %s: %s, %v; want %s", s, e, got, err, want)
			}
			if !ok && (!errors.Is(err, fault.Conflict) || got != s) {
				t.Errorf("%s + %s: %s, %v; want a conflict", s, e, got, err)
			}
		}
	}
}

func TestStatesPageIsPrintedFromTheTable(t *testing.T) {
	const page = "../doc/states.md"
	if *update {
		if err := os.WriteFile(page, []byte(Page()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Page(), string(got)); diff != "" {
		t.Errorf("run go test ./container -update:\n%s", diff)
	}
}

func TestNames(t *testing.T) {
	for _, name := range []string{"web", "/web", "a.b-c_d", "0x"} {
		if got, err := CheckName(name); err != nil || got != strings.TrimPrefix(name, "/") {
			t.Errorf("%q: %q, %v", name, got, err)
		}
	}
	for _, name := range []string{"", "x", "/", "-ab", "a b", "ä1", "a/b", "//ab", "ab\n"} {
		_, err := CheckName(name)
		want := "Invalid container name (" + name + "), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
		if !errors.Is(err, fault.Invalid) || err.Error() != want {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, words := range [][]string{adjectives(), surnames()} {
		sorted := slices.Compact(slices.Sorted(slices.Values(words)))
		if len(sorted) != len(words) || len(words) < 100 {
			t.Errorf("%d words, %d different", len(words), len(sorted))
		}
		for _, w := range words {
			if _, err := CheckName(w); err != nil || strings.ToLower(w) != w || strings.Contains(w, "_") {
				t.Errorf("%q is no word of a name", w)
			}
		}
	}
}

func TestIndex(t *testing.T) {
	x := NewIndex[int]()
	a, b := "aa11"+strings.Repeat("0", 60), "aa22"+strings.Repeat("0", 60)
	if err := x.Reserve("web", a); err != nil {
		t.Fatal(err)
	}
	if _, err := x.Get("web"); !errors.Is(err, fault.NotFound) {
		t.Errorf("a reserved name is visible: %v", err)
	}
	x.Add(a, 1)
	x.Add(b, 2)
	err := x.Reserve("web", b)
	if want := `Conflict. The container name "/web" is already in use by container "` + a + `". You have to remove (or rename) that container to be able to reuse that name.`; err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
	for ref, want := range map[string]int{a: 1, b: 2, "web": 1, "/web": 1, "aa1": 1, "aa2": 2} {
		if got, err := x.Get(ref); got != want || err != nil {
			t.Errorf("%s: %d, %v; want %d", ref, got, err, want)
		}
	}
	for _, ref := range []string{"", "x", "ab", "aa3"} {
		if _, err := x.Get(ref); !errors.Is(err, fault.NotFound) || err.Error() != "No such container: "+ref {
			t.Errorf("%q: %v", ref, err)
		}
	}
	if _, err := x.Get("aa"); !errors.Is(err, fault.Invalid) {
		t.Errorf("an ambiguous prefix: %v", err)
	}
	x.Remove(a, "web")
	if _, err := x.Get("web"); err == nil {
		t.Error("removed, yet found")
	}
	if name := x.ReserveRandom(a); x.Reserve(name, b) == nil {
		t.Error("a random name is not held")
	}
	if all := x.All(); !slices.Equal(all, []int{2}) {
		t.Errorf("all: %v", all)
	}
}

func TestRandomNamesNeverRunOut(t *testing.T) {
	x := NewIndex[int]()
	seen := map[string]bool{}
	for range 3 * len(adjectives()) * len(surnames()) / 2 {
		name := x.ReserveRandom(NewID())
		if seen[name] {
			t.Fatalf("%s twice", name)
		}
		seen[name] = true
	}
}

func TestStore(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := &Record{
		Schema: Schema, ID: NewID(), Name: "web", Created: time.Now().UTC().Round(0), Path: "sh", Args: []string{"-c", "x"},
		Config:     &container.Config{Image: "busybox", Cmd: []string{"sh"}, Labels: map[string]string{"a": "b"}},
		HostConfig: &container.HostConfig{AutoRemove: true, Resources: container.Resources{Memory: 1 << 20}},
		State:      State{Status: Created},
	}
	if err := errors.Join(s.Create(want.ID), s.Save(want)); err != nil {
		t.Fatal(err)
	}
	check := func(when string) {
		t.Helper()
		got, err := s.Load(want.ID)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported()); diff != "" {
			t.Errorf("%s:\n%s", when, diff)
		}
	}
	check("never started")
	want.State = State{Status: Running, Pid: 7, StartedAt: want.Created, Attachment: jsonRaw(`{"ID":"x"}`)}
	if err := s.SaveState(want); err != nil {
		t.Fatal(err)
	}
	check("running")

	os.WriteFile(filepath.Join(s.Dir(want.ID), stateFile), nil, 0o600)
	if got, err := s.Load(want.ID); err != nil || got.State.Status != Exited || got.State.ExitCode != 255 {
		t.Errorf("an empty state: %+v, %v", got, err)
	}
	os.WriteFile(filepath.Join(s.Dir(want.ID), recordFile), []byte("{}"), 0o600)
	if _, err := s.Load(want.ID); !errors.Is(err, fault.Corrupt) {
		t.Errorf("an empty record: %v", err)
	}
	if err := s.Forget(want.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load(want.ID); !errors.Is(err, fault.NotFound) {
		t.Errorf("forgotten: %v", err)
	}
	if ids, err := s.List(); err != nil || !slices.Equal(ids, []string{want.ID}) {
		t.Errorf("list: %v, %v", ids, err)
	}
	if err := errors.Join(s.Delete(want.ID), s.Delete(want.ID)); err != nil {
		t.Error(err)
	}
	if ids, _ := s.List(); len(ids) != 0 {
		t.Errorf("left: %v", ids)
	}
}

func TestNewIDs(t *testing.T) {
	a, b := NewID(), NewID()
	if a == b || len(a) != 64 || ShortID(a) != a[:12] || ShortID("ab") != "ab" {
		t.Errorf("%s %s", a, b)
	}
}
