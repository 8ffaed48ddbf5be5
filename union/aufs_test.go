package union

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"berth/archive"
	"berth/fault"
	"berth/internal/kerneltest"
	"berth/kernel"
)

// No kernel here has aufs. What it would be told, and what lies on the disk for it, is compared with what aufs(5) says; the driver's contract is tested
// where there is a kernel with aufs.

func TestAufsIsRefused(t *testing.T) {
	kerneltest.Root(t)
	if has, err := kernel.HasFileSystem("aufs"); err != nil || has {
		t.Skipf("this kernel has aufs (%v)", err)
	}
	dir := filepath.Join(t.TempDir(), "d")
	for _, c := range []struct {
		dir     string
		options []string
		kind    error
		words   string
	}{
		{dir, nil, fault.Unsupported, "this kernel has no file system aufs (it never was part of Linux): use overlay2"},
		{dir + "=x", nil, fault.Unsupported, "an equals sign"},
		{dir, []string{"size=1G"}, fault.Invalid, "unknown option size=1G"},
	} {
		_, err := Open("aufs", c.dir, c.options...)
		if fault.Of(err) != c.kind || !strings.Contains(fmt.Sprint(err), c.words) {
			t.Errorf("%s %q: %v", c.dir, c.options, err)
		}
	}
	if _, err := os.Lstat(dir); err == nil {
		t.Error("a refused driver left a directory")
	}
}

func TestAufsMounts(t *testing.T) {
	by, err := aufsStack("/d/aufs")
	if err != nil {
		t.Fatal(err)
	}
	old := by
	old.options = []string{"dio", "noplink"}
	var lower, many []string
	for i := range 100 {
		lower = append(lower, fmt.Sprintf("/d/aufs/layers/%d/diff", i))
		many = append(many, fmt.Sprintf("br:/d/aufs/layers/%d/diff=ro+wh", i))
	}
	for _, c := range []struct {
		name string
		got  Mount
		want []string
	}{
		{"a root", by.mount([]string{"/l/1", "/l/0"}, "/r/diff", "/r/work"), []string{"br:/r/diff=rw", "br:/l/1=ro+wh", "br:/l/0=ro+wh", "dio", "noplink", "dirperm1", "xino=/r/work/xino"}},
		{"a root over an init layer", by.mount([]string{"/i/diff", "/l/0"}, "/r/diff", "/r/work"), []string{"br:/r/diff=rw", "br:/i/diff=ro+wh", "br:/l/0=ro+wh", "dio", "noplink", "dirperm1", "xino=/r/work/xino"}},
		{"an aufs without dirperm1", old.mount([]string{"/l/0"}, "/r/diff", "/r/work"), []string{"br:/r/diff=rw", "br:/l/0=ro+wh", "dio", "noplink", "xino=/r/work/xino"}},
		{"to be read", by.mount([]string{"/l/1", "/l/0"}, "", ""), []string{"br:/l/1=ro+wh", "br:/l/0=ro+wh", "dio", "noplink", "dirperm1", "xino=/d/aufs/stage/xino"}},
		{"one layer, lent", Root{Mount: Mount{Type: "aufs"}, Stacked: &Stacked{Lower: []string{"/l/0"}, by: by}}.Lent(), []string{"br:/l/0=ro+wh", "dio", "noplink", "dirperm1", "xino=/d/aufs/stage/xino"}},
		{"many layers", by.mount(lower, "", ""), append(many, "dio", "noplink", "dirperm1", "xino=/d/aufs/stage/xino")},
	} {
		if c.got.Type != "aufs" || !slices.Equal(c.got.Options, c.want) {
			t.Errorf("%s: %s %q", c.name, c.got.Type, c.got.Options)
		}
	}
	// A chain of most-1 layers, an init layer, a root and one beneath it are as many branches as every aufs takes.
	if by.most-1+3 > 127 || by.step >= by.most {
		t.Errorf("most %d, step %d", by.most, by.step)
	}
}

