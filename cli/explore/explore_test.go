package explore

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/cli/format"
	"berth/client"
)

var update = flag.Bool("update", false, "write the golden files")

var report = client.LayerReport{
	ID: "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", Platform: ocispec.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"},
	Size: 30_000_000, Unpacked: 95_500_000, Shown: client.FileSum{Files: 3210, Bytes: 83_000_000}, Hidden: 12_500_000, Efficiency: 0.8691,
	Layers: []client.Layer{
		{Unpacked: 80_000_000, Hidden: 12_000_000, CreatedBy: "/bin/sh -c #(nop) ADD file:1234 in / ", Added: client.FileSum{Files: 3000, Bytes: 80_000_000}},
		{Unpacked: 15_000_000, Hidden: 500_000, CreatedBy: "RUN /bin/sh -c apt-get update && apt-get install -y a-very-long-list of-packages # buildkit", Added: client.FileSum{Files: 200, Bytes: 14_000_000}, Changed: client.FileSum{Files: 10, Bytes: 1_000_000}},
		{Unpacked: 500_000, CreatedBy: "COPY . /srv\t# buildkit", Added: client.FileSum{Files: 10, Bytes: 500_000}, Removed: client.FileSum{Files: 3, Bytes: 12_000_000}},
	},
	Largest:  []client.PathWeight{{Path: "/usr/bin/large", Bytes: 20_000_000, Layer: 0}, {Path: "/srv/a\x1b[2Jb", Bytes: 400_000, Layer: 2}},
	Wasteful: []client.PathWeight{{Path: "/var/cache", Bytes: 12_000_000, Layer: 2, Times: 3}},
}

// files of the last layer, parents first; directories that are not named, and a name that would clear the screen.
var files = []client.LayerFile{
	{Path: "/etc", Mode: 0o40755, Layer: 2},
	{Path: "/etc/passwd", Change: "C", Mode: 0o100644, Size: 1500, Was: 1400, Layer: 2},
	{Path: "/srv", Change: "A", Mode: 0o41777, Layer: 2},
	{Path: "/srv/a\x1b[2Jb", Change: "A", Mode: 0o100755, Size: 400_000, UID: 1000, GID: 100, Layer: 2},
	{Path: "/srv/link", Change: "A", Mode: 0o120777, Link: "../etc/passwd", Layer: 2},
	{Path: "/srv/sub/deep/file", Change: "A", Mode: 0o104750, Size: 98_500, Layer: 2},
	{Path: "/usr", Mode: 0o40755, Layer: 2},
	{Path: "/var/cache", Change: "D", Mode: 0o40755, Layer: 2},
	{Path: "/var/cache/日本", Change: "D", Mode: 0o100644, Was: 12_000_000, Layer: 2},
}

// bring does what the terminal's loop does.
func bring(b *Browser) {
	v, wants := b.Wants()
	switch {
	case !wants:
	case v.Layer == 1:
		b.Fail(v, errors.New("layer sha256:12: not found"))
	case v.Layer == 2:
		b.Show(v, files)
	default:
		b.Show(v, files[2:6])
	}
}

func shape(lines []Line) string {
	var s strings.Builder
	for _, l := range lines {
		s.WriteString(l.String() + "\n")
	}
	return s.String()
}

func TestScreens(t *testing.T) {
	for _, c := range []struct {
		name          string
		width, height int
		keys          string
	}{
		{"first", 80, 24, ""},
		{"files", 80, 24, "end tab"},
		{"file", 80, 24, "end tab down down down"},
		{"wide", 130, 16, "end tab end"},
		{"narrow", 30, 10, "end tab"},
		{"tiny", 12, 4, "end"},
		{"folded", 80, 24, "end tab -"},
		{"bysize", 80, 24, "end tab s"},
		{"filtered", 80, 24, "end tab D U"},
		{"search", 80, 24, "end / d e e"},
		{"found", 80, 24, "end / D E E enter"},
		{"nothing", 80, 24, "end / z z enter"},
		{"merged", 80, 24, "end m"},
		{"failed", 80, 24, "down"},
		{"help", 80, 24, "?"},
		{"helpshort", 80, 12, "? pgdn"},
		{"weights", 80, 24, "w"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := New("debian:stable", report, c.width, c.height)
			bring(b)
			for _, k := range strings.Fields(c.keys) {
				b.Press(k)
				bring(b)
			}
			lines := b.Lines()
			if len(lines) != c.height {
				t.Errorf("%d lines on a screen of %d", len(lines), c.height)
			}
			for _, l := range lines {
				if w := format.Width(l.String()); w != c.width {
					t.Errorf("%q is %d wide, the screen %d", l, w, c.width)
				}
			}
			golden := filepath.Join("testdata", c.name+".golden")
			if *update {
				if err := os.WriteFile(golden, []byte(shape(lines)), 0o666); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if diff := cmp.Diff(string(want), shape(lines)); err != nil || diff != "" {
				t.Errorf("%v %s", err, diff)
			}
		})
	}
}

