package layers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"berth/union"
)

// plain is layers as text: "d/" a directory, "f=3" a file of 3 bytes, "-x" a whiteout, "d/!" an opaque directory, "f=3#7" a file with
// inode 7 and two names, "d/~" a directory of other permissions.
type plain [][]string

func (p plain) ReadDir(_ context.Context, layer int, dir string) (list []union.Entry, opaque bool, err error) {
	found := dir == "."
	for _, line := range p[layer] {
		name, size, file := strings.Cut(line, "=")
		e := union.Entry{Mode: 0o40755, Links: 2}
		switch {
		case file:
			size, inode, linked := strings.Cut(size, "#")
			e.Mode, e.Links = 0o100644, 1
			e.Size, _ = strconv.ParseInt(size, 10, 64)
			if linked {
				e.Links = 2
				e.Inode, _ = strconv.ParseUint(inode, 10, 64)
			}
		case strings.HasPrefix(path.Base(name), "-"):
			name, e.Mode = path.Join(path.Dir(name), path.Base(name)[1:]), 0o20000
		case strings.HasSuffix(name, "~"):
			e.Mode, name = 0o40700, strings.TrimSuffix(name, "~")
		case strings.HasSuffix(name, "!"):
			name = strings.TrimSuffix(name, "!")
			opaque = opaque || path.Clean(name) == dir
		}
		name = path.Clean(name)
		found = found || name == dir
		if e.Name = path.Base(name); path.Dir(name) == dir && name != "." {
			list = append(list, e)
		}
	}
	if !found {
		return nil, false, &os.PathError{Op: "open", Path: dir, Err: os.ErrNotExist}
	}
	slices.SortFunc(list, func(a, b union.Entry) int { return strings.Compare(a.Name, b.Name) })
	return list, opaque, nil
}

