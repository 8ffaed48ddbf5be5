package layers

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"berth/archive"
	"berth/fault"
	"berth/internal/kerneltest"
	"berth/union"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

func driver(t testing.TB) union.Driver {
	t.Helper()
	kerneltest.Root(t)
	d, err := union.Open("", filepath.Join(t.TempDir(), "layers"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// random makes a layer's tar of few names, so that layers meet: files, directories, links, whiteouts, opaque directories.
func random(r *rand.Rand) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	when := time.Unix(1_600_000_000, 0)
	name := func() string {
		parts := make([]string, 1+r.IntN(3))
		for i := range parts {
			parts[i] = string(rune('a' + r.IntN(4)))
		}
		return strings.Join(parts, "/")
	}
	for range 1 + r.IntN(12) {
		h := &tar.Header{Name: name(), Mode: []int64{0o644, 0o755, 0o4700}[r.IntN(3)], Uid: r.IntN(2), Gid: r.IntN(2), ModTime: when}
		body := ""
		switch r.IntN(8) {
		case 0, 1:
			h.Typeflag = tar.TypeDir
		case 2:
			h.Typeflag, h.Linkname = tar.TypeSymlink, "nowhere"+name()
		case 3:
			h.Name, h.Typeflag = path.Join(path.Dir(h.Name), ".wh."+path.Base(h.Name)), tar.TypeReg
		case 4:
			h.Name, h.Typeflag = path.Join(h.Name, ".wh..wh..opq"), tar.TypeReg
		default:
			h.Typeflag, body = tar.TypeReg, strings.Repeat("x", r.IntN(3))+fmt.Sprint(r.IntN(3))
		}
		h.Size = int64(len(body))
		if err := w.WriteHeader(h); err != nil {
			panic(err)
		}
		w.Write([]byte(body))
	}
	w.Close()
	return b.Bytes()
}

// add unpacks a layer; ok is false when the archive contradicts itself.
func add(t testing.TB, d union.Driver, parent digest.Digest, data []byte) (chain, diffID digest.Digest, ok bool) {
	t.Helper()
	stage, err := d.Stage()
	if err != nil {
		t.Fatal(err)
	}
	u, err := archive.Unpack(context.Background(), bytes.NewReader(data), stage.Root(), archive.UnpackOptions{Whiteouts: true})
	if err != nil {
		stage.Abort()
		return parent, "", false
	}
	diffID = digest.FromBytes(data)
	chain = diffID
	if parent != "" {
		chain = digest.FromString(parent.String() + " " + diffID.String())
	}
	if err := stage.Commit(chain, parent, u); err != nil {
		return parent, "", false
	}
	return chain, diffID, true
}

// mounted lists a chain as the kernel's overlay shows it.
func mounted(t testing.TB, d union.Driver, chain digest.Digest) map[string]string {
	t.Helper()
	id := "look" + chain.Encoded()
	root, err := d.Create(id, chain, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Delete(id)
	all := map[string]string{}
	err = union.View(root, func(dir *os.File) error {
		top := fmt.Sprintf("/proc/self/fd/%d/", dir.Fd())
		return filepath.WalkDir(top, func(p string, e fs.DirEntry, err error) error {
			if err != nil || p == top {
				return err
			}
			info, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				return nil // a whiteout over nothing: overlay lists its name, where only one layer has the directory
			}
			if err != nil {
				return err
			}
			st := info.Sys().(*syscall.Stat_t)
			line := fmt.Sprintf("%o %d:%d", st.Mode, st.Uid, st.Gid)
			switch {
			case info.Mode().IsRegular():
				data, err := os.ReadFile(p)
				if err != nil {
					return err
				}
				line += fmt.Sprintf(" %d %s", info.Size(), data)
			case info.Mode()&fs.ModeSymlink != 0:
				target, err := os.Readlink(p)
				if err != nil {
					return err
				}
				line += " -> " + target
			}
			all["/"+strings.TrimPrefix(p, top)] = line
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func stack(t testing.TB, d union.Driver, chain digest.Digest) *union.Stack {
	t.Helper()
	s, err := union.OpenStack(d, chain)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// TestAsTheKernelShowsIt compares random stacks with overlay's own view of them, and the differences of two with those of their views.
func TestAsTheKernelShowsIt(t *testing.T) {
	d := driver(t)
	ctx := context.Background()
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		var chain, common digest.Digest
		var ids []digest.Digest
		var sides [2]side
		var views [2]map[string]string
		for n := range 6 { // the first two layers, and sometimes the third and fourth, are shared
			next, id, ok := add(t, d, chain, random(r))
			if ok {
				chain, ids = next, append(ids, id)
			}
			if n == 1 || n == 3 && seed%2 == 0 {
				common = chain
			}
		}
		shared := stack(t, d, common).Len()
		sides[0] = side{stack(t, d, chain), ids}
		views[0] = mounted(t, d, chain)
		chain, ids = common, ids[:shared:shared]
		for range 2 {
			if next, id, ok := add(t, d, chain, random(r)); ok {
				chain, ids = next, append(ids, id)
			}
		}
		sides[1] = side{stack(t, d, chain), ids}
		views[1] = mounted(t, d, chain)

		for i, s := range sides {
			got := map[string]string{}
			err := files(ctx, s.Stack, FilesRequest{Layer: -1}, func(f File) error {
				line := fmt.Sprintf("%o %d:%d", f.Mode, f.UID, f.GID)
				switch f.Mode & syscall.S_IFMT {
				case syscall.S_IFREG:
					file, err := s.Open(f.Layer, f.Path[1:])
					if err != nil {
						return err
					}
					defer file.Close()
					var body bytes.Buffer
					body.ReadFrom(file)
					line += fmt.Sprintf(" %d %s", f.Size, body.String())
				case syscall.S_IFLNK:
					line += " -> " + f.Link
				}
				got[f.Path] = line
				return nil
			})
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if diff := cmp.Diff(views[i], got); diff != "" {
				t.Errorf("seed %d, side %d: %s", seed, i, diff)
			}
		}
		want, got := map[string]string{}, map[string]string{}
		for p, a := range views[0] {
			if b, ok := views[1][p]; !ok {
				want[p] = "D"
			} else if a != b {
				want[p] = "C"
			}
		}
		for p := range views[1] {
			if _, ok := views[0][p]; !ok {
				want[p] = "A"
			}
		}
		last := ""
		if _, err := compare(ctx, sides[0], sides[1], func(d Difference) error {
			got[d.Path], last = string(d.Change), d.Path
			return nil
		}); err != nil {
			t.Fatalf("seed %d at %s: %v", seed, last, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("seed %d: differences: %s", seed, diff)
		}
	}
}

// TestRemovedMeanwhile: a layer that goes away while it is read is said so.
func TestRemovedMeanwhile(t *testing.T) {
	d := driver(t)
	chain, _, ok := add(t, d, "", random(rand.New(rand.NewPCG(3, 5))))
	if !ok {
		t.Fatal("the layer can't be unpacked: choose another seed")
	}
	s := stack(t, d, chain)
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	if err := d.Remove(chain); err != nil {
		t.Fatal(err)
	}
	if err := s.Check(); fault.Of(err) != fault.NotFound {
		t.Errorf("got %v", err)
	}
	if _, err := union.OpenStack(d, chain); fault.Of(err) != fault.NotFound {
		t.Errorf("opened again: %v", err)
	}
}

// TestFilesOfALayer has the answers of the API for one layer and for a merged tree.
func TestFilesOfALayer(t *testing.T) {
	d := driver(t)
	pack := func(members ...tar.Header) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range members {
			h.ModTime = time.Unix(1_600_000_000, 0)
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
			w.Write(make([]byte, h.Size))
		}
		w.Close()
		return b.Bytes()
	}
	chain, _, _ := add(t, d, "", pack(tar.Header{Name: "d", Typeflag: tar.TypeDir, Mode: 0o755}, tar.Header{Name: "d/x", Size: 5, Mode: 0o644}, tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "d/x", Mode: 0o777}))
	chain, _, _ = add(t, d, chain, pack(tar.Header{Name: "d/x", Size: 7, Mode: 0o600, Uid: 3}, tar.Header{Name: ".wh.l"}, tar.Header{Name: "n", Size: 1, Mode: 0o644}))
	s := stack(t, d, chain)
	for _, c := range []struct {
		r    FilesRequest
		want []string
	}{
		{FilesRequest{Layer: 0}, []string{"A /d 0 40755 0:0 0 0 ", "A /d/x 0 100644 0:0 5 0 ", "A /l 0 120777 0:0 0 0 d/x"}},
		{FilesRequest{Layer: 1}, []string{" /d 1 40755 0:0 0 0 ", "C /d/x 1 100600 3:0 7 5 ", "D /l 1 120777 0:0 0 0 ", "A /n 1 100644 0:0 1 0 "}},
		{FilesRequest{Layer: 1, Path: "/d/x"}, []string{"C /d/x 1 100600 3:0 7 5 "}},
		{FilesRequest{Layer: 0, Merged: true}, []string{"A /d 0 40755 0:0 0 0 ", "A /d/x 0 100644 0:0 5 0 ", "A /l 0 120777 0:0 0 0 d/x"}},
		{FilesRequest{Layer: 1, Merged: true, Path: "l"}, []string{"D /l 1 120777 0:0 0 0 "}},
		{FilesRequest{Layer: -1}, []string{" /d 1 40755 0:0 0 0 ", " /d/x 1 100600 3:0 7 0 ", " /n 1 100644 0:0 1 0 "}},
	} {
		var got []string
		err := files(context.Background(), s, c.r, func(f File) error {
			got = append(got, fmt.Sprintf("%s %s %d %o %d:%d %d %d %s", f.Change, f.Path, f.Layer, f.Mode, f.UID, f.GID, f.Size, f.Was, f.Link))
			return nil
		})
		if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
			t.Errorf("%+v: %v %s", c.r, err, diff)
		}
	}
	for _, r := range []FilesRequest{{Layer: 2}, {Layer: -1, Path: "/l"}, {Layer: -1, Path: "/nothing"}} {
		if err := files(context.Background(), s, r, func(File) error { return nil }); fault.Of(err) != fault.NotFound {
			t.Errorf("%+v: %v", r, err)
		}
	}
}

// TestExtremes reads a directory 1,000 deep, and 600 layers, more than overlay stacks without help.
func TestExtremes(t *testing.T) {
	d := driver(t)
	write := func(name string, kind byte) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: kind, Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		w.Close()
		return b.Bytes()
	}
	deep := strings.Repeat("d/", 1000) + strings.Repeat("n", 255)
	chain, _, ok := add(t, d, "", write(deep, tar.TypeReg))
	if !ok {
		t.Fatal("the deep layer can't be unpacked")
	}
	chain, _, _ = add(t, d, chain, write(".wh.d", tar.TypeReg))
	count := func(r FilesRequest) (n int) {
		if err := files(context.Background(), stack(t, d, chain), r, func(File) error { n++; return nil }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := count(FilesRequest{Layer: 1}); n != 1001 {
		t.Errorf("the second layer removes %d files and directories, not 1001", n)
	}
	if n := count(FilesRequest{Layer: 0, Path: deep[:len(deep)-256]}); n != 2 {
		t.Errorf("%d at the bottom, not the directory and its file", n)
	}
	ids := []digest.Digest{"a", "b"}
	for i := range 600 {
		next, id, ok := add(t, d, chain, write(fmt.Sprintf("many/f%d", i%300), tar.TypeReg))
		if !ok {
			t.Fatal("a layer can't be unpacked")
		}
		chain, ids = next, append(ids, id)
	}
	if n := count(FilesRequest{Layer: -1}); n != 301 {
		t.Errorf("602 layers show %d files, not 301", n)
	}
	a := side{stack(t, d, chain), ids}
	totals, err := compare(context.Background(), a, side{stack(t, d, ""), nil}, func(Difference) error { return nil })
	if err != nil || totals.Removed.Files != 300 {
		t.Errorf("%+v, %v", totals, err)
	}
}