// at gives the path that is chosen and the paths that are seen.
func at(b *Browser) string {
	b.Lines()
	paths := []string{}
	for i, n := range b.rows {
		p := n.Path
		if i == b.row {
			p = "[" + p + "]"
		}
		paths = append(paths, p)
	}
	return strings.Join(paths, " ")
}

func TestMoves(t *testing.T) {
	for _, c := range []struct{ keys, want string }{
		{"", "[/etc] /etc/passwd /srv /srv/a\x1b[2Jb /srv/link /srv/sub /srv/sub/deep /srv/sub/deep/file /usr /var /var/cache /var/cache/日本"},
		{"-", "[/etc] /srv /usr /var"},
		{"- down enter", "/etc [/srv] /srv/a\x1b[2Jb /srv/link /srv/sub /usr /var"},
		{"- down right right", "/etc /srv [/srv/a\x1b[2Jb] /srv/link /srv/sub /usr /var"},
		{"- down right right left", "/etc [/srv] /srv/a\x1b[2Jb /srv/link /srv/sub /usr /var"},
		{"- down right left", "/etc [/srv] /usr /var"},
		{"end -", "/etc /srv /usr [/var]"},
		{"- G k k s", "/var [/srv] /etc /usr"},
		{"U C", "[/srv] /srv/a\x1b[2Jb /srv/link /srv/sub /srv/sub/deep /srv/sub/deep/file /var /var/cache /var/cache/日本"},
		{"U C A", "[/var] /var/cache /var/cache/日本"},
		{"- / f i l e enter esc", "/etc [/srv] /usr /var"},
		{"- / f i l e", "[/srv] /srv/sub /srv/sub/deep /srv/sub/deep/file"},
		{"- / f i x backspace l esc", "[/etc] /srv /usr /var"},
		{"pgdn", "/etc /etc/passwd /srv /srv/a\x1b[2Jb /srv/link [/srv/sub] /srv/sub/deep /srv/sub/deep/file /usr /var /var/cache /var/cache/日本"},
		{"pgdn pgdn pgdn pgdn home", "[/etc] /etc/passwd /srv /srv/a\x1b[2Jb /srv/link /srv/sub /srv/sub/deep /srv/sub/deep/file /usr /var /var/cache /var/cache/日本"},
		{"down down down m", "/etc /etc/passwd /srv [/srv/a\x1b[2Jb] /srv/link /srv/sub /srv/sub/deep /srv/sub/deep/file /usr /var /var/cache /var/cache/日本"},
		{"down down down [ [", "/srv [/srv/a\x1b[2Jb] /srv/link /srv/sub /srv/sub/deep /srv/sub/deep/file"},
	} {
		b := New("i", report, 80, 10)
		for _, k := range append([]string{"end", "tab"}, strings.Fields(c.keys)...) {
			b.Press(k)
			if k != "end" || b.inFiles {
				bring(b)
			}
		}
		if got := at(b); got != c.want {
			t.Errorf("%q:\n got  %q\n want %q", c.keys, got, c.want)
		}
		if b.Done() {
			t.Errorf("%q ends it", c.keys)
		}
	}
}

func TestQuits(t *testing.T) {
	for keys, want := range map[string]bool{"q": true, "ctrl-c": true, "/ q": false, "/ ctrl-c": true, "? q": false, "? q q": true, "w esc q": true, "esc": false} {
		b := New("i", report, 80, 24)
		for _, k := range strings.Fields(keys) {
			b.Press(k)
		}
		if b.Done() != want {
			t.Errorf("%q: done is %v", keys, b.Done())
		}
	}
}

// TestEmpty browses an image without layers.
func TestEmpty(t *testing.T) {
	b := New("scratch", client.LayerReport{}, 40, 8)
	for _, k := range strings.Fields("tab down up right left enter m ] [ s A + - / x enter w esc ? q end") {
		if _, wants := b.Wants(); wants {
			t.Fatal("it wants the files of no layer")
		}
		b.Press(k)
		b.Lines()
	}
}

