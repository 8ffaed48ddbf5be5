package kernel_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"berth/internal/kerneltest"
	"berth/kernel"
)

func openDir(t testing.TB, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestTreeFunctionsDoNotFollow(t *testing.T) {
	kerneltest.Root(t)
	top := t.TempDir()
	outside := filepath.Join(top, "outside")
	if err := os.WriteFile(outside, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(outside)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(top, "tree"), 0o755); err != nil {
		t.Fatal(err)
	}
	dir := openDir(t, filepath.Join(top, "tree"))
	old := time.Unix(1_000_000, 42)
	steps := []error{
		kernel.SymlinkIn("../outside", dir, "l"),
		kernel.ChownIn(dir, "l", 7, 8),
		kernel.TimesIn(dir, "l", old, old),
		kernel.LinkIn(dir, "l", dir, "l2"),
		kernel.SetXattrIn(dir, "l", "trusted.berth", "v"),
	}
	if err := errors.Join(steps...); err != nil {
		t.Fatal(err)
	}
	st, err := kernel.StatIn(dir, "l2")
	if err != nil || st.Mode&kernel.TypeMask != kernel.TypeSymlink || st.Uid != 7 || st.Gid != 8 || st.Mtim.Nsec != 42 || st.Nlink != 2 {
		t.Errorf("the link itself: %+v, %v", st, err)
	}
	if target, err := kernel.ReadlinkIn(dir, "l"); err != nil || target != "../outside" {
		t.Errorf("readlink: %q, %v", target, err)
	}
	if all, err := kernel.XattrsIn(dir, "l"); err != nil || all["trusted.berth"] != "v" {
		t.Errorf("attributes of the link: %v, %v", all, err)
	}
	if err := kernel.ChmodIn(dir, "l", 0o777); err == nil {
		t.Error("chmod of a symbolic link: no error")
	}
	if err := kernel.RemoveIn(dir, "l"); err != nil {
		t.Error(err)
	}
	if err := kernel.RemoveIn(dir, "l"); err != nil {
		t.Errorf("removing nothing: %v", err)
	}
	after, err := os.Stat(outside)
	if err != nil || after.Mode() != before.Mode() || !after.ModTime().Equal(before.ModTime()) || *after.Sys().(*syscall.Stat_t) != *before.Sys().(*syscall.Stat_t) {
		t.Errorf("the target changed: %+v → %+v, %v", before.Sys(), after.Sys(), err)
	}
}

func TestRemoveInTakesTheWholeTreeAndNothingElse(t *testing.T) {
	top := t.TempDir()
	for _, d := range []string{"tree/a/b", "keep"} {
		if err := os.MkdirAll(filepath.Join(top, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"tree/a/b/f", "tree/a/g", "keep/k"} {
		if err := os.WriteFile(filepath.Join(top, f), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../../keep", filepath.Join(top, "tree/a/out")); err != nil {
		t.Fatal(err)
	}
	if err := kernel.RemoveIn(openDir(t, top), "tree"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(top, "tree")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("tree is still there: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(top, "keep/k")); err != nil {
		t.Errorf("the neighbour is gone: %v", err)
	}
}

func TestModesAndTimesOfOpenFiles(t *testing.T) {
	kerneltest.Root(t)
	dir := openDir(t, t.TempDir())
	f, err := kernel.OpenIn(dir, "f", os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600, kernel.Beneath)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	at := time.Unix(-5, 7)
	if err := errors.Join(kernel.Chown(f, 3, 4), kernel.Chmod(f, 0o6751), kernel.Times(f, at, at), kernel.SetXattr(f, "user.k", "v")); err != nil {
		t.Fatal(err)
	}
	st, err := kernel.StatIn(dir, "f")
	if err != nil || st.Mode != kernel.TypeRegular|0o6751 || st.Uid != 3 || st.Mtim.Sec != -5 || st.Mtim.Nsec != 7 {
		t.Errorf("%+v, %v", st, err)
	}
	if v, ok, err := kernel.XattrIn(dir, "f", "user.k"); err != nil || !ok || v != "v" {
		t.Errorf("attribute: %q %v %v", v, ok, err)
	}
	if _, ok, err := kernel.XattrIn(dir, "f", "user.none"); ok || err != nil {
		t.Errorf("absent attribute: %v %v", ok, err)
	}
	if err := errors.Join(kernel.RemoveXattrIn(dir, "f", "user.k"), kernel.RemoveXattrIn(dir, "f", "user.k")); err != nil {
		t.Error(err)
	}
	if err := kernel.ChmodIn(dir, "f", 0o640); err != nil {
		t.Error(err)
	}
	if known, err := kernel.KnowsTypes(dir); err != nil || !known {
		t.Errorf("d_type: %v, %v", known, err)
	}
}

func TestTryLockIsExclusive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	open := func() *os.File {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	a, b := open(), open()
	defer b.Close()
	if ok, err := kernel.TryLock(a); !ok || err != nil {
		t.Fatalf("first: %v %v", ok, err)
	}
	if ok, err := kernel.TryLock(b); ok || err != nil {
		t.Errorf("second while held: %v %v", ok, err)
	}
	a.Close()
	if ok, err := kernel.TryLock(b); !ok || err != nil {
		t.Errorf("after release: %v %v", ok, err)
	}
}

func TestScatterDirsChangesNoContent(t *testing.T) {
	top := t.TempDir()
	dir := openDir(t, top)
	if err := errors.Join(kernel.ScatterDirs(dir), kernel.ScatterDirs(dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(top, "a/b"), 0o755); err != nil {
		t.Error(err)
	}
	file, err := os.Open("/proc/self/status") // a file system without such attributes
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := kernel.ScatterDirs(file); err != nil {
		t.Errorf("where it means nothing: %v", err)
	}
}
