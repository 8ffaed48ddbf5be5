package volume_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"berth/fault"
	"berth/volume"
)

func TestStraysAreToldAndMended(t *testing.T) {
	dir := t.TempDir()
	s, err := volume.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"good", "lost", "bad"} {
		v, _, err := s.Create(volume.Volume{Name: name, Labels: map[string]string{"a": "b"}})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(v.Path, "f"), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if all, err := s.Strays(); err != nil || len(all) != 0 {
		t.Fatalf("at first: %+v, %v", all, err)
	}
	err = errors.Join(os.Remove(filepath.Join(dir, "lost/volume.json")), os.WriteFile(filepath.Join(dir, "bad/volume.json"), []byte("{"), 0o600),
		os.MkdirAll(filepath.Join(dir, ".stage-1/_data"), 0o700), os.Mkdir(filepath.Join(dir, "empty"), 0o700))
	if err != nil {
		t.Fatal(err)
	}
	all, err := s.Strays()
	if err != nil || len(all) != 4 {
		t.Fatalf("%+v, %v", all, err)
	}
	for _, one := range all {
		if one.Name == "" {
			err = errors.Join(err, s.Drop(one))
			continue
		}
		if one.Cause == nil {
			t.Errorf("%s: no cause", one.Name)
		}
		if dropErr := s.Drop(one); !errors.Is(dropErr, fault.Conflict) {
			t.Errorf("a volume with content was dropped: %v", dropErr)
		}
		err = errors.Join(err, s.Adopt(one))
	}
	if err != nil {
		t.Fatal(err)
	}
	if all, err := s.Strays(); err != nil || len(all) != 0 {
		t.Errorf("left: %+v, %v", all, err)
	}
	list, err := s.List()
	if err != nil || len(list) != 3 {
		t.Fatalf("%v, %v", list, err)
	}
	for _, v := range list {
		if data, err := os.ReadFile(filepath.Join(v.Path, "f")); err != nil || string(data) != v.Name {
			t.Errorf("%s: %q, %v", v.Name, data, err)
		}
	}
}
