package builds

import (
	"archive/tar"
	"bytes"
	"context"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

// leftOut reads the rules of ignore files as they are written down for people: a line is a pattern, with * and ? that stop at a slash and ** that does not;
// it means what it fits and all below that; ! takes back; the last line that fits counts.
func leftOut(text, name string) bool {
	out := false
	for n, line := range strings.Split(text, "\n") {
		line = strings.TrimSuffix(line, "\r")
		if n == 0 {
			line = strings.TrimPrefix(line, "\ufeff")
		}
		if strings.HasPrefix(line, "#") {
			continue
		}
		line = strings.TrimSpace(line)
		pattern, back := strings.CutPrefix(line, "!")
		pattern = strings.TrimSpace(pattern)
		if pattern == "" {
			continue
		}
		pattern = strings.TrimPrefix(path.Clean(pattern), "/")
		if pattern == "" || pattern == "." {
			continue
		}
		for p := name; p != "."; p = path.Dir(p) {
			if fits(strings.Split(pattern, "/"), strings.Split(p, "/")) {
				out = !back
			}
		}
	}
	return out
}

// fits compares part by part.
func fits(pattern, name []string) bool {
	switch {
	case len(pattern) == 0:
		return len(name) == 0
	case pattern[0] == "**" && len(pattern) == 1:
		return len(name) > 0
	case pattern[0] == "**":
		return fits(pattern[1:], name) || len(name) > 0 && fits(pattern, name[1:])
	case len(name) == 0:
		return false
	}
	ok, err := path.Match(pattern[0], name[0])
	return err == nil && ok && fits(pattern[1:], name[1:])
}

// plainRules tells ignore files that mean one thing to everybody: what the rules don't say of odd ones is left to the package that reads them.
func plainRules(text string) bool {
	for _, r := range text {
		if !strings.ContainsRune("abc.*?/!#\n", r) {
			return false
		}
	}
	for _, odd := range []string{"***", "!!", "! ", "..", "! !"} {
		if strings.Contains(text, odd) {
			return false
		}
	}
	for _, part := range strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune("/\n!\r ", r) }) {
		if strings.Contains(part, "**") && part != "**" {
			return false
		}
	}
	return true
}

// FuzzIgnore compares what is left out of contexts with the rules as people read them.
func FuzzIgnore(f *testing.F) {
	for _, s := range [][2]string{
		{"a", "a/b"}, {"*.c\n!a.c", "a.c"}, {"**/c", "a/b/c"}, {"a/**", "a/b"}, {"a\n!a/b\na/b/c", "a/b/c"}, {"# a\n/a/\n", "a"}, {"a/*/c", "a/b/c"}, {"*\n!a/**/c", "a/c"}, {"?", "b"},
	} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, text, name string) {
		o := Options{Ignore: []byte(text)}
		m, err := o.ignoring()
		if err != nil || !plainRules(text) || len(text) > 200 || len(name) > 100 {
			return
		}
		if name != path.Clean(name) || path.IsAbs(name) || name == "." || strings.HasPrefix(name, "..") || strings.Trim(name, "abc./") != "" {
			return
		}
		got, err := m.MatchesOrParentMatches(name)
		if err != nil {
			t.Fatalf("%q of %q: %v", name, text, err)
		}
		if want := leftOut(text, name); got != want {
			t.Errorf("%q of %q: left out: %v, and %v by the rules", name, text, got, want)
		}
	})
}

// FuzzContext takes any bytes for a context: whatever they are, nothing comes to be outside of its directory, and what a build reads of it first can be read.
func FuzzContext(f *testing.F) {
	archive := func(list ...tar.Header) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range list {
			if h.Typeflag == 0 {
				h.Typeflag = tar.TypeReg
			}
			text := "FROM scratch\n"
			if h.Typeflag == tar.TypeReg {
				h.Size = int64(len(text))
			}
			if err := w.WriteHeader(&h); err != nil {
				f.Fatal(err)
			}
			if h.Size > 0 {
				w.Write([]byte(text))
			}
		}
		w.Close()
		return b.Bytes()
	}
	f.Add(archive(tar.Header{Name: "Dockerfile", Mode: 0o644}, tar.Header{Name: ".dockerignore", Mode: 0o644}))
	f.Add(archive(tar.Header{Name: "../outside/new", Mode: 0o644}, tar.Header{Name: "/Dockerfile", Mode: 0o644}))
	f.Add(archive(tar.Header{Name: "out", Typeflag: tar.TypeSymlink, Linkname: "../../outside"}, tar.Header{Name: "out/new", Mode: 0o644}))
	f.Add(archive(tar.Header{Name: "Dockerfile", Typeflag: tar.TypeSymlink, Linkname: "../../outside/there"}))
	f.Add(archive(tar.Header{Name: "Dockerfile", Typeflag: tar.TypeLink, Linkname: "../../outside/there"}, tar.Header{Name: "d", Typeflag: tar.TypeDir, Mode: 0o755}))
	f.Add([]byte("FROM scratch"))
	f.Fuzz(func(t *testing.T, data []byte) {
		top := t.TempDir()
		outside := filepath.Join(top, "outside")
		s := &Service{Dir: filepath.Join(top, "contexts")}
		for _, dir := range []string{outside, s.Dir} {
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(outside, "there"), []byte("stays"), 0o600); err != nil {
			t.Fatal(err)
		}
		dir, err := s.context(context.Background(), bytes.NewReader(data))
		if err == nil {
			o := Options{}
			if err := o.readFrom(dir); err == nil {
				if string(o.Text) == "stays" {
					t.Error("the Dockerfile is a file from outside")
				}
				_ = o.leaveOut(dir) // what can't be removed is an error of the build
			}
			if err := dir.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if text, err := os.ReadFile(filepath.Join(outside, "there")); err != nil || string(text) != "stays" {
			t.Errorf("a file outside is %q, %v", text, err)
		}
		for _, dir := range []string{outside, top} {
			names, err := os.ReadDir(dir)
			if want := map[string]int{outside: 1, top: 2}[dir]; err != nil || len(names) != want {
				t.Errorf("%s has %v, %v", dir, names, err)
			}
		}
		if err != nil { // a context that was refused is gone
			if names, err := os.ReadDir(s.Dir); err != nil || len(names) != 0 {
				t.Errorf("what was refused left %v, %v", names, err)
			}
		}
	})
}
