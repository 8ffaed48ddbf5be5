package record_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"berth/fault"
	"berth/internal/record"
)

type doc struct{ Name string }

func TestSaveThenLoad(t *testing.T) {
	for name, save := range map[string]func(string, any) error{"durable": record.Save, "volatile": record.Put} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x.json")
			for _, want := range []string{"first", "second"} {
				if err := save(path, doc{want}); err != nil {
					t.Fatal(err)
				}
				var got doc
				if err := record.Load(path, &got); err != nil || got.Name != want {
					t.Fatalf("got %v, %v; want %s", got, err, want)
				}
			}
			if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
				t.Errorf("leftovers: %v", entries)
			}
		})
	}
}

func TestLoadTellsMissingFromCorrupt(t *testing.T) {
	dir := t.TempDir()
	var d doc
	if err := record.Load(filepath.Join(dir, "none"), &d); !errors.Is(err, fault.NotFound) {
		t.Errorf("missing file: %v", err)
	}
	path := filepath.Join(dir, "half")
	os.WriteFile(path, []byte(`{"Name": "a`), 0o600)
	if err := record.Load(path, &d); !errors.Is(err, fault.Corrupt) {
		t.Errorf("half a file: %v", err)
	}
}

func TestFailedSaveChangesNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x.json")
	if err := record.Save(path, doc{"kept"}); err != nil {
		t.Fatal(err)
	}
	if err := record.Save(path, func() {}); err == nil {
		t.Fatal("a function was encoded")
	}
	var got doc
	if err := record.Load(path, &got); err != nil || got.Name != "kept" {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestSweepRemovesOnlyUnfinishedFiles(t *testing.T) {
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "x.json.tmp-123"), nil, 0o600)
	os.WriteFile(filepath.Join(dir, "y.json"), nil, 0o600)
	if err := record.Sweep(dir); err != nil {
		t.Fatal(err)
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 1 || entries[0].Name() != "y.json" {
		t.Errorf("left: %v", entries)
	}
}