// TestAufsTells: what `info` and tools get.
func TestAufsTells(t *testing.T) {
	by, err := aufsStack("/d/aufs")
	if err != nil {
		t.Fatal(err)
	}
	o := &overlay{home: newHome("/d/aufs"), by: by}
	o.backing = "extfs"
	o.add(Layer{Chain: "a"})
	o.add(Layer{Chain: "b", Parent: "a"})
	o.roots["r"] = &rootState{chain: "b"}
	want := [][2]string{{"Root Dir", "/d/aufs"}, {"Backing Filesystem", "extfs"}, {"Dirs", "3"}, {"Dirperm1 Supported", "true"}}
	if got := o.Status(); !slices.Equal(got, want) {
		t.Errorf("status %q", got)
	}
	o.by.options, want[3][1] = []string{"dio"}, "false"
	if got := o.Status(); !slices.Equal(got, want) {
		t.Errorf("status %q", got)
	}
	if err := o.limit("r", 1<<30); fault.Of(err) != fault.Unsupported || !strings.Contains(err.Error(), "--storage-opt is not supported for aufs") {
		t.Errorf("a size: %v", err)
	}
	r := Root{Stacked: &Stacked{Lower: []string{"/l/0"}, by: by}}
	if data := r.Data(); data != nil || Dirs(o, "b") != nil {
		t.Errorf("data %q", data)
	}
	for _, magic := range []int64{kernel.AufsMagic, kernel.OverlayMagic, kernel.BtrfsMagic} {
		if err := refuseBelowAufs("/d", magic); fault.Of(err) != fault.Unsupported || !strings.Contains(err.Error(), "--data-root") {
			t.Errorf("%x: %v", magic, err)
		}
	}
	if err := refuseBelowAufs("/d", kernel.ExtMagic); err != nil {
		t.Error(err)
	}
}

func TestAufsNames(t *testing.T) {
	for _, c := range []struct{ all, names, gone string }{
		{"", "", ""},
		{"b a", "a b", ""},
		{".wh.b a .wh.c", "a", "b c"},
		{".wh..b .wh.a a", "a", ".b"}, // what is there counts
		{".wh..wh..opq .wh..wh.aufs .wh..wh.plnk .wh..wh.orph .wh..wh.0123.abcd f", "f", ""},
		{".wh. .wh .wh.. .whx", ".wh .wh. .whx", "."},
	} {
		names, gone := unmarked(strings.Fields(c.all))
		if strings.Join(names, " ") != c.names || strings.Join(gone, " ") != c.gone {
			t.Errorf("%q: %q, gone %q", c.all, names, gone)
		}
	}
}

// form unpacks a layer, entries as "d/" and "f", in overlay's form or in aufs'.
func form(t *testing.T, by stacking, entries ...string) *os.File {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e, Mode: 0o644, Typeflag: tar.TypeReg, ModTime: time.Unix(1_500_000_000, 0), Size: int64(len(e))}
		if strings.HasSuffix(e, "/") {
			h.Typeflag, h.Mode, h.Size = tar.TypeDir, 0o755, 0
		}
		if strings.HasPrefix(path.Base(e), ".wh.") {
			h.Size = 0
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, e[:h.Size])
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	top, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { top.Close() })
	if _, err := archive.Unpack(t.Context(), &b, top, archive.UnpackOptions{Whiteouts: true}); err != nil {
		t.Fatal(err)
	}
	if err := kernel.Times(top, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if by.marks() {
		if err := markTree(top); err != nil {
			t.Fatal(err)
		}
	}
	return top
}

// forms are layers from below; the second takes away a file, a tree, and what lies below a directory; the third brings some back.
func forms(t *testing.T, by stacking) []*os.File {
	return []*os.File{
		form(t, by, "etc/", "etc/one", "etc/two", "old/", "old/x", "old/sub/", "old/sub/y", "tree/", "tree/leaf", "turn"),
		form(t, by, "./", "etc/", "etc/.wh.one", "etc/three", "old/", "old/.wh..wh..opq", "old/z", ".wh.tree", "turn/", "turn/in"),
		form(t, by, "./", "etc/", "etc/one", "tree/", "tree/new", ".wh.old", "old/", "old/again"),
	}
}

// aufsAndOverlay are the two forms of layers.
func aufsAndOverlay(t *testing.T) (aufs, over stacking) {
	kerneltest.Root(t)
	aufs, err := aufsStack("/d")
	if err != nil {
		t.Fatal(err)
	}
	return aufs, overlayStack()
}

func TestAufsLayer(t *testing.T) {
	by, _ := aufsAndOverlay(t)
	top := forms(t, by)[1]
	var got []string
	err := filepath.Walk(top.Name(), func(p string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(top.Name(), p)
		if info.IsDir() && rel != "." && info.ModTime().Unix() != 1_500_000_000 {
			t.Errorf("%s was modified at %v", rel, info.ModTime())
		}
		if info.Size() != int64(len(rel)) && !info.IsDir() && !strings.HasPrefix(info.Name(), ".wh.") {
			t.Errorf("%s has %d bytes", rel, info.Size())
		}
		got = append(got, fmt.Sprint(info.Mode(), " ", rel))
		return err
	})
	want := []string{
		"drwxr-xr-x .", "-r--r--r-- .wh.tree", "drwxr-xr-x etc", "-r--r--r-- etc/.wh.one", "-rw-r--r-- etc/three",
		"drwxr-xr-x old", "-r--r--r-- old/.wh..wh..opq", "-rw-r--r-- old/z", "drwxr-xr-x turn", "-rw-r--r-- turn/in",
	}
	got[0] = strings.Replace(got[0], "drwx------", "drwxr-xr-x", 1) // the test's own
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v\n%s\nwant:\n%s", err, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if attrs, err := kernel.XattrsIn(top, "old"); err != nil || len(attrs) > 0 {
		t.Errorf("attributes %v, %v", attrs, err)
	}
}

