package archive_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
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

func pack(t testing.TB, root string, o archive.PackOptions) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := archive.Pack(t.Context(), &b, openDir(t, root), o); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// sample is a tree of every kind.
func sample(t testing.TB) string {
	t.Helper()
	root := t.TempDir()
	capability := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	data := tarOf(t,
		member{tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o1750, Uid: 1, Gid: 2}, ""},
		dir("b"), file("b/second", strings.Repeat("2", 300_000)), file("b/a", ""), dir("b.d"), file("b-c", "sorts between"),
		member{tar.Header{Name: "suid", Typeflag: tar.TypeReg, Mode: 0o4711, Uid: 70000, Gid: 3_000_000_000, PAXRecords: map[string]string{
			"SCHILY.xattr.security.capability": capability, "SCHILY.xattr.user.k": "v\x00w"}}, "s"},
		hardlink("a-link", "suid"), symlink("l", "../anywhere"), hardlink("l2", "l"),
		member{tar.Header{Name: "c", Typeflag: tar.TypeChar, Mode: 0o620, Devmajor: 5, Devminor: 1}, ""},
		member{tar.Header{Name: "blk", Typeflag: tar.TypeBlock, Mode: 0o660, Devmajor: 8, Devminor: 300}, ""},
		member{tar.Header{Name: "p", Typeflag: tar.TypeFifo, Mode: 0o644}, ""},
		member{tar.Header{Name: "old", Typeflag: tar.TypeReg, Mode: 0o400, ModTime: time.Unix(-86400, 0)}, "before the epoch"},
		file("naïve \xff\n\t name", "odd"), file(strings.Repeat("d/", 60)+strings.Repeat("f", 200), "deep"),
		dir("gone-here"),
	)
	if _, err := unpack(t, root, data, archive.UnpackOptions{}); err != nil {
		t.Fatal(err)
	}
	return root
}

func TestPackThenUnpackIsTheSameTree(t *testing.T) {
	kerneltest.Root(t)
	root := sample(t)
	first := pack(t, root, archive.PackOptions{})
	if !bytes.Equal(first, pack(t, root, archive.PackOptions{})) {
		t.Error("packing twice gives other bytes")
	}
	again := t.TempDir()
	if _, err := unpack(t, again, first, archive.UnpackOptions{}); err != nil {
		t.Fatal(err)
	}
	compare(t, listing(t, again), listing(t, root))
	if !bytes.Equal(first, pack(t, again, archive.PackOptions{})) {
		t.Error("the copy packs to other bytes")
	}
}

func TestPackIsCanonical(t *testing.T) {
	kerneltest.Root(t)
	root := sample(t)
	if l, err := net.Listen("unix", filepath.Join(root, "socket")); err != nil {
		t.Fatal(err)
	} else {
		defer l.Close()
	}
	var names []string
	r := tar.NewReader(bytes.NewReader(pack(t, root, archive.PackOptions{})))
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
		if h.Uname != "" || h.Gname != "" || h.ModTime.Nanosecond() != 0 || !h.AccessTime.IsZero() {
			t.Errorf("%s carries what differs between hosts: %+v", h.Name, h)
		}
		if h.Name == "suid" && (h.Typeflag != tar.TypeLink || h.Linkname != "a-link") {
			t.Errorf("the second name of one file: %+v", h)
		}
	}
	if slices.Contains(names, "socket") {
		t.Error("the socket was packed")
	}
	if want := []string{"./", "a-link", "b/", "b/a", "b/second", "b-c", "b.d/", "blk", "c"}; !slices.Equal(names[:9], []string{"./", "a-link", "b/", "b/a", "b/second", "b-c", "b.d/", "blk", "c"}) {
		t.Errorf("order %q, want %q first", names, want)
	}
}

func TestPackWhiteouts(t *testing.T) {
	kerneltest.Root(t)
	root := t.TempDir()
	layer := tarOf(t, dir("d"), file("d/.wh.gone", ""), dir("o"), file("o/.wh..wh..opq", ""), file("o/n", "n"), file(".wh.top", ""))
	if _, err := unpack(t, root, layer, archive.UnpackOptions{Whiteouts: true}); err != nil {
		t.Fatal(err)
	}
	// Overlay's other notes must not travel.
	if err := kernel.SetXattrIn(openDir(t, root), "d", "trusted.overlay.origin", "x"); err != nil {
		t.Fatal(err)
	}
	data := pack(t, root, archive.PackOptions{Whiteouts: true})
	var names []string
	r := tar.NewReader(bytes.NewReader(data))
	for h, err := r.Next(); err != io.EOF; h, err = r.Next() {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
		if strings.Contains(fmt.Sprint(h.PAXRecords), "overlay") {
			t.Errorf("%s carries %v", h.Name, h.PAXRecords)
		}
	}
	if want := []string{".wh.top", "d/", "d/.wh.gone", "o/", "o/.wh..wh..opq", "o/n"}; !slices.Equal(slices.Sorted(slices.Values(names)), want) {
		t.Errorf("names %q, want %q", names, want)
	}
	again := t.TempDir()
	if _, err := unpack(t, again, data, archive.UnpackOptions{Whiteouts: true}); err != nil {
		t.Fatal(err)
	}
	if err := kernel.RemoveXattrIn(openDir(t, root), "d", "trusted.overlay.origin"); err != nil {
		t.Fatal(err)
	}
	strip := func(lines []string) []string { // a whiteout has no time of its own
		for i, l := range lines {
			if strings.HasSuffix(strings.Split(l, " @")[0], "dev 0") {
				lines[i] = strings.Split(l, " @")[0]
			}
		}
		return lines[1:]
	}
	compare(t, strip(listing(t, again)), strip(listing(t, root)))
}

