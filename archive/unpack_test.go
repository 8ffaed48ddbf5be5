package archive_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"berth/archive"
	"berth/fault"
	"berth/internal/kerneltest"
	"berth/kernel"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

var stamp = time.Unix(1_600_000_000, 0)

// member builds headers for tests; Mode and ModTime have defaults.
type member struct {
	tar.Header
	body string
}

func file(name, body string) member {
	return member{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644}, body}
}
func dir(name string) member {
	return member{tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755}, ""}
}
func symlink(name, target string) member {
	return member{tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target, Mode: 0o777}, ""}
}
func hardlink(name, target string) member {
	return member{tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: target}, ""}
}

func tarOf(t testing.TB, members ...member) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, m := range members {
		m.Size = int64(len(m.body))
		if m.ModTime.IsZero() {
			m.ModTime = stamp
		}
		if err := w.WriteHeader(&m.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, m.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func openDir(t testing.TB, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func unpack(t testing.TB, root string, data []byte, o archive.UnpackOptions) (archive.Unpacked, error) {
	t.Helper()
	return archive.Unpack(t.Context(), bytes.NewReader(data), openDir(t, root), o)
}

// listing describes a tree line by line: kind, mode, owner, content or target, overlay marks.
func listing(t testing.TB, root string) []string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		rel, _ := filepath.Rel(root, p)
		line := fmt.Sprintf("%s %o %d:%d", rel, st.Mode, st.Uid, st.Gid)
		switch {
		case d.Type().IsRegular():
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %.40q n%d", data, st.Nlink)
		case d.Type()&fs.ModeSymlink != 0:
			target, _ := os.Readlink(p)
			line += " → " + target
		case d.Type()&fs.ModeDevice != 0:
			line += fmt.Sprintf(" dev %x", st.Rdev)
		}
		dir, err := os.Open(filepath.Dir(p))
		if err != nil {
			return err
		}
		defer dir.Close()
		attrs, err := kernel.XattrsIn(dir, filepath.Base(p))
		if err != nil {
			return err
		}
		for _, k := range slices.Sorted(func(yield func(string) bool) {
			for k := range attrs {
				if !yield(k) {
					return
				}
			}
		}) {
			line += fmt.Sprintf(" %s=%q", k, attrs[k])
		}
		if rel != "." {
			line += fmt.Sprintf(" @%d", st.Mtim.Sec)
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func TestUnpackMakesEveryKind(t *testing.T) {
	kerneltest.Root(t)
	capability := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" // cap_net_bind_service=ep, v2
	long := strings.Repeat("long-", 25) + "/" + strings.Repeat("name-", 30)
	odd := member{tar.Header{Name: "bin/tool", Typeflag: tar.TypeReg, Mode: 0o4755, Uid: 1000, Gid: 4000000000, Format: tar.FormatPAX, PAXRecords: map[string]string{
		"SCHILY.xattr.security.capability":    capability,
		"SCHILY.xattr.user.note":              "hello",
		"SCHILY.xattr.trusted.overlay.opaque": "y",
		"SCHILY.xattr.user.overlay.opaque":    "y",
		"SCHILY.xattr.security.selinux":       "label",
	}}, "tool"}
	data := tarOf(t,
		member{tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o751, Uid: 3, Gid: 4}, ""},
		member{tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777}, ""},
		member{tar.Header{Name: "ro", Typeflag: tar.TypeDir, Mode: 0o2555, Uid: 5, Gid: 6}, ""},
		file("ro/inside", "x"),
		odd,
		symlink("abs", "/etc/passwd"),
		symlink("up", "../../x"),
		hardlink("bin/tool2", "./bin/tool"),
		hardlink("up2", "/up"),
		member{tar.Header{Name: "null", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 3}, ""},
		member{tar.Header{Name: "disk", Typeflag: tar.TypeBlock, Mode: 0o660, Devmajor: 259, Devminor: 70000, Gid: 6}, ""},
		member{tar.Header{Name: "pipe", Typeflag: tar.TypeFifo, Mode: 0o600}, ""},
		file(long, "l"),
		file("empty", ""),
		file("deep/er/file", "d"),
	)
	root := t.TempDir()
	u, err := unpack(t, root, data, archive.UnpackOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"bin", "deep", "deep/er", filepath.Dir(long)}; !slices.Equal(u.Implied, want) {
		t.Errorf("implied %q, want %q", u.Implied, want)
	}
	if u.Size != int64(len("tool")+len("x")+len("l")+len("d")) {
		t.Errorf("size %d", u.Size)
	}
	s := stamp.Unix()
	at := fmt.Sprint(" @", s)
	tool := fmt.Sprintf(` 104755 1000:4000000000 "tool" n2 security.capability=%q user.note="hello"`, capability)
	want := []string{
		`. 40751 3:4`,
		`abs 120777 0:0 → /etc/passwd` + at,
		`bin 40755 0:0 @0`,
		`bin/tool` + tool + at,
		`bin/tool2` + tool + at,
		`deep 40755 0:0 @0`,
		`deep/er 40755 0:0 @0`,
		`deep/er/file 100644 0:0 "d" n1` + at,
		fmt.Sprintf(`disk 60660 0:6 dev %x`, kernel.Dev(259, 70000)) + at,
		`empty 100644 0:0 "" n1` + at,
		filepath.Dir(long) + ` 40755 0:0 @0`,
		long + ` 100644 0:0 "l" n1` + at,
		`null 20666 0:0 dev 103` + at,
		`pipe 10600 0:0` + at,
		`ro 42555 5:6` + at,
		`ro/inside 100644 0:0 "x" n1` + at,
		`tmp 41777 0:0` + at,
		`up 120777 0:0 → ../../x` + at,
		`up2 120777 0:0 → ../../x` + at,
	}
	compare(t, listing(t, root), want)
}

func compare(t *testing.T, got, want []string) {
	t.Helper()
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		t.Errorf("tree:\n%s\nwant:\n%s", g, w)
	}
}

// Each of these means harm. None may touch what lies outside the root, whether it fails or is tamed.
func TestUnpackHostile(t *testing.T) {
	kerneltest.Root(t)
	cases := map[string]struct {
		members []member
		kind    fault.Kind // "" = tamed
		says    string
	}{
		"dot dot":                         {[]member{file("../outside/f", "evil")}, fault.Invalid, `"../outside/f" leaves the directory`},
		"dot dot in the middle":           {[]member{dir("a"), file("a/../../outside/f", "evil")}, fault.Invalid, "leaves the directory"},
		"dot dot that stays":              {[]member{dir("a"), file("a/../f", "ok")}, "", ""},
		"only dot dot":                    {[]member{dir("..")}, fault.Invalid, "leaves"},
		"absolute":                        {[]member{file("/outside/f", "tamed")}, "", ""},
		"absolute with dots":              {[]member{file("/../outside/f", "evil")}, fault.Invalid, "leaves"},
		"relative link, file through it":  {[]member{symlink("l", "../outside"), file("l/f", "evil")}, fault.Invalid, `unpack "l/f"`},
		"absolute link, file through it":  {[]member{symlink("l", "OUTSIDE"), file("l/f", "evil")}, fault.Invalid, `unpack "l/f"`},
		"link to /, dir through it":       {[]member{symlink("l", "/"), dir("l/OUTSIDE/new")}, fault.Invalid, ""},
		"two links in a row":              {[]member{symlink("a", "b"), symlink("b", "../outside"), file("a/f", "evil")}, fault.Invalid, ""},
		"link inside, dots out":           {[]member{dir("d"), symlink("d/l", "../../outside"), file("d/l/f", "evil")}, fault.Invalid, ""},
		"link loop":                       {[]member{symlink("a", "b"), symlink("b", "a"), file("a/f", "evil")}, fault.Invalid, ""},
		"link to nowhere as a parent":     {[]member{symlink("a", "nowhere"), file("a/f", "x")}, fault.Invalid, ""},
		"file over a link":                {[]member{symlink("l", "../outside/f"), file("l", "own")}, "", ""},
		"directory over a link":           {[]member{symlink("l", "../outside"), member{tar.Header{Name: "l", Typeflag: tar.TypeDir, Mode: 0o777, Uid: 9}, ""}}, "", ""},
		"directory over a link, then in":  {[]member{symlink("l", "../outside"), dir("l"), file("l/f", "own")}, "", ""},
		"directory becomes a link":        {[]member{dir("d"), file("d/x", "x"), symlink("d", "../outside"), file("d/f", "evil")}, fault.Invalid, ""},
		"cached parent becomes a link":    {[]member{dir("d/e"), file("d/e/x", "x"), symlink("d", "../outside"), file("d/e/f", "evil")}, fault.Invalid, ""},
		"hard link to dots":               {[]member{hardlink("h", "../outside/f")}, fault.Invalid, `"../outside/f" leaves the directory`},
		"hard link to absolute":           {[]member{hardlink("h", "OUTSIDE/f")}, fault.Invalid, "does not come before it|no such file"},
		"hard link through a link":        {[]member{symlink("l", "../outside"), hardlink("h", "l/f"), file("h", "evil")}, fault.Invalid, ""},
		"hard link to a link, then write": {[]member{symlink("l", "../outside/f"), hardlink("h", "l"), file("h", "own")}, "", ""},
		"hard link to a link, then chmod": {[]member{symlink("l", "../outside/f"), hardlink("h", "l"), dir("h")}, "", ""},
		"hard link to a directory":        {[]member{dir("d"), hardlink("h", "d")}, fault.Invalid, "directory"},
		"hard link to the root":           {[]member{hardlink("h", ".")}, fault.Invalid, ""},
		"hard link to itself":             {[]member{file("f", "x"), hardlink("f", "./f")}, "", ""},
		"file as a parent":                {[]member{file("f", "x"), file("f/g", "y")}, fault.Invalid, `unpack "f/g"`},
		"device as a parent":              {[]member{{tar.Header{Name: "n", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}, ""}, file("n/g", "y")}, fault.Invalid, ""},
		"file as the root":                {[]member{file(".", "x")}, fault.Invalid, "root directory"},
		"link as the root":                {[]member{symlink("./", "../outside")}, fault.Invalid, "root directory"},
		"whiteout of dot dot":             {[]member{file(".wh...", "")}, fault.Invalid, "whiteout of nothing"},
		"whiteout of dot":                 {[]member{file(".wh..", "")}, fault.Invalid, "whiteout of nothing"},
		"whiteout without a name":         {[]member{file("d/.wh.", "")}, fault.Invalid, "whiteout of nothing"},
		"whiteout through a link":         {[]member{symlink("l", "../outside"), file("l/.wh.f", "")}, fault.Invalid, ""},
		"opaque through a link":           {[]member{symlink("l", "../outside"), file("l/.wh..wh..opq", "")}, fault.Invalid, ""},
		"member below a whiteout":         {[]member{file(".wh.x/../../../outside/f", "")}, fault.Invalid, ""},
		"whiteout as a directory":         {[]member{file(".wh.x/f", "")}, fault.Invalid, "can't be a directory"},
		"owner beyond 32 bits":            {[]member{{tar.Header{Name: "f", Typeflag: tar.TypeReg, Uid: 1 << 33}, ""}}, fault.Invalid, "impossible owner"},
		"owner -1":                        {[]member{{tar.Header{Name: "f", Typeflag: tar.TypeReg, Uid: 1<<32 - 1}, ""}}, fault.Invalid, "impossible owner"},
		"name too long":                   {[]member{file(strings.Repeat("n", 256), "x")}, fault.Invalid, "name too long"},
		"path too long":                   {[]member{file(strings.Repeat("n/", 3000)+"f", "x")}, fault.Invalid, "name too long"},
		"unknown kind":                    {[]member{{tar.Header{Name: "f", Typeflag: 'Z'}, ""}}, fault.Invalid, "unknown kind"},
		"trusted attribute":               {[]member{{tar.Header{Name: "d", Typeflag: tar.TypeDir, Mode: 0o755, PAXRecords: map[string]string{"SCHILY.xattr.trusted.overlay.redirect": "/outside"}}, ""}}, "", ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			outside, root := filepath.Join(top, "outside"), filepath.Join(top, "root")
			for _, d := range []string{outside, root} {
				if err := os.Mkdir(d, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(outside, "f"), []byte("victim"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(filepath.Join(outside, "f"), stamp, stamp); err != nil {
				t.Fatal(err)
			}
			before, host := listing(t, outside), listing(t, filepath.Dir(top))
			for i := range c.members {
				c.members[i].Name = strings.ReplaceAll(c.members[i].Name, "OUTSIDE", outside)
				c.members[i].Linkname = strings.ReplaceAll(c.members[i].Linkname, "OUTSIDE", outside)
			}
			_, err := unpack(t, root, tarOf(t, c.members...), archive.UnpackOptions{Whiteouts: true})
			if fault.Of(err) != c.kind || (err == nil) != (c.kind == "") {
				t.Errorf("error %v of kind %q, want kind %q", err, fault.Of(err), c.kind)
			}
			if err != nil && !slices.ContainsFunc(strings.Split(c.says, "|"), func(s string) bool { return strings.Contains(err.Error(), s) }) {
				t.Errorf("error %q, want it to say %q", err, c.says)
			}
			compare(t, listing(t, outside), before)
			if err := os.RemoveAll(root); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(root, 0o700); err != nil {
				t.Fatal(err)
			}
			strip := func(lines []string) []string { // the test's own directory changed its time
				return slices.DeleteFunc(lines, func(l string) bool { return strings.Contains(l, " 40700 ") || strings.Contains(l, " 40755 ") })
			}
			compare(t, strip(listing(t, filepath.Dir(top))), strip(host))
		})
	}
}

func TestUnpackWhiteouts(t *testing.T) {
	kerneltest.Root(t)
	root := t.TempDir()
	u, err := unpack(t, root, tarOf(t,
		dir("d"), file("d/.wh.gone", ""), file(".wh.top", ""),
		dir("o"), file("o/.wh..wh..opq", ""), file("o/new", "n"),
		file("imp/.wh.x", ""),
		file(".wh.again", ""), file("again", "a"), // replaced in the same layer
		file("own", "kept"), file(".wh.own", ""), // hides below only
		file(".wh.turned", ""), dir("turned"), file("turned/f", "f"), // a new directory of that name
		dir("later"), file("later/f", "f"), file(".wh.later", ""),
		file(".wh.deep", ""), file("deep/f", "f"), // the directory is implied
		file(".wh..wh.plnk/1.2", "aufs"), file(".wh..wh.aufs", ""), dir(".wh..wh.orph"),
	), archive.UnpackOptions{Whiteouts: true})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{".", "deep", "imp"}; !slices.Equal(u.Implied, want) {
		t.Errorf("implied %q, want %q", u.Implied, want)
	}
	var got []string
	for _, l := range listing(t, root)[1:] {
		got = append(got, l[:strings.LastIndex(l, " @")])
	}
	compare(t, got, []string{
		`again 100644 0:0 "a" n1`,
		`d 40755 0:0`,
		`d/gone 20000 0:0 dev 0`,
		`deep 40755 0:0 trusted.overlay.opaque="y"`,
		`deep/f 100644 0:0 "f" n1`,
		`imp 40755 0:0`,
		`imp/x 20000 0:0 dev 0`,
		`later 40755 0:0 trusted.overlay.opaque="y"`,
		`later/f 100644 0:0 "f" n1`,
		`o 40755 0:0 trusted.overlay.opaque="y"`,
		`o/new 100644 0:0 "n" n1`,
		`own 100644 0:0 "kept" n1`,
		`top 20000 0:0 dev 0`,
		`turned 40755 0:0 trusted.overlay.opaque="y"`,
		`turned/f 100644 0:0 "f" n1`,
	})
}

func TestUnpackWithoutWhiteoutsKeepsTheNames(t *testing.T) {
	root := t.TempDir()
	if os.Geteuid() != 0 {
		t.Skip("needs root: members are owned by 0:0")
	}
	if _, err := unpack(t, root, tarOf(t, file(".wh.x", "plain")), archive.UnpackOptions{}); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(filepath.Join(root, ".wh.x")); string(data) != "plain" {
		t.Errorf("%q, %v", data, err)
	}
}

func TestUnpackLastWins(t *testing.T) {
	kerneltest.Root(t)
	root := t.TempDir()
	if _, err := unpack(t, root, tarOf(t,
		file("f", "first, longer"), file("f", "second"),
		dir("d"), file("d/x", "x"), file("d", "now a file"),
		file("g", "g"), dir("g"), file("g/in", "in"),
		file("h", "h"), hardlink("i", "h"), file("h", "other"), // i keeps the old content
		member{tar.Header{Name: "e", Typeflag: tar.TypeDir, Mode: 0o700}, ""}, file("e/x", "x"), dir("e"), // e keeps x
		dir("usr/lib"), symlink("lib", "usr/lib"), file("lib/so", "so"), // a link that stays inside
	), archive.UnpackOptions{}); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range listing(t, root)[1:] {
		got = append(got, l[:strings.LastIndex(l, " @")])
	}
	compare(t, got, []string{
		`d 100644 0:0 "now a file" n1`,
		`e 40755 0:0`,
		`e/x 100644 0:0 "x" n1`,
		`f 100644 0:0 "second" n1`,
		`g 40755 0:0`,
		`g/in 100644 0:0 "in" n1`,
		`h 100644 0:0 "other" n1`,
		`i 100644 0:0 "h" n1`,
		`lib 120777 0:0 → usr/lib`,
		`usr 40755 0:0`,
		`usr/lib 40755 0:0`,
		`usr/lib/so 100644 0:0 "so" n1`,
	})
}

func TestUnpackDamage(t *testing.T) {
	kerneltest.Root(t)
	good := tarOf(t, file("a", strings.Repeat("x", 3000)), file("b", "y"))
	broken := bytes.Clone(good)
	broken[100] ^= 0xff // the mode: the checksum fails
	for name, c := range map[string]struct {
		data []byte
		o    archive.UnpackOptions
		kind fault.Kind
	}{
		"cut in a file":    {good[:2000], archive.UnpackOptions{}, fault.Corrupt},
		"cut in a header":  {good[:200], archive.UnpackOptions{}, fault.Corrupt},
		"bad checksum":     {broken, archive.UnpackOptions{}, fault.Corrupt},
		"not a tar":        {[]byte(strings.Repeat("plain text. ", 500)), archive.UnpackOptions{}, fault.Corrupt},
		"too many members": {good, archive.UnpackOptions{MaxMembers: 1}, fault.Invalid},
		"too large":        {good, archive.UnpackOptions{MaxBytes: 3000}, fault.Invalid},
		"files too large":  {sparse(t, 1<<40), archive.UnpackOptions{MaxBytes: 1 << 30}, fault.Invalid},
		"nothing at all":   {nil, archive.UnpackOptions{}, ""},
		"within bounds":    {good, archive.UnpackOptions{MaxBytes: 1 << 20, MaxMembers: 2}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := unpack(t, t.TempDir(), c.data, c.o)
			if fault.Of(err) != c.kind || (err == nil) != (c.kind == "") {
				t.Errorf("error %v of kind %q, want %q", err, fault.Of(err), c.kind)
			}
		})
	}
}

// sparse is an archive of one GNU sparse file with the byte "x" at its start and size bytes in all.
func sparse(t testing.TB, size int64) []byte {
	t.Helper()
	records := ""
	for _, r := range []string{"GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=hole", fmt.Sprintf("GNU.sparse.realsize=%d", size)} {
		n := len(r) + 3
		for len(fmt.Sprintf("%d %s\n", n, r)) != n {
			n++
		}
		records += fmt.Sprintf("%d %s\n", n, r)
	}
	block := func(s string) []byte { return append([]byte(s), make([]byte, (512-len(s)%512)%512)...) }
	body := append(block(fmt.Sprintf("2\n0\n1\n%d\n0\n", size)), block("x")[:1]...)
	var raw bytes.Buffer
	head := func(name string, kind byte, size int) {
		h := make([]byte, 512)
		copy(h, name)
		copy(h[100:], "0000644\x000000000\x000000000\x00")
		copy(h[124:], fmt.Sprintf("%011o\x00%011o\x00", size, 0))
		h[156] = kind
		copy(h[257:], "ustar\x0000")
		copy(h[148:], "        ")
		sum := 0
		for _, b := range h {
			sum += int(b)
		}
		copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
		raw.Write(h)
	}
	head("pax", 'x', len(records))
	raw.Write(block(records))
	head("GNUSparseFile/hole", '0', len(body))
	raw.Write(block(string(body)))
	raw.Write(make([]byte, 1024))
	return raw.Bytes()
}

func TestUnpackKeepsHoles(t *testing.T) {
	kerneltest.Root(t)
	root := t.TempDir()
	u, err := unpack(t, root, sparse(t, 64<<20), archive.UnpackOptions{})
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(root, "hole"))
	if err != nil || info.Size() != 64<<20 || u.Size != 64<<20 {
		t.Fatalf("size %v, unpacked %d, %v", info, u.Size, err)
	}
	if used := info.Sys().(*syscall.Stat_t).Blocks * 512; used > 1<<20 {
		t.Errorf("%d bytes on disk for one byte and a hole", used)
	}
}

func TestUnpackFullDiskNamesTheFile(t *testing.T) {
	kerneltest.Root(t)
	dir := t.TempDir()
	fs, err := kernel.NewMount("tmpfs", "tmpfs", []string{"size=256k"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer fs.Close()
	target, err := kernel.OpenIn(nil, dir, kernel.OPath|kernel.ODirectory, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	if err := kernel.AttachMount(fs, target); err != nil {
		t.Fatal(err)
	}
	defer kernel.Unmount(dir, true)
	_, err = unpack(t, dir, tarOf(t, file("small", "s"), file("usr/big", strings.Repeat("b", 1<<20))), archive.UnpackOptions{})
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), `"usr/big"`) || !strings.Contains(err.Error(), "no space left on device") {
		t.Errorf("error %v", err)
	}
}

func TestUnpackReadsToTheEnd(t *testing.T) {
	kerneltest.Root(t)
	data := append(tarOf(t, file("a", "a")), make([]byte, 9000)...)
	r := bytes.NewReader(data)
	if _, err := archive.Unpack(t.Context(), r, openDir(t, t.TempDir()), archive.UnpackOptions{}); err != nil || r.Len() != 0 {
		t.Errorf("%d bytes left, %v", r.Len(), err)
	}
}

func TestUnpackStopsWhenCanceled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := archive.Unpack(ctx, bytes.NewReader(tarOf(t, file("a", "a"))), openDir(t, t.TempDir()), archive.UnpackOptions{})
	if !errors.Is(err, fault.Canceled) || !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestUnpackPassesTheStreamsOwnError(t *testing.T) {
	kerneltest.Root(t)
	mine := errors.New("connection lost")
	good := tarOf(t, file("a", strings.Repeat("x", 3000)))
	for _, n := range []int{0, 100, 512, 2000, 4096} {
		r := io.MultiReader(bytes.NewReader(good[:n]), &failing{mine})
		if _, err := archive.Unpack(t.Context(), r, openDir(t, t.TempDir()), archive.UnpackOptions{}); !errors.Is(err, mine) || fault.Of(err) != "" {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
}

type failing struct{ err error }

func (f *failing) Read([]byte) (int, error) { return 0, f.err }
