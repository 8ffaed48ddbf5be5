package union_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/archive"
	"berth/fault"
	"berth/internal/kerneltest"
	"berth/kernel"
	"berth/union"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

// small keeps a pool of the device mapper small enough for an emulated machine.
var small = []string{"dm.basesize=256M", "dm.loopdatasize=2G", "dm.loopmetadatasize=16M", "dm.mkfsarg=-J", "dm.mkfsarg=size=4"}

func open(t testing.TB, name, dir string) union.Driver {
	t.Helper()
	kerneltest.Root(t)
	var options []string
	if name == "devicemapper" {
		options = small
	}
	d, err := union.Open(name, dir, options...)
	if name != "overlay2" && fault.Of(err) == fault.Unsupported {
		t.Skip(err) // says what is missing
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		roots, _ := d.Roots()
		for _, id := range roots {
			union.Idle(d, id) // so that no device stays
		}
		d.Close()
	})
	return d
}

// reopen stands for a new process after a kill: the first driver's lock goes, nothing is tidied.
func reopen(t testing.TB, d union.Driver, dir string) union.Driver {
	t.Helper()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	return open(t, d.Name(), dir)
}

var stamp = time.Unix(1_500_000_000, 0)

// layerTar writes entries such as "d/ 755", "f=content", "l->target", "n:owner" in order.
func layerTar(t testing.TB, entries ...string) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		h := tar.Header{Name: e, Mode: 0o644, ModTime: stamp}
		body := ""
		if name, target, ok := strings.Cut(e, "->"); ok {
			h.Name, h.Typeflag, h.Linkname = name, tar.TypeSymlink, target
		} else if name, content, ok := strings.Cut(e, "="); ok {
			h.Name, h.Typeflag, body = name, tar.TypeReg, content
		} else if name, mode, ok := strings.Cut(e, " "); ok {
			h.Name, h.Typeflag = name, tar.TypeDir
			fmt.Sscanf(mode, "%o", &h.Mode)
			h.Uid, h.Gid = 7, 8
		} else {
			h.Typeflag = tar.TypeReg
		}
		h.Size = int64(len(body))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, body)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func chainOf(parent digest.Digest, data []byte) digest.Digest {
	return digest.FromString(string(parent) + " " + string(digest.FromBytes(data)))
}

func addLayer(t testing.TB, d union.Driver, parent digest.Digest, entries ...string) digest.Digest {
	t.Helper()
	data := layerTar(t, entries...)
	s, err := d.Stage()
	if err != nil {
		t.Fatal(err)
	}
	u, err := archive.Unpack(t.Context(), bytes.NewReader(data), s.Root(), archive.UnpackOptions{Whiteouts: true})
	if err != nil {
		t.Fatal(err)
	}
	chain := chainOf(parent, data)
	if err := s.Commit(chain, parent, u); err != nil {
		t.Fatal(err)
	}
	return chain
}

