package kernel_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"berth/internal/kerneltest"
	"berth/kernel"
)

// No kernel here has aufs: what it would be told is compared with what aufs(5) says it understands.
func TestAufsCalls(t *testing.T) {
	layer := func(i int) string {
		return fmt.Sprintf("/var/lib/berth/aufs/layers/%064d/diff=ro+wh", i)
	}
	short := []string{"br:/r/diff=rw", "br:/init/diff=ro+wh", "br:/l/diff=ro+wh", "dio", "dirperm1", "xino=/r/work/xino"}
	many := []string{"br:/r/diff=rw"}
	for i := range 200 {
		many = append(many, "br:"+layer(i))
	}
	many = append(many, "dio", "xino=/r/work/xino")
	for _, c := range []struct {
		name    string
		options []string
		page    int
		want    []string
	}{
		{"a root", short, 4096, []string{"br:/r/diff=rw:/init/diff=ro+wh:/l/diff=ro+wh,dio,dirperm1,xino=/r/work/xino-own"}},
		{"to be read", []string{"br:/a=ro+wh", "dio", "xino=/stage/xino"}, 4096, []string{"br:/a=ro+wh,dio,xino=/stage/xino-own"}},
		{"a page with not one byte left", []string{"br:/a=rw", "br:/b=ro+wh", "br:/c=ro+wh", "dio"}, 25, []string{"br:/a=rw:/b=ro+wh,dio", "append:/c=ro+wh"}},
		{"two in a remount", []string{"br:/a=rw", "br:/b=ro+wh", "br:/c=ro+wh", "br:/d=ro+wh"}, 33, []string{"br:/a=rw:/b=ro+wh:/c=ro+wh", "append:/d=ro+wh"}},
		{"three remounts", []string{"br:/a=rw", "br:/b=ro+wh", "br:/c=ro+wh", "br:/d=ro+wh", "dio"}, 20, []string{"br:/a=rw,dio", "append:/b=ro+wh", "append:/c=ro+wh", "append:/d=ro+wh"}},
	} {
		got, err := kernel.AufsData(c.options, "-own", c.page)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, %v", c.name, got, err)
		}
	}
	got, err := kernel.AufsData(many, "-own", 4096)
	if err != nil || len(got) != 6 || !strings.HasPrefix(got[0], "br:/r/diff=rw:"+layer(0)+":"+layer(1)+":") || !strings.HasSuffix(got[0], ",dio,xino=/r/work/xino-own") {
		t.Fatalf("%d calls, %v: %q", len(got), err, got)
	}
	var branches []string // in the order in which they are added
	for i, call := range got {
		if len(call) >= 4096 {
			t.Errorf("call %d has %d bytes", i, len(call))
		}
		if i == 0 {
			call, _, _ = strings.Cut(call, ",")
			branches = append(branches, strings.Split(strings.TrimPrefix(call, "br:"), ":")[1:]...)
			continue
		}
		for part := range strings.SplitSeq(call, ",") {
			b, is := strings.CutPrefix(part, "append:")
			if !is {
				t.Fatalf("call %d has %q", i, part)
			}
			branches = append(branches, b)
		}
	}
	for i, b := range branches {
		if b != layer(i) {
			t.Fatalf("branch %d is %s", i, b)
		}
	}
	if len(branches) != 200 {
		t.Errorf("%d branches", len(branches))
	}
	for _, branch := range []string{"br:" + strings.Repeat("x", 4096), "br:" + strings.Repeat("x", 4090)} {
		if got, err := kernel.AufsData([]string{branch, "dio"}, "", 4096); err == nil {
			t.Errorf("%d calls for too long a path", len(got))
		}
		if got, err := kernel.AufsData([]string{"br:/a=rw", branch, "dio"}, "", 4096); err == nil {
			t.Errorf("%d calls for too long a path behind another", len(got))
		}
	}
}

// TestMountAside: the way in which aufs is mounted works for a file system that is here, remounts included.
func TestMountAside(t *testing.T) {
	kerneltest.Root(t)
	aside := func(calls ...string) (m *os.File, err error) {
		err = kernel.PrivateMounts(func() (err error) {
			m, err = kernel.MountAside("tmpfs", calls, kernel.NoDev)
			return err
		})
		return m, err
	}
	m, err := aside("size=1m", "size=8k,nr_inodes=10")
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	f, err := kernel.OpenIn(m, "f", os.O_CREATE|os.O_WRONLY, 0o600, kernel.Beneath)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if n, err := f.Write(make([]byte, 100<<10)); err == nil || n != 8<<10 {
		t.Errorf("%d bytes were written, %v: the remount had no effect", n, err)
	}
	for _, calls := range [][]string{{"no-such-option"}, {"size=1m", "no-such-option"}} {
		if m, err := aside(calls...); err == nil || m != nil || !strings.Contains(err.Error(), "mount tmpfs no-such-option") {
			t.Errorf("%q: %v", calls, err)
		}
	}
	if has, err := kernel.HasFileSystem("tmpfs"); !has || err != nil {
		t.Errorf("tmpfs: %v, %v", has, err)
	}
	if has, err := kernel.HasFileSystem("no-such-fs"); has || err != nil {
		t.Errorf("no-such-fs: %v, %v", has, err)
	}
	if _, err := kernel.NewMount(kernel.Aufs, "aufs", []string{"br:/nonexistent=rw"}, 0); err == nil || errors.Is(err, os.ErrExist) {
		t.Errorf("aufs over nothing: %v", err)
	}
}
