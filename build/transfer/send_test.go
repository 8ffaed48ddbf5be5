package transfer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestList(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.MkdirAll(dir+"/a/b/c", 0o755), os.MkdirAll(dir+"/out/in", 0o755), os.WriteFile(dir+"/out/in/kept", nil, 0o644), os.WriteFile(dir+"/out/x", nil, 0o644), os.WriteFile(dir+"/a/b/f", []byte("12345"), 0o600),
		os.Link(dir+"/a/b/f", dir+"/a/b/g"), os.Link(dir+"/a/b/f", dir+"/out/in/also"), os.Symlink("b", dir+"/a/l"), syscall.Mkfifo(dir+"/p", 0o644)); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", dir+"/sock")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got, err := List(context.Background(), dir, func(p string, isDir bool) (out, enter bool) {
		return strings.HasPrefix(p, "out") && p != "out/in/kept" && p != "out/in/also" || p == "a/b/c", true
	})
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, e := range got.Entries {
		lines = append(lines, fmt.Sprintf("%s %d %s %d", e.Path, e.Size, e.Target, e.Same))
	}
	want := []string{"a 0  0", "a/b 0  0", "a/b/f 5  0", "a/b/g 5  3", "a/l 0 b 0", "out 0  0", "out/in 0  0", "out/in/also 5  3", "out/in/kept 0  0", "p 0  0"}
	if !slices.Equal(lines, want) || !slices.Equal(got.Skipped, []string{"sock"}) {
		t.Errorf("%q, %q", lines, got.Skipped)
	}
	if _, err := List(context.Background(), filepath.Join(dir, "none"), nil); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// TestManyDirectories lists more directories than there are hands, in order.
func TestManyDirectories(t *testing.T) {
	dir := t.TempDir()
	for n := range 300 {
		if err := os.MkdirAll(filepath.Join(dir, fmt.Sprint(n%7), fmt.Sprint(n%11), fmt.Sprint(n)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	l, err := List(context.Background(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.IsSortedFunc(l.Entries, func(a, b Entry) int { return Compare(a.Path, b.Path) }) || len(l.Entries) != 300+7+77 {
		t.Errorf("%d entries, or out of order", len(l.Entries))
	}
}
