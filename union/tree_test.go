package union_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"berth/archive"
	"berth/internal/kerneltest"
	"berth/union"
)

// changed mounts r, lets fn work in it, and gives what Changes lists.
func changed(t *testing.T, r union.Root, fn func(dir string) error) []string {
	t.Helper()
	err := union.View(r, func(dir *os.File) error { return fn(fmt.Sprintf("/proc/self/fd/%d/", dir.Fd())) })
	if err != nil {
		t.Fatal(err)
	}
	list, err := union.Changes(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range list {
		got = append(got, fmt.Sprintf("%c %s", "CAD"[c.Kind], c.Path))
	}
	return got
}

func TestChanges(t *testing.T) {
	d := open(t, "overlay2", t.TempDir())
	bottom := addLayer(t, d, "", "etc/ 755", "etc/passwd=p", "etc/group=g", "bin/ 755", "bin/sh=s", "old/ 755", "old/a=a", "old/b=b", "old/sub/ 755", "old/sub/c=c", "x=file")
	top := addLayer(t, d, bottom, "top/ 755", "top/t=t", "etc/.wh.group=")
	for n, c := range []struct {
		name string
		do   func(dir string) error
		want []string
	}{
		{"nothing", func(string) error { return nil }, nil},
		{"reading", func(dir string) error { _, err := os.ReadFile(dir + "etc/passwd"); return err }, nil},
		{"a file is added", func(dir string) error { return os.WriteFile(dir+"bin/new", nil, 0o755) }, []string{"C /bin", "A /bin/new"}},
		{"in the root", func(dir string) error { return os.WriteFile(dir+"new", nil, 0o755) }, []string{"A /new"}},
		{"content changes", func(dir string) error { return os.WriteFile(dir+"etc/passwd", []byte("q"), 0o644) }, []string{"C /etc/passwd"}},
		{"a mode changes", func(dir string) error { return os.Chmod(dir+"bin/sh", 0o700) }, []string{"C /bin/sh"}},
		{"a directory's owner changes", func(dir string) error { return os.Chown(dir+"bin", 5, 5) }, []string{"C /bin"}},
		{"a file goes", func(dir string) error { return os.Remove(dir + "etc/passwd") }, []string{"C /etc", "D /etc/passwd"}},
		{"a directory goes", func(dir string) error { return os.RemoveAll(dir + "old") }, []string{"D /old"}},
		{"made and removed again", func(dir string) error { return errors.Join(os.WriteFile(dir+"n", nil, 0o600), os.Remove(dir+"n")) }, nil},
		{"back after a whiteout below", func(dir string) error { return os.WriteFile(dir+"etc/group", nil, 0o644) }, []string{"C /etc", "A /etc/group"}},
		{"a tree is added", func(dir string) error {
			return errors.Join(os.MkdirAll(dir+"new/deep", 0o755), os.WriteFile(dir+"new/deep/f", nil, 0o644))
		}, []string{"A /new", "A /new/deep", "A /new/deep/f"}},
		{"an opaque directory", func(dir string) error {
			return errors.Join(os.RemoveAll(dir+"old"), os.Mkdir(dir+"old", 0o755), os.WriteFile(dir+"old/a", nil, 0o644), os.WriteFile(dir+"old/n", nil, 0o644))
		}, []string{"C /old", "C /old/a", "D /old/b", "A /old/n", "D /old/sub"}},
		{"a file becomes a directory", func(dir string) error {
			return errors.Join(os.Remove(dir+"x"), os.Mkdir(dir+"x", 0o755), os.WriteFile(dir+"x/in", nil, 0o644))
		}, []string{"C /x", "A /x/in"}},
		{"a directory becomes a file", func(dir string) error {
			return errors.Join(os.RemoveAll(dir+"old/sub"), os.WriteFile(dir+"old/sub", nil, 0o644))
		}, []string{"C /old", "C /old/sub"}},
		{"deep down", func(dir string) error { return os.WriteFile(dir+"old/sub/n", nil, 0o644) }, []string{"C /old/sub", "A /old/sub/n"}},
	} {
		got := changed(t, create(t, d, fmt.Sprint("r", n), top, nil), c.do)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestUsageCountsAFileOnce(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a"), bytes.Repeat([]byte("a"), 10_000), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "d"), 0o755), os.Link(filepath.Join(dir, "a"), filepath.Join(dir, "d/b"))); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "d/hole"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(1<<30), f.Close()); err != nil {
		t.Fatal(err)
	}
	onDisk, shown, err := union.Usage(dir)
	if err != nil || shown != 10_000+1<<30 || onDisk < 10_000 || onDisk > 100_000 {
		t.Errorf("%d bytes on disk, %d shown, %v", onDisk, shown, err)
	}
}

func TestStoppedTree(t *testing.T) {
	dir := t.TempDir()
	d := open(t, "overlay2", filepath.Join(dir, "data"))
	r := create(t, d, "r", addLayer(t, d, "", "etc/ 755", "etc/f=image", "data/ 755", "data/image=i", "link->/etc"), nil)
	volume, secret := filepath.Join(dir, "volume"), filepath.Join(dir, "secret")
	for _, v := range []string{volume, secret} {
		if err := os.MkdirAll(v, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(v, "f"), []byte(filepath.Base(v)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	binds := []union.Bind{
		{Source: volume, Target: "/data"}, {Source: volume, Target: "/made/anew", ReadOnly: true},
		{Source: filepath.Join(volume, "f"), Target: "/etc/f"}, {Source: filepath.Join(dir, "none"), Target: "/etc"}, {Source: volume, Target: "/link/f"},
	}
	tr, err := union.StoppedTree(r, binds, false)
	if err != nil {
		t.Fatal(err)
	}
	read := func(p, want string) {
		t.Helper()
		if got, err := archive.ReadFile(tr.Root, p, 100); err != nil || string(got) != want {
			t.Errorf("%s: %q %v, want %q", p, got, err, want)
		}
	}
	read("/data/f", "volume")
	read("/made/anew/f", "volume")
	read("/link/f", "volume")
	if _, err := archive.ReadFile(tr.Root, secret+"/f", 100); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a path of the host: %v", err)
	}
	bare, err := tr.Bare()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := archive.ReadFile(bare, "/etc/f", 100); err != nil || string(got) != "image" {
		t.Errorf("below the mounts: %q %v", got, err)
	}
	bare.Close()
	if err := archive.MakeFile(tr.Root, "/data/new"); err != nil {
		t.Error(err)
	}
	if err := archive.MakeFile(tr.Root, "/made/anew/new2"); err == nil {
		t.Error("a bind that is read-only was written to")
	}
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(volume, "new")); err != nil {
		t.Error(err)
	}
	if tr, err = union.StoppedTree(r, nil, true); err != nil {
		t.Fatal(err)
	}
	if err := archive.MakeFile(tr.Root, "/x"); err == nil {
		t.Error("a root that is read-only was written to")
	}
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
	// The root can be used again at once.
	if err := union.View(r, func(dir *os.File) error { return archive.MakeFile(dir, "/after") }); err != nil {
		t.Error(err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), volume) {
		t.Errorf("mounts in this namespace: %s %v", mounts, err)
	}
}

func TestRunningTreeIsOfTheProcessThatWasMeant(t *testing.T) {
	kerneltest.Root(t)
	mine := errors.New("mine")
	if _, err := union.RunningTree(os.Getpid(), func() error { return mine }); !errors.Is(err, mine) {
		t.Errorf("another process: %v", err)
	}
	tr, err := union.RunningTree(os.Getpid(), func() error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := archive.ReadFile(tr.Root, "/proc/self/root/etc/passwd", 10); err == nil {
		t.Error("a magic link was followed")
	}
	if err := tr.Close(); err != nil {
		t.Error(err)
	}
	if _, err := union.RunningTree(1<<22-1, func() error { return nil }); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no process: %v", err)
	}
}
