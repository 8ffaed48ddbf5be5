package zfs_test

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"berth/fault"
	"berth/internal/kerneltest"
	"berth/kernel"
	"berth/union/zfs"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// mounted mounts a tree for the call.
func mounted(t *testing.T, tr *zfs.Trees, name string, fn func(dir string)) {
	t.Helper()
	m, err := tr.Mount(name)
	must(t, err)
	f, err := kernel.NewMount(m.Type, m.Source, m.Options, 0)
	must(t, err)
	dir, err := kernel.OpenIn(f, ".", kernel.ODirectory, 0, 0)
	must(t, err)
	must(t, f.Close())
	fn(kernel.ProcFD(dir))
	must(t, dir.Close())
}

func fill(t *testing.T, size int, elem ...string) {
	t.Helper()
	content := make([]byte, size)
	rand.Read(content)
	must(t, os.WriteFile(filepath.Join(elem...), content, 0o644))
}

// TestOnAPool does on a real pool what the tests with fake programs only say.
func TestOnAPool(t *testing.T) {
	pool, on := kerneltest.Pool(t, 512<<20)
	dir := t.TempDir()
	if _, err := zfs.Open(dir, nil); !errors.Is(err, fault.Unsupported) {
		t.Errorf("a directory on another file system gives %v", err)
	}
	if _, err := zfs.Open(dir, []string{"fsname=" + pool + "/absent"}); !errors.Is(err, fault.Unsupported) {
		t.Errorf("a dataset that doesn't exist gives %v", err)
	}
	must(t, os.RemoveAll(filepath.Join(dir, "group")))
	found, err := zfs.Open(filepath.Join(on, "data"), nil)
	must(t, err)
	if got := found.Status()[2][1]; got != pool {
		t.Errorf("found the dataset %q, want %q", got, pool)
	}
	tr, err := zfs.Open(dir, []string{"fsname=" + pool})
	must(t, err)
	must(t, tr.Make("a", ""))
	if err := tr.Make("a", ""); !errors.Is(err, fault.Exists) {
		t.Errorf("a name that is taken gives %v", err)
	}
	mounted(t, tr, "a", func(dir string) {
		if st, err := os.Stat(dir + "/."); err != nil || st.Mode() != os.ModeDir|0o755 {
			t.Errorf("a new tree: %v, %v", st, err)
		}
		fill(t, 4<<20, dir, "f")
		if err := tr.Remove("a"); !errors.Is(err, fault.Conflict) {
			t.Errorf("removing what is mounted gives %v", err)
		}
	})
	must(t, tr.Freeze("a"))
	must(t, tr.Freeze("a"))
	must(t, tr.Make("b", "a"))
	mounted(t, tr, "b", func(dir string) { fill(t, 2<<20, dir, "g") })
	must(t, tr.Make("c", "b")) // of a writable one
	mounted(t, tr, "c", func(dir string) {
		entries, err := os.ReadDir(dir + "/.")
		if len(entries) != 2 || err != nil {
			t.Errorf("the copy has %v, %v", entries, err)
		}
	})
	if own, err := tr.Usage("b"); own < 2<<20 || own > 3<<20 || err != nil {
		t.Errorf("b takes %d, %v", own, err)
	}
	if own, err := tr.Usage("c"); own > 1<<18 || err != nil {
		t.Errorf("c takes %d, %v", own, err)
	}
	must(t, tr.Limit("c", 8<<20))
	mounted(t, tr, "c", func(dir string) {
		chunk := make([]byte, 1<<20)
		f, err := os.Create(filepath.Join(dir, "big"))
		must(t, err)
		defer f.Close()
		mib := 0
		for ; err == nil && mib < 60; mib++ {
			rand.Read(chunk)
			if _, err = f.Write(chunk); err == nil {
				err = f.Sync()
			}
		}
		if !errors.Is(err, syscall.EDQUOT) || mib > 12 {
			t.Errorf("after %d MiB of 8: %v", mib, err)
		}
	})
	if err := tr.Remove("a"); !errors.Is(err, fault.Conflict) {
		t.Errorf("removing what has copies gives %v", err)
	}
	names, err := tr.List()
	if slices.Sort(names); !slices.Equal(names, []string{"a", "b", "c"}) || err != nil {
		t.Errorf("there are %v, %v", names, err)
	}
	again, err := zfs.Open(dir, []string{"fsname=" + pool})
	must(t, err)
	t.Log(again.Status())
	must(t, again.Sync("c"))
	for _, name := range []string{"c", "b", "a", "a"} {
		must(t, again.Remove(name))
	}
	if _, err := again.Mount("a"); !errors.Is(err, fault.NotFound) {
		t.Errorf("Mount of what is gone gives %v", err)
	}
}
