package kernel_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/internal/kerneltest"
	"berth/kernel"
)

func TestOverlayBothWays(t *testing.T) {
	kerneltest.Root(t)
	// Names of 40 layers fit into a page of options, those of 490 don't.
	for _, layers := range []int{40, 490} {
		base := t.TempDir()
		var options []string
		for i := range layers {
			dir := filepath.Join(base, fmt.Sprintf("layer,%d:%s", i, strings.Repeat("x", 30)))
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "top"), fmt.Appendf(nil, "%d", i), 0o644); err != nil {
				t.Fatal(err)
			}
			options = append(options, "lowerdir+="+dir)
		}
		for name, mount := range map[string]func() (*os.File, error){
			"new": func() (*os.File, error) { return kernel.NewMount("overlay", "overlay", options, kernel.NoDev) },
			"old": func() (*os.File, error) { return kernel.OverlayByPath(options, kernel.NoDev) },
		} {
			if err := kernel.PrivateMounts(func() error { return checkTopmost(mount) }); err != nil {
				t.Errorf("%s, %d layers: %v", name, layers, err)
			}
		}
	}
}

func checkTopmost(mount func() (*os.File, error)) error {
	m, err := mount()
	if err != nil {
		return err
	}
	defer m.Close()
	f, err := kernel.OpenIn(m, "top", os.O_RDONLY, 0, kernel.Beneath)
	if err != nil {
		return err
	}
	defer f.Close()
	data := make([]byte, 10)
	n, err := f.Read(data)
	if err != nil || string(data[:n]) != "0" {
		return fmt.Errorf("the topmost layer says %q, %v", data[:n], err)
	}
	return nil
}

func TestThreadIsNeverTheFirst(t *testing.T) {
	for range 200 {
		err := kernel.Thread(func() error {
			if kernel.IsFirstThread() {
				return errors.New("ran on the process's first thread")
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestFeaturesAnswer(t *testing.T) {
	major, _, full := kernel.Release()
	if major < 5 || !strings.HasPrefix(full, fmt.Sprint(major)) {
		t.Errorf("release %d of %q", major, full)
	}
	for _, f := range kernel.Features() {
		t.Log(f.Name, f.Since, f.Probe())
		if f.Name == "" || f.Since == "" || f.Lack == "" {
			t.Errorf("%+v says too little", f)
		}
	}
}

func TestMountErrorsCarryTheKernelsWords(t *testing.T) {
	kerneltest.Root(t)
	_, err := kernel.NewMount("tmpfs", "tmpfs", []string{"size=nonsense"}, 0)
	if err == nil || !strings.Contains(err.Error(), "size=nonsense") || !strings.Contains(err.Error(), "Bad value") {
		t.Errorf("got %v", err)
	}
	if _, err := kernel.NewMount("nosuchfs", "x", nil, 0); err == nil || !strings.Contains(err.Error(), "nosuchfs") {
		t.Errorf("got %v", err)
	}
}
