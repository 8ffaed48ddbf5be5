package union_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/archive"
	"berth/kernel"
	"berth/union"
)

// nasty are things that somebody does to a tree. Whatever the driver, the same is told of them.
var nasty = map[string]struct{ before, after func(d place) }{
	"kinds are swapped": {
		func(d place) {
			d.write("file-to-dir", "x")
			d.write("dir-to-file/a", "a")
			d.write("dir-to-link/b", "b")
			d.link("link-to-dir", "dir-to-link")
			d.write("file-to-link", "y")
			d.fifo("fifo-to-file")
			d.write("file-to-socket", "z")
		},
		func(d place) {
			d.remove("file-to-dir")
			d.write("file-to-dir/inside", "new")
			d.remove("dir-to-file")
			d.write("dir-to-file", "now a file")
			d.remove("dir-to-link")
			d.link("dir-to-link", "file-to-dir")
			d.remove("link-to-dir")
			d.write("link-to-dir/c", "c")
			d.remove("file-to-link")
			d.link("file-to-link", "/")
			d.remove("fifo-to-file")
			d.write("fifo-to-file", "f")
			d.remove("file-to-socket")
			d.fifo("file-to-socket")
		},
	},
	"directories are removed and made again": {
		func(d place) {
			for _, name := range []string{"empty", "same", "other", "deep/er/still"} {
				d.write(name+"/a", "a")
				d.write(name+"/sub/b", "b")
			}
		},
		func(d place) {
			d.remove("empty")
			d.mkdir("empty")
			d.remove("same")
			d.write("same/a", "a")
			d.write("same/sub/b", "b")
			d.remove("other")
			d.write("other/c", "c")
			d.remove("deep/er")
			d.write("deep/er", "a file")
		},
	},
	"directories move": {
		func(d place) {
			d.write("a/one", "1")
			d.write("a/sub/two", "2")
			d.write("b/three", "3")
			d.write("c/sub/four", "4")
		},
		func(d place) {
			d.move("a", "z")
			d.move("b", "a")
			d.move("c/sub", "c-sub")
			d.write("z/sub/new", "n")
		},
	},
	"only what is beside the content": {
		func(d place) {
			for _, name := range []string{"mode", "owner", "times", "attr", "unattr", "same-size-and-time", "grown", "shrunk", "untouched"} {
				d.write(name, "content of "+name)
				d.stamp(name)
			}
			d.attr("unattr", "user.gone", "x")
			d.write("dir-mode/f", "f")
			d.write("dir-attr/f", "f")
			d.write("dir-times/f", "f")
			for _, name := range []string{"dir-mode", "dir-attr", "dir-times"} {
				d.stamp(name)
			}
		},
		func(d place) {
			d.check(os.Chmod(d.path("mode"), 0o4711))
			d.check(os.Lchown(d.path("owner"), 70000, 80000))
			d.check(os.Chtimes(d.path("times"), time.Unix(1e9, 0), time.Unix(1e9, 12345)))
			d.attr("attr", "trusted.mark", "t")
			d.check(kernel.RemoveXattrIn(nil, d.path("unattr"), "user.gone"))
			d.check(os.WriteFile(d.path("same-size-and-time"), []byte("CONTENT of same-size-and-time"), 0))
			d.stamp("same-size-and-time")
			d.check(os.Truncate(d.path("grown"), 1<<20))
			d.stamp("grown")
			d.check(os.Truncate(d.path("shrunk"), 3))
			d.stamp("shrunk")
			d.check(os.Chmod(d.path("dir-mode"), 0o1777))
			d.attr("dir-attr", "user.mark", "m")
			d.check(os.Chtimes(d.path("dir-times"), time.Unix(1e9, 0), time.Unix(1e9, 0)))
		},
	},
	"links with several names": {
		func(d place) {
			d.write("one", "1")
			d.write("pair-a", "pair")
			d.hard("pair-a", "pair-b")
		},
		func(d place) {
			d.write("new", "new")
			d.hard("new", "deep/new-too")
			d.hard("one", "one-more")
			d.remove("pair-b")
		},
	},
	"names": {
		func(d place) {
			d.write(strings.Repeat("n", 255), "long")
			d.write("gone\nline", "x")
			d.write(strings.Repeat("d", 200)+"/"+strings.Repeat("e", 200)+"/"+strings.Repeat("f", 200), "far")
			d.write("\xff\xfe", "no letters")
			d.write("-rf", "x")
			d.write(" ", "blank")
		},
		func(d place) {
			d.remove("gone\nline")
			d.remove("\xff\xfe")
			d.write(strings.Repeat("m", 255), "long too")
			d.write("new\n\t\x01", "x")
			d.write(strings.Repeat("d", 200)+"/"+strings.Repeat("e", 200)+"/"+strings.Repeat("g", 200), "farther")
			d.write("\xc3\x28", "half a letter")
			d.link("to\nline", "x\ny")
			d.remove(" ")
			d.write("...", "dots")
		},
	},
	"devices, holes and rights": {
		func(d place) {
			d.write("cap", "program")
			d.fifo("fifo")
			d.hole("disk", 1<<24)
		},
		func(d place) {
			d.check(kernel.MknodIn(nil, d.path("null"), kernel.TypeChar|0o666, 1<<8|3))
			d.check(kernel.MknodIn(nil, d.path("vda"), syscall.S_IFBLK|0o640, 254<<8))
			d.check(os.Chmod(d.path("fifo"), 0o600))
			d.attr("cap", "security.capability", "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")
			d.hole("other", 1<<26)
			f, err := os.OpenFile(d.path("disk"), os.O_WRONLY, 0)
			d.check(err)
			_, err = f.WriteAt([]byte("in the middle"), 1<<23)
			d.check(err)
			d.check(f.Close())
		},
	},
	"made and gone again": {
		func(d place) { d.write("dir/kept", "k") },
		func(d place) {
			d.write("dir/short", "s")
			d.remove("dir/short")
			d.write("short/a", "a")
			d.remove("short")
		},
	},
}

