package contexts_test

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"berth/archive"
	"berth/build/contexts"
	"berth/build/transfer"
)

const key = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func open(t *testing.T, dir string) *contexts.Store {
	t.Helper()
	s, err := contexts.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// settle makes files look as if nobody had touched them lately, as files are that people have.
func settle(t *testing.T) {
	t.Helper()
	until := time.Now().Add(25 * time.Millisecond)
	for time.Now().Before(until) {
	}
}

// sync brings a tree to what src has, and tells how many bytes were sent.
func sync(t *testing.T, tree *contexts.Tree, src string, patterns []string) (int64, error) {
	t.Helper()
	mine, theirs := net.Pipe()
	sent := make(chan error, 1)
	go func() {
		err := transfer.Send(context.Background(), theirs, func() (*transfer.Listing, error) { return transfer.List(context.Background(), src, nil) }, nil)
		sent <- errors.Join(err, theirs.Close())
	}()
	n, err := tree.Receive(mine, patterns, nil)
	mine.Close()
	if sendErr := <-sent; err == nil && sendErr != nil {
		t.Fatal(sendErr)
	}
	return n, err
}

// shape describes a tree: kinds, modes, times, contents, links.
func shape(t *testing.T, dir string) []string {
	t.Helper()
	first := map[uint64]string{}
	var all []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.Mode()&fs.ModeSocket != 0 {
			return nil
		}
		st := info.Sys().(*syscall.Stat_t)
		line := fmt.Sprint(p[len(dir):], " ", info.Mode(), " ", info.ModTime().UnixNano())
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			line += " -> " + target
		case info.Mode().IsRegular():
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += " " + string(data) + " " + first[st.Ino]
			if first[st.Ino] == "" {
				first[st.Ino] = p[len(dir):]
			}
		}
		all = append(all, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func write(t *testing.T, files map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	put(t, dir, files)
	return dir
}

func put(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		p := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(p), 0o755)
		if target, is := strings.CutPrefix(text, "-> "); is {
			err = errors.Join(err, os.Symlink(target, p))
		} else {
			err = errors.Join(err, os.WriteFile(p, []byte(text), 0o644))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// check says that the tree has what src has, and right digests.
func check(t *testing.T, tree *contexts.Tree, src string) {
	t.Helper()
	want, got := shape(t, src), shape(t, tree.Top().Name())
	if !slices.Equal(want, got) {
		t.Fatalf("tree:\n%s\nsource:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	digests(t, tree)
	for _, p := range []string{"/", "dir", "/dir/sub", "a", "d", "link", "pipe"} {
		if _, err := os.Lstat(filepath.Join(src, p)); err == nil {
			told(t, tree, p)
		}
	}
}

// told says that Each tells what an archive of the tree would have.
func told(t *testing.T, tree *contexts.Tree, p string) {
	t.Helper()
	line := func(hdr *tar.Header, sum string) string {
		return fmt.Sprint(strings.Trim(hdr.Name, "/"), " ", string(hdr.Typeflag), hdr.Mode, hdr.Uid, hdr.Gid, " ", hdr.Linkname, hdr.Devmajor, hdr.Devminor, len(hdr.PAXRecords), sum)
	}
	var got, want []string
	if !tree.Each(p, func(hdr *tar.Header, sum string) { got = append(got, line(hdr, sum)) }) {
		t.Fatalf("%s is not known", p)
	}
	r, w := io.Pipe()
	go func() {
		packer := archive.NewPacker(context.Background(), w, archive.PackOptions{})
		w.CloseWithError(errors.Join(packer.AddPath(tree.Top(), p, strings.Trim(p, "/")), packer.Close()))
	}()
	for tr := tar.NewReader(r); ; {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		sum := ""
		delete(hdr.PAXRecords, "path") // of how it is written
		if hdr.Typeflag == tar.TypeLink {
			hdr.Linkname = strings.TrimPrefix(hdr.Linkname, "/")
		}
		if hdr.Typeflag == tar.TypeReg {
			h := sha256.New()
			if _, err := io.Copy(h, tr); err != nil {
				t.Fatal(err)
			}
			sum = hex.EncodeToString(h.Sum(nil))
		}
		if strings.Trim(hdr.Name, "/") != "" {
			want = append(want, line(hdr, sum))
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Fatalf("%s is told as\n%s\nand packed as\n%s", p, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// digest is that of a regular file, as far as the tree knows it.
func digest(tr *contexts.Tree, p string) (sum string, ok bool) {
	known := tr.Each(p, func(hdr *tar.Header, of string) {
		if hdr.Name == p[1:] && hdr.Typeflag == tar.TypeReg {
			sum, ok = of, true
		}
	})
	return sum, known && ok
}

func digests(t *testing.T, tree *contexts.Tree) {
	t.Helper()
	top := tree.Top().Name()
	err := filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(data)
		if got, ok := digest(tree, p[len(top):]); ok && got != hex.EncodeToString(sum[:]) {
			t.Errorf("%s has %q under the digest of something else", p, data)
		} else if !ok {
			t.Errorf("%s has no digest", p)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func tree(t *testing.T, s *contexts.Store, key string) *contexts.Tree {
	t.Helper()
	tr, err := s.Tree(key, "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tr.Close() })
	return tr
}

func TestOnlyWhatChangedIsSent(t *testing.T) {
	src := write(t, map[string]string{"a": "a", "dir/b": "bb", "dir/sub/c": "ccc", "dir.d/x": "x", "link": "-> dir/b", "odd \n名/\\f*": "odd", "empty": ""})
	if err := errors.Join(os.Link(src+"/a", src+"/z"), os.Chmod(src+"/dir/b", 0o755), syscall.Mkfifo(src+"/pipe", 0o600), os.Chtimes(src+"/dir", time.Unix(1e9, 7), time.Unix(1e9, 7))); err != nil {
		t.Fatal(err)
	}
	settle(t)
	at := t.TempDir()
	step := func(what string, bytes int64) {
		t.Helper()
		tr, err := open(t, at).Tree(key, src)
		if err != nil {
			t.Fatal(err)
		}
		defer tr.Close()
		n, err := sync(t, tr, src, nil)
		if err != nil || n != bytes {
			t.Fatalf("%s: %d bytes were sent, %v; want %d", what, n, err, bytes)
		}
		check(t, tr, src)
	}
	step("first", 10)
	step("nothing new", 0)
	put(t, src, map[string]string{"dir/b": "BB"})
	settle(t)
	step("a changed file", 2)
	put(t, src, map[string]string{"dir/sub/new/deep": "1234"})
	settle(t)
	step("a new directory", 4)
	if err := errors.Join(os.RemoveAll(src+"/dir"), os.WriteFile(src+"/dir", []byte("now a file"), 0o600), os.Remove(src+"/link"), os.Mkdir(src+"/link", 0o750)); err != nil {
		t.Fatal(err)
	}
	settle(t)
	step("kinds that changed", 10)
	if err := errors.Join(os.Remove(src+"/dir"), os.Remove(src+"/a")); err != nil { // z has no other name any more
		t.Fatal(err)
	}
	put(t, src, map[string]string{"dir/b/c": "c"})
	settle(t)
	step("and back", 2)
	if err := os.Chmod(src+"/dir/b", 0o700); err != nil {
		t.Fatal(err)
	}
	step("a directory's mode", 0)
}

// TestSameSizeAndTimes says that a file is sent that has another content but the size and time of before.
func TestSameSizeAndTimes(t *testing.T) {
	src := write(t, map[string]string{"f": "one"})
	when := time.Unix(1e9, 0)
	s := open(t, t.TempDir())
	for _, text := range []string{"one", "two", "six"} { // one right after the other
		put(t, src, map[string]string{"f": text})
		if err := os.Chtimes(src+"/f", when, when); err != nil {
			t.Fatal(err)
		}
		tr := tree(t, s, key)
		if _, err := sync(t, tr, src, nil); err != nil {
			t.Fatal(err)
		}
		check(t, tr, src)
		if err := tr.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOnlyWhatIsNeededIsSent(t *testing.T) {
	src := write(t, map[string]string{
		"package.json": "1", "package-lock.json": "22", "other.txt": "333", "src/a.go": "4444", "src/in/b.go": "55555", "big/huge": "666666",
		"to-src": "-> src/in", "abs": "-> /big", "chain": "-> to-src", "loop": "-> loop", "up/l": "-> ../src/a.go",
	})
	settle(t)
	for _, c := range []struct {
		patterns []string
		want     int64
		has      string
	}{
		{[]string{"package*.json"}, 3, "package.json package-lock.json"},
		{[]string{"./src/"}, 9, "src/a.go src/in/b.go"},
		{[]string{"s?c/*"}, 9, "src/a.go src/in/b.go"},
		{[]string{"src/../other.txt"}, 3, "other.txt"},
		{[]string{"to-src"}, 5, "to-src src/in/b.go"},
		{[]string{"chain/b.go"}, 5, "chain src/in/b.go"},
		{[]string{"abs/huge"}, 6, "big/huge"},
		{[]string{"up/l"}, 4, "src/a.go up/l"},
		{[]string{"loop", "nothing"}, 0, "loop"},
		{[]string{"**/b.go"}, 21, "big/huge"},
		{[]string{"."}, 21, "big/huge src/a.go"},
		{[]string{}, 0, ""},
		{nil, 21, "big/huge src/a.go"},
	} {
		tr := tree(t, open(t, t.TempDir()), "")
		n, err := sync(t, tr, src, c.patterns)
		if err != nil || n != c.want {
			t.Errorf("%q: %d bytes, %v; want %d", c.patterns, n, err, c.want)
		}
		for name := range strings.FieldsSeq(c.has) {
			if _, err := os.Lstat(filepath.Join(tr.Top().Name(), name)); err != nil {
				t.Errorf("%q: %v", c.patterns, err)
			}
		}
	}
}

// TestWhatIsNotNeededIsNeverOld says that a file that changed while nobody needed it is not there any more.
func TestWhatIsNotNeededIsNeverOld(t *testing.T) {
	src := write(t, map[string]string{"a": "a", "b": "b"})
	settle(t)
	s := open(t, t.TempDir())
	for n, c := range []struct {
		change   string
		patterns []string
		sent     int64
		has      string
	}{{"", nil, 2, "a b"}, {"b", []string{"a"}, 0, "a"}, {"", nil, 1, "a b"}, {"", []string{"a"}, 0, "a b"}} {
		if c.change != "" {
			put(t, src, map[string]string{c.change: "new"[:1]})
			settle(t)
		}
		tr := tree(t, s, key)
		if got, err := sync(t, tr, src, c.patterns); err != nil || got != c.sent {
			t.Fatalf("%d: %d bytes, %v; want %d", n, got, err, c.sent)
		}
		names, err := filepath.Glob(tr.Top().Name() + "/*")
		if err != nil || len(names) != len(strings.Fields(c.has)) {
			t.Fatalf("%d: %v, %v; want %s", n, names, err, c.has)
		}
		digests(t, tr)
		if err := tr.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// cutting ends a connection after so many bytes.
type cutting struct {
	io.ReadWriter
	left int
}

func (c *cutting) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := c.ReadWriter.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

// TestCutAnywhere cuts a transfer after each number of bytes: the next one, by a store that was opened anew, brings the tree to what it should be.
func TestCutAnywhere(t *testing.T) {
	before := write(t, map[string]string{"a": "a", "d/b": "b", "d/e/f": "f", "g": "g", "h/i": "i", "same": "s"})
	after := write(t, map[string]string{"a": "A", "d": "a file", "g/x": "gx", "g/y": "-> x", "h/i": "I", "h/j": "j", "n/e/w": "new"})
	if err := os.Link(after+"/a", after+"/other"); err != nil {
		t.Fatal(err)
	}
	settle(t)
	at := t.TempDir()
	for cut, whole := 0, false; !whole; cut += 7 {
		s := open(t, at)
		tr := tree(t, s, key)
		if _, err := sync(t, tr, before, nil); err != nil {
			t.Fatal(err)
		}
		check(t, tr, before)
		mine, theirs := net.Pipe()
		go func() {
			// It is cut off: what becomes of it does not matter.
			_ = transfer.Send(context.Background(), theirs, func() (*transfer.Listing, error) { return transfer.List(context.Background(), after, nil) }, nil)
			theirs.Close()
		}()
		_, err := tr.Receive(&cutting{mine, cut}, nil, nil)
		mine.Close()
		whole = err == nil
		for p, text := range map[string]string{"/a": "aA", "/same": "s", "/h/i": "iI"} { // what has a digest has that content
			if _, ok := digest(tr, p); !ok {
				continue
			}
			if data, err := os.ReadFile(tr.Top().Name() + p); err != nil || !strings.Contains(text, string(data)) {
				t.Fatalf("cut after %d: %s has %q, %v", cut, p, data, err)
			}
		}
		if err := tr.Close(); err != nil {
			t.Fatal(err)
		}
		tr = tree(t, open(t, at), key)
		if _, err := sync(t, tr, after, nil); err != nil {
			t.Fatalf("after a cut after %d bytes: %v", cut, err)
		}
		check(t, tr, after)
		if err := tr.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestKilledAnywhere does so with an index that was written before the work began, as a daemon leaves that is killed in the middle.
func TestKilledAnywhere(t *testing.T) {
	before := write(t, map[string]string{"a": "a", "d/b": "b", "g": "g"})
	after := write(t, map[string]string{"a": "A", "d": "a file", "g/x": "gx", "n/e/w": "new"})
	settle(t)
	at := t.TempDir()
	tr := tree(t, open(t, at), key)
	if _, err := sync(t, tr, before, nil); err != nil {
		t.Fatal(err)
	}
	mine, theirs := net.Pipe()
	go func() {
		_ = transfer.Send(context.Background(), theirs, func() (*transfer.Listing, error) { return transfer.List(context.Background(), after, nil) }, nil)
		theirs.Close()
	}()
	files := 0
	index := filepath.Join(at, key, "index")
	var early []byte
	if _, err := tr.Receive(mine, nil, func(int64) {
		if files++; files == 1 {
			early, _ = os.ReadFile(index) // an absent one shows below
		}
	}); err != nil {
		t.Fatal(err)
	}
	mine.Close()
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
	for _, src := range []string{before, after} {
		if err := os.WriteFile(index, early, 0o600); err != nil {
			t.Fatal(err)
		}
		tr := tree(t, open(t, at), key)
		if _, err := sync(t, tr, src, nil); err != nil {
			t.Fatal(err)
		}
		check(t, tr, src)
		if err := tr.Close(); err != nil {
			t.Fatal(err)
		}
		tr = tree(t, open(t, at), key)
		if _, err := sync(t, tr, after, nil); err != nil {
			t.Fatal(err)
		}
		check(t, tr, after)
		if err := tr.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTwoAtATime(t *testing.T) {
	src := write(t, map[string]string{"a": "a"})
	settle(t)
	s := open(t, t.TempDir())
	one, two := tree(t, s, key), tree(t, s, key)
	for _, tr := range []*contexts.Tree{one, two} {
		if n, err := sync(t, tr, src, nil); err != nil || n != 1 {
			t.Fatal(n, err)
		}
	}
	if one.Top().Name() == two.Top().Name() {
		t.Fatal("two builds have one tree")
	}
	all, err := s.List()
	if err != nil || len(all) != 1 || !all[0].Busy || all[0].Size != 1 || all[0].From != "test" {
		t.Fatal(all, err)
	}
	if err := s.Remove(key); err == nil {
		t.Fatal("a tree that is in use was removed")
	}
	if err := errors.Join(one.Close(), two.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(two.Top().Name()); !errors.Is(err, os.ErrNotExist) {
		t.Fatal("the second build's tree stays", err)
	}
	if err := s.Remove(key); err != nil {
		t.Fatal(err)
	}
	if all, err = s.List(); err != nil || len(all) != 0 {
		t.Fatal(all, err)
	}
}

// TestChangesWhileSent says that what is received is what a file had at one moment.
func TestChangesWhileSent(t *testing.T) {
	src := write(t, map[string]string{"f": strings.Repeat("a", 1<<20), "gone": "x"})
	tr := tree(t, open(t, t.TempDir()), key)
	mine, theirs := net.Pipe()
	go func() {
		changed := false
		// The other end sees what goes wrong.
		_ = transfer.Send(context.Background(), theirs, func() (*transfer.Listing, error) {
			l, err := transfer.List(context.Background(), src, nil)
			return l, errors.Join(err, os.Remove(src+"/gone"))
		}, func(int) {
			if !changed {
				changed = true
				put(t, src, map[string]string{"f": strings.Repeat("b", 1<<20+1)})
			}
		})
		theirs.Close()
	}()
	if _, err := tr.Receive(mine, nil, nil); err != nil {
		t.Fatal(err)
	}
	check(t, tr, src)
}

func TestErrorsTravel(t *testing.T) {
	tr := tree(t, open(t, t.TempDir()), key)
	if _, err := sync(t, tr, filepath.Join(t.TempDir(), "missing"), nil); err == nil || !strings.Contains(err.Error(), "missing: no such file or directory") {
		t.Fatal(err)
	}
}

// TestUnknownFiles says that what lies in a tree and not in its index is in nobody's way.
func TestUnknownFiles(t *testing.T) {
	src := write(t, map[string]string{"a": "a", "d/b": "b", "l": "-> a"})
	s := open(t, t.TempDir())
	tr := tree(t, s, key)
	put(t, tr.Top().Name(), map[string]string{"a": "else", "d": "a file", "l/x": "y"})
	if _, err := sync(t, tr, src, nil); err != nil {
		t.Fatal(err)
	}
	check(t, tr, src)
}
