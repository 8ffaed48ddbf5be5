package union

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"berth/archive"
	"berth/fault"
	"berth/internal/record"
)

// Stage implements Driver. The layer is unpacked into a plain directory, in overlay's form, and becomes a tree when it is committed: stages need no parents.
func (w *whole) Stage() (*Stage, error) {
	dir, diff, err := w.newStage("layer-")
	if err != nil {
		return nil, err
	}
	root, err := os.Open(diff)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	s := &Stage{root: root, abort: func() error { return w.trash.take(dir) }}
	s.commit = func(root *os.File, chain, parent digest.Digest, u archive.Unpacked) error {
		return w.commit(dir, root, Layer{Chain: chain, Parent: parent, Size: u.Size, IDs: s.ids}, u)
	}
	return s, nil
}

func (w *whole) commit(dir string, root *os.File, l Layer, u archive.Unpacked) error {
	if err := validChain(l.Chain); err != nil {
		return err
	}
	if err := w.hold(l.Parent); err != nil { // it stays until the layer counts as its child
		return err
	}
	defer w.release(l.Parent)
	if w.has(l.Chain) { // a copy saved
		return w.publish(dir, wholeLayer{Layer: l})
	}
	o, err := w.fit(dir, root, l, u)
	if err == nil {
		err = w.publish(dir, wholeLayer{l, o})
	}
	if err != nil && o.Tree != "" {
		w.drop(o.Tree)
	}
	return err
}

// fit makes the tree of a staged layer, and makes its directory the layer's own. The tree belongs to the caller, also after an error, when it has a name.
func (w *whole) fit(dir string, root *os.File, l Layer, u archive.Unpacked) (o origin, err error) {
	parent, err := w.treeOfChain(l.Parent)
	if err != nil {
		return o, err
	}
	if parent != "" && len(u.Implied) > 0 {
		if err := w.within(parent, func(lower *os.File) error { return adopt(root, u.Implied, lower) }); err != nil {
			return o, err
		}
	}
	if o, err = w.grow(layerTree, parent); err != nil {
		return o, err
	}
	var list names
	err = w.within(o.Tree, func(tree *os.File) (err error) {
		list, err = lay(root, tree)
		return err
	})
	if err != nil {
		return o, err
	}
	if err := w.trees.Freeze(o.Tree); err != nil {
		return o, err
	}
	if err := w.trash.take(filepath.Join(dir, "diff")); err != nil {
		return o, err
	}
	if err := record.WriteFile(filepath.Join(dir, "names"), list.encode(), 0o600, false); err != nil {
		return o, err
	}
	return o, record.Put(filepath.Join(dir, "layer.json"), wholeLayer{l, o})
}

// publish puts a layer in place. Only the renaming process sees it before it is indexed, and both happen under mu.
func (w *whole) publish(dir string, l wholeLayer) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if have := w.layers[l.Chain]; have != nil {
		if have.Parent != l.Parent {
			return fault.New(fault.Conflict, "it is here already over parent %q, not %q", have.Parent, l.Parent)
		}
		if l.Tree != "" {
			delete(w.making, l.Tree)
			w.reaper.take(l.Tree)
		}
		return w.trash.take(dir)
	}
	if l.Tree == "" { // the other one went meanwhile
		return fault.New(fault.Conflict, "it is being removed: try again")
	}
	if err := w.mark(); err != nil {
		return err
	}
	if err := os.Rename(dir, w.path("layers", key(l.Chain))); err != nil {
		return err
	}
	w.pending[l.Tree] = true
	w.own("layers", key(l.Chain), l.origin)
	w.add(l.Layer)
	return nil
}