// unlike are what a program that shows the layers does in its own way.
var unlike = map[string]string{
	"aufs/names":           "it takes names of 242 bytes at most",
	"fuse-overlayfs/names": "it keeps 4 of a name's 255 bytes for itself",
	"fuse-overlayfs/links with several names":  "it copies a file when another name of it is removed",
	"fuse-overlayfs/devices, holes and rights": "it fails to change a pipe that lies below",
}

// place is a mounted root that a test works in. A step that fails ends the test.
type place struct {
	t   *testing.T
	dir string
}

func (d place) path(name string) string { return filepath.Join(d.dir, name) }

func (d place) check(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

func (d place) mkdir(name string) {
	d.t.Helper()
	d.check(os.MkdirAll(d.path(name), 0o755))
}

func (d place) write(name, content string) {
	d.t.Helper()
	d.mkdir(filepath.Dir(name))
	d.check(os.WriteFile(d.path(name), []byte(content), 0o644))
}

func (d place) remove(name string) {
	d.t.Helper()
	if _, err := os.Lstat(d.path(name)); err != nil {
		d.t.Fatal(err)
	}
	d.check(os.RemoveAll(d.path(name)))
}

func (d place) link(name, target string) { d.t.Helper(); d.check(os.Symlink(target, d.path(name))) }
func (d place) fifo(name string)         { d.t.Helper(); d.check(syscall.Mkfifo(d.path(name), 0o644)) }

func (d place) hard(name, to string) {
	d.t.Helper()
	d.mkdir(filepath.Dir(to))
	d.check(os.Link(d.path(name), d.path(to)))
}

func (d place) stamp(name string) {
	d.t.Helper()
	d.check(os.Chtimes(d.path(name), stamp, stamp))
}

func (d place) attr(name, attr, value string) {
	d.t.Helper()
	d.check(kernel.SetXattrIn(nil, d.path(name), attr, value))
}

func (d place) hole(name string, size int64) {
	d.t.Helper()
	d.write(name, "head")
	d.check(os.Truncate(d.path(name), size))
}

// move does what mv(1) does, which copies where a rename can't be.
func (d place) move(from, to string) {
	d.t.Helper()
	err := os.Rename(d.path(from), d.path(to))
	if !errors.Is(err, syscall.EXDEV) {
		d.check(err)
		return
	}
	st, err := os.Lstat(d.path(from))
	d.check(err)
	if !st.IsDir() {
		content, err := os.ReadFile(d.path(from))
		d.check(err)
		d.write(to, string(content))
	} else {
		d.mkdir(to)
		entries, err := os.ReadDir(d.path(from))
		d.check(err)
		for _, e := range entries {
			d.move(filepath.Join(from, e.Name()), filepath.Join(to, e.Name()))
		}
	}
	d.check(os.Chtimes(d.path(to), st.ModTime(), st.ModTime()))
	d.remove(from)
}

// in works in a root.
func in(t *testing.T, r union.Root, fn func(d place)) {
	t.Helper()
	err := union.View(r, func(dir *os.File) error {
		fn(place{t, kernel.ProcFD(dir)})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// everything lists a tree with all that a tar can hold of it.
func everything(t *testing.T, r union.Root) (lines []string) {
	t.Helper()
	in(t, r, func(d place) {
		first := map[[2]uint64]string{}
		d.check(filepath.WalkDir(d.dir+"/.", func(p string, _ os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			name, err := filepath.Rel(d.dir, p)
			d.check(err)
			st, err := kernel.StatIn(nil, p)
			d.check(err)
			line := fmt.Sprintf("%q %o %d:%d", name, st.Mode, st.Uid, st.Gid)
			attrs, err := kernel.XattrsIn(nil, p)
			d.check(err)
			for _, k := range slices.Sorted(maps.Keys(attrs)) {
				line += fmt.Sprintf(" %s=%q", k, attrs[k])
			}
			switch st.Mode & kernel.TypeMask {
			case kernel.TypeDir:
				lines = append(lines, line)
				return nil
			case kernel.TypeRegular:
				f, err := os.Open(p)
				d.check(err)
				sum := sha256.New()
				_, err = io.Copy(sum, f)
				d.check(errors.Join(err, f.Close()))
				line += fmt.Sprintf(" %d bytes %x", st.Size, sum.Sum(nil)[:6])
			case kernel.TypeSymlink:
				target, err := os.Readlink(p)
				d.check(err)
				line += fmt.Sprintf(" to %q", target)
			default:
				line += fmt.Sprintf(" device %x", st.Rdev)
			}
			if st.Nlink > 1 {
				id := [2]uint64{st.Dev, st.Ino}
				if other, ok := first[id]; ok { // overlay counts names that are gone
					line += fmt.Sprintf(" same as %q", other)
				} else {
					first[id] = name
				}
			}
			lines = append(lines, line)
			return nil
		}))
	})
	return lines
}

// layerOf makes what a root has written a layer over its chain, as commit does, and gives the tar too.
func layerOf(t *testing.T, d union.Driver, r union.Root, parent digest.Digest, name string) digest.Digest {
	t.Helper()
	var tar bytes.Buffer
	if err := union.Pack(t.Context(), &tar, r); err != nil {
		t.Fatal(err)
	}
	s, err := d.Stage()
	if err != nil {
		t.Fatal(err)
	}
	u, err := archive.Unpack(t.Context(), &tar, s.Root(), archive.UnpackOptions{Whiteouts: true})
	if err != nil {
		t.Fatal(err)
	}
	chain := digest.FromString(name)
	if err := s.Commit(chain, parent, u); err != nil {
		t.Fatal(err)
	}
	return chain
}

// TestTheSameIsToldByAll does nasty things on every driver and compares what diff, commit and export then have with the first driver's.
func TestTheSameIsToldByAll(t *testing.T) {
	changes, trees := map[string][]string{}, map[string][]string{}
	overAll(t, func(t *testing.T, g *ground) {
		d := open(t, g.driver, g.dir(t))
		for what, n := range nasty {
			t.Run(what, func(t *testing.T) {
				if why := unlike[g.driver+"/"+what]; why != "" {
					t.Skip(why)
				}
				id := digest.FromString(what).Encoded()[:8]
				r := create(t, d, "before-"+id, "", nil)
				in(t, r, n.before)
				base := layerOf(t, d, r, "", "base of "+what)
				r = create(t, d, "after-"+id, base, nil)
				in(t, r, n.after)
				list, err := union.Changes(t.Context(), r)
				if err != nil {
					t.Fatal(err)
				}
				var told []string
				for _, c := range list {
					told = append(told, fmt.Sprintf("%c %q", "CAD"[c.Kind], c.Path))
				}
				tree := everything(t, r)
				if changes[what] == nil {
					changes[what], trees[what] = told, tree
				}
				same(t, "diff", told, changes[what])
				same(t, "tree", tree, trees[what])
				top := layerOf(t, d, r, base, "top of "+what)
				same(t, "tree of what was committed", everything(t, create(t, d, "again-"+id, top, nil)), tree)
			})
		}
	})
}
