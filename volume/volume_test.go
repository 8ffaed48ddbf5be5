package volume_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"berth/fault"
	"berth/volume"
)

func open(t *testing.T) (*volume.Store, string) {
	t.Helper()
	dir := t.TempDir()
	s, err := volume.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s, dir
}

func TestLife(t *testing.T) {
	s, dir := open(t)
	v, created, err := s.Create(volume.Volume{Name: "data", Labels: map[string]string{"a": "b"}})
	if err != nil || !created {
		t.Fatalf("%v, %v", created, err)
	}
	if err := os.WriteFile(filepath.Join(v.Path, "x"), []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	again, created, err := s.Create(volume.Volume{Name: "data"})
	if err != nil || created || again.Labels["a"] != "b" {
		t.Errorf("created again: %+v, %v, %v", again, created, err)
	}
	if all, err := s.List(); err != nil || len(all) != 1 || all[0].Path != v.Path {
		t.Errorf("list: %v, %v", all, err)
	}
	if err := s.Remove("data"); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove("data"); !errors.Is(err, fault.NotFound) || err.Error() != "get data: no such volume" {
		t.Errorf("removed twice: %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestBadNames(t *testing.T) {
	s, _ := open(t)
	for _, name := range []string{"", ".", "..", "a/b", "../x", "-a", ".stage-1", "a\n"} {
		if _, _, err := s.Create(volume.Volume{Name: name}); !errors.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", name, err)
		}
		if _, err := s.Get(name); !errors.Is(err, fault.NotFound) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestFillOnlyWhatIsEmpty(t *testing.T) {
	s, _ := open(t)
	v, _, err := s.Create(volume.Volume{Name: "data", Anonymous: true})
	if err != nil {
		t.Fatal(err)
	}
	tree := t.TempDir()
	os.Chmod(tree, 0o700)
	os.MkdirAll(filepath.Join(tree, "a/b"), 0o755)
	os.WriteFile(filepath.Join(tree, "a/b/f"), []byte("first"), 0o640)
	from, err := os.Open(tree)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	if err := s.Fill(t.Context(), "data", from); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(v.Path, "a/b/f"))
	if err != nil || string(got) != "first" {
		t.Errorf("%q, %v", got, err)
	}
	if info, err := os.Stat(v.Path); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode of the top: %v, %v", info.Mode(), err)
	}
	os.WriteFile(filepath.Join(tree, "a/b/f"), []byte("second"), 0o640)
	if err := s.Fill(t.Context(), "data", from); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(filepath.Join(v.Path, "a/b/f")); string(got) != "first" {
		t.Errorf("filled twice: %q", got)
	}
}

func TestOpenSweepsWhatACrashLeft(t *testing.T) {
	s, dir := open(t)
	if _, _, err := s.Create(volume.Volume{Name: "kept"}); err != nil {
		t.Fatal(err)
	}
	os.MkdirAll(filepath.Join(dir, ".stage-123", "_data"), 0o755)
	os.MkdirAll(filepath.Join(dir, "half", "_data"), 0o755)
	os.Remove(filepath.Join(dir, "kept", "_data"))
	s, err := volume.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if all, err := s.List(); err != nil || len(all) != 1 || all[0].Name != "kept" {
		t.Errorf("list: %v, %v", all, err)
	} else if _, err := os.Stat(all[0].Path); err != nil {
		t.Error(err)
	}
	if _, created, err := s.Create(volume.Volume{Name: "half"}); err != nil || !created {
		t.Errorf("over a half one: %v, %v", created, err)
	}
	if _, err := os.Stat(filepath.Join(dir, ".stage-123")); err == nil {
		t.Error("a stage is left")
	}
}
