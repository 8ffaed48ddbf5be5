package container

import (
	"os"
	"testing"

	"github.com/moby/moby/api/types/container"
)

func TestNoteOfAnUpdate(t *testing.T) {
	s, err := OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	before := &Record{ID: "a", Name: "n", Config: &container.Config{}, HostConfig: &container.HostConfig{}}
	after := before.Clone()
	after.Name = "m"
	if err := s.Create("a"); err != nil {
		t.Fatal(err)
	}
	if u, err := s.Updating("a"); u != nil || err != nil {
		t.Errorf("none: %+v, %v", u, err)
	}
	if err := s.BeginUpdate(&Update{Before: before, After: after, Ran: true, Boot: "b"}); err != nil {
		t.Fatal(err)
	}
	u, err := s.Updating("a")
	if err != nil || u.Before.Name != "n" || u.After.Name != "m" || !u.Ran || u.Boot != "b" {
		t.Errorf("%+v, %v", u, err)
	}
	for range 2 {
		if err := s.EndUpdate("a"); err != nil {
			t.Error(err)
		}
	}
	// What a power cut leaves is no note.
	for _, text := range []string{"", "{", "{}", `{"Before":{"ID":"a"}}`} {
		if err := os.WriteFile(s.updatePath("a"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if u, err := s.Updating("a"); u != nil || err != nil {
			t.Errorf("%q: %+v, %v", text, u, err)
		}
		if _, err := os.Stat(s.updatePath("a")); !os.IsNotExist(err) {
			t.Errorf("%q stays: %v", text, err)
		}
	}
}
