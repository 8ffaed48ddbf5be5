package kernel_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"berth/internal/kerneltest"
	"berth/kernel"
)

func fuseOverlay(t *testing.T) string {
	kerneltest.Root(t)
	program, err := exec.LookPath("fuse-overlayfs")
	if err != nil {
		t.Skip("no program fuse-overlayfs here: install the package of that name")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skipf("no FUSE here: %v", err)
	}
	return program
}

func TestFuseOverlay(t *testing.T) {
	program := fuseOverlay(t)
	dir := t.TempDir()
	var options []string
	for _, name := range []string{"top", "bottom"} {
		if err := os.MkdirAll(filepath.Join(dir, name, "d"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "d", name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
		options = append(options, "lowerdir+="+filepath.Join(dir, name))
	}
	for _, name := range []string{"upper", "work"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		options = append(options, name+"dir="+filepath.Join(dir, name))
	}
	// From a thread with mounts of its own, in which the program must not run.
	err := kernel.PrivateMounts(func() error {
		m, err := kernel.NewMount(kernel.FuseOverlay, program, options, kernel.NoDev)
		if err != nil {
			return err
		}
		defer m.Close()
		at, err := kernel.OpenIn(nil, "/proc/fs", kernel.OPath, 0, 0)
		if err != nil {
			return err
		}
		defer at.Close()
		if err := kernel.AttachMount(m, at); err != nil {
			return err
		}
		for _, name := range []string{"top", "bottom"} {
			f, err := kernel.OpenIn(m, "d/"+name, os.O_RDONLY, 0, kernel.Beneath)
			if err != nil {
				return err
			}
			data := make([]byte, 10)
			n, err := f.Read(data)
			f.Close()
			if err != nil || string(data[:n]) != name {
				t.Errorf("%s says %q, %v", name, data[:n], err)
			}
		}
		d, err := kernel.OpenIn(m, "d", kernel.ODirectory, 0, 0)
		if err != nil {
			return err
		}
		defer d.Close()
		return kernel.UnlinkIn(d, "bottom")
	})
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(filepath.Join(dir, "upper/d/bottom")); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		t.Errorf("no whiteout: %v, %v", info, err)
	}
}

func TestFuseOverlayThatFails(t *testing.T) {
	program := fuseOverlay(t)
	m, err := kernel.NewMount(kernel.FuseOverlay, program, []string{"lowerdir+=" + filepath.Join(t.TempDir(), "missing")}, 0)
	if err == nil {
		m.Close()
		t.Fatal("no error")
	}
	if !strings.Contains(err.Error(), "missing") || !strings.Contains(err.Error(), program) {
		t.Errorf("the error does not say what the program said: %v", err)
	}
	if _, err := kernel.NewMount(kernel.FuseOverlay, "/nonexistent/fuse-overlayfs", nil, 0); err == nil || !strings.Contains(err.Error(), "/nonexistent") {
		t.Errorf("got %v", err)
	}
}
