package union_test

import (
	"context"
	"errors"
	"os"
	"reflect"
	"testing"

	"berth/archive"
	"berth/fault"
	"berth/kernel"
	"berth/union"
)

// A copy for other ids is made once, shows every owner shifted, survives a restart, and goes when nobody uses it.
func TestCreateShifted(t *testing.T) {
	overAll(t, func(t *testing.T, g *ground) {
		dir := g.dir(t)
		d := open(t, g.driver, dir)
		chain := addLayer(t, d, "", "d/ 755", "d/f=one", "l->d/f")
		chain = addLayer(t, d, chain, "g=two")
		ids := archive.IDMap{UIDs: []archive.IDRange{{Host: 100000, Size: 1000}}, GIDs: []archive.IDRange{{Host: 200000, Size: 1000}}}
		init := func(root *os.File) error { return write(root, "made", "by init") }
		r, copied, err := union.CreateShifted(context.Background(), d, "a", chain, ids, init)
		if err != nil || !copied {
			t.Fatal(copied, err)
		}
		want := []string{"d 40755 100007:200008", "d/f 100644 100000:200000 one", "g 100644 100000:200000 two", "l 120777 100000:200000 → d/f", "made 100644 100000:200000 by init"}
		same(t, "tree", view(t, r), want)
		if !reflect.DeepEqual(r.IDs, ids) {
			t.Errorf("the root's ids are %+v", r.IDs)
		}
		if uid, gid, err := topOwner(r); err != nil || uid != 100000 || gid != 200000 {
			t.Errorf("what is written goes to a directory of %d:%d (%v)", uid, gid, err)
		}
		if _, copied, err := union.CreateShifted(context.Background(), d, "b", chain, ids, init); err != nil || copied {
			t.Errorf("a second root: copied %v, %v", copied, err)
		}
		other := archive.IDMap{UIDs: []archive.IDRange{{Host: 5, Size: 1}}, GIDs: []archive.IDRange{{Host: 5, Size: 1}}}
		if _, _, err := union.CreateShifted(context.Background(), d, "c", chain, other, init); fault.Of(err) != fault.Invalid {
			t.Errorf("too few ids: %v", err)
		}
		if ids, err := d.Roots(); err != nil || !reflect.DeepEqual(ids, []string{"a", "b"}) {
			t.Errorf("roots %v, %v", ids, err)
		}
		d = reopen(t, d, dir)
		again, err := d.Open("a")
		if err != nil || !reflect.DeepEqual(again.IDs, ids) {
			t.Fatalf("%+v, %v", again.IDs, err)
		}
		layers, err := d.Layers()
		if err != nil {
			t.Fatal(err)
		}
		gone := 0
		for range 2 {
			for _, l := range layers {
				if reflect.DeepEqual(l.IDs, ids) {
					if err := d.Remove(l.Chain); err == nil {
						gone++
					} else if !errors.Is(err, fault.Conflict) {
						t.Error(err)
					}
				}
			}
			if err := errors.Join(d.Delete("a"), d.Delete("b")); err != nil {
				t.Fatal(err)
			}
		}
		if gone != 1 {
			t.Errorf("the copy could be removed %d times", gone)
		}
	})
}

// topOwner is whose the directory is that a root's top has its owner from.
func topOwner(r union.Root) (uid, gid uint32, err error) {
	top := r.Mount.Source
	switch {
	case r.Stacked != nil:
		top = r.Stacked.Upper
	case r.Mount.Type != "bind": // a file system of its own
		err = union.View(r, func(dir *os.File) error {
			st, err := kernel.StatIn(dir, ".")
			uid, gid = st.Uid, st.Gid
			return err
		})
		return uid, gid, err
	}
	st, err := kernel.StatIn(nil, top)
	return st.Uid, st.Gid, err
}
