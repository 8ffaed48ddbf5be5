package btrfs_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"berth/fault"
	"berth/internal/kerneltest"
	"berth/kernel"
	"berth/kernel/btrfs"
)

// disk gives an open directory of a btrfs of the test's own.
func disk(t *testing.T) *os.File {
	t.Helper()
	return open(t, kerneltest.Disk(t, "btrfs", 1<<30, nil, ""))
}

// open opens what the test then closes.
func open(t *testing.T, elem ...string) *os.File {
	t.Helper()
	f, err := os.Open(filepath.Join(elem...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func fill(t *testing.T, size int, elem ...string) {
	t.Helper()
	content := make([]byte, size)
	rand.Read(content)
	must(t, os.WriteFile(filepath.Join(elem...), content, 0o644))
}

func TestSnapshotIsACopyOfItsOwn(t *testing.T) {
	d := disk(t)
	must(t, btrfs.Create(d, "a"))
	a := open(t, d.Name(), "a")
	if is, err := btrfs.IsSubvolume(a); !is || err != nil {
		t.Errorf("a new subvolume is none: %v, %v", is, err)
	}
	must(t, os.WriteFile(filepath.Join(d.Name(), "a", "f"), []byte("one"), 0o600))
	must(t, btrfs.Snapshot(a, d, "b", false))
	must(t, os.WriteFile(filepath.Join(d.Name(), "a", "f"), []byte("two"), 0o600))
	must(t, os.WriteFile(filepath.Join(d.Name(), "b", "g"), []byte("three"), 0o600))
	if got, err := os.ReadFile(filepath.Join(d.Name(), "b", "f")); string(got) != "one" {
		t.Errorf("the snapshot has %q, %v", got, err)
	}
	if _, err := os.Lstat(filepath.Join(d.Name(), "a", "g")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the origin sees what was written to its snapshot: %v", err)
	}
	about, err := btrfs.About(open(t, d.Name(), "b"))
	if err != nil || !about.Copy || about.ID < 256 || about.Made == 0 {
		t.Errorf("b is %+v, %v", about, err)
	}
	if about, err := btrfs.About(a); err != nil || about.Copy {
		t.Errorf("a is %+v, %v", about, err)
	}
	if err := btrfs.Snapshot(a, d, "b", false); !errors.Is(err, os.ErrExist) {
		t.Errorf("a name that is taken gives %v", err)
	}
	if err := btrfs.Create(d, "x/y"); err == nil {
		t.Error("a path is taken for a name")
	}
}

func TestReadOnlyAndBack(t *testing.T) {
	d := disk(t)
	must(t, btrfs.Create(d, "a"))
	a := open(t, d.Name(), "a")
	for _, on := range []bool{true, true, false} {
		must(t, btrfs.SetReadOnly(a, on))
		if is, err := btrfs.IsReadOnly(a); is != on || err != nil {
			t.Errorf("read-only is %v, %v", is, err)
		}
		err := os.WriteFile(filepath.Join(a.Name(), "f"), nil, 0o600)
		if on != errors.Is(err, syscall.EROFS) {
			t.Errorf("writing gives %v where read-only is %v", err, on)
		}
	}
	must(t, btrfs.Snapshot(a, d, "b", true))
	if is, err := btrfs.IsReadOnly(open(t, d.Name(), "b")); !is || err != nil {
		t.Errorf("a read-only snapshot is writable: %v", err)
	}
}

func TestDeleteTakesWhatLiesInside(t *testing.T) {
	d := disk(t)
	must(t, btrfs.Create(d, "a"))
	deep := open(t, d.Name(), "a")
	for k := range 300 { // deeper than one answer of the kernel, and read-only to make it harder
		must(t, os.Mkdir(filepath.Join(deep.Name(), "d"), 0o700))
		dir := open(t, deep.Name(), "d")
		must(t, btrfs.Create(dir, "s"))
		must(t, btrfs.Create(dir, "t"))
		if k < 20 { // a path has 4096 bytes at most
			must(t, os.WriteFile(filepath.Join(dir.Name(), "s", "f"), []byte("x"), 0o600))
		}
		up := deep
		deep = open(t, kernel.ProcFD(dir), "s")
		must(t, btrfs.SetReadOnly(up, true))
	}
	must(t, btrfs.Delete(d, "a"))
	if _, err := os.Lstat(filepath.Join(d.Name(), "a")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a is still there: %v", err)
	}
	id, err := btrfs.ID(d)
	must(t, err)
	if left, err := btrfs.Inside(d, id); len(left) != 0 || err != nil {
		t.Errorf("left: %v, %v", left, err)
	}
	must(t, btrfs.Delete(d, "a")) // gone is as good
}

func TestDeleteOfWhatIsInUse(t *testing.T) {
	d := disk(t)
	must(t, btrfs.Create(d, "a"))
	must(t, os.WriteFile(filepath.Join(d.Name(), "a", "f"), []byte("kept"), 0o600))
	f := open(t, d.Name(), "a", "f")
	m, err := kernel.CloneMount(nil, filepath.Join(d.Name(), "a"), false)
	must(t, err)
	defer m.Close()
	must(t, btrfs.Delete(d, "a"))
	if _, err := os.Lstat(filepath.Join(d.Name(), "a")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a is still there: %v", err)
	}
	got := make([]byte, 4)
	if _, err := f.ReadAt(got, 0); string(got) != "kept" {
		t.Errorf("an open file of it has %q, %v", got, err)
	}
	g, err := kernel.OpenIn(m, "f", os.O_RDONLY, 0, 0)
	if err != nil {
		t.Fatalf("through a mount of it: %v", err)
	}
	g.Close()
}

func TestLimitHoldsForRoot(t *testing.T) {
	d := disk(t)
	must(t, btrfs.Create(d, "a"))
	a := open(t, d.Name(), "a")
	if on, err := btrfs.HasQuota(d); on || err != nil {
		t.Errorf("quotas of a new file system: %v, %v", on, err)
	}
	if err := btrfs.Limit(a, 1<<20, 0); !errors.Is(err, fault.Unsupported) {
		t.Errorf("a limit without quotas gives %v", err)
	}
	if rfer, excl, err := btrfs.Limited(a); rfer != 0 || excl != 0 || err != nil {
		t.Errorf("limited to %d, %d, %v", rfer, excl, err)
	}
	if _, _, ok, err := btrfs.Usage(a); ok || err != nil {
		t.Errorf("usage without quotas: %v, %v", ok, err)
	}
	fill(t, 4<<20, a.Name(), "base")
	must(t, btrfs.Snapshot(a, d, "b", false))
	must(t, btrfs.EnableQuota(d))
	must(t, btrfs.EnableQuota(d))
	b := open(t, d.Name(), "b")
	must(t, btrfs.LimitOwn(b, 8<<20))
	if rfer, excl, err := btrfs.Limited(b); rfer < 12<<20 || rfer > 13<<20 || excl != 8<<20 || err != nil {
		t.Errorf("limited to %d, %d, %v", rfer, excl, err)
	}
	content := make([]byte, 1<<20)
	rand.Read(content)
	f, err := os.Create(filepath.Join(b.Name(), "big"))
	must(t, err)
	defer f.Close()
	written := 0
	for ; err == nil && written < 64; written++ {
		if _, err = f.Write(content); err == nil {
			err = f.Sync()
		}
	}
	if !errors.Is(err, syscall.EDQUOT) || written > 9 || written < 6 {
		t.Errorf("after %d MiB of 8: %v", written, err)
	}
	fill(t, 16<<20, a.Name(), "free") // the other one has no limit
	must(t, kernel.SyncFS(d))
	rfer, excl, ok, err := btrfs.Usage(b)
	if !ok || err != nil || rfer > 13<<20 || rfer < 10<<20 || excl < 6<<20 || excl > 9<<20 {
		t.Errorf("usage: %d, %d, %v, %v", rfer, excl, ok, err)
	}
	must(t, os.Remove(filepath.Join(b.Name(), "big")))
	must(t, btrfs.Limit(b, 0, 0))
	fill(t, 16<<20, b.Name(), "free")
	must(t, btrfs.Delete(d, "b"))
	must(t, btrfs.Delete(d, "a"))
}

func TestOwnCountsWhatWasWrittenSince(t *testing.T) {
	d := disk(t)
	must(t, btrfs.Create(d, "a"))
	a := open(t, d.Name(), "a")
	own := func(name string) int64 {
		t.Helper()
		must(t, kernel.SyncFS(d))
		n, err := btrfs.Own(open(t, d.Name(), name))
		must(t, err)
		return n
	}
	if n := own("a"); n != 0 {
		t.Errorf("an empty subvolume owns %d bytes", n)
	}
	fill(t, 8<<20, a.Name(), "base")
	if n := own("a"); n != 8<<20 {
		t.Errorf("a owns %d bytes", n)
	}
	fill(t, 1<<20, a.Name(), "unwritten") // the snapshot writes it out
	must(t, btrfs.Snapshot(a, d, "b", false))
	if n := own("b"); n != 0 {
		t.Errorf("a new snapshot owns %d bytes", n)
	}
	fill(t, 3<<20, d.Name(), "b", "more")
	must(t, os.WriteFile(filepath.Join(d.Name(), "b", "small"), bytes.Repeat([]byte("x"), 100), 0o600))
	must(t, os.Chmod(filepath.Join(d.Name(), "b", "base"), 0o600)) // its content stays shared
	if n := own("b"); n != 3<<20+100 {
		t.Errorf("b owns %d bytes, want %d", n, 3<<20+100)
	}
	f, err := os.OpenFile(filepath.Join(d.Name(), "b", "base"), os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	_, err = f.WriteAt([]byte("y"), 5<<20)
	must(t, err)
	if n := own("b"); n != 3<<20+100+4096 {
		t.Errorf("b owns %d bytes, want %d", n, 3<<20+100+4096)
	}
	must(t, btrfs.Create(open(t, d.Name(), "b"), "inside"))
	fill(t, 2<<20, d.Name(), "b", "inside", "f")
	if n := own("b"); n != 5<<20+100+4096 {
		t.Errorf("b owns %d bytes, want %d", n, 5<<20+100+4096)
	}
	must(t, btrfs.Snapshot(open(t, d.Name(), "b"), d, "c", true))
	if n := own("c"); n != 0 {
		t.Errorf("c owns %d bytes", n)
	}
}

func TestSnapshotOfWhatIsBeingWritten(t *testing.T) {
	d := disk(t)
	must(t, btrfs.Create(d, "a"))
	a := open(t, d.Name(), "a")
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for k := byte(1); ; k++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			// A whole file is put in place by rename: any state of the tree has f with one letter in it.
			part := filepath.Join(a.Name(), "part")
			if err := os.WriteFile(part, bytes.Repeat([]byte{k}, 100_000), 0o600); err != nil {
				done <- err
				return
			}
			if err := os.Rename(part, filepath.Join(a.Name(), "f")); err != nil {
				done <- err
				return
			}
		}
	}()
	for k := range 8 {
		name := string(rune('b' + k))
		fill(t, 50_000, a.Name(), "before") // what is there before the call is whole
		want, err := os.ReadFile(filepath.Join(a.Name(), "before"))
		must(t, err)
		must(t, btrfs.Snapshot(a, d, name, true))
		got, err := os.ReadFile(filepath.Join(d.Name(), name, "before"))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("snapshot %d lacks what was written before: %d bytes, %v", k, len(got), err)
		}
		// Of what is written meanwhile the end may be missing, up to all of it, but nothing is mixed.
		got, err = os.ReadFile(filepath.Join(d.Name(), name, "f"))
		if err != nil && !errors.Is(err, os.ErrNotExist) || len(got) > 0 && len(bytes.Trim(got, string(got[:1]))) != 0 {
			t.Errorf("snapshot %d has a torn file of %d bytes: %v", k, len(got), err)
		}
	}
	close(stop)
	must(t, <-done)
}

func TestOtherFileSystems(t *testing.T) {
	dir := open(t, "/proc")
	if on, err := btrfs.On(dir); on || err != nil {
		t.Errorf("proc is a btrfs: %v", err)
	}
	if is, err := btrfs.IsSubvolume(dir); is || err != nil {
		t.Errorf("proc is a subvolume: %v", err)
	}
	if err := btrfs.Create(dir, "x"); err == nil {
		t.Error("proc takes a subvolume")
	}
}
