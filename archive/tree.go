package archive

import (
	"errors"
	"os"
	"path"

	"berth/fault"
	"berth/kernel"
)

// maxOpen is how many directories a tree keeps open: members come depth first, so few are needed again.
const maxOpen = 32

// tree opens directories beneath a root and keeps the latest open: most
// members lie in the directory of the one before.
type tree struct {
	root  *os.File
	into  string // "": the members' paths are the root's own; else where they begin, and links see root as "/"
	live  bool   // directories that the kernel makes up are refused
	dirs  map[string]*opened
	clock int64
	stale []*os.File // forgotten, but perhaps in use by the current member
}

type opened struct {
	f    *os.File
	used int64
}

func newTree(root *os.File, o UnpackOptions) *tree {
	return &tree{root: root, into: o.Into, live: o.Live, dirs: map[string]*opened{}}
}

// find opens the member path p.
func (t *tree) find(p string, flags int) (*os.File, error) {
	if t.into == "" {
		return kernel.OpenIn(t.root, p, flags, 0, kernel.Beneath|kernel.NoMagicLinks)
	}
	return kernel.OpenIn(t.root, path.Join(t.into, p), flags, 0, kernel.InRoot|kernel.NoMagicLinks)
}

// open returns the directory p; it stays the tree's, which closes it in the reap after it was evicted or forgotten.
// Symbolic links on the way are followed, but never out of the root.
func (t *tree) open(p string) (*os.File, error) {
	if p == "." && t.into == "" {
		return t.root, nil
	}
	t.clock++
	if o := t.dirs[p]; o != nil {
		o.used = t.clock
		return o.f, nil
	}
	f, err := t.find(p, kernel.ODirectory)
	if err != nil {
		return nil, err
	}
	if t.live {
		if made, err := MadeUp(f); err != nil || made {
			if made {
				err = fault.New(fault.Invalid, "cannot copy to %q: the kernel makes up what is there", path.Join("/", t.into, p))
			}
			return nil, errors.Join(err, f.Close())
		}
	}
	if len(t.dirs) >= maxOpen {
		t.evict()
	}
	t.dirs[p] = &opened{f, t.clock}
	return f, nil
}

func (t *tree) evict() {
	oldest, least := "", t.clock+1
	for p, o := range t.dirs {
		if o.used < least {
			oldest, least = p, o.used
		}
	}
	t.stale = append(t.stale, t.dirs[oldest].f)
	delete(t.dirs, oldest)
}

// forget drops all open directories: their paths may lead elsewhere from now on.
func (t *tree) forget() {
	for p, o := range t.dirs {
		t.stale = append(t.stale, o.f)
		delete(t.dirs, p)
	}
}

// reap closes what no member uses any more.
func (t *tree) reap() {
	for _, f := range t.stale {
		f.Close()
	}
	t.stale = t.stale[:0]
}

func (t *tree) close() {
	t.forget()
	t.reap()
}

// split parts a member path into its directory and its last element.
func split(p string) (dir, name string) { return path.Dir(p), path.Base(p) }
