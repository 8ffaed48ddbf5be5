package union_test

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"

	"berth/kernel"
	"berth/union"
)

// manyLayers: the topmost of two hundred still counts, and so does the deepest.
func manyLayers(t *testing.T, d union.Driver, _ string) {
	var chain digest.Digest
	for i := range 200 {
		entries := []string{"./ 755", fmt.Sprintf("last=%d", i)} // what is named needs no look at what lies below
		switch i % 10 {
		case 3:
			entries = append(entries, "d/ 755", fmt.Sprintf("d/n%d=%d", i, i), fmt.Sprintf("d/kept%d=%d", i, i))
		case 7:
			entries = append(entries, "d/ 755", fmt.Sprintf("d/.wh.n%d", i-4))
		}
		chain = addLayer(t, d, chain, entries...)
	}
	r := create(t, d, "r", chain, nil)
	err := union.View(r, func(root *os.File) error {
		dir, err := kernel.OpenIn(root, "d", kernel.ODirectory, 0, 0)
		if err != nil {
			return err
		}
		defer dir.Close()
		names, err := dir.Readdirnames(-1)
		if err == nil && len(names) != 20 {
			err = fmt.Errorf("%d names", len(names))
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if got := view(t, r); !slices.Contains(got, "last 100644 0:0 199") {
		t.Errorf("the topmost layer is missing: %q", got)
	}
	s, err := union.OpenStack(d, chain)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); s.Len() != 200 || err != nil {
		t.Errorf("the stack has %d layers, %v", s.Len(), err)
	}
}

// mapped: what is written to a layer's file through memory is seen by who reads it, lasts, and stays in the root.
func mapped(t *testing.T, d union.Driver, _ string) {
	chain := addLayer(t, d, "", "f="+strings.Repeat("old ", 4096))
	r := create(t, d, "r", chain, nil)
	in(t, r, func(p place) {
		f, err := os.OpenFile(p.path("f"), os.O_RDWR, 0)
		p.check(err)
		defer f.Close()
		memory, err := syscall.Mmap(int(f.Fd()), 0, 4*4096, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
		p.check(err)
		copy(memory[8192:], "new")
		text, err := os.ReadFile(p.path("f"))
		p.check(err)
		if string(text[8192:8196]) != "new " || string(text[:4]) != "old " {
			t.Errorf("a reader sees %q", text[8190:8200])
		}
		p.write("f.copy", string(text))
		p.check(syscall.Munmap(memory))
	})
	in(t, r, func(p place) {
		for _, name := range []string{"f", "f.copy"} {
			if text, err := os.ReadFile(p.path(name)); err != nil || len(text) != 4*4096 || string(text[8192:8196]) != "new " {
				t.Errorf("%s has %d bytes, %v", name, len(text), err)
			}
		}
	})
	err := union.Look(d, chain, func(dir *os.File) error {
		text, err := os.ReadFile(filepath.Join(kernel.ProcFD(dir), "f"))
		if strings.Contains(string(text), "new") {
			t.Error("the layer was written to")
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// beneath: a root shows what another has written, and what it writes itself stays its own.
func beneath(t *testing.T, d union.Driver, _ string) {
	chain := addLayer(t, d, "", "f=f", "g=g")
	init := func(root *os.File) error { return write(root, "i", "i") }
	below := create(t, d, "below", chain, init)
	in(t, below, func(p place) {
		p.write("f", "written")
		p.remove("g")
		p.write("new", "n")
		p.check(kernel.MknodIn(nil, p.path("socket"), syscall.S_IFSOCK|0o600, 0))
	})
	create(t, d, "above", chain, init)
	want := []string{"f 100644 0:0 written", "i 100644 0:0 i", "new 100644 0:0 n", "own 100644 0:0 o", "socket 140600 0:0"}
	for range 2 { // it is opened for each start
		r, err := union.Beneath(d, "above", "below")
		if err != nil {
			t.Fatal(err)
		}
		in(t, r, func(p place) { p.write("own", "o") })
		same(t, "above", view(t, r), want)
	}
	same(t, "below", view(t, below), slices.DeleteFunc(want, func(s string) bool { return strings.HasPrefix(s, "own") }))
	if err := union.Idle(d, "below"); err != nil {
		t.Error(err)
	}
	if err := union.Idle(d, "nobody"); err != nil {
		t.Error(err)
	}
}

// lent: a root can be mounted to be read, twice at a time.
func lent(t *testing.T, d union.Driver, _ string) {
	chain := addLayer(t, d, addLayer(t, d, "", "f=f"), "g=g")
	m := create(t, d, "r", chain, nil).Lent()
	for range 2 {
		var f *os.File
		var err error
		if m.Type == "bind" {
			f, err = kernel.CloneMount(nil, m.Source, false)
		} else {
			f, err = kernel.NewMount(m.Type, m.Source, m.Options, kernel.ReadOnly)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for _, name := range []string{"f", "g"} {
			if _, err := kernel.StatIn(f, name); err != nil {
				t.Error(err)
			}
		}
	}
}

// stackLines tells what the layers of a chain have by themselves.
func stackLines(t *testing.T, d union.Driver, chain digest.Digest) (lines []string) {
	t.Helper()
	s, err := union.OpenStack(d, chain)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for layer := range s.Len() {
		var walk func(dir string)
		walk = func(dir string) {
			list, opaque, err := s.ReadDir(context.Background(), layer, dir)
			if err != nil {
				t.Fatal(err)
			}
			lines = append(lines, fmt.Sprintf("%d %s opaque %v", layer, dir, opaque))
			for _, e := range list {
				full := path.Join(dir, e.Name)
				line := fmt.Sprintf("%d %s %o %d:%d %d %d", layer, full, e.Mode&^0o777, e.UID, e.GID, e.Size, e.Device)
				if e.IsLink() {
					target, err := s.Readlink(layer, full)
					line += fmt.Sprint(" -> ", target, err)
				}
				if !e.Whiteout() {
					line += fmt.Sprintf(" %o", e.Mode&0o777)
				}
				lines = append(lines, line)
				if e.IsDir() {
					walk(full)
				}
			}
		}
		walk(".")
	}
	return lines
}

// stacks: the layers by themselves look the same whatever the driver keeps.
func stackSame(t *testing.T, d union.Driver, _ string) {
	build := func(d union.Driver) digest.Digest {
		a := addLayer(t, d, "", "etc/ 755", "etc/one=1", "etc/two=2", "old/ 755", "old/x=x", "swap/ 755", "swap/f=f", "l->etc", "usr/bin/ 755", "bin->usr/bin")
		b := addLayer(t, d, a, "etc/ 700", "etc/.wh.one", "etc/three=3", "old/ 755", "old/.wh..wh..opq", "old/y=y", "swap=file now", "empty/ 750", "bin/tool=t")
		return addLayer(t, d, b, "etc/deep/er/f=f", ".wh.old", ".wh.l", "l/ 755", "l/f=f")
	}
	first := open(t, "overlay2", filepath.Join(t.TempDir(), "first"))
	same(t, "layers", stackLines(t, d, build(d)), stackLines(t, first, build(first)))
}

// lookedAt: a chain can be looked at without a root.
func lookedAt(t *testing.T, d union.Driver, _ string) {
	a := addLayer(t, d, "", "f=f", "g=g")
	b := addLayer(t, d, a, ".wh.f")
	for chain, want := range map[digest.Digest]int{"": 0, a: 2, b: 1} {
		err := union.Look(d, chain, func(dir *os.File) error {
			names, err := dir.Readdirnames(-1)
			if len(names) != want {
				t.Errorf("%q shows %q", chain, names)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	if err := d.Remove(b); err != nil {
		t.Errorf("a look held the layer: %v", err)
	}
}
