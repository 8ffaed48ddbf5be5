package union

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"

	"berth/fault"
)

// layerIndex is what a layer itself has, by directory.
type layerIndex map[string]*indexDir

type indexDir struct {
	names  []string // sorted
	gone   map[string]bool
	opaque bool
}

// index sorts names by directory.
func (n names) index() layerIndex {
	x := layerIndex{}
	at := func(dir string) *indexDir {
		if x[dir] == nil {
			x[dir] = &indexDir{gone: map[string]bool{}}
		}
		return x[dir]
	}
	for _, one := range n {
		if one.what == hasDir || one.what == hasOpaque {
			at(one.path).opaque = one.what == hasOpaque
		}
		if one.path == "." {
			continue
		}
		d := at(path.Dir(one.path))
		d.names = append(d.names, path.Base(one.path))
		if one.what == hasntName {
			d.gone[path.Base(one.path)] = true
		}
	}
	for _, d := range x {
		slices.Sort(d.names)
	}
	return x
}

// namesOf reads what the layer of a directory itself has.
func namesOf(layer string) (names, error) {
	data, err := os.ReadFile(filepath.Join(layer, "names"))
	if err != nil {
		return nil, err
	}
	return parseNames(data)
}

// openStack implements complete.
func (w *whole) openStack(chain digest.Digest) (*Stack, error) {
	s := &Stack{driver: w, chains: w.chain(chain), index: []layerIndex{}}
	slices.Reverse(s.chains)
	if len(s.chains) == 0 {
		return nil, fault.New(fault.NotFound, "layer %s: not found", chain)
	}
	for _, c := range s.chains {
		if err := s.push(w, c); err != nil {
			return nil, errors.Join(fmt.Errorf("open layer %s: %w", c, err), s.Close())
		}
	}
	return s, nil
}

func (s *Stack) push(w *whole, chain digest.Digest) error {
	list, err := namesOf(w.path("layers", key(chain)))
	if err != nil {
		return err
	}
	tree, err := w.treeOfChain(chain)
	if err != nil {
		return err
	}
	dir, leave, err := w.enter(tree)
	if err != nil {
		return err
	}
	s.roots, s.leave, s.index = append(s.roots, dir), append(s.leave, leave), append(s.index, list.index())
	return nil
}

// look implements complete.
func (w *whole) look(chain digest.Digest, fn func(dir *os.File) error) error {
	if chain == "" {
		return noTree(fn)
	}
	if err := w.hold(chain); err != nil {
		return err
	}
	defer w.release(chain)
	tree, err := w.treeOfChain(chain)
	if err != nil {
		return err
	}
	return w.within(tree, fn)
}

// dirs implements complete: a layer has no directory of its own.
func (w *whole) dirs(digest.Digest) []string { return nil }
