package union_test

import (
	"bytes"
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/archive"
	"berth/fault"
	"berth/union"
)

// TestClaimIsWhatPackGives does nasty things in roots, claims what was written, and compares it with what its tar unpacks to.
func TestClaimIsWhatPackGives(t *testing.T) {
	d := open(t, "overlay2", t.TempDir())
	for what, n := range nasty {
		t.Run(what, func(t *testing.T) {
			id := digest.FromString(what).Encoded()[:8]
			r := create(t, d, "before-"+id, "", nil)
			in(t, r, n.before)
			base := layerOf(t, d, r, "", "base of "+what)
			r = create(t, d, "after-"+id, base, func(top *os.File) error { return write(top, "made-for-containers", "") })
			in(t, r, func(d place) {
				n.after(d)
				d.write("late", "with a time of its own")
				d.check(os.Chtimes(d.path("late"), time.Unix(5, 6), time.Unix(1234567890, 123456789)))
			})
			tree := everything(t, r)
			in(t, r, func(d place) { // a socket is in no layer; it goes with its directory's time
				l, err := net.Listen("unix", d.path("socket"))
				d.check(err)
				l.(*net.UnixListener).SetUnlinkOnClose(false)
				d.check(l.Close())
			})
			var tar bytes.Buffer
			if err := union.Pack(t.Context(), &tar, r); err != nil {
				t.Fatal(err)
			}
			if !union.CanClaim(d, r) {
				t.Fatal("it can't be claimed")
			}
			s, u, err := union.Claim(t.Context(), d, r)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := d.Open(r.ID); !errors.Is(err, fault.NotFound) {
				t.Errorf("the root that was claimed: %v", err)
			}
			chain := digest.FromString("claimed " + what)
			if err := s.Commit(chain, base, u); err != nil {
				t.Fatal(err)
			}
			stage, err := d.Stage()
			if err != nil {
				t.Fatal(err)
			}
			unpacked, err := archive.Unpack(t.Context(), &tar, stage.Root(), archive.UnpackOptions{Whiteouts: true})
			if err != nil {
				t.Fatal(err)
			}
			if u.Size != unpacked.Size {
				t.Errorf("%d bytes, unpacked %d", u.Size, unpacked.Size)
			}
			if difference, err := union.InventoryOf(d).Renew(chain, stage, unpacked, false); err != nil || difference != "" {
				t.Errorf("unlike what was packed: %s, %v", difference, err)
			}
			again := create(t, d, "again-"+id, chain, func(top *os.File) error { return write(top, "made-for-containers", "") })
			same(t, "tree", everything(t, again), tree)
		})
	}
}

func TestClaimEnds(t *testing.T) {
	dir := t.TempDir()
	d := open(t, "overlay2", dir)
	r := create(t, d, "dropped", "", nil)
	in(t, r, func(d place) { d.write("x", "x") })
	s, _, err := union.Claim(t.Context(), d, r)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Abort(); err != nil {
		t.Fatal(err)
	}
	if err := d.Delete("dropped"); err != nil {
		t.Errorf("delete what was claimed: %v", err)
	}
	// One that a killed process left is swept.
	r = create(t, d, "left", "", nil)
	in(t, r, func(d place) { d.write("x", "x") })
	if s, _, err = union.Claim(t.Context(), d, r); err != nil {
		t.Fatal(err)
	}
	if err := s.Root().Close(); err != nil {
		t.Fatal(err)
	}
	d = reopen(t, d, dir)
	if err := union.InventoryOf(d).Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if roots, err := d.Roots(); err != nil || len(roots) != 0 {
		t.Errorf("roots %v, %v", roots, err)
	}
	stage, err := os.ReadDir(dir + "/stage")
	if err != nil || len(stage) != 0 {
		t.Errorf("stage %v, %v", stage, err)
	}
	other := open(t, "vfs", t.TempDir())
	if union.CanClaim(other, create(t, other, "whole", "", nil)) {
		t.Error("a whole tree can be claimed")
	}
}
