package union_test

import (
	"fmt"
	"os"
	"testing"

	"berth/internal/kerneltest"
	"berth/kernel/btrfs"
	"berth/union"
)

// TestSubvolumesInside: a container may make subvolumes in its own root. What is in them is its own like other files, and goes with the root.
func TestSubvolumesInside(t *testing.T) {
	kerneltest.Root(t)
	top := onBtrfs(t)
	d := open(t, "btrfs", top+"/d")
	r := create(t, d, "before", "", nil)
	in(t, r, func(p place) {
		p.write("lower", "l")
		p.hard("lower", "lower-too")
	})
	base := layerOf(t, d, r, "", "base")
	r = create(t, d, "root", base, nil)
	in(t, r, func(p place) {
		dir, err := os.Open(p.dir)
		p.check(err)
		p.check(btrfs.Create(dir, "sub"))
		p.check(btrfs.Snapshot(dir, dir, "itself", true))
		p.check(dir.Close())
		p.write("sub/f", "f") // the same inode number as lower
		p.hard("sub/f", "sub/g")
	})
	list, err := union.Changes(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	told := fmt.Sprint(list)
	if want := "[{/itself 1} {/itself/lower 1} {/itself/lower-too 1} {/itself/sub 1} {/sub 1} {/sub/f 1} {/sub/g 1}]"; told != want {
		t.Errorf("changes %s, want %s", told, want)
	}
	tree := everything(t, r)
	top2 := layerOf(t, d, r, base, "top")
	again := create(t, d, "again", top2, nil)
	same(t, "tree of what was committed", everything(t, again), tree)
	if space, err := r.Written(); err != nil || space.Files != 7 {
		t.Errorf("written: %+v, %v", space, err)
	}
	if err := d.Delete("root"); err != nil {
		t.Fatal(err)
	}
	trees, err := os.Open(top + "/d/trees/subvolumes")
	if err != nil {
		t.Fatal(err)
	}
	defer trees.Close()
	wait(t, "the root's subvolumes are gone", func() bool {
		id, err := btrfs.ID(trees)
		if err != nil {
			t.Fatal(err)
		}
		left, err := btrfs.Inside(trees, id)
		return err == nil && len(left) == 4 // before, again, base and top
	})
}