// TestAufsLayersReadAsOthers: layers by themselves look the same in both forms.
func TestAufsLayersReadAsOthers(t *testing.T) {
	aufs, over := aufsAndOverlay(t)
	read := func(by stacking) (lines []string) {
		s := &Stack{roots: forms(t, by), by: by}
		for layer := range s.roots {
			var walk func(dir string)
			walk = func(dir string) {
				list, opaque, err := s.ReadDir(t.Context(), layer, dir)
				if err != nil {
					t.Fatal(err)
				}
				lines = append(lines, fmt.Sprint(layer, " ", dir, " ", opaque))
				for _, e := range list {
					lines = append(lines, fmt.Sprint(layer, " ", path.Join(dir, e.Name), " ", e.Size, e.Whiteout(), e.Mode&kernel.TypeMask))
					if e.IsDir() {
						walk(path.Join(dir, e.Name))
					}
				}
			}
			walk(".")
		}
		return lines
	}
	got, want := read(aufs), read(over)
	if !slices.Equal(got, want) || len(want) < 20 {
		t.Errorf("%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestAufsMerged: a bottom that is too long for aufs becomes the same directory as for overlay.
func TestAufsMerged(t *testing.T) {
	aufs, over := aufsAndOverlay(t)
	merge := func(by stacking) *os.File {
		to, err := os.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { to.Close() })
		for _, layer := range forms(t, by) {
			if err := by.linkTree(layer.Name(), to.Name()); err != nil {
				t.Fatal(err)
			}
		}
		return to
	}
	a, b := merge(aufs), merge(over)
	if difference, err := compareTrees(a, b); difference != "" || err != nil {
		t.Errorf("%s, %v", difference, err)
	}
	names, err := sortedNames(a)
	if want := []string{"etc", "old", "tree", "turn"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("%q, %v", names, err)
	}
}

// TestAufsWritten: what a container wrote is told and packed as overlay's is, without aufs' own files.
func TestAufsWritten(t *testing.T) {
	aufs, over := aufsAndOverlay(t)
	changes := func(by stacking) (lines []string) {
		low, made := form(t, over, "etc/", "etc/one", "etc/two", "old/", "old/x", "tree/", "tree/leaf", "turn"), forms(t, by)[1]
		if by.marks() { // as the kernel leaves them at the top of a writable branch, and a whiteout of what isn't there
			for _, d := range []string{".wh..wh.plnk", ".wh..wh.orph"} {
				if err := os.Mkdir(filepath.Join(made.Name(), d), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			for _, n := range []string{".wh..wh.aufs", ".wh.never", "turn/.wh.never"} {
				if err := putMark(made, n); err != nil {
					t.Fatal(err)
				}
			}
		}
		up, err := os.Open(made.Name())
		if err != nil {
			t.Fatal(err)
		}
		defer up.Close()
		d := &differ{ctx: t.Context(), by: by}
		if err := d.dir(up, low, "/"); err != nil {
			t.Fatal(err)
		}
		for _, c := range d.list {
			lines = append(lines, fmt.Sprintf("%c %s", "CAD"[c.Kind], c.Path))
		}
		return lines
	}
	want := []string{"C /etc", "D /etc/one", "A /etc/three", "C /old", "D /old/x", "A /old/z", "D /tree", "C /turn", "A /turn/in"}
	if got := changes(over); !slices.Equal(got, want) {
		t.Errorf("overlay: %q", got)
	}
	if got := changes(aufs); !slices.Equal(got, want) {
		t.Errorf("aufs: %q", got)
	}
	members := func(by stacking) (names []string) {
		var b bytes.Buffer
		s := &Stacked{Upper: forms(t, by)[1].Name(), by: by}
		if err := s.pack(t.Context(), &b, archive.IDMap{}); err != nil {
			t.Fatal(err)
		}
		for r := tar.NewReader(&b); ; {
			h, err := r.Next()
			if err == io.EOF {
				return names
			}
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, fmt.Sprint(h.Name, " ", string(h.Typeflag), " ", h.Size))
		}
	}
	a, b := members(aufs), members(over)
	slices.Sort(a)
	slices.Sort(b)
	if !slices.Equal(a, b) || !slices.Contains(a, "old/.wh..wh..opq 0 0") || !slices.Contains(a, "etc/.wh.one 0 0") {
		t.Errorf("packed %q, want %q", a, b)
	}
}
