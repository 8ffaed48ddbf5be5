package union

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"berth/archive"
	"berth/fault"
	"berth/internal/record"
	"berth/kernel"
)

// inventory implements complete.
func (w *whole) inventory() Inventory { return wholeInventory{w} }

// wholeInventory is the other side of a whole-tree driver.
type wholeInventory struct{ *whole }

// Places implements Inventory.
func (w wholeInventory) Places() (all []Place, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, kind := range []PlaceKind{LayerPlace, InitPlace, RootPlace, StagePlace, TrashPlace} {
		err := each(w.path(folders[kind]), func(name string) error {
			p := Place{Kind: kind, Name: name, Path: w.path(folders[kind], name)}
			if tree := w.made[filepath.Join(folders[kind], name)]; tree != "" {
				p.more = func() (int64, error) { return w.trees.Usage(tree) }
			}
			if st := w.roots[name]; kind == RootPlace && st != nil {
				p.below = &st.chain
			}
			p.Stray = w.stray(p)
			all = append(all, p)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	dying := w.reaper.list() // what vanishes after this is no stray
	named := map[string]bool{}
	for _, tree := range w.made {
		named[tree] = true
	}
	list, err := w.trees.List()
	for _, tree := range list {
		if named[tree] {
			continue
		}
		p := Place{Kind: TreePlace, Name: tree, Path: w.path("trees", tree), more: func() (int64, error) { return w.trees.Usage(tree) }}
		switch {
		case slices.Contains(dying, tree):
			p.Kind = TrashPlace
		case w.making[tree]:
			p.Kind = StagePlace
		default:
			p.Stray = true
		}
		all = append(all, p)
	}
	return all, err
}

// stray tells whether a place is nobody's. The caller holds mu.
func (w wholeInventory) stray(p Place) bool {
	switch p.Kind {
	case LayerPlace:
		return w.layers[p.Chain()] == nil
	case InitPlace:
		return p.Name != key("") && w.layers[p.Chain()] == nil
	case RootPlace:
		return w.roots[p.Name] == nil
	case StagePlace: // opening swept all that was there: those with names of ours are being filled
		return !slices.ContainsFunc([]string{"layer-", "inits-", "roots-"}, func(ours string) bool { return strings.HasPrefix(p.Name, ours) })
	case TreePlace:
		return !w.making[p.Name] && !slices.Contains(w.reaper.list(), p.Name)
	}
	return false
}

// Dir implements Inventory.
func (w wholeInventory) Dir(chain digest.Digest) string { return w.path("layers", key(chain)) }

// Apart implements Inventory.
func (w wholeInventory) Apart() []string { return []string{w.path("trees")} }

// Measure implements Inventory.
func (w wholeInventory) Measure(chain digest.Digest) (s Space, err error) {
	tree := w.treeOf("layers", key(chain))
	list, err := namesOf(w.Dir(chain))
	if err != nil {
		return s, err
	}
	if s, err = Measure(w.Dir(chain), nil); err != nil {
		return s, err
	}
	s.Shown = 0
	own, err := w.trees.Usage(tree)
	if err == nil {
		err = w.within(tree, func(dir *os.File) error { return list.measure(dir, &s) })
	}
	if errors.Is(err, fault.NotFound) {
		err = &os.PathError{Op: "open", Path: tree, Err: os.ErrNotExist}
	}
	s.Disk += own
	return s, err
}

// measure adds what a layer itself has in its tree.
func (n names) measure(tree *os.File, s *Space) error {
	seen := map[uint64]bool{}
	for _, one := range n {
		if one.what == hasntName {
			continue
		}
		f, err := kernel.OpenIn(tree, one.path, kernel.OPath|kernel.ONoFollow, 0, beneath)
		if none(err) {
			continue
		}
		if err != nil {
			return err
		}
		st, err := kernel.Stat(f)
		if fault.Close(f, &err); err != nil {
			return err
		}
		s.Files++
		if st.Mode&kernel.TypeMask != kernel.TypeRegular || st.Nlink > 1 && seen[st.Ino] {
			continue
		}
		seen[st.Ino] = true
		s.Shown += st.Size
	}
	return nil
}

// Drop implements Inventory.
func (w wholeInventory) Drop(p Place) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.Kind == TreePlace {
		for _, tree := range w.made {
			if tree == p.Name {
				return fault.New(fault.Conflict, "tree %s is in use", p.Name)
			}
		}
		if w.stray(p) {
			w.reaper.take(p.Name)
		}
		return nil
	}
	if !w.stray(p) || p.Path != w.path(folders[p.Kind], p.Name) {
		return fault.New(fault.Conflict, "%s is in use", p.Path)
	}
	return w.trash.take(p.Path)
}

// Settle implements Inventory.
func (w wholeInventory) Settle(ctx context.Context) error {
	return errors.Join(w.trash.settle(ctx), w.reaper.settle(ctx))
}

// Renew implements Inventory. The layer's tree is made anew over its parent's, so that a damage that came from there shows as well.
func (w wholeInventory) Renew(chain digest.Digest, s *Stage, u archive.Unpacked, replace bool) (difference string, err error) {
	return s.renew(chain, replace, func() (string, error) { return w.renew(chain, s, u, replace) })
}

func (w wholeInventory) renew(chain digest.Digest, s *Stage, u archive.Unpacked, replace bool) (difference string, err error) {
	if err := w.hold(chain); err != nil {
		return "", err
	}
	defer w.release(chain)
	w.mu.Lock()
	l := w.layers[chain].Layer
	w.mu.Unlock()
	dir := filepath.Dir(s.root.Name())
	o, err := w.fit(dir, s.root, Layer{Chain: l.Chain, Parent: l.Parent, Size: u.Size, IDs: s.ids}, u)
	if o.Tree != "" {
		defer func() {
			if err != nil || difference == "" || !replace {
				w.drop(o.Tree)
			}
		}()
	}
	if err != nil {
		return "", err
	}
	if difference, err = w.compare(chain, o.Tree); err != nil {
		return "", err
	}
	if difference == "" {
		var have wholeLayer
		if record.Load(filepath.Join(w.Dir(chain), "layer.json"), &have) != nil || have.Chain != l.Chain || have.Parent != l.Parent || !w.sameNames(chain, dir) {
			difference = "its record is damaged"
		}
	}
	if difference == "" || !replace {
		return difference, nil
	}
	return difference, w.swap(dir, chain, o)
}

func (w wholeInventory) sameNames(chain digest.Digest, dir string) bool {
	have, err := os.ReadFile(filepath.Join(w.Dir(chain), "names"))
	if err != nil {
		return false
	}
	want, err := os.ReadFile(filepath.Join(dir, "names"))
	return err == nil && string(have) == string(want)
}

// compare tells the first difference between a layer's tree and one that was made anew.
func (w wholeInventory) compare(chain digest.Digest, anew string) (difference string, err error) {
	err = w.within(w.treeOf("layers", key(chain)), func(have *os.File) error {
		return w.within(anew, func(want *os.File) (err error) {
			difference, err = compareTrees(have, want)
			return err
		})
	})
	if errors.Is(err, fault.NotFound) {
		return "its directory is gone", nil
	}
	return difference, err
}

// swap puts dir, whose tree is o, in the place of a layer.
func (w wholeInventory) swap(dir string, chain digest.Digest, o origin) error {
	w.building.Lock()
	defer w.building.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.mark(); err != nil {
		return err
	}
	to := w.Dir(chain)
	err := kernel.Exchange(dir, to) // never without the layer: the next start would drop all that stands on it
	if errors.Is(err, os.ErrNotExist) {
		err = os.Rename(dir, to)
	} else if err == nil {
		err = w.trash.take(dir)
	}
	if err != nil {
		return err
	}
	w.disown("layers", key(chain))
	w.own("layers", key(chain), o)
	w.pending[o.Tree] = true
	if w.layers[chain].roots > 1 { // containers are compared with what init made, and we hold the layer too
		return nil
	}
	return w.dropInit(chain)
}
