package archive_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"berth/archive"
	"berth/fault"
	"berth/internal/kerneltest"
	"berth/kernel"
)

// names lists the members of an archive.
func names(t *testing.T, data []byte) []string {
	t.Helper()
	var list []string
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, h.Name)
	}
}

func TestPackerAdds(t *testing.T) {
	root := t.TempDir()
	for _, d := range []string{"d/sub", "real"} {
		must(t, os.MkdirAll(filepath.Join(root, d), 0o755))
	}
	must(t, os.WriteFile(filepath.Join(root, "d/sub/x"), []byte("x"), 0o644))
	must(t, os.Link(filepath.Join(root, "d/sub/x"), filepath.Join(root, "d/y")))
	must(t, os.Symlink("/d", filepath.Join(root, "real/abs")))
	top := openDir(t, root)
	for _, c := range []struct {
		path, as string
		want     []string
	}{
		{"/d", "d", []string{"d/", "d/sub/", "d/sub/x", "d/y"}},
		{"/d/.", ".", []string{"./", "./sub/", "./sub/x", "./y"}},
		{"d/sub/x", "other", []string{"other"}},
		{"/real/abs", "abs", []string{"abs"}},
		{"/real/abs/", "abs", []string{"abs/", "abs/sub/", "abs/sub/x", "abs/y"}},
		{"/real/../real/abs/sub", "s", []string{"s/", "s/x"}}, // ".." is taken out as written
		{"/", "", []string{"/", "/d/", "/d/sub/", "/d/sub/x", "/d/y", "/real/", "/real/abs"}},
		{"/", "all", []string{"all/", "all/d/", "all/d/sub/", "all/d/sub/x", "all/d/y", "all/real/", "all/real/abs"}},
	} {
		var b bytes.Buffer
		p := archive.NewPacker(t.Context(), &b, archive.PackOptions{Live: true})
		if err := errors.Join(p.AddPath(top, c.path, c.as), p.Close()); err != nil {
			t.Errorf("%s: %v", c.path, err)
		} else if got := names(t, b.Bytes()); !slices.Equal(got, c.want) {
			t.Errorf("%s as %q: %q, want %q", c.path, c.as, got, c.want)
		}
	}
	p := archive.NewPacker(t.Context(), io.Discard, archive.PackOptions{})
	if err := p.AddPath(top, "/d/y/", "y"); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("a file with a slash: %v", err)
	}
	proc := openDir(t, "/proc")
	if err := p.AddPath(proc, "/version", "v"); !errors.Is(err, fault.Invalid) {
		t.Errorf("a file that the kernel makes up: %v", err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// changing runs change once the first bytes of an archive are written.
type changing struct {
	bytes.Buffer
	change func()
}

func (c *changing) Write(p []byte) (int, error) {
	if c.change != nil {
		c.change()
		c.change = nil
	}
	return c.Buffer.Write(p)
}

func TestPackOfALivingTree(t *testing.T) {
	root := t.TempDir()
	must(t, os.WriteFile(filepath.Join(root, "a"), bytes.Repeat([]byte("a"), 300<<10), 0o644))
	must(t, os.WriteFile(filepath.Join(root, "gone"), []byte("g"), 0o644))
	must(t, os.WriteFile(filepath.Join(root, "kind"), []byte("k"), 0o644))
	must(t, os.WriteFile(filepath.Join(root, "shrinks"), bytes.Repeat([]byte("s"), 1<<20), 0o644))
	w := &changing{change: func() {
		os.Remove(filepath.Join(root, "gone"))
		os.Remove(filepath.Join(root, "kind"))
		syscall.Mkfifo(filepath.Join(root, "kind"), 0o644)
	}}
	if err := archive.Pack(t.Context(), w, openDir(t, root), archive.PackOptions{Live: true}); err != nil {
		t.Fatal(err)
	}
	if got, want := names(t, w.Bytes()), []string{"a", "kind", "shrinks"}; !slices.Equal(got, want) {
		t.Errorf("members %q, want %q", got, want)
	}
	// A file that shrinks while it is read has its size, and zeros.
	tw := &shrinking{path: filepath.Join(root, "shrinks")}
	if err := archive.Pack(t.Context(), tw, openDir(t, root), archive.PackOptions{Live: true}); err != nil {
		t.Fatal(err)
	}
	if got := names(t, tw.Bytes()); !slices.Contains(got, "shrinks") {
		t.Errorf("members %q", got)
	}
	if err := archive.Pack(t.Context(), &shrinking{path: filepath.Join(root, "a"), from: 1}, openDir(t, root), archive.PackOptions{}); err != nil && !errors.Is(err, fault.Conflict) {
		t.Error(err)
	}
}

// shrinking cuts a file in half once much of an archive is written.
type shrinking struct {
	bytes.Buffer
	path string
	from int
}

func (s *shrinking) Write(p []byte) (int, error) {
	if s.Len() > 300<<10 {
		os.Truncate(s.path, 100<<10)
	}
	return s.Buffer.Write(p)
}

// TestHoles sends files with holes through the sparse format and back, and has GNU tar read it.
func TestHoles(t *testing.T) {
	kerneltest.Root(t)
	root := t.TempDir()
	write := func(name string, size int64, at ...int64) {
		f, err := os.Create(filepath.Join(root, name))
		must(t, err)
		for _, a := range at {
			_, err := f.WriteAt([]byte("data at "+name), a)
			must(t, err)
		}
		must(t, f.Truncate(size))
		must(t, f.Close())
	}
	write("empty", 64<<20)
	write("front", 50<<20, 0)
	write("end", 40<<20, 40<<20-12)
	write("both", 10<<30, 0, 5<<30, 10<<30-12)
	write(strings.Repeat("long", 50), 30<<20, 1<<20)
	write("small", 100, 0)
	var b bytes.Buffer
	must(t, archive.Pack(t.Context(), &b, openDir(t, root), archive.PackOptions{Holes: true}))
	if b.Len() > 1<<20 {
		t.Errorf("the archive has %d bytes", b.Len())
	}
	readers := map[string]func(dir string){
		"our own": func(dir string) {
			_, err := unpack(t, dir, b.Bytes(), archive.UnpackOptions{})
			must(t, err)
		},
	}
	if gnu, err := exec.LookPath("tar"); err == nil {
		readers["GNU tar"] = func(dir string) {
			cmd := exec.Command(gnu, "xf", "-", "-C", dir)
			cmd.Stdin = bytes.NewReader(b.Bytes())
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}
	}
	for name, read := range readers {
		dir := t.TempDir()
		read(dir)
		entries, err := os.ReadDir(root)
		must(t, err)
		for _, e := range entries {
			want, err := os.Stat(filepath.Join(root, e.Name()))
			must(t, err)
			got, err := os.Stat(filepath.Join(dir, e.Name()))
			if err != nil || got.Size() != want.Size() {
				t.Errorf("%s: %s: %v %v", name, e.Name(), got, err)
				continue
			}
			if blocks := got.Sys().(*syscall.Stat_t).Blocks; blocks > want.Sys().(*syscall.Stat_t).Blocks {
				t.Errorf("%s: %s takes %d blocks", name, e.Name(), blocks)
			}
		}
		for file, at := range map[string]int64{"front": 0, "end": 40<<20 - 12, "both": 5 << 30} {
			f, err := os.Open(filepath.Join(dir, file))
			must(t, err)
			text := make([]byte, 10)
			if _, err := f.ReadAt(text, at); err != nil || string(text) != ("data at " + file)[:10] {
				t.Errorf("%s: %s has %q at %d: %v", name, file, text, at, err)
			}
			must(t, f.Close())
		}
	}
	// Zeros become holes when that is asked for.
	dir := t.TempDir()
	_, err := unpack(t, dir, tarOf(t, file("zeros", strings.Repeat("\x00", 4<<20)+"end")), archive.UnpackOptions{Holes: true})
	must(t, err)
	if st, err := os.Stat(filepath.Join(dir, "zeros")); err != nil || st.Size() != 4<<20+3 || st.Sys().(*syscall.Stat_t).Blocks > 16 {
		t.Errorf("zeros: %v %v", st, err)
	}
}

// TestUnpackInto covers a tree with a life of its own.
func TestUnpackInto(t *testing.T) {
	kerneltest.Root(t)
	root, outside := t.TempDir(), t.TempDir()
	must(t, os.MkdirAll(filepath.Join(root, "in/here"), 0o750))
	must(t, os.Chmod(filepath.Join(root, "in"), 0o711))
	must(t, os.MkdirAll(filepath.Join(root, "target"), 0o755))
	must(t, os.Symlink("/target", filepath.Join(root, "in/link")))
	must(t, os.Symlink(outside, filepath.Join(root, "in/out")))
	must(t, os.Symlink("../../../../../../../../.."+outside, filepath.Join(root, "in/up")))
	must(t, os.WriteFile(filepath.Join(root, "in/file"), []byte("old"), 0o600))
	o := archive.UnpackOptions{Live: true, Into: "/in", KeepKinds: true}
	_, err := unpack(t, root, tarOf(t, member{tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o777, Uid: 7}, ""},
		file("link/x", "x"), file("file", "new"), file("made/y", "y"), member{tar.Header{Name: "here", Typeflag: tar.TypeDir, Mode: 0o700}, ""}), o)
	must(t, err)
	for name, want := range map[string]string{"target/x": "x", "in/file": "new", "in/made/y": "y"} {
		if got, err := os.ReadFile(filepath.Join(root, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q %v", name, got, err)
		}
	}
	for name, want := range map[string]os.FileMode{"in": 0o711, "in/here": 0o700, "in/made": 0o755} {
		if st, err := os.Stat(filepath.Join(root, name)); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v %v, want %v", name, st.Mode(), err, want)
		}
	}
	for name, members := range map[string][]member{
		"through a link to the host": {file("out/x", "x")}, "through dots": {file("up/x", "x")}, "a climb": {file("../../x", "x")},
		"a file onto a directory": {file("here", "x")}, "a directory onto a file": {dir("file")}, "a directory onto a link": {dir("link")},
		"a hard link to outside": {hardlink("h", "out/x")},
	} {
		if _, err := unpack(t, root, tarOf(t, members...), o); err == nil {
			t.Errorf("%s: no error", name)
		}
		if left, _ := os.ReadDir(outside); len(left) > 0 {
			t.Fatalf("%s: %v came out", name, left)
		}
	}
	// Owners as a container sees them, and one for all.
	ids := archive.IDMap{UIDs: []archive.IDRange{{Container: 0, Host: 100000, Size: 1000}}, GIDs: []archive.IDRange{{Container: 0, Host: 200000, Size: 1000}}}
	owned := member{tar.Header{Name: "owned", Typeflag: tar.TypeReg, Uid: 5, Gid: 6, Mode: 0o4755}, ""}
	for name, c := range map[string]struct {
		o        archive.UnpackOptions
		uid, gid uint32
		mode     os.FileMode
	}{
		"as it says": {archive.UnpackOptions{}, 5, 6, 0o755 | os.ModeSetuid},
		"mapped":     {archive.UnpackOptions{Live: true, IDs: ids}, 100005, 200006, 0o755 | os.ModeSetuid},
		"chosen":     {archive.UnpackOptions{Owner: &archive.Owner{UID: 8, GID: 9}, IDs: ids}, 100008, 200009, 0o755 | os.ModeSetuid},
		"mine":       {archive.UnpackOptions{Mine: true}, 0, 0, 0o755},
	} {
		at := t.TempDir()
		if _, err := unpack(t, at, tarOf(t, owned), c.o); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		st, err := os.Stat(filepath.Join(at, "owned"))
		must(t, err)
		if sys := st.Sys().(*syscall.Stat_t); sys.Uid != c.uid || sys.Gid != c.gid || st.Mode() != c.mode {
			t.Errorf("%s: %d:%d %v", name, sys.Uid, sys.Gid, st.Mode())
		}
		if !c.o.IDs.Empty() && c.o.Live {
			if hdr := tar.NewReader(bytes.NewReader(pack(t, at, archive.PackOptions{IDs: ids}))); true {
				for h, err := hdr.Next(); err == nil; h, err = hdr.Next() {
					if h.Name == "owned" && (h.Uid != 5 || h.Gid != 6) {
						t.Errorf("%s: packed again as %d:%d", name, h.Uid, h.Gid)
					}
				}
			}
		}
	}
	if _, err := unpack(t, t.TempDir(), tarOf(t, member{tar.Header{Name: "x", Typeflag: tar.TypeReg, Uid: 1000}, ""}), archive.UnpackOptions{IDs: ids}); !errors.Is(err, fault.Invalid) {
		t.Errorf("an id that the map does not have: %v", err)
	}
}

// TestUnpackLeavesMounts: what is mounted in another namespace could be unmounted from here by an unlink.
func TestUnpackLeavesMounts(t *testing.T) {
	kerneltest.Root(t)
	root, source := t.TempDir(), t.TempDir()
	must(t, os.WriteFile(filepath.Join(source, "f"), []byte("mounted"), 0o644))
	must(t, os.WriteFile(filepath.Join(root, "f"), []byte("below"), 0o644))
	must(t, os.MkdirAll(filepath.Join(root, "d/v"), 0o755))
	must(t, syscall.Mount(filepath.Join(source, "f"), filepath.Join(root, "f"), "", syscall.MS_BIND, ""))
	defer syscall.Unmount(filepath.Join(root, "f"), 0)
	must(t, syscall.Mount(source, filepath.Join(root, "d/v"), "", syscall.MS_BIND, ""))
	defer syscall.Unmount(filepath.Join(root, "d/v"), 0)
	o := archive.UnpackOptions{Live: true, Into: "/"}
	if _, err := unpack(t, root, tarOf(t, file("f", "written")), o); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(filepath.Join(source, "f")); string(got) != "written" {
		t.Errorf("the mounted file has %q", got)
	}
	if _, err := unpack(t, root, tarOf(t, file("d", "instead")), o); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("a file instead of a directory with a mount: %v", err)
	}
	if got, err := os.ReadFile(filepath.Join(source, "f")); err != nil || string(got) != "written" {
		t.Errorf("the volume lost its file: %q %v", got, err)
	}
	if _, err := unpack(t, root, tarOf(t, symlink("f", "x")), o); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("a link instead of a mounted file: %v", err)
	}
	proc := openDir(t, "/")
	if _, err := archive.Unpack(t.Context(), bytes.NewReader(tarOf(t, file("x", "x"))), proc, archive.UnpackOptions{Live: true, Into: "/proc"}); !errors.Is(err, fault.Invalid) {
		t.Errorf("into /proc: %v", err)
	}
}