func TestStyles(t *testing.T) {
	b := New("i", report, 80, 24)
	b.Press("end")
	bring(b)
	b.Press("tab")
	var got []string
	for _, l := range b.Lines()[2 : 2+len(b.rows)] {
		s := l[2]
		got = append(got, fmt.Sprintf("%d %s", s.Style, strings.TrimSpace(s.Text[12:])))
	}
	want := []string{"132 ▾ etc/", "4 ▾", "3 ▾ srv/"}
	if !slices.Equal(got[:1], want[:1]) || !strings.HasPrefix(got[1], "4 ") || !strings.HasPrefix(got[2], "3 ") || !strings.HasPrefix(got[len(got)-1], "5 ") {
		t.Errorf("got %q", got)
	}
	if text := paint(b.Lines()); strings.Contains(text, "\x1b[2J") {
		t.Error("a file's name reaches the terminal as it is")
	}
}

func TestKeys(t *testing.T) {
	for in, want := range map[string]string{
		"q": "q", "\x1b": "esc", "\x1b[A\x1b[B": "up down", "\x1bOC": "right", "\x1b[5~j": "pgup j", "\x1b[1;5C": "", "\r\n\t": "enter enter tab", "\x03": "ctrl-c", "ü": "ü", "\x7f": "backspace",
		"\x01\x02": "", "\xff": "", "\x1bx": "esc x", "\x1b[999": "", "\x1b\x1b": "esc esc", "": "",
	} {
		keys, rest := Keys([]byte(in))
		if got := strings.Join(keys, " "); got != want || len(rest) > 0 {
			t.Errorf("%q: got %q, %q left", in, got, rest)
		}
	}
	if keys, rest := Keys([]byte("a\xe2\x82")); len(keys) != 1 || string(rest) != "\xe2\x82" {
		t.Errorf("half a character: %q, %q", keys, rest)
	}
}

func FuzzKeys(f *testing.F) {
	f.Add([]byte("\x1b[A\x1b[5~/ü\x1b"), uint16(80), uint16(24))
	f.Fuzz(func(t *testing.T, in []byte, width, height uint16) {
		w, h := int(width%300), int(height%100)
		in = in[:min(len(in), 100)]
		b := New("i", report, w, h)
		keys, rest := Keys(in)
		if len(rest) > 3 {
			t.Errorf("%q is left", rest)
		}
		for _, k := range keys {
			b.Press(k)
			bring(b)
			lines := b.Lines()
			if len(lines) > h {
				t.Fatalf("%d lines on %d", len(lines), h)
			}
			for _, l := range lines {
				if n := format.Width(l.String()); n > w {
					t.Fatalf("%q is %d wide of %d", l, n, w)
				}
			}
		}
	})
}

func TestMode(t *testing.T) {
	for mode, want := range map[uint32]string{0o100644: "-rw-r--r--", 0o40755: "drwxr-xr-x", 0o104755: "-rwsr-xr-x", 0o102644: "-rw-r-Sr--", 0o41777: "drwxrwxrwt", 0o120777: "lrwxrwxrwx", 0o60600: "brw-------", 0o20000: "c---------", 0: "?---------", 0o41000: "d--------T"} {
		if got := Mode(mode); got != want {
			t.Errorf("%o: got %s, want %s", mode, got, want)
		}
	}
}

func TestCommand(t *testing.T) {
	for in, want := range map[string]string{
		`/bin/sh -c #(nop)  CMD ["sh"]`: `CMD ["sh"]`, "/bin/sh -c apt-get update": "RUN apt-get update", "RUN /bin/sh -c make # buildkit": "RUN make", "COPY a b # buildkit": "COPY a b", "": "(nobody says)", "x\x1b[31m\ny": "x?[31m y",
	} {
		if got := Command(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// TestMany shows a tree of 200,000 files; a key must not take longer than a user notices, which the size of the work tells: nothing here is quadratic.
func TestMany(t *testing.T) {
	var list []client.LayerFile
	for d := range 2000 {
		list = append(list, client.LayerFile{Path: fmt.Sprintf("/d%04d", d), Mode: 0o40755, Change: "A"})
		for f := range 100 {
			list = append(list, client.LayerFile{Path: fmt.Sprintf("/d%04d/f%02d", d, f), Mode: 0o100644, Size: 1, Change: "A"})
		}
	}
	b := New("i", report, 80, 24)
	b.Press("tab")
	b.Show(View{}, list)
	if len(b.rows) != 2000 || b.tree.total != 200_000 {
		t.Fatalf("%d rows, %d bytes", len(b.rows), b.tree.total)
	}
	for _, k := range strings.Fields("+ end / f 9 9 enter s U esc -") {
		b.Press(k)
		b.Lines()
	}
	if len(b.rows) != 2000 {
		t.Errorf("%d rows", len(b.rows))
	}
}
