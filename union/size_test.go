package union_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"berth/fault"
	"berth/internal/kerneltest"
	"berth/kernel/quota"
	"berth/union"
)

// fill writes megabytes to a file of the root's.
func fill(r union.Root, name string, megabytes int) error {
	return union.View(r, func(root *os.File) error { return write(root, name, strings.Repeat("x", megabytes<<20)) })
}

// full tells what a file system says that has no more room; FUSE says EIO of what it took into memory before.
func full(err error) bool {
	return errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EIO)
}

// TestSizes: what a root may take has a bound where the file system keeps quotas of projects.
func TestSizes(t *testing.T) {
	disks := map[string][]string{"ext4": {"-q", "-O", "quota,project", "-E", "quotatype=prjquota"}, "xfs": {"-q"}}
	mounted := map[string]string{"ext4": "prjquota", "xfs": "pquota"}
	for kind, args := range disks {
		for _, name := range []string{"overlay2", "fuse-overlayfs"} {
			t.Run(name+" on "+kind, func(t *testing.T) {
				dir := filepath.Join(kerneltest.Disk(t, kind, 400<<20, args, mounted[kind]), "d")
				sizes(t, name, dir)
			})
		}
	}
}

func sizes(t *testing.T, name, dir string) {
	d := open(t, name, dir)
	chain := addLayer(t, d, "", "big="+strings.Repeat("y", 3<<20))
	one, two := create(t, d, "one", chain, nil), create(t, d, "two", chain, nil)
	if err := union.Limit(d, "one", 2<<20); err != nil {
		t.Fatal(err)
	}
	if err := fill(one, "fits", 1); err != nil {
		t.Errorf("half of it: %v", err)
	}
	if err := fill(one, "more", 2); !full(err) {
		t.Errorf("more than that: %v", err)
	}
	if err := fill(two, "more", 8); err != nil {
		t.Errorf("the other root: %v", err)
	}
	if err := union.Limit(d, "one", 20<<20); err != nil {
		t.Fatal(err)
	}
	if err := fill(one, "more", 8); err != nil {
		t.Errorf("with a larger bound: %v", err)
	}
	if err := union.Limit(d, "two", 20<<20); fault.Of(err) != fault.Conflict {
		t.Errorf("a bound for what was written before: %v", err)
	}
	top, err := os.Open(filepath.Dir(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer top.Close()
	upper, err := os.Open(one.Stacked.Upper)
	if err != nil {
		t.Fatal(err)
	}
	project, err := quota.Project(upper)
	upper.Close()
	if err != nil || project < 1<<30 {
		t.Fatalf("project %d, %v", project, err)
	}
	// As after a kill: nothing but the directories tells of it.
	d = reopen(t, d, dir)
	if one, err = d.Open("one"); err != nil {
		t.Fatal(err)
	}
	if err := fill(one, "still more", 15); !full(err) {
		t.Errorf("after a restart: %v", err)
	}
	end, err := union.MakeRoom(d, "one")
	if err == nil {
		err = errors.Join(fill(one, "empty", 0), end())
	}
	if err != nil {
		t.Errorf("a full root that is mounted: %v", err)
	}
	if bound, _, err := quota.Get(top, project); bound != 20<<20 || err != nil {
		t.Errorf("its bound afterwards: %d, %v", bound, err)
	}
	if err := errors.Join(d.Delete("one"), d.Delete("two")); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; {
		bound, used, err := quota.Get(top, project)
		if err != nil || time.Now().After(end) {
			t.Fatalf("after the removal: bound %d, used %d, %v", bound, used, err)
		}
		if bound == 0 && used == 0 {
			break
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d, err = union.Open(name, dir, "size=2M")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	if err := fill(create(t, d, "three", chain, nil), "more", 3); !full(err) {
		t.Errorf("with a bound for all: %v", err)
	}
}

func TestSizesWithoutQuotas(t *testing.T) {
	dir := filepath.Join(kerneltest.Disk(t, "ext4", 100<<20, []string{"-q"}, ""), "d")
	d := open(t, "overlay2", dir)
	create(t, d, "one", "", nil)
	err := union.Limit(d, "one", 1<<20)
	if fault.Of(err) != fault.Unsupported || !strings.Contains(err.Error(), "--storage-opt is supported only for overlay over xfs with 'pquota' mount option") || !strings.Contains(err.Error(), "prjquota") {
		t.Errorf("a bound for one: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := union.Open("overlay2", dir, "size=1G"); fault.Of(err) != fault.Unsupported || !strings.Contains(err.Error(), "Storage option overlay2.size not supported") {
		t.Errorf("a bound for all: %v", err)
	}
	for option, want := range map[string]string{"size=much": "overlay2.size=much", "color=red": "unknown option color"} {
		if _, err := union.Open("overlay2", dir, option); fault.Of(err) != fault.Invalid || !strings.Contains(err.Error(), want) {
			t.Errorf("option %s: %v", option, err)
		}
	}
}
