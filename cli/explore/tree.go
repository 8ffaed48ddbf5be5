package explore

import (
	"cmp"
	"slices"
	"strings"

	"berth/client"
)

// item is a file or directory in the tree.
type item struct {
	client.LayerFile
	name   string
	parent *item // nil: the root
	below  []*item
	dir    bool
	open   bool
	depth  int
	total  int64 // bytes of it and of all below
	touch  bool  // something below was added, changed or removed
}

const typeMask, typeDir, typeLink = 0o170000, 0o040000, 0o120000

// grow makes a tree of files that come parents first. Directories that nobody names are made up.
func grow(files []client.LayerFile, merged bool) *item {
	root := &item{dir: true, open: true, depth: -1}
	at := root
	for i := range files {
		f := &files[i]
		p := strings.TrimPrefix(f.Path, "/")
		for at != root && !strings.HasPrefix(p, strings.TrimPrefix(at.Path, "/")+"/") {
			at = at.parent
		}
		rest := p
		if at != root {
			rest = p[len(at.Path):]
		}
		for {
			dir, more, found := strings.Cut(rest, "/")
			if !found {
				break
			}
			at = at.add(&item{LayerFile: client.LayerFile{Path: strings.TrimSuffix(at.Path, "/") + "/" + dir, Mode: typeDir, Layer: f.Layer}, name: dir, dir: true})
			rest = more
		}
		n := at.add(&item{LayerFile: *f, name: rest, dir: f.Mode&typeMask == typeDir})
		if n.dir {
			at = n
		}
	}
	root.sum(!merged)
	return root
}

func (t *item) add(n *item) *item {
	n.parent, n.depth = t, t.depth+1
	t.below = append(t.below, n)
	return n
}

// sum adds up sizes. What is removed counts, if at all, with the size that it had.
func (t *item) sum(removed bool) {
	t.total, t.touch = max(t.Size, 0), t.Change != ""
	if t.Change == "D" && removed {
		t.total = t.Was
	}
	for _, n := range t.below {
		n.sum(removed)
		t.total += n.total
		t.touch = t.touch || n.touch
	}
}

// order sorts the tree by name or by size.
func (t *item) order(bySize bool) {
	slices.SortStableFunc(t.below, func(a, b *item) int {
		if bySize {
			if c := cmp.Compare(b.total, a.total); c != 0 {
				return c
			}
		}
		return strings.Compare(a.name, b.name)
	})
	for _, n := range t.below {
		n.order(bySize)
	}
}

// count is how many there are below.
func (t *item) count() int {
	n := len(t.below)
	for _, c := range t.below {
		n += c.count()
	}
	return n
}

// unfold opens or closes all directories below.
func (t *item) unfold(open bool) {
	for _, n := range t.below {
		n.open = open && n.dir
		n.unfold(open)
	}
}

// sieve says which files are shown.
type sieve struct {
	hide string // the letters of the changes that are not shown; "U": what is unchanged
	name string // what the name must contain, in lower case
}

func (s sieve) passes(n *item) bool {
	letter := n.Change
	if letter == "" {
		letter = "U"
	}
	return !strings.Contains(s.hide, letter) && (s.name == "" || strings.Contains(strings.ToLower(n.name), s.name))
}

// rows lists what is to be seen of the tree. Directories stay that have something to show; a search opens them.
func (t *item) rows(s sieve) []*item {
	var list []*item
	var walk func(n *item, visible bool) bool
	walk = func(n *item, visible bool) bool {
		shown := s.passes(n)
		at := len(list)
		if visible {
			list = append(list, n)
		}
		open := visible && (n.open || s.name != "")
		for _, c := range n.below {
			if walk(c, open) {
				shown = true
				if !open {
					break
				}
			}
		}
		if visible && !shown {
			list = list[:at]
		}
		return shown
	}
	for _, n := range t.below {
		walk(n, true)
	}
	return list
}

// find gives where the item of a path is in rows, -1 where it is not.
func find(rows []*item, p string) int {
	return slices.IndexFunc(rows, func(n *item) bool { return n.Path == p })
}