func TestPackStops(t *testing.T) {
	kerneltest.Root(t)
	root := sample(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := archive.Pack(ctx, io.Discard, openDir(t, root), archive.PackOptions{}); !errors.Is(err, fault.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	mine := errors.New("pipe broke")
	if err := archive.Pack(t.Context(), &brokenWriter{mine}, openDir(t, root), archive.PackOptions{}); !errors.Is(err, mine) {
		t.Errorf("a writer's own error came out as %v", err)
	}
}

type brokenWriter struct{ err error }

func (b *brokenWriter) Write([]byte) (int, error) { return 0, b.err }

func FuzzUnpack(f *testing.F) {
	f.Add(tarOf(f, dir("d"), file("d/f", "x"), symlink("l", "../outside"), file("l/f", "evil")))
	f.Add(tarOf(f, file(".wh.x", ""), dir("x"), file("x/.wh..wh..opq", ""), hardlink("h", "../outside/f")))
	f.Add(sparse(f, 1<<20))
	f.Fuzz(func(t *testing.T, data []byte) { unpackHarmlessly(t, data) })
}

// FuzzMembers reads its input as a list of members over a few names, so that
// every input is a whole archive and the order of kinds is what varies.
func FuzzMembers(f *testing.F) {
	names := []string{"a", "b", "a/b", "a/b/c", "b/a", "c", ".", "..", "../outside", "../outside/f", "/a", "/.", "b/../a",
		".wh.a", "a/.wh.b", "a/.wh..wh..opq", ".wh..wh..opq", ".wh...", ".wh..wh.plnk/x", "c/d/e"}
	kinds := []byte{tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeLink, tar.TypeFifo, tar.TypeChar, tar.TypeDir, tar.TypeReg}
	f.Add([]byte{1, 0, 0, 2, 1, 8, 0, 3, 0})
	f.Add([]byte{0, 2, 0, 2, 0, 8, 0, 9, 0, 3, 4, 9})
	f.Fuzz(func(t *testing.T, program []byte) {
		var members []member
		for ; len(program) >= 3 && len(members) < 50; program = program[3:] {
			m := member{tar.Header{Typeflag: kinds[int(program[0])%len(kinds)], Name: names[int(program[1])%len(names)], Mode: int64(program[2]) << 2}, ""}
			switch m.Typeflag {
			case tar.TypeSymlink, tar.TypeLink:
				m.Linkname = names[int(program[2])%len(names)]
			case tar.TypeReg:
				m.body = m.Name
			}
			members = append(members, m)
		}
		unpackHarmlessly(t, tarOf(t, members...))
	})
}

// unpackHarmlessly unpacks what may be anything: the outside stays as it was, an error has a kind,
// and what was taken can be packed, which unpacks to the same.
func unpackHarmlessly(t *testing.T, data []byte) {
	t.Helper()
	kerneltest.Root(t)
	top := t.TempDir()
	outside, root, again := filepath.Join(top, "outside"), filepath.Join(top, "root"), filepath.Join(top, "again")
	if err := errors.Join(os.Mkdir(outside, 0o700), os.Mkdir(root, 0o700), os.Mkdir(again, 0o700), os.WriteFile(filepath.Join(outside, "f"), []byte("victim"), 0o600)); err != nil {
		t.Fatal(err)
	}
	before := listing(t, outside)
	_, err := unpack(t, root, data, archive.UnpackOptions{Whiteouts: true, MaxBytes: 4 << 20, MaxMembers: 1000})
	if err != nil && fault.Of(err) == "" {
		t.Errorf("error without a kind: %v", err)
	}
	compare(t, listing(t, outside), before)
	if names, err := os.ReadDir(top); err != nil || len(names) != 3 {
		t.Errorf("new names outside: %v, %v", names, err)
	}
	if err != nil {
		return
	}
	packed := pack(t, root, archive.PackOptions{Whiteouts: true})
	if _, err := unpack(t, again, packed, archive.UnpackOptions{Whiteouts: true}); err != nil {
		t.Fatalf("what was packed does not unpack: %v", err)
	}
	if !bytes.Equal(packed, pack(t, again, archive.PackOptions{Whiteouts: true})) {
		t.Error("a round trip changed the tree")
	}
}

// manyFiles is a tar like a distribution's: small files in many directories.
func manyFiles(t testing.TB, n int) []byte {
	var members []member
	for i := range n {
		if i%20 == 0 {
			members = append(members, dir(fmt.Sprintf("usr/share/d%03d", i/20)))
		}
		members = append(members, file(fmt.Sprintf("usr/share/d%03d/file-%d", i/20, i), strings.Repeat("x", 200+i*37%20_000)))
	}
	return tarOf(t, members...)
}

func BenchmarkUnpack(b *testing.B) {
	kerneltest.Root(b)
	const n = 5000
	data := manyFiles(b, n)
	b.SetBytes(int64(len(data)))
	top := b.TempDir()
	if err := kernel.ScatterDirs(openDir(b, top)); err != nil { // as union does with its stages
		b.Fatal(err)
	}
	for b.Loop() {
		b.StopTimer()
		root, err := os.MkdirTemp(top, "")
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if _, err := unpack(b, root, data, archive.UnpackOptions{Whiteouts: true}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "files/s")
}

func BenchmarkPack(b *testing.B) {
	kerneltest.Root(b)
	root := b.TempDir()
	data := manyFiles(b, 5000)
	if _, err := unpack(b, root, data, archive.UnpackOptions{}); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if err := archive.Pack(b.Context(), io.Discard, openDir(b, root), archive.PackOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}
