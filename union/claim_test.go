package union_test

import (
	"bytes"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/archive"
	"berth/fault"
	"berth/kernel"
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
			chain := claimed(t, d, r, base, what)
			again := create(t, d, "again-"+id, chain, func(top *os.File) error { return write(top, "made-for-containers", "") })
			same(t, "tree", everything(t, again), tree)
		})
	}
}

// claimed claims r and compares the layer with what its tar unpacks to.
func claimed(t *testing.T, d union.Driver, r union.Root, base digest.Digest, what string) digest.Digest {
	t.Helper()
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
	places, err := union.InventoryOf(d).Places()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range places {
		if p.Stray {
			t.Errorf("a check would sweep %s", p.Path)
		}
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
	if u.Size != unpacked.Size || !slices.Equal(u.Implied, unpacked.Implied) {
		t.Errorf("%d bytes and %q implied, unpacked %d and %q", u.Size, u.Implied, unpacked.Size, unpacked.Implied)
	}
	if difference, err := union.InventoryOf(d).Renew(chain, stage, unpacked, false); err != nil || difference != "" {
		t.Errorf("unlike what was packed: %s, %v", difference, err)
	}
	return chain
}

// TestClaimLeavesNoTrace claims what an archive knows in part only.
func TestClaimLeavesNoTrace(t *testing.T) {
	d := open(t, "overlay2", t.TempDir())
	r := create(t, d, "before", "", nil)
	in(t, r, func(d place) {
		d.write("run/kept", "k")
		d.write("flags", "f")
		d.check(os.Chmod(d.dir, 0o700))
		d.check(kernel.SetXattrIn(nil, d.dir+"/.", "user.top", "t"))
	})
	base := layerOf(t, d, r, "", "a base of one's own")
	long := time.Unix(-86400*365*20, 123456789)
	r = create(t, d, "after", base, nil)
	in(t, r, func(d place) {
		d.check(os.Chmod(d.dir, 0o755)) // what is usual is nothing that goes without saying here
		d.check(kernel.RemoveXattrIn(nil, d.dir+"/.", "user.top"))
		l, err := net.Listen("unix", d.path("run/socket"))
		d.check(err)
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		d.check(l.Close())
		d.check(os.Link(d.path("run/socket"), d.path("socket-too")))
		d.check(os.Chtimes(d.path("run"), long, long))
		d.write("old", "older than the clock")
		d.check(os.Chtimes(d.path("old"), long, long))
		d.link("link", "old")
		d.attr("link", "trusted.of-a-link", "l")
		d.write("program", "p")
		d.check(os.Lchown(d.path("program"), 1000, 100000))
		d.check(os.Chmod(d.path("program"), 0o6755))
		d.attr("program", "security.capability", "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")
		d.attr("program", "user.overlay.opaque", "y")
		d.fifo("fifo")
		d.hard("fifo", "deep/fifo-too")
	})
	tree := everything(t, r)
	chain := claimed(t, d, r, base, "traces")
	tree = slices.DeleteFunc(tree, func(line string) bool { return strings.Contains(line, "socket") })
	for k, line := range tree {
		tree[k] = strings.Replace(line, ` user.overlay.opaque="y"`, "", 1)
	}
	again := create(t, d, "again", chain, nil)
	same(t, "tree", everything(t, again), tree)
	in(t, again, func(d place) {
		for _, name := range []string{"run", "old"} {
			info, err := os.Lstat(d.path(name))
			d.check(err)
			if !info.ModTime().Equal(time.Unix(long.Unix(), 0)) {
				t.Errorf("%s is of %v", name, info.ModTime())
			}
		}
	})
}

// TestClaimRefuses tries what an archive takes for something else, or not at all: it is to be packed, which stays as it was.
func TestClaimRefuses(t *testing.T) {
	d := open(t, "overlay2", t.TempDir())
	far := strings.Repeat(strings.Repeat("n", 250)+"/", 16)
	for what, do := range map[string]func(d place){
		"a whiteout's name":     func(d place) { d.write("dir/.wh.file", "x") },
		"a file system's names": func(d place) { d.write(".wh..wh.plnk/x", "x") },
		"a whiteout's tree":     func(d place) { d.write("dir/.wh.dir/file", "x") },
		"far": func(d place) {
			top, err := os.OpenRoot(d.dir)
			d.check(err)
			for name := range strings.SplitSeq(strings.TrimSuffix(far, "/")+"/"+strings.Repeat("m", 90), "/") {
				d.check(top.Mkdir(name, 0o755))
				below, err := top.OpenRoot(name)
				d.check(errors.Join(err, top.Close()))
				top = below
			}
			d.check(top.Close())
		},
	} {
		t.Run(what, func(t *testing.T) {
			r := create(t, d, digest.FromString(what).Encoded()[:8], "", nil)
			in(t, r, func(d place) {
				do(d)
				l, err := net.Listen("unix", d.path("socket"))
				d.check(err)
				l.(*net.UnixListener).SetUnlinkOnClose(false)
				d.check(l.Close())
			})
			var before, after bytes.Buffer
			if err := union.Pack(t.Context(), &before, r); err != nil {
				t.Fatal(err)
			}
			if _, _, err := union.Claim(t.Context(), d, r); !errors.Is(err, fault.Unsupported) {
				t.Fatalf("claim: %v", err)
			}
			if _, err := d.Open(r.ID); err != nil {
				t.Error(err)
			}
			if err := union.Pack(t.Context(), &after, r); err != nil || !bytes.Equal(before.Bytes(), after.Bytes()) {
				t.Errorf("it packs to something else: %v", err)
			}
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
