package engine

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestRepairAtOpen takes the layers of an image away, as a change of the storage driver does.
func TestRepairAtOpen(t *testing.T) {
	w := newWorld(t)
	if err := w.Engine.Close(); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"layers", "inits"} {
		if err := os.RemoveAll(filepath.Join(w.config.DataRoot, "layers", kind)); err != nil {
			t.Fatal(err)
		}
	}
	w.open()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := w.Images.Inspect("busybox", nil, false); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	if r := w.run(nil, "echo", "mended"); r.out != "mended\n" {
		t.Errorf("%+v", r)
	}
}