// told writes nodes as "path: layer+change…"; a deletion with a directory above has a "^".
func told(t *testing.T, p plain, within string) []string {
	t.Helper()
	var lines []string
	w := &walk{ctx: context.Background(), from: p, within: inside(within)}
	err := w.run(len(p), func(n node) error {
		line := n.path + ":"
		for _, s := range n.steps {
			letter := string(s.change)
			if letter == "" {
				letter = "="
			}
			if s.with {
				letter += "^"
			}
			line += fmt.Sprintf(" %d%s", s.layer, letter)
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func TestWalk(t *testing.T) {
	for _, c := range []struct {
		name   string
		layers plain
		within string
		want   []string
	}{
		{"nothing", plain{}, "", nil},
		{"one layer", plain{{"b=1", "d/", "d/x=2"}}, "", []string{"b: 0A", "d: 0A", "d/x: 0A"}},
		{"changed and added", plain{{"a=1", "d/"}, {"a=2", "d/", "d/n=1"}}, "", []string{"a: 0A 1C", "d: 0A 1=", "d/n: 1A"}},
		{"directory changed", plain{{"d/"}, {"d/~"}}, "", []string{"d: 0A 1C"}},
		{"whiteout", plain{{"a=1", "b=1"}, {"-a"}}, "", []string{"a: 0A 1D", "b: 0A"}},
		{"whiteout of nothing", plain{{"b=1"}, {"-a"}}, "", []string{"b: 0A"}},
		{"removed and made again", plain{{"a=1"}, {"-a"}, {"a=1"}, {"-a"}}, "", []string{"a: 0A 1D 2A 3D"}},
		{"directory removed", plain{{"d/", "d/x=1", "d/e/", "d/e/y=1"}, {"-d"}}, "", []string{"d: 0A 1D", "d/e: 0A 1D^", "d/e/y: 0A 1D^", "d/x: 0A 1D^"}},
		{"directory removed, another made", plain{{"d/", "d/x=1"}, {"-d"}, {"d/", "d/y=1"}}, "", []string{"d: 0A 1D 2A", "d/x: 0A 1D^", "d/y: 2A"}},
		{"opaque", plain{{"d/", "d/x=1", "d/y=1", "d/e/", "d/e/z=1"}, {"d/!", "d/y=2", "d/e/"}}, "", []string{"d: 0A 1=", "d/e: 0A 1=", "d/e/z: 0A 1D", "d/x: 0A 1D", "d/y: 0A 1C"}},
		{"file over directory", plain{{"d/", "d/x=1"}, {"d=5"}}, "", []string{"d: 0A 1C", "d/x: 0A 1D^"}},
		{"directory over file", plain{{"d=5"}, {"d/", "d/x=1"}}, "", []string{"d: 0A 1C", "d/x: 1A"}},
		{"file, directory, file", plain{{"d=5"}, {"d/", "d/x=1"}, {"d=1"}}, "", []string{"d: 0A 1C 2C", "d/x: 1A 2D^"}},
		{"opaque far above", plain{{"d/", "d/x=1"}, {}, {"d/", "d/x=2"}, {"d/!"}}, "", []string{"d: 0A 2= 3=", "d/x: 0A 2C 3D"}},
		{"within", plain{{"a=1", "d/", "d/e/", "d/e/x=1", "d/ex=1"}}, "/d/e/", []string{"d/e: 0A", "d/e/x: 0A"}},
		{"within a file", plain{{"a=1", "ab=1"}}, "a", []string{"a: 0A"}},
		{"within out of the root", plain{{"a=1"}}, "../../a", []string{"a: 0A"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, told(t, c.layers, c.within)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestWalkEnds(t *testing.T) {
	stop := errors.New("enough")
	w := &walk{ctx: context.Background(), from: plain{{"a=1", "b=1"}}, within: "."}
	n := 0
	if err := w.run(1, func(node) error { n++; return stop }); err != stop || n != 1 {
		t.Errorf("%d nodes, %v", n, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	w.ctx = ctx
	if err := w.run(1, func(node) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func weighed(t *testing.T, p plain, top int) *Report {
	t.Helper()
	s := newScale(len(p), top)
	w := &walk{ctx: context.Background(), from: p, within: "."}
	if err := w.run(len(p), func(n node) error { s.weigh(n); return nil }); err != nil {
		t.Fatal(err)
	}
	return s.report()
}

func TestReport(t *testing.T) {
	type layer struct {
		Added, Changed, Removed Sum
		Hidden                  int64
	}
	for _, c := range []struct {
		name       string
		layers     plain
		shown      Sum
		efficiency float64
		want       []layer
		wasteful   []Weight
	}{
		{"no layers", plain{}, Sum{}, 1, nil, nil},
		{"nothing hidden", plain{{"a=10", "d/"}, {"b=5"}}, Sum{2, 15}, 1, []layer{{Added: Sum{1, 10}}, {Added: Sum{1, 5}}}, nil},
		{"one file twice", plain{{"a=10"}, {"a=10"}}, Sum{1, 10}, 0.5, []layer{{Added: Sum{1, 10}, Hidden: 10}, {Changed: Sum{1, 10}}}, []Weight{{"/a", 10, 1, 1}}},
		{"a file that grew", plain{{"a=10", "b=60"}, {"a=30"}}, Sum{2, 90}, 0.7, []layer{{Added: Sum{2, 70}, Hidden: 10}, {Changed: Sum{1, 30}}}, []Weight{{"/a", 10, 1, 1}}},
		{"removed", plain{{"a=10", "b=10"}, {"-a"}}, Sum{1, 10}, 0.5, []layer{{Added: Sum{2, 20}, Hidden: 10}, {Removed: Sum{1, 10}}}, []Weight{{"/a", 10, 1, 1}}},
		{"removed directory", plain{{"d/", "d/x=10", "d/e/", "d/e/y=20", "d0=2"}, {"-d"}, {"-d0"}}, Sum{}, 0,
			[]layer{{Added: Sum{3, 32}, Hidden: 32}, {Removed: Sum{2, 30}}, {Removed: Sum{1, 2}}}, []Weight{{"/d", 30, 1, 2}, {"/d0", 2, 2, 1}}},
		{"directories in a removed one", plain{{"d/", "d/e/", "d/e/y=20", "d/x=1"}, {"d/", "d/-e"}, {"-d"}}, Sum{}, 0,
			[]layer{{Added: Sum{2, 21}, Hidden: 21}, {Removed: Sum{1, 20}}, {Removed: Sum{1, 1}}}, []Weight{{"/d/e", 20, 1, 1}, {"/d", 1, 2, 1}}},
		{"hard links", plain{{"a=10#1", "b=10#1"}, {"b=3"}}, Sum{2, 13}, 10. / 13, []layer{{Added: Sum{2, 10}}, {Changed: Sum{1, 3}}}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := weighed(t, c.layers, 5)
			if r.Shown != c.shown || r.Efficiency != c.efficiency || r.Hidden != r.Unpacked-r.Shown.Bytes {
				t.Errorf("shown %+v, efficiency %v, hidden %d of %d", r.Shown, r.Efficiency, r.Hidden, r.Unpacked)
			}
			var got []layer
			for _, l := range r.Layers {
				got = append(got, layer{l.Added, l.Changed, l.Removed, l.Hidden})
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(append([]Weight{}, c.wasteful...), r.Wasteful); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestHeaviest keeps the right ones of many.
func TestHeaviest(t *testing.T) {
	var files []string
	for i := range 5000 {
		files = append(files, fmt.Sprintf("f%d=%d", i, i*7919%5000))
	}
	r := weighed(t, plain{files}, 3)
	var sizes []int64
	for _, w := range r.Largest {
		sizes = append(sizes, w.Bytes)
	}
	if !slices.Equal(sizes, []int64{4999, 4998, 4997}) {
		t.Errorf("got %v", sizes)
	}
	if r := weighed(t, plain{files}, 0); len(r.Largest) != 0 {
		t.Errorf("none were asked for: %v", r.Largest)
	}
}
