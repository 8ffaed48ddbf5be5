package storage

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"berth/fault"
	"berth/internal/kerneltest"
	"berth/union"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

func TestOptions(t *testing.T) {
	for _, c := range []struct {
		driver string
		list   []string
		want   []string
		err    string
	}{
		{"overlay2", []string{"overlay2.size=10G", "overlay.override_kernel_check=1", "size=1G"}, []string{"size=10G", "override_kernel_check=1", "size=1G"}, ""},
		{"devicemapper", []string{"dm.basesize=20G"}, []string{"basesize=20G"}, ""},
		{"zfs", []string{"zfs.fsname=pool/a=b"}, []string{"fsname=pool/a=b"}, ""},
		{"vfs", nil, nil, ""},
		{"overlay2", []string{"size"}, nil, "Unable to parse key/value option"},
		{"overlay2", []string{"dm.basesize=20G"}, nil, "is of the driver devicemapper, but overlay2 is used"},
		{"overlay2", []string{"tape.size=20G"}, nil, "no storage driver is called tape"},
	} {
		got, err := Options(c.driver, c.list)
		if c.err == "" && (err != nil || !slices.Equal(got, c.want)) {
			t.Errorf("%s %v: %v, %v", c.driver, c.list, got, err)
		}
		if c.err != "" && (fault.Of(err) != fault.Invalid || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s %v: %v", c.driver, c.list, err)
		}
	}
}

// start opens a driver as an engine would, gives its name and closes it again.
func start(t *testing.T, c Config) (string, error) {
	t.Helper()
	d, err := Open(c)
	if err != nil {
		return "", err
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	return d.Name(), nil
}

func TestWhichDriver(t *testing.T) {
	kerneltest.Root(t)
	var log bytes.Buffer
	c := Config{Root: t.TempDir(), Log: slog.New(slog.NewTextHandler(&log, nil))}
	use := func(driver, layer string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(union.Home(c.Root, driver), "layers", layer), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(what, driver, want string) {
		t.Helper()
		c.Driver = driver
		if got, err := start(t, c); got != want || err != nil {
			t.Errorf("%s: %q, %v; want %s", what, got, err, want)
		}
	}
	expect("at the first start", "", "overlay2")
	expect("by name", "vfs", "vfs")
	expect("by another name", "overlay", "overlay2")
	if log.Len() > 0 {
		t.Errorf("said of empty directories: %s", &log)
	}
	// What lies there need not be whole for this: a driver that was used is not passed over.
	root := filepath.Join(c.Root, "vfs", "roots", "kept")
	if err := os.MkdirAll(root, 0o700); err != nil {
		t.Fatal(err)
	}
	expect("by name, beside another one's", "overlay2", "overlay2")
	if !strings.Contains(log.String(), "left alone: start with --storage-driver vfs") {
		t.Errorf("said: %s", &log)
	}
	if _, err := os.Stat(root); err != nil {
		t.Errorf("the other driver's were not left alone: %v", err)
	}
	use("overlay2", "somebody's")
	c.Driver = ""
	if _, err := start(t, c); fault.Of(err) != fault.Conflict || !strings.Contains(err.Error(), "several valid graphdrivers: overlay2, vfs") {
		t.Errorf("with two: %v", err)
	}
	if got, err := Options("aufs", []string{"aufs.size=1G"}); err != nil || !slices.Equal(got, []string{"size=1G"}) {
		t.Errorf("an option of aufs: %q, %v", got, err)
	}
	c.Driver = "tape"
	if _, err := start(t, c); fault.Of(err) != fault.Unsupported || !strings.Contains(err.Error(), "overlay2, ") {
		t.Errorf("an unknown one: %v", err)
	}
}

func TestPriorDriverIsKept(t *testing.T) {
	kerneltest.Root(t)
	c := Config{Root: t.TempDir(), Log: slog.New(slog.DiscardHandler)}
	if err := os.MkdirAll(filepath.Join(c.Root, "vfs", "layers", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if got, err := start(t, c); got != "vfs" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// TestAufsIsRefused: by name, and where an engine used it before; nothing of it is touched, and no engine takes it by itself.
func TestAufsIsRefused(t *testing.T) {
	kerneltest.Root(t)
	if d, err := union.Open("aufs", filepath.Join(t.TempDir(), "d")); err == nil {
		t.Skip("this kernel has aufs", d.Close())
	}
	c := Config{Root: t.TempDir(), Log: slog.New(slog.DiscardHandler)}
	const words = "this kernel has no file system aufs (it never was part of Linux): use overlay2"
	c.Driver = "aufs"
	if _, err := start(t, c); fault.Of(err) != fault.Unsupported || !strings.Contains(err.Error(), words) {
		t.Errorf("by name: %v", err)
	}
	layer := filepath.Join(c.Root, "aufs", "layers", "x")
	if err := os.MkdirAll(layer, 0o700); err != nil {
		t.Fatal(err)
	}
	c.Driver = ""
	if _, err := start(t, c); fault.Of(err) != fault.Unsupported || !strings.Contains(err.Error(), "prior storage driver aufs failed") || !strings.Contains(err.Error(), words) {
		t.Errorf("used before: %v", err)
	}
	if _, err := os.Stat(layer); err != nil {
		t.Errorf("what it had was not left alone: %v", err)
	}
	if slices.Contains(priority(), "aufs") {
		t.Error("it is chosen without being asked for")
	}
}
