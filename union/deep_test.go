package union_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"

	"berth/archive"
	"berth/internal/kerneltest"
	"berth/kernel"
	"berth/union"
)

// TestVeryDeepChain: of 1,100 layers the bottom is merged in two steps, and nobody can tell by looking.
func TestVeryDeepChain(t *testing.T) {
	kerneltest.Root(t)
	top := t.TempDir()
	m, err := kernel.NewMount("tmpfs", "tmpfs", nil, 0) // a disk takes half a minute
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	at, err := kernel.OpenIn(nil, top, kernel.OPath, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer at.Close()
	if err := kernel.AttachMount(m, at); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kernel.Unmount(top, true) })
	dir := filepath.Join(top, "d")
	d := open(t, "overlay2", dir)
	const layers = 1100
	chain := digest.Digest("")
	for i := range layers {
		entries := []string{"d/ 755", fmt.Sprintf("d/f%04d=%d", i, i)}
		switch i {
		case 3:
			entries = append(entries, "d/deep/ 700", "d/deep/x=3", "d/gone/ 755", "d/gone/x=3", "d/one=linked", "d/two=linked")
		case 500:
			entries = append(entries, "d/deep/ 711", "d/deep/y=500", "d/.wh.gone", "d/two=500")
		case 900:
			entries = append(entries, "d/gone/ 750", "d/gone/y=900", "d/.wh.f0001")
		case 1050:
			entries = append(entries, "d/.wh.f0002")
		}
		chain = addLayer(t, d, chain, entries...)
	}
	r := create(t, d, "one", chain, nil)
	if n := len(r.Stacked.Lower); n > 500 {
		t.Errorf("%d directories for the kernel, which takes 500", n)
	}
	got := view(t, r)
	for _, want := range []string{"d 40755 7:8", "d/deep 40711 7:8", "d/deep/x 100644 0:0 3", "d/deep/y 100644 0:0 500", "d/gone 40750 7:8", "d/gone/y 100644 0:0 900",
		"d/f0000 100644 0:0 0", "d/f0700 100644 0:0 700", "d/f1099 100644 0:0 1099", "d/one 100644 0:0 linked", "d/two 100644 0:0 500"} {
		if !slices.Contains(got, want) {
			t.Errorf("%q is missing", want)
		}
	}
	if want := 1 + layers - 2 + 3 + 2 + 2; len(got) != want {
		t.Errorf("%d names, want %d", len(got), want)
	}
	err = union.View(r, func(root *os.File) error {
		sub, err := kernel.OpenIn(root, "d", kernel.ODirectory, 0, 0)
		if err != nil {
			return err
		}
		defer sub.Close()
		if err := kernel.UnlinkIn(sub, "f0000"); err != nil {
			return err
		}
		return write(sub, "one", "written")
	})
	if err != nil {
		t.Fatal(err)
	}
	list, err := union.Changes(context.Background(), r)
	if want := []union.Change{{Path: "/d", Kind: union.Modified}, {Path: "/d/f0000", Kind: union.Deleted}, {Path: "/d/one", Kind: union.Modified}}; err != nil || !slices.Equal(list, want) {
		t.Errorf("changes %v, %v", list, err)
	}
	// Committed, it is one layer more.
	var tar bytes.Buffer
	if err := union.Pack(context.Background(), &tar, r); err != nil {
		t.Fatal(err)
	}
	s, err := d.Stage()
	if err != nil {
		t.Fatal(err)
	}
	u, err := archive.Unpack(context.Background(), &tar, s.Root(), archive.UnpackOptions{Whiteouts: true})
	if err != nil {
		t.Fatal(err)
	}
	committed := digest.FromString("the commit")
	if err := s.Commit(committed, chain, u); err != nil {
		t.Fatal(err)
	}
	want := slices.DeleteFunc(slices.Clone(got), func(s string) bool { return s == "d/f0000 100644 0:0 0" })
	want[slices.Index(want, "d/one 100644 0:0 linked")] = "d/one 100644 0:0 written"
	same(t, "over the commit", view(t, create(t, d, "two", committed, nil)), want)
	// The other root, and what was merged, know nothing of it.
	same(t, "beside it", view(t, create(t, d, "three", chain, nil)), got)
	stack, err := union.OpenStack(d, committed)
	if err != nil || stack.Len() != layers+1 {
		t.Errorf("%d layers to look at, %v", stack.Len(), err)
	}
	if err == nil {
		err = stack.Close()
	}
	if err != nil {
		t.Error(err)
	}
	// All of it is there for the next process, too.
	d = reopen(t, d, dir)
	if r, err = d.Open("two"); err != nil {
		t.Fatal(err)
	}
	same(t, "after reopening", view(t, r), want)
}
