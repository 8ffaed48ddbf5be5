package transfer

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"berth/kernel"
)

func TestCompareIsAWalksOrder(t *testing.T) {
	order := []string{"a", "a/b", "a/b/c", "a/c", "a!", "a.b", "a.b/c", "ab", "b"}
	for i, x := range order {
		for j, y := range order {
			if got := Compare(x, y); got < 0 != (i < j) || got > 0 != (i > j) {
				t.Errorf("%q and %q: %d", x, y, got)
			}
		}
	}
}

func list(all ...Entry) []byte {
	var b []byte
	for k := range all {
		b = AppendEntry(append(b, markEntry), &all[k])
	}
	return append(b, markEnd)
}

func TestListsOfOthers(t *testing.T) {
	dir := func(p string) Entry { return Entry{Path: p, Mode: kernel.TypeDir | 0o755} }
	file := func(p string, same int) Entry { return Entry{Path: p, Mode: kernel.TypeRegular | 0o644, Same: same} }
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"good":                  {list(dir("d"), file("d/a", 0), file("d/b", 2), dir("e")), ""},
		"empty":                 {list(), ""},
		"cut":                   {list(dir("d"), file("d/a", 0))[:12], "unexpected EOF"},
		"nothing":               {nil, "unexpected EOF"},
		"upwards":               {list(file("../a", 0)), "has the path"},
		"absolute":              {list(file("/a", 0)), "has the path"},
		"the top":               {list(dir(".")), "has the path"},
		"not clean":             {list(dir("a"), file("a//b", 0)), "has the path"},
		"with a zero":           {list(file("a\x00b", 0)), "has the path"},
		"no directory":          {list(file("a/b", 0)), "without its directory"},
		"a file as a directory": {list(file("a", 0), file("a/b", 0)), "without its directory"},
		"a link as a directory": {list(Entry{Path: "a", Mode: kernel.TypeSymlink | 0o777, Target: "/"}, file("a/b", 0)), "without its directory"},
		"out of order":          {list(file("b", 0), file("a", 0)), "out of order"},
		"twice":                 {list(file("a", 0), file("a", 0)), "out of order"},
		"a link to itself":      {list(file("a", 1)), "out of order"},
		"a link to a directory": {list(dir("a"), file("b", 1)), "out of order"},
		"a link to a link":      {list(file("a", 0), file("b", 1), file("c", 2)), "out of order"},
		"a negative size":       {list(Entry{Path: "a", Size: -1}), "has the path"},
		"another mark":          {[]byte{9}, "mark 9"},
		"an error":              {appendString([]byte{markError}, "no such file: x"), "no such file: x"},
		"a long path":           {list(file(strings.Repeat("a", maxPath+1), 0)), "bytes"},
	} {
		_, err := ReadList(bufio.NewReader(bytes.NewReader(c.data)))
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPieces(t *testing.T) {
	var b bytes.Buffer
	p := NewPieces(&b)
	for _, text := range []string{"one ", "", strings.Repeat("x", 1000)} {
		if _, err := io.WriteString(p, text); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	whole := b.Bytes()
	got, err := io.ReadAll(ReadPieces(bufio.NewReader(bytes.NewReader(whole))))
	if err != nil || string(got) != "one "+strings.Repeat("x", 1000) {
		t.Fatal(len(got), err)
	}
	for n := range whole {
		if _, err := io.ReadAll(ReadPieces(bufio.NewReader(bytes.NewReader(whole[:n])))); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("cut after %d bytes: %v", n, err)
		}
	}
}

func TestWanted(t *testing.T) {
	for _, want := range [][]int{nil, {0}, {0, 1, 5}, {7}} {
		got, err := readWanted(bufio.NewReader(bytes.NewReader(AppendWanted(nil, want))), 8)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%v: %v, %v", want, got, err)
		}
	}
	if _, err := readWanted(bufio.NewReader(bytes.NewReader(AppendWanted(nil, []int{8}))), 8); err == nil {
		t.Error("what is not in the list is wanted")
	}
}

// FuzzReadList reads what a client says that it has: nothing but paths below the top, each in a directory that came before it.
func FuzzReadList(f *testing.F) {
	f.Add(list(Entry{Path: "d", Mode: kernel.TypeDir | 0o755, Xattrs: map[string]string{"user.a": "b"}}, Entry{Path: "d/a", Mode: kernel.TypeRegular, Size: 7, MTime: -1, CTime: 5, Inode: 9}))
	f.Add(list(Entry{Path: "l", Mode: kernel.TypeSymlink, Target: "../x"}, Entry{Path: "m", Mode: kernel.TypeChar, Device: 77}))
	f.Fuzz(func(t *testing.T, data []byte) {
		all, err := ReadList(bufio.NewReader(bytes.NewReader(data)))
		if err != nil {
			return
		}
		for k, e := range all {
			if !isBelow(e.Path) || k > 0 && Compare(all[k-1].Path, e.Path) >= 0 || e.Same > k {
				t.Fatalf("%q", e.Path)
			}
		}
		again, err := ReadList(bufio.NewReader(bytes.NewReader(list(all...))))
		if err != nil || len(again) != len(all) {
			t.Fatal(len(all), len(again), err)
		}
	})
}

// FuzzReadFile reads what comes as a file's content.
func FuzzReadFile(f *testing.F) {
	e := Entry{Path: "a", Mode: kernel.TypeRegular | 0o644, Size: 3}
	whole := AppendEntry([]byte{markData, 3, 'a', 'b', 'c', 0, markEnd}, &e)
	f.Add(whole)
	f.Add(append([]byte{markData, 1, 'x', 0, markAgain}, whole...))
	f.Add([]byte{markGone})
	f.Add(appendString([]byte{markError}, "why"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var got bytes.Buffer
		e := Entry{Path: "a"}
		gone, err := ReadFile(bufio.NewReader(bytes.NewReader(data)), &e, func() (io.Writer, error) {
			got.Reset()
			return &got, nil
		})
		if err == nil && !gone && (int64(got.Len()) != e.Size || !e.Is(kernel.TypeRegular)) {
			t.Fatalf("%d bytes of %d", got.Len(), e.Size)
		}
	})
}

// FuzzReadWanted reads what a daemon wants.
func FuzzReadWanted(f *testing.F) {
	f.Add(AppendWanted(nil, []int{0, 1, 5}), 8)
	f.Fuzz(func(t *testing.T, data []byte, n int) {
		all, err := readWanted(bufio.NewReader(bytes.NewReader(data)), max(n, 0)%1000)
		for _, k := range all {
			if err == nil && (k < 0 || k >= max(n, 0)%1000) {
				t.Fatal(k)
			}
		}
	})
}
