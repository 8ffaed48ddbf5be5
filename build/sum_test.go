package build

import (
	"archive/tar"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestManyFilesAreToldByDirectory says that of a source with more files than are named the directory is named that changed.
func TestManyFilesAreToldByDirectory(t *testing.T) {
	key := func(changed, p string, flat bool) map[string]string {
		t.Helper()
		parts := map[string]string{}
		files := &Files{Each: func(p string, fn func(*tar.Header, string)) bool {
			for n := range maxNamed + 1000 {
				name := fmt.Sprintf("top/d%d/f%d", n%10, n)
				if flat {
					name = fmt.Sprintf("top/f%d", n)
				}
				sum := "same"
				if name == changed {
					sum = "other"
				}
				fn(&tar.Header{Typeflag: tar.TypeReg, Name: name}, sum)
			}
			return true
		}}
		if err := digestOf(t.Context(), files, p, nil, "file ", parts); err != nil {
			t.Fatal(err)
		}
		return parts
	}
	differ := func(a, b map[string]string) (names []string) {
		for name := range a {
			if a[name] != b[name] {
				names = append(names, name)
			}
		}
		return names
	}
	before := key("", "/top", false)
	if got := differ(before, key("top/d3/f13", "/top", false)); !slices.Equal(got, []string{"files below top/d3"}) || len(before) != 10 {
		t.Error(got, len(before))
	}
	if got := differ(key("", "/", false), key("top/d3/f13", "/", false)); !slices.Equal(got, []string{"files below top"}) {
		t.Error(got)
	}
	before = key("", "/top", true)
	if got := differ(before, key("top/f13", "/top", true)); len(got) != 1 || len(before) > maxNamed+1 {
		t.Error(got, len(before))
	}
}

// TestSumsOfUnknownTrees says that what is read says the same as what is known, but for names and times.
func TestSumsOfUnknownTrees(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"a": "one", "d/b": "two"} {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	top, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer top.Close()
	sums := func() map[string]string {
		t.Helper()
		parts := map[string]string{}
		exclude, err := matcher([]string{"d/x*"})
		leave := func(name string) bool {
			out, err := exclude.MatchesOrParentMatches(name)
			return out && err == nil
		}
		if err == nil {
			err = digestOf(t.Context(), &Files{Top: top}, "/", leave, "file ", parts)
		}
		if err != nil {
			t.Fatal(err)
		}
		return parts
	}
	names := func(m map[string]string) string {
		var all []string
		for name, sum := range m {
			all = append(all, name+"="+sum)
		}
		slices.Sort(all)
		return strings.Join(all, " ")
	}
	before := names(sums())
	if err := os.WriteFile(dir+"/d/xx", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if after := names(sums()); after != before || !strings.Contains(before, "file d/b=") {
		t.Errorf("what is excluded counts: %s, before: %s", after, before)
	}
	if err := os.Chmod(dir+"/a", 0o755); err != nil {
		t.Fatal(err)
	}
	if after := names(sums()); after == before {
		t.Error("a mode does not count")
	}
}
