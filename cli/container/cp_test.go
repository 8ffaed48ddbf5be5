package container

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParsePlace(t *testing.T) {
	for arg, want := range map[string]place{
		"web:/x": {"web", "/x"}, "web:x:y": {"web", "x:y"}, "/a:b": {"", "/a:b"}, "./a:b": {"", "./a:b"}, "../a:b": {"", "../a:b"},
		"plain": {"", "plain"}, "-": {"", "-"}, "web:": {"web", ""}, ".": {"", "."}, "web:-": {"web", "-"},
	} {
		if got := parsePlace(arg); got != want {
			t.Errorf("%s: %+v, want %+v", arg, got, want)
		}
	}
}

// TestPlanCopy holds the rules of the field's cp, of which every row was tried with docker.
func TestPlanCopy(t *testing.T) {
	file := func(p string) end { return end{place{"", p}, true, false} }
	dir := func(p string) end { return end{place{"", p}, true, true} }
	none := func(p string) end { return end{place{"", p}, false, false} }
	for n, c := range []struct {
		src, dst     end
		dir, as, err string
	}{
		{file("a"), none("/d/b"), "/d", "b", ""},
		{file("a"), none("/d/b/"), "", "", "no such directory"},
		{file("a"), none("b/."), "", "", "no such directory"},
		{file("a"), file("/d/b"), "/d", "b", ""},
		{file("a"), file("/d/b/"), "", "", "not a directory"},
		{file("x/a"), dir("/d"), "/d", "a", ""},
		{file("x/a"), dir("/d/."), "/d/.", "a", ""},
		{dir("x/a"), none("/d/b"), "/d", "b", ""},
		{dir("x/a"), none("/d/b/"), "/d", "b", ""},
		{dir("x/a/."), none("/d/b"), "/d", "b", ""},
		{dir("x/a"), file("/d/b"), "", "", "cannot copy directory"},
		{dir("x/a"), dir("/d"), "/d", "a", ""},
		{dir("x/a/"), dir("/d"), "/d", "a", ""},
		{dir("x/a/."), dir("/d"), "/d", ".", ""},
		{dir("."), dir("/d"), "/d", ".", ""},
		{dir("/"), dir("/d"), "/d", "/", ""},
		{file("a"), none("b"), ".", "b", ""},
	} {
		d, as, err := planCopy(c.src, c.dst)
		said := ""
		if err != nil {
			said = err.Error()
		}
		if d != c.dir || as != c.as || said != c.err {
			t.Errorf("%d: %v to %v: %q %q %q", n, c.src.path, c.dst.path, d, as, said)
		}
	}
}

// TestUnpackLocalKeepsAHostileArchiveIn: what a container sends is not trusted with this machine.
func TestUnpackLocalKeepsAHostileArchiveIn(t *testing.T) {
	outside := t.TempDir()
	header := func(name string, kind byte, link string) *tar.Header {
		return &tar.Header{Name: name, Typeflag: kind, Linkname: link, Mode: 0o6777, Uid: os.Getuid(), Gid: os.Getgid()}
	}
	for name, members := range map[string][]*tar.Header{
		"a climb":              {header("../../x", tar.TypeReg, "")},
		"a link and through":   {header("l", tar.TypeSymlink, outside), header("l/x", tar.TypeReg, "")},
		"a relative link":      {header("l", tar.TypeSymlink, "../../../../../../../.."+outside), header("l/x", tar.TypeReg, "")},
		"a link as directory":  {header("l", tar.TypeSymlink, outside), header("l/", tar.TypeDir, ""), header("l/x", tar.TypeReg, "")},
		"a hard link":          {header("h", tar.TypeLink, "../../../../../../../../etc/passwd")},
		"a hard link by links": {header("l", tar.TypeSymlink, "/etc"), header("h", tar.TypeLink, "l/passwd")},
	} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, m := range members {
			if err := w.WriteHeader(m); err != nil {
				t.Fatal(err)
			}
		}
		w.Close()
		if err := unpackLocal(t.Context(), &b, t.TempDir(), false); err == nil {
			t.Errorf("%s: no error", name)
		}
		if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
			t.Fatalf("%s: %v came out, %v", name, left, err)
		}
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(header("suid", tar.TypeReg, "")); err != nil {
		t.Fatal(err)
	}
	w.Close()
	dir := t.TempDir()
	if err := unpackLocal(t.Context(), &b, dir, false); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(filepath.Join(dir, "suid")); err != nil || st.Mode() != 0o777 {
		t.Errorf("a container gave itself the user's rights: %v %v", st.Mode(), err)
	}
	if err := unpackLocal(t.Context(), strings.NewReader(""), filepath.Join(dir, "none"), false); err == nil || err.Error() != "no such directory" {
		t.Errorf("no directory: %v", err)
	}
}

func TestLocalSources(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "d/sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("d", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	t.Chdir(filepath.Join(dir, "d"))
	for _, c := range []struct {
		path   string
		follow bool
		base   string
		dir    bool
	}{
		{"../link", false, "link", false}, {"../link", true, "link", true}, {"../link/", false, "link", true}, {".", false, ".", true}, {"sub/..", false, "d", true}, {"..", false, filepath.Base(dir), true}, {"sub/.", false, ".", true},
	} {
		l, err := openLocal(place{"", c.path}, c.follow)
		if err != nil {
			t.Errorf("%s: %v", c.path, err)
			continue
		}
		if l.base() != c.base || l.end.dir != c.dir {
			t.Errorf("%s: %q %v, want %q %v", c.path, l.base(), l.end.dir, c.base, c.dir)
		}
		if _, err := io.Copy(io.Discard, l.pack(t.Context(), "x")); err != nil {
			t.Errorf("%s: %v", c.path, err)
		}
		l.dir.Close()
	}
	if d, err := localDestination(place{"", "../link"}); err != nil || !d.dir || d.path != "../d" {
		t.Errorf("a link to a directory: %+v %v", d, err)
	}
}
