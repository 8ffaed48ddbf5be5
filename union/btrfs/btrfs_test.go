package btrfs_test

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"berth/fault"
	"berth/internal/kerneltest"
	kbtrfs "berth/kernel/btrfs"
	"berth/union/btrfs"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func openTrees(t *testing.T, options ...string) *btrfs.Trees {
	t.Helper()
	tr, err := btrfs.Open(kerneltest.Disk(t, "btrfs", 1<<30, nil, ""), options)
	must(t, err)
	t.Cleanup(func() { tr.Close() })
	return tr
}

// at gives the directory that a tree is.
func at(t *testing.T, tr *btrfs.Trees, name string) string {
	t.Helper()
	m, err := tr.Mount(name)
	must(t, err)
	if m.Type != "bind" || len(m.Options) > 0 {
		t.Errorf("mount of %s: %+v", name, m)
	}
	return m.Source
}

func fill(t *testing.T, size int, elem ...string) {
	t.Helper()
	content := make([]byte, size)
	rand.Read(content)
	must(t, os.WriteFile(filepath.Join(elem...), content, 0o644))
}

func TestTreesAreCopies(t *testing.T) {
	tr := openTrees(t)
	old := syscall.Umask(0o077)
	must(t, tr.Make("a", ""))
	syscall.Umask(old)
	if st, err := os.Stat(at(t, tr, "a")); err != nil || st.Mode() != os.ModeDir|0o755 {
		t.Errorf("a new tree: %v, %v", st, err)
	}
	fill(t, 100_000, at(t, tr, "a"), "f")
	must(t, tr.Freeze("a"))
	if err := os.WriteFile(filepath.Join(at(t, tr, "a"), "g"), nil, 0o600); !errors.Is(err, syscall.EROFS) {
		t.Errorf("writing to a frozen tree gives %v", err)
	}
	must(t, tr.Make("b", "a"))
	must(t, tr.Sync("b"))
	fill(t, 3<<20, at(t, tr, "b"), "g")
	if own, err := tr.Usage("a"); own != 102_400 || err != nil { // whole blocks
		t.Errorf("a takes %d, %v", own, err)
	}
	if own, err := tr.Usage("b"); own != 3<<20 || err != nil {
		t.Errorf("b takes %d, %v", own, err)
	}
	names, err := tr.List()
	if slices.Sort(names); !slices.Equal(names, []string{"a", "b"}) || err != nil {
		t.Errorf("there are %v, %v", names, err)
	}
	must(t, tr.Unmounted("b"))
	must(t, tr.Remove("b"))
	must(t, tr.Remove("b"))
	must(t, tr.Remove("a")) // frozen
	if names, err := tr.List(); len(names) != 0 || err != nil {
		t.Errorf("there are %v, %v", names, err)
	}
	for what, err := range map[string]error{"Make": tr.Make("x", "a"), "Freeze": tr.Freeze("a"), "Limit": tr.Limit("a", 1<<30)} {
		if !errors.Is(err, fault.NotFound) {
			t.Errorf("%s of what is gone gives %v", what, err)
		}
	}
	if _, err := tr.Usage("a"); !errors.Is(err, fault.NotFound) {
		t.Errorf("Usage of what is gone gives %v", err)
	}
	if _, err := tr.Mount("a"); !errors.Is(err, fault.NotFound) {
		t.Errorf("Mount of what is gone gives %v", err)
	}
}

func TestWhatSomebodyNested(t *testing.T) {
	tr := openTrees(t)
	must(t, tr.Make("a", ""))
	top, err := os.Open(at(t, tr, "a"))
	must(t, err)
	must(t, kbtrfs.Create(top, "inside"))
	must(t, kbtrfs.Snapshot(top, top, "itself", true))
	must(t, top.Close())
	fill(t, 1<<20, at(t, tr, "a"), "inside", "f")
	if own, err := tr.Usage("a"); own != 1<<20 || err != nil {
		t.Errorf("a takes %d, %v", own, err)
	}
	must(t, tr.Make("b", "a")) // without the inner ones, as the kernel has it
	if _, err := os.Lstat(filepath.Join(at(t, tr, "b"), "inside", "f")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the copy has what lies inside: %v", err)
	}
	must(t, tr.Remove("a"))
	must(t, tr.Remove("b"))
}

func TestLimitIsWhatMayBeWritten(t *testing.T) {
	tr := openTrees(t, "min_space=2M")
	must(t, tr.Make("a", ""))
	fill(t, 20<<20, at(t, tr, "a"), "base")
	must(t, tr.Make("b", "a"))
	if err := tr.Limit("b", 1<<20); !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "min_space") {
		t.Errorf("a limit below the least gives %v", err)
	}
	must(t, tr.Limit("b", 8<<20))
	write := func(tree string) (mib int, err error) {
		f, err := os.Create(filepath.Join(at(t, tr, tree), "big"))
		must(t, err)
		defer f.Close()
		chunk := make([]byte, 1<<20)
		rand.Read(chunk)
		for ; err == nil && mib < 30; mib++ {
			if _, err = f.Write(chunk); err == nil {
				err = f.Sync()
			}
		}
		return mib, err
	}
	if mib, err := write("b"); !errors.Is(err, syscall.EDQUOT) || mib < 6 || mib > 9 {
		t.Errorf("after %d MiB of 8: %v", mib, err)
	}
	if mib, err := write("a"); err != nil {
		t.Errorf("the tree without a limit, after %d MiB: %v", mib, err)
	}
	must(t, tr.Remove("b"))
}

func TestRefusals(t *testing.T) {
	kerneltest.Root(t)
	if _, err := btrfs.Open(t.TempDir(), nil); !errors.Is(err, fault.Unsupported) || !strings.Contains(err.Error(), "does not lie on a btrfs") {
		t.Errorf("another file system gives %v", err)
	}
	for _, o := range []string{"color=red", "min_space=much", "min_space"} {
		if _, err := btrfs.Open(t.TempDir(), []string{o}); !errors.Is(err, fault.Invalid) {
			t.Errorf("option %q gives %v", o, err)
		}
	}
}
