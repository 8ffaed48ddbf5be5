package contexts

import (
	"path"
	"sort"
	"strings"

	"berth/build/transfer"
	"berth/kernel"
)

// needed marks what of a list is needed: all that the patterns name as COPY understands them, with the links on the way and the directories
// above. No patterns: all.
func needed(list []transfer.Entry, patterns []string) []bool {
	n := &need{list: list, marks: make([]bool, len(list))}
	if patterns == nil {
		patterns = []string{"/"}
	}
	for _, p := range patterns {
		n.walk("", strings.Split(p, "/"), 0)
	}
	for k := range list {
		if first := list[k].Same; n.marks[k] && first > 0 {
			n.mark(first - 1)
		}
	}
	return n.marks
}

type need struct {
	list  []transfer.Entry
	marks []bool
}

// maxLinks is how many symbolic links one path may go through, as in the kernel (path_resolution(7)).
const maxLinks = 40

// walk marks what rest names below the directory at.
func (n *need) walk(at string, rest []string, links int) {
	for len(rest) > 0 {
		part := rest[0]
		switch {
		case part == "" || part == ".":
		case part == "..":
			if at = path.Dir(at); at == "." {
				at = ""
			}
		case part == "**":
			n.below(at)
			return
		case strings.ContainsAny(part, `*?[\`):
			from, to := n.span(at)
			for k := from; k < to; k = n.end(k) {
				if ok, err := path.Match(part, path.Base(n.list[k].Path)); ok && err == nil {
					n.step(k, rest[1:], links)
				}
			}
			return
		default:
			if k, ok := n.find(path.Join(at, part)); ok {
				n.step(k, rest[1:], links)
			}
			return
		}
		rest = rest[1:]
	}
	n.below(at)
}

// step goes on from an entry.
func (n *need) step(k int, rest []string, links int) {
	n.mark(k)
	switch e := &n.list[k]; {
	case e.Is(kernel.TypeDir):
		n.walk(e.Path, rest, links)
	case e.Is(kernel.TypeSymlink) && links < maxLinks:
		at := path.Dir(e.Path)
		if at == "." || path.IsAbs(e.Target) {
			at = ""
		}
		n.walk(at, append(strings.Split(e.Target, "/"), rest...), links+1)
	}
}

// mark marks an entry and what is above it.
func (n *need) mark(k int) {
	n.marks[k] = true
	for dir := path.Dir(n.list[k].Path); dir != "."; dir = path.Dir(dir) {
		above, ok := n.find(dir)
		if !ok || n.marks[above] {
			return
		}
		n.marks[above] = true
	}
}

// below marks all below a directory, "" being the top.
func (n *need) below(dir string) {
	from, to := n.span(dir)
	for k := from; k < to; k++ {
		n.marks[k] = true
	}
	if from > 0 && dir != "" {
		n.mark(from - 1)
	}
}

// span is where the entries below a directory are.
func (n *need) span(dir string) (from, to int) {
	if dir == "" {
		return 0, len(n.list)
	}
	k, ok := n.find(dir)
	if !ok {
		return 0, 0
	}
	return k + 1, n.end(k)
}

// end is where the entries below entry k end.
func (n *need) end(k int) int {
	if !n.list[k].Is(kernel.TypeDir) {
		return k + 1
	}
	prefix := n.list[k].Path + "/"
	return k + 1 + sort.Search(len(n.list)-k-1, func(m int) bool { return !strings.HasPrefix(n.list[k+1+m].Path, prefix) })
}

func (n *need) find(p string) (int, bool) {
	k := sort.Search(len(n.list), func(k int) bool { return transfer.Compare(n.list[k].Path, p) >= 0 })
	return k, k < len(n.list) && n.list[k].Path == p
}