func TestLookup(t *testing.T) {
	dir := t.TempDir()
	for link, target := range map[string]string{
		"abs": "/etc", "up": "../../../../etc", "loop": "loop", "chain": "abs/../abs", "into": "/etc/deep", "file": "etc/../none",
	} {
		must(t, os.Symlink(target, filepath.Join(dir, link)))
	}
	must(t, os.MkdirAll(filepath.Join(dir, "etc/deep"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "etc/a.conf"), []byte("inside"), 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "etc/.b.conf"), nil, 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "etc/we*rd"), nil, 0o644))
	top := openDir(t, dir)
	for name, want := range map[string]string{
		"/": "/", "/etc/hosts": "/etc/hosts", "abs/x": "/etc/x", "up/x": "/etc/x", "chain/y": "/etc/y", "into": "/etc/deep",
		"../../x": "/x", "file": "/none", "a//b/./c": "/a/b/c",
	} {
		if got, err := archive.Resolve(top, name); err != nil || got != want {
			t.Errorf("%s: %s, %v, want %s", name, got, err, want)
		}
	}
	if _, err := archive.Resolve(top, "loop/x"); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("a loop: %v", err)
	}
	for pattern, want := range map[string][]string{
		"/etc/*.conf": {"/etc/a.conf"}, "/etc/.*": {"/etc/.b.conf"}, "/abs/*.conf": {"/abs/a.conf"}, "/*/deep": {"/abs/deep", "/chain/deep", "/etc/deep", "/up/deep"},
		"/etc/we\\*rd": {"/etc/we*rd"}, "/none/*": nil, "/etc": {"/etc"}, "/e?c/[a-z].conf": {"/etc/a.conf"}, "/../../*/a.conf": {"/abs/a.conf", "/chain/a.conf", "/etc/a.conf", "/up/a.conf"},
	} {
		if got, err := archive.Glob(top, pattern); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v, want %q", pattern, got, err, want)
		}
	}
	if _, err := archive.Glob(top, "/[x"); !errors.Is(err, fault.Invalid) {
		t.Errorf("a malformed pattern: %v", err)
	}
	info, target, err := archive.Stat(top, "/up")
	if err != nil || target != "/etc" || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("stat of a link: %v %q %v", info, target, err)
	}
	if text, err := archive.ReadFile(top, "/up/a.conf", 3); err != nil || string(text) != "ins" {
		t.Errorf("read: %q %v", text, err)
	}
	if _, err := archive.ReadFile(top, "/etc", 3); err == nil {
		t.Error("a directory was read as a file")
	}
	must(t, archive.MakeFile(top, "/up/new/f"))
	must(t, archive.MakeLink(top, "/abs/l", "x"))
	if err := archive.MakeLink(top, "/abs/l", "x"); !errors.Is(err, os.ErrExist) {
		t.Errorf("a second link: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "etc/new/f")); err != nil {
		t.Error(err)
	}
	for p, want := range map[string]string{"": "/", "a/": "/a/", "/a/.": "/a/.", "/a/b/..": "/a", "..": "/", "/.": "/"} {
		if got := archive.Clean(p); got != want {
			t.Errorf("clean %q: %q, want %q", p, got, want)
		}
	}
}