// view lists the root's tree: "path mode uid:gid content".
func view(t testing.TB, r union.Root) []string {
	t.Helper()
	var lines []string
	err := union.View(r, func(dir *os.File) error {
		list(t, dir, "", &lines)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func list(t testing.TB, dir *os.File, prefix string, lines *[]string) {
	t.Helper()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	for _, n := range names {
		st, err := kernel.StatIn(dir, n)
		if err != nil {
			t.Fatal(err)
		}
		line := fmt.Sprintf("%s%s %o %d:%d", prefix, n, st.Mode, st.Uid, st.Gid)
		switch st.Mode & kernel.TypeMask {
		case kernel.TypeRegular:
			f, err := kernel.OpenIn(dir, n, 0, 0, 0)
			if err != nil {
				t.Fatal(err)
			}
			data, err := io.ReadAll(f)
			f.Close()
			if err != nil {
				t.Fatal(err)
			}
			*lines = append(*lines, line+" "+string(data))
		case kernel.TypeSymlink:
			target, _ := kernel.ReadlinkIn(dir, n)
			*lines = append(*lines, line+" → "+target)
		case kernel.TypeDir:
			*lines = append(*lines, line)
			sub, err := kernel.OpenIn(dir, n, kernel.ODirectory, 0, 0)
			if err != nil {
				t.Fatal(err)
			}
			list(t, sub, prefix+n+"/", lines)
			sub.Close()
		default:
			*lines = append(*lines, line)
		}
	}
}

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		t.Errorf("%s:\n%s\nwant:\n%s", what, g, w)
	}
}

func create(t testing.TB, d union.Driver, id string, chain digest.Digest, init func(*os.File) error) union.Root {
	t.Helper()
	r, err := d.Create(id, chain, init)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func write(dir *os.File, name, content string) error {
	f, err := kernel.OpenIn(dir, name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	return errors.Join(err, f.Close())
}

// TestDrivers is the contract. Every driver passes all of it.
func TestDrivers(t *testing.T) {
	kerneltest.Root(t)
	contract := map[string]func(t *testing.T, d union.Driver, dir string){
		"layers stack":                     layersStack,
		"roots are writable and apart":     rootsApart,
		"init runs once per chain":         initOnce,
		"a failed init leaves nothing":     initFails,
		"implied directories":              impliedDirs,
		"links below implied directories":  impliedLinks,
		"removal waits for users":          removal,
		"errors have kinds":                errorKinds,
		"stages are independent":           stages,
		"the same layer twice":             twice,
		"all is there after reopening":     survives,
		"half states are swept":            halfStates,
		"a power cut drops unsynced":       powerCut,
		"roots without layers":             noLayers,
		"the root directory's own look":    rootLook,
		"a view can be taken many times":   views,
		"many at once":                     concurrent,
		"one process at a time":            oneProcess,
		"deletion frees in the background": frees,
		"two hundred layers":               manyLayers,
		"files mapped into memory":         mapped,
		"one root beneath another":         beneath,
		"a root that is lent":              lent,
		"layers by themselves":             stackSame,
		"a look without a root":            lookedAt,
	}
	overAll(t, func(t *testing.T, g *ground) {
		for what, test := range contract {
			t.Run(what, func(t *testing.T) {
				dir := g.dir(t)
				test(t, open(t, g.driver, dir), dir)
			})
		}
	})
}

func layersStack(t *testing.T, d union.Driver, _ string) {
	a := addLayer(t, d, "", "etc/ 755", "etc/one=1", "etc/two=2", "old/ 755", "old/x=x", "swap/ 755", "swap/f=f")
	b := addLayer(t, d, a, "etc/ 700", "etc/.wh.one", "etc/three=3", "old/ 755", "old/.wh..wh..opq", "old/y=y", "swap=file now")
	c := addLayer(t, d, b, "etc/two=two", ".wh.old")
	if !d.Has(a) || !d.Has(c) || d.Has(digest.FromString("none")) {
		t.Error("Has is wrong")
	}
	layers, err := d.Layers()
	if err != nil || len(layers) != 3 || layers[0].Chain != a || layers[1].Parent != a || layers[2].Chain != c || layers[0].Size != 4 {
		t.Errorf("layers %+v, %v", layers, err)
	}
	same(t, "over the second", view(t, create(t, d, "b", b, nil)), []string{
		"etc 40700 7:8", "etc/three 100644 0:0 3", "etc/two 100644 0:0 2", "old 40755 7:8", "old/y 100644 0:0 y", "swap 100644 0:0 file now",
	})
	same(t, "over the third", view(t, create(t, d, "c", c, nil)), []string{
		"etc 40700 7:8", "etc/three 100644 0:0 3", "etc/two 100644 0:0 two", "swap 100644 0:0 file now",
	})
	same(t, "over the first", view(t, create(t, d, "a", a, nil)), []string{
		"etc 40755 7:8", "etc/one 100644 0:0 1", "etc/two 100644 0:0 2", "old 40755 7:8", "old/x 100644 0:0 x", "swap 40755 7:8", "swap/f 100644 0:0 f",
	})
}

func rootsApart(t *testing.T, d union.Driver, dir string) {
	chain := addLayer(t, d, "", "f=image", "g=gone soon")
	r := create(t, d, "one", chain, nil)
	if err := union.View(r, func(root *os.File) error {
		return errors.Join(write(root, "f", "mine"), kernel.UnlinkIn(root, "g"), write(root, "new", "n"))
	}); err != nil {
		t.Fatal(err)
	}
	same(t, "the other root", view(t, create(t, d, "two", chain, nil)), []string{"f 100644 0:0 image", "g 100644 0:0 gone soon"})
	mine := []string{"f 100644 0:0 mine", "new 100644 0:0 n"}
	same(t, "the written root", view(t, r), mine)
	d = reopen(t, d, dir)
	r, err := d.Open("one")
	if err != nil {
		t.Fatal(err)
	}
	same(t, "after reopening", view(t, r), mine)
	if err := union.View(r, func(*os.File) error { return fs("mine") }); err == nil || err.Error() != "mine" {
		t.Errorf("the error of fn came out as %v", err)
	}
}

type fs string

func (f fs) Error() string { return string(f) }

func initOnce(t *testing.T, d union.Driver, dir string) {
	chain := addLayer(t, d, "", "etc/ 755", "etc/keep=k")
	runs := 0
	init := func(root *os.File) error {
		runs++
		etc, err := kernel.OpenIn(root, "etc", kernel.ODirectory, 0, 0)
		if err != nil {
			return err
		}
		return errors.Join(write(etc, "hosts", ""), etc.Close(), kernel.MkdirIn(root, "dev", 0o755))
	}
	want := []string{"dev 40755 0:0", "etc 40755 7:8", "etc/hosts 100644 0:0 ", "etc/keep 100644 0:0 k"}
	same(t, "first", view(t, create(t, d, "one", chain, init)), want)
	same(t, "second", view(t, create(t, d, "two", chain, init)), want)
	d = reopen(t, d, dir)
	same(t, "third", view(t, create(t, d, "three", chain, init)), want)
	r, err := d.Open("one")
	if err != nil {
		t.Fatal(err)
	}
	same(t, "first again", view(t, r), want)
	if runs != 1 {
		t.Errorf("init ran %d times", runs)
	}
	same(t, "without init", view(t, create(t, d, "plain", chain, nil)), []string{"etc 40755 7:8", "etc/keep 100644 0:0 k"})
	for _, id := range []string{"one", "two", "three", "plain"} {
		if err := d.Delete(id); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Remove(chain); err != nil {
		t.Errorf("remove: %v", err)
	}
	if chain != addLayer(t, d, "", "etc/ 755", "etc/keep=k") {
		t.Fatal("another chain")
	}
	create(t, d, "four", chain, init)
	if runs != 2 {
		t.Errorf("init of a removed layer survived: %d runs", runs)
	}
}

func initFails(t *testing.T, d union.Driver, _ string) {
	chain := addLayer(t, d, "", "f=f")
	if _, err := d.Create("x", chain, func(root *os.File) error { write(root, "half", "h"); return fs("no luck") }); err == nil || !strings.Contains(err.Error(), "no luck") {
		t.Errorf("error %v", err)
	}
	if ids, err := d.Roots(); err != nil || len(ids) != 0 {
		t.Errorf("roots %v, %v", ids, err)
	}
	same(t, "another try", view(t, create(t, d, "x", chain, func(root *os.File) error { return write(root, "whole", "w") })), []string{"f 100644 0:0 f", "whole 100644 0:0 w"})
}

func impliedDirs(t *testing.T, d union.Driver, _ string) {
	a := addLayer(t, d, "", "./ 751", "usr/ 700", "usr/bin/ 1777", "usr/bin/a=a", "was=file")
	b := addLayer(t, d, a, "usr/bin/b=b", "new/dir/c=c", "was/now/a/dir=d")
	r := create(t, d, "r", b, nil)
	same(t, "tree", view(t, r), []string{
		"new 40755 0:0", "new/dir 40755 0:0", "new/dir/c 100644 0:0 c",
		"usr 40700 7:8", "usr/bin 41777 7:8", "usr/bin/a 100644 0:0 a", "usr/bin/b 100644 0:0 b",
		"was 40755 0:0", "was/now 40755 0:0", "was/now/a 40755 0:0", "was/now/a/dir 100644 0:0 d",
	})
	err := union.View(r, func(root *os.File) error {
		for _, p := range []string{".", "usr", "usr/bin"} {
			st, err := kernel.StatIn(root, p)
			if err != nil || st.Mtim.Sec != stamp.Unix() {
				t.Errorf("%s has time %v, %v", p, st.Mtim, err)
			}
		}
		st, err := kernel.StatIn(root, ".")
		if st.Mode&0o7777 != 0o751 || st.Uid != 7 {
			t.Errorf("the root directory is %o %d", st.Mode, st.Uid)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func impliedLinks(t *testing.T, d union.Driver, _ string) {
	a := addLayer(t, d, "", "usr/ 755", "usr/bin/ 711", "usr/bin/a=a", "bin->usr/bin", "var/ 755", "var/run->/run", "run/ 755", "run/new/ 700", "loop->loop", "usr/share/ 755", "dangle->nowhere/x")
	b := addLayer(t, d, a, "bin/b=b", "bin/sub/c=c", "var/run/pid=1", "loop/x=x", "dangle/y=y", "usr/bin/ 700", "usr/bin/d=d", "bin/a=newer")
	r := create(t, d, "r", b, nil)
	same(t, "tree", view(t, r), []string{
		"bin 120777 0:0 → usr/bin",
		"dangle 40755 0:0", "dangle/y 100644 0:0 y", "loop 40755 0:0", "loop/x 100644 0:0 x",
		"run 40755 7:8", "run/new 40700 7:8", "run/pid 100644 0:0 1",
		"usr 40755 7:8", "usr/bin 40700 7:8", "usr/bin/a 100644 0:0 newer", "usr/bin/b 100644 0:0 b", "usr/bin/d 100644 0:0 d",
		"usr/bin/sub 40755 0:0", "usr/bin/sub/c 100644 0:0 c", "usr/share 40755 7:8",
		"var 40755 7:8", "var/run 120777 0:0 → /run",
	})
	// A layer that brings the link itself and goes through it.
	e := addLayer(t, d, a, "usr/bin/ 711", "usr/.wh.share", "run->usr/bin", "run/new/x=x", "run/y=y")
	got := view(t, create(t, d, "e", e, nil))
	for _, want := range []string{"run 120777 0:0 → usr/bin", "usr/bin/new/x 100644 0:0 x", "usr/bin/y 100644 0:0 y", "usr/bin/a 100644 0:0 a"} {
		if !slices.Contains(got, want) {
			t.Errorf("%q is missing in\n%s", want, strings.Join(got, "\n"))
		}
	}
	// An explicit directory replaces the link and hides nothing else.
	c := addLayer(t, d, a, "bin/ 755", "bin/b=b", "bin/sub/c=c")
	got = view(t, create(t, d, "c", c, nil))
	for _, want := range []string{"bin 40755 7:8", "bin/sub/c 100644 0:0 c", "usr/bin/a 100644 0:0 a"} {
		if !slices.Contains(got, want) {
			t.Errorf("%q is missing in\n%s", want, strings.Join(got, "\n"))
		}
	}
}

func removal(t *testing.T, d union.Driver, dir string) {
	a := addLayer(t, d, "", "a=a")
	b := addLayer(t, d, a, "b=b")
	create(t, d, "r", b, nil)
	for _, chain := range []digest.Digest{a, b} {
		if err := d.Remove(chain); !errors.Is(err, fault.Conflict) {
			t.Errorf("remove while in use: %v", err)
		}
	}
	d = reopen(t, d, dir)
	for _, chain := range []digest.Digest{a, b} {
		if err := d.Remove(chain); !errors.Is(err, fault.Conflict) {
			t.Errorf("remove after reopening: %v", err)
		}
	}
	if err := errors.Join(d.Delete("r"), d.Delete("r"), d.Remove(b), d.Remove(a)); err != nil {
		t.Error(err)
	}
	if layers, err := d.Layers(); err != nil || len(layers) != 0 {
		t.Errorf("layers %v, %v", layers, err)
	}
	d = reopen(t, d, dir)
	if layers, _ := d.Layers(); len(layers) != 0 || d.Has(a) {
		t.Errorf("layers came back: %v", layers)
	}
}

func errorKinds(t *testing.T, d union.Driver, _ string) {
	chain := addLayer(t, d, "", "a=a")
	create(t, d, "taken", chain, nil)
	none := digest.FromString("none")
	for what, c := range map[string]struct {
		err  error
		kind fault.Kind
	}{
		"create over nothing":   {second(d.Create("x", none, nil)), fault.NotFound},
		"create a taken id":     {second(d.Create("taken", chain, nil)), fault.Exists},
		"create a bad id":       {second(d.Create("../x", chain, nil)), fault.Invalid},
		"create without an id":  {second(d.Create("", chain, nil)), fault.Invalid},
		"open an absent root":   {second(d.Open("x")), fault.NotFound},
		"remove absent layer":   {d.Remove(none), fault.NotFound},
		"delete an absent root": {d.Delete("x"), ""},
		"delete a bad id":       {d.Delete("../taken"), fault.Invalid},
		"unknown driver":        {second(union.Open("nofs", t.TempDir())), fault.Unsupported},
	} {
		if fault.Of(c.err) != c.kind || (c.err == nil) != (c.kind == "") {
			t.Errorf("%s: %v of kind %q, want %q", what, c.err, fault.Of(c.err), c.kind)
		}
	}
	for what, c := range map[string]struct{ chain, parent digest.Digest }{
		"no parent": {digest.FromString("new"), none},
		"no chain":  {"", ""},
		"bad chain": {"sha256:../x", ""},
	} {
		s, err := d.Stage()
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Commit(c.chain, c.parent, archive.Unpacked{}); fault.Of(err) == "" {
			t.Errorf("commit with %s: %v", what, err)
		}
	}
	if _, err := d.Open("taken"); err != nil {
		t.Errorf("the first owner of the id: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

func stages(t *testing.T, d union.Driver, dir string) {
	a, err := d.Stage()
	if err != nil {
		t.Fatal(err)
	}
	b, err := d.Stage()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(write(a.Root(), "a", "a"), write(b.Root(), "b", "b")); err != nil {
		t.Fatal(err)
	}
	ca, cb := digest.FromString("a"), digest.FromString("b")
	if d.Has(ca) {
		t.Error("a stage shows as a layer")
	}
	if err := errors.Join(a.Commit(ca, "", archive.Unpacked{}), b.Commit(cb, ca, archive.Unpacked{}), a.Abort(), b.Abort()); err != nil {
		t.Fatal(err)
	}
	if err := a.Commit(ca, "", archive.Unpacked{}); !errors.Is(err, fault.Conflict) {
		t.Errorf("commit twice: %v", err)
	}
	same(t, "tree", view(t, create(t, d, "r", cb, nil)), []string{"a 100644 0:0 a", "b 100644 0:0 b"})
	c, err := d.Stage()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.Abort(), c.Abort()); err != nil {
		t.Error(err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "stage", "layer-*")); err != nil || len(left) != 0 {
		t.Errorf("left in stage: %v, %v", left, err)
	}
}

func twice(t *testing.T, d union.Driver, _ string) {
	a := addLayer(t, d, "", "f=f")
	r := create(t, d, "r", a, nil)
	if b := addLayer(t, d, "", "f=f"); a != b {
		t.Fatal("not the same")
	}
	if layers, err := d.Layers(); err != nil || len(layers) != 1 {
		t.Errorf("layers %v, %v", layers, err)
	}
	same(t, "tree", view(t, r), []string{"f 100644 0:0 f"})
}

func survives(t *testing.T, d union.Driver, dir string) {
	a := addLayer(t, d, "", "f=f")
	b := addLayer(t, d, a, "g=gg")
	create(t, d, "r", b, nil)
	before, _ := d.Layers()
	d = reopen(t, d, dir)
	after, err := d.Layers()
	if err != nil || !reflect.DeepEqual(before, after) {
		t.Errorf("layers %v → %v, %v", before, after, err)
	}
	if ids, err := d.Roots(); err != nil || !slices.Equal(ids, []string{"r"}) {
		t.Errorf("roots %v, %v", ids, err)
	}
}

// halfStates leaves what a kill between any two steps leaves.
func halfStates(t *testing.T, d union.Driver, dir string) {
	if d.Name() != "overlay2" {
		t.Skip("the layout below is overlay2's")
	}
	a := addLayer(t, d, "", "f=f")
	create(t, d, "whole", a, func(root *os.File) error { return write(root, "i", "i") })
	if _, err := d.Stage(); err != nil { // killed while unpacking
		t.Fatal(err)
	}
	other := digest.FromString("other").Encoded()
	for _, p := range []string{
		"roots/begun",                 // Create: before the upper directory
		"roots/more/diff",             // before the work directory
		"roots/most/diff",             // before the link
		"roots/most/work",             //
		"trash/1/deep/er",             // Delete: before the sweep
		"layers/" + other + "/diff",   // never happens: a layer is renamed whole
		"inits/" + other + "/diff",    // Remove: after the layer went
		"merged/" + other + "/diff",   //
		"stage/init-1/diff/half",      // init was running
		"stage/merged-1/diff/half",    // a deep chain was being merged
		"spare/root-1/diff",           // a root was being made ahead
		"stage/check-1/work/work/inc", // the driver was being opened
	} {
		if err := os.MkdirAll(filepath.Join(dir, p), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "unsynced.tmp-12"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	d = reopen(t, d, dir)
	if ids, err := d.Roots(); err != nil || !slices.Equal(ids, []string{"whole"}) {
		t.Errorf("roots %v, %v", ids, err)
	}
	if layers, err := d.Layers(); err != nil || len(layers) != 1 || layers[0].Chain != a {
		t.Errorf("layers %v, %v", layers, err)
	}
	create(t, d, "begun", a, nil)
	r, err := d.Open("whole")
	if err != nil {
		t.Fatal(err)
	}
	same(t, "tree", view(t, r), []string{"f 100644 0:0 f", "i 100644 0:0 i"})
	wait(t, "everything half is gone", func() bool {
		found, err := filepath.Glob(filepath.Join(dir, "*", "*"))
		if err != nil {
			t.Fatal(err)
		}
		left := []string{}
		for _, f := range found {
			if rel, _ := filepath.Rel(dir, f); !strings.HasPrefix(rel, "spare/root-") { // spares of this process
				left = append(left, rel)
			}
		}
		return slices.Equal(left, []string{"inits/" + a.Encoded(), "layers/" + a.Encoded(), "roots/begun", "roots/whole"})
	})
	if found, _ := filepath.Glob(filepath.Join(dir, "*.tmp-*")); len(found) != 0 {
		t.Errorf("left: %v", found)
	}
}

// wait polls for cond and fails after a long while.
func wait(t testing.TB, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not so after 20 s: %s", what)
		}
	}
}

func powerCut(t *testing.T, d union.Driver, dir string) {
	a := addLayer(t, d, "", "f=f")
	old := time.Now().Add(-time.Hour)
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
	mark := filepath.Join(dir, "unsynced")
	if _, err := os.Lstat(mark); err == nil {
		t.Error("the mark outlives Sync")
	}
	b := addLayer(t, d, a, "g=g")
	d = reopen(t, d, dir) // the same boot: nothing is lost
	if !d.Has(a) || !d.Has(b) {
		t.Error("a layer was lost without a reboot")
	}
	if err := os.WriteFile(mark, []byte(`"another boot"`), 0o600); err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(time.Hour) // after both layers
	if err := os.Chtimes(mark, later, later); err != nil {
		t.Fatal(err)
	}
	d = reopen(t, d, dir)
	if !d.Has(a) || !d.Has(b) {
		t.Error("a layer from before the mark was dropped")
	}
	if err := os.WriteFile(mark, []byte(`"another boot"`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(mark, old, old); err != nil {
		t.Fatal(err)
	}
	create(t, d, "r", b, nil)
	d = reopen(t, d, dir)
	if d.Has(a) || d.Has(b) {
		t.Error("an unsynced layer was kept")
	}
	if r, err := d.Open("r"); stacks(d) && !errors.Is(err, fault.Corrupt) || !stacks(d) && err != nil {
		t.Errorf("a root over a lost layer: %v", err)
	} else if err == nil { // it is a whole tree
		same(t, "tree", view(t, r), []string{"f 100644 0:0 f", "g 100644 0:0 g"})
	}
	if err := d.Delete("r"); err != nil {
		t.Error(err)
	}
}

func noLayers(t *testing.T, d union.Driver, dir string) {
	r := create(t, d, "r", "", nil)
	if err := union.View(r, func(root *os.File) error { return write(root, "f", "f") }); err != nil {
		t.Fatal(err)
	}
	same(t, "tree", view(t, r), []string{"f 100644 0:0 f"})
	same(t, "with init", view(t, create(t, d, "i", "", func(root *os.File) error { return write(root, "i", "i") })), []string{"i 100644 0:0 i"})
	d = reopen(t, d, dir)
	for _, id := range []string{"i", "r"} {
		r, err := d.Open(id)
		if err != nil {
			t.Fatal(err)
		}
		same(t, "reopened "+id, view(t, r), map[string][]string{"r": {"f 100644 0:0 f"}, "i": {"i 100644 0:0 i"}}[id])
	}
}

func rootLook(t *testing.T, d union.Driver, _ string) {
	a := addLayer(t, d, "", "./ 1750", "f=f")
	b := addLayer(t, d, a, "g=g")
	for id, init := range map[string]func(*os.File) error{"plain": nil, "init": func(root *os.File) error { return write(root, "i", "i") }} {
		err := union.View(create(t, d, id, b, init), func(root *os.File) error {
			st, err := kernel.StatIn(root, ".")
			if st.Mode != kernel.TypeDir|0o1750 || st.Uid != 7 || st.Gid != 8 {
				t.Errorf("%s: %o %d:%d", id, st.Mode, st.Uid, st.Gid)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}

func views(t *testing.T, d union.Driver, _ string) {
	chain := addLayer(t, d, "", "n=0")
	r := create(t, d, "r", chain, nil)
	if stacks(d) && d.Name() != "aufs" {
		r.Mount.Options = append(r.Mount.Options, "volatile") // as the engine mounts a throw-away root
	}
	for i := range 3 {
		if err := union.View(r, func(root *os.File) error { return write(root, "n", fmt.Sprint(i+1)) }); err != nil {
			t.Fatal(err)
		}
		same(t, "tree", view(t, r), []string{fmt.Sprintf("n 100644 0:0 %d", i+1)})
	}
	if data, _ := os.ReadFile("/proc/self/mountinfo"); bytes.Contains(data, []byte(filepath.Dir(r.Merged))) {
		t.Error("the view shows in our mount table")
	}
}

func concurrent(t *testing.T, d union.Driver, _ string) {
	chain := addLayer(t, d, "", "f=f")
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 5 {
				id := fmt.Sprintf("r%d-%d", i, j)
				r, err := d.Create(id, chain, func(root *os.File) error { return write(root, "i", "i") })
				if err != nil || r.ID != id {
					t.Error(err)
					return
				}
				if _, err := d.Roots(); err != nil {
					t.Error(err)
				}
				if err := d.Delete(id); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if ids, err := d.Roots(); err != nil || len(ids) != 0 {
		t.Errorf("roots %v, %v", ids, err)
	}
	if err := d.Remove(chain); err != nil {
		t.Error(err)
	}
}

func oneProcess(t *testing.T, d union.Driver, dir string) {
	if _, err := union.Open(d.Name(), dir); !errors.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "--data-root") {
		t.Errorf("error %v", err)
	}
}

// stacks tells the drivers whose roots show their layers' own directories.
func stacks(d union.Driver) bool {
	return d.Name() == "overlay2" || d.Name() == "fuse-overlayfs" || d.Name() == "aufs"
}

func frees(t *testing.T, d union.Driver, dir string) {
	chain := addLayer(t, d, "", "f=f")
	r := create(t, d, "r", chain, nil)
	if err := union.View(r, func(root *os.File) error { return write(root, "big", strings.Repeat("x", 1<<20)) }); err != nil {
		t.Fatal(err)
	}
	if err := d.Delete("r"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "roots", "r")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the root is still in place: %v", err)
	}
	wait(t, "the trash is empty", func() bool {
		left, err := os.ReadDir(filepath.Join(dir, "trash"))
		return err == nil && len(left) == 0
	})
}

func TestOverlayRefusesAnOverlay(t *testing.T) {
	kerneltest.Root(t)
	top := t.TempDir()
	var options []string
	for _, d := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(top, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	options = append(options, "lowerdir="+filepath.Join(top, "lower"), "upperdir="+filepath.Join(top, "upper"), "workdir="+filepath.Join(top, "work"))
	m, err := kernel.NewMount("overlay", "overlay", options, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	at, err := kernel.OpenIn(nil, filepath.Join(top, "merged"), kernel.OPath, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer at.Close()
	if err := kernel.AttachMount(m, at); err != nil {
		t.Fatal(err)
	}
	defer kernel.Unmount(at.Name(), true)
	_, err = union.Open("overlay2", filepath.Join(top, "merged", "data"))
	if !errors.Is(err, fault.Unsupported) || !strings.Contains(err.Error(), "--data-root") {
		t.Errorf("error %v", err)
	}
}

func TestOverlayRefusesALongPath(t *testing.T) {
	_, err := union.Open("", filepath.Join(t.TempDir(), strings.Repeat("long/", 40)))
	if !errors.Is(err, fault.Unsupported) || !strings.Contains(err.Error(), "--data-root") {
		t.Errorf("error %v", err)
	}
}

func TestOverlayLimits(t *testing.T) {
	kerneltest.Root(t)
	top := t.TempDir()
	pad := 160 - len(top) - 1
	dir := filepath.Join(top, strings.Repeat("p", pad)) // the longest that is taken
	d := open(t, "overlay", dir)
	if rows := d.Status(); rows[0][1] == "" || rows[1] != [2]string{"Supports d_type", "true"} || d.Name() != "overlay2" {
		t.Errorf("status %v of %s", rows, d.Name())
	}
	chain := digest.Digest("")
	for i := range 505 {
		entries := []string{fmt.Sprintf("f%03d=%d", i, i)}
		switch i {
		case 10:
			entries = append(entries, "d/ 700", "d/old=o", "d/keep=k", "o/ 755", "o/hidden=h", "turn=file")
		case 20:
			entries = append(entries, "d/ 711", "d/.wh.old", ".wh.f003", "o/ 755", "o/.wh..wh..opq", "o/new=n", "turn/ 755", "turn/in=i")
		case 450:
			entries = append(entries, ".wh.f004")
		}
		chain = addLayer(t, d, chain, entries...)
	}
	check := func(r union.Root, what string) {
		t.Helper()
		if len(r.Stacked.Lower) > 500 {
			t.Errorf("%s: %d lower directories", what, len(r.Stacked.Lower))
		}
		got := view(t, r)
		if len(got) != 505-2+3+2+2+1-1 {
			t.Errorf("%s: %d names", what, len(got))
		}
		for _, want := range []string{"d 40711 7:8", "d/keep 100644 0:0 k", "f000 100644 0:0 0", "f504 100644 0:0 504", "o/new 100644 0:0 n", "turn/in 100644 0:0 i", "i 100644 0:0 i"} {
			if !slices.Contains(got, want) {
				t.Errorf("%s: %q is missing", what, want)
			}
		}
	}
	id := strings.Repeat("r", 64)
	check(create(t, d, id, chain, func(root *os.File) error { return write(root, "i", "i") }), "created")
	d = reopen(t, d, dir)
	r, err := d.Open(id)
	if err != nil {
		t.Fatal(err)
	}
	check(r, "reopened")
}

func TestStageOnAFullDisk(t *testing.T) {
	kerneltest.Root(t)
	dir := t.TempDir()
	fs, err := kernel.NewMount("tmpfs", "tmpfs", []string{"size=1m"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer fs.Close()
	at, err := kernel.OpenIn(nil, dir, kernel.OPath, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer at.Close()
	if err := kernel.AttachMount(fs, at); err != nil {
		t.Fatal(err)
	}
	defer kernel.Unmount(dir, true)
	d, err := union.Open("", filepath.Join(dir, "d"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	s, err := d.Stage()
	if err != nil {
		t.Fatal(err)
	}
	data := layerTar(t, "small=s", "big="+strings.Repeat("b", 4<<20))
	_, err = archive.Unpack(t.Context(), bytes.NewReader(data), s.Root(), archive.UnpackOptions{Whiteouts: true})
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), `"big"`) {
		t.Errorf("error %v", err)
	}
	if err := s.Abort(); err != nil {
		t.Error(err)
	}
	if layers, err := d.Layers(); err != nil || len(layers) != 0 {
		t.Errorf("layers %v, %v", layers, err)
	}
	wait(t, "the space is free again", func() bool {
		_, err := os.Stat(filepath.Join(dir, "d", "trash"))
		left, rerr := os.ReadDir(filepath.Join(dir, "d", "trash"))
		return err == nil && rerr == nil && len(left) == 0
	})
	addLayer(t, d, "", "small=s")
}

func BenchmarkCreateDelete(b *testing.B) {
	d := open(b, "", filepath.Join(b.TempDir(), "d"))
	chain := digest.Digest("")
	for i := range 5 {
		chain = addLayer(b, d, chain, fmt.Sprintf("f%d=x", i))
	}
	init := func(root *os.File) error { return write(root, "i", "i") }
	create(b, d, "warm", chain, init)
	n := 0
	for b.Loop() {
		n++
		id := fmt.Sprintf("r%d", n)
		if _, err := d.Create(id, chain, init); err != nil {
			b.Fatal(err)
		}
		if err := d.Delete(id); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCreateAhead is what a user waits for when spares are ready, as they are between two commands.
func BenchmarkCreateAhead(b *testing.B) {
	dir := filepath.Join(b.TempDir(), "d")
	d := open(b, "", dir)
	chain := addLayer(b, d, "", "f=x")
	n := 0
	create(b, d, "r0", chain, nil)
	for b.Loop() {
		b.StopTimer()
		wait(b, "a spare is ready", func() bool {
			found, err := filepath.Glob(filepath.Join(dir, "spare", "root-*", "lower"))
			return err == nil && len(found) > 0
		})
		n++
		id := fmt.Sprintf("r%d", n)
		b.StartTimer()
		if _, err := d.Create(id, chain, nil); err != nil {
			b.Fatal(err)
		}
		if err := d.Delete(id); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkView(b *testing.B) {
	d := open(b, "", filepath.Join(b.TempDir(), "d"))
	chain := addLayer(b, d, addLayer(b, d, "", "f=f"), "g=g")
	r := create(b, d, "r", chain, nil)
	for b.Loop() {
		if err := union.View(r, func(*os.File) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}