// TestPackCapabilities: a file's capabilities that a container's root gave, on files with shifted owners, are those of any root in the archive.
func TestPackCapabilities(t *testing.T) {
	kerneltest.Root(t)
	ids := archive.IDMap{UIDs: []archive.IDRange{{Container: 0, Host: 100000, Size: 1000}}, GIDs: []archive.IDRange{{Container: 0, Host: 200000, Size: 1000}}}
	const rights = "\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	const plain, ofRoot, ofAnother = "\x01\x00\x00\x02" + rights, "\x01\x00\x00\x03" + rights + "\xa0\x86\x01\x00", "\x01\x00\x00\x03" + rights + "\xa1\x86\x01\x00"
	for _, c := range []struct {
		given, want string
		ids         archive.IDMap
	}{{plain, plain, ids}, {ofRoot, plain, ids}, {ofAnother, ofAnother, ids}, {ofRoot, ofRoot, archive.IDMap{}}} {
		dir, err := os.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		if err := os.WriteFile(filepath.Join(dir.Name(), "x"), nil, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := kernel.SetXattrIn(dir, "x", "security.capability", c.given); err != nil {
			t.Fatal(err)
		}
		r := tar.NewReader(bytes.NewReader(pack(t, dir.Name(), archive.PackOptions{IDs: c.ids})))
		hdr, err := r.Next()
		for err == nil && hdr.Name != "x" {
			hdr, err = r.Next()
		}
		if err != nil || hdr.PAXRecords["SCHILY.xattr.security.capability"] != c.want {
			t.Errorf("%x: %+v, not %x (%v)", c.given, hdr, c.want, err)
		}
	}
}
