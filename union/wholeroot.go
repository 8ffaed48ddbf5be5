package union

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"berth/fault"
	"berth/internal/record"
)

// Create implements Driver.
func (w *whole) Create(id string, chain digest.Digest, init func(root *os.File) error) (Root, error) {
	r, err := w.create(id, chain, init)
	if err != nil {
		return Root{}, fmt.Errorf("create root %s: %w", id, err)
	}
	return r, nil
}

func (w *whole) create(id string, chain digest.Digest, init func(root *os.File) error) (r Root, err error) {
	if err := validID(id); err != nil {
		return Root{}, err
	}
	if err := w.reserve(id, chain); err != nil {
		return Root{}, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Delete(id))
		}
	}()
	base, err := w.treeOfChain(chain)
	if err == nil && init != nil {
		base, err = w.ensureInit(chain, base, init)
	}
	if err != nil {
		return Root{}, err
	}
	o, err := w.grow(rootTree, base)
	if err != nil {
		return Root{}, err
	}
	rec := wholeRecord{origin: o, Chain: chain, Base: base}
	if err := w.place("roots", id, "root.json", o, rec); err != nil {
		return Root{}, err
	}
	w.mu.Lock()
	w.roots[id].ready = true
	w.mu.Unlock()
	return w.root(id, rec)
}

// place puts a record into a new directory, in one step. The tree is dropped when that fails.
func (w *whole) place(kind, name, file string, o origin, rec any) error {
	dir, err := os.MkdirTemp(w.path("stage"), kind+"-")
	if err == nil {
		err = record.Put(filepath.Join(dir, file), rec)
	}
	w.mu.Lock()
	if err == nil {
		err = os.Rename(dir, w.path(kind, name))
	}
	if err == nil {
		w.own(kind, name, o)
	}
	w.mu.Unlock()
	if err != nil {
		if dir != "" {
			err = errors.Join(err, w.trash.take(dir))
		}
		w.drop(o.Tree)
	}
	return err
}

// ensureInit gives the tree that init made over a chain, whose own is base, and makes it unless it is there.
func (w *whole) ensureInit(chain digest.Digest, base string, init func(root *os.File) error) (string, error) {
	w.building.Lock()
	defer w.building.Unlock()
	if tree := w.treeOf("inits", key(chain)); tree != "" {
		return tree, nil
	}
	o, err := w.grow(initTree, base)
	if err == nil {
		err = w.within(o.Tree, init)
		if err == nil {
			err = w.trees.Freeze(o.Tree)
		}
		if err != nil {
			w.drop(o.Tree)
		}
	}
	if err == nil {
		err = w.place("inits", key(chain), "init.json", o, o)
	}
	if err != nil {
		return "", fmt.Errorf("prepare the layer for containers: %w", err)
	}
	return o.Tree, nil
}

// root puts the description together.
func (w *whole) root(id string, rec wholeRecord) (Root, error) {
	w.mounts.Lock()
	defer w.mounts.Unlock()
	m, err := w.trees.Mount(rec.Tree)
	if err != nil {
		return Root{}, err
	}
	r := Root{ID: id, Mount: Mount(m), Merged: w.path("roots", id, "merged"), tree: &wholeRoot{w, id, rec}}
	w.mu.Lock()
	defer w.mu.Unlock()
	if l := w.layers[rec.Chain]; l != nil {
		r.IDs = l.IDs
	}
	return r, nil
}

// Open implements Driver.
func (w *whole) Open(id string) (Root, error) {
	rec, err := w.recordOf(id)
	if err != nil {
		return Root{}, err
	}
	r, err := w.root(id, rec)
	if err != nil {
		return Root{}, fmt.Errorf("open root %s: %w", id, err)
	}
	return r, nil
}

func (w *whole) recordOf(id string) (rec wholeRecord, err error) {
	w.mu.Lock()
	st := w.roots[id]
	ready := st != nil && st.ready
	w.mu.Unlock()
	if !ready {
		return rec, fault.New(fault.NotFound, "root %s: not found", id)
	}
	if err = record.Load(w.path("roots", id, "root.json"), &rec); err != nil {
		return rec, fmt.Errorf("open root %s: %w", id, err)
	}
	return rec, nil
}

// beneath implements complete: the root becomes a copy of the other one, once.
func (w *whole) beneath(id, of string) (Root, error) {
	rec, err := w.recordOf(id)
	if err != nil {
		return Root{}, err
	}
	if rec.Of == of {
		return w.root(id, rec)
	}
	other, err := w.recordOf(of)
	if err != nil {
		return Root{}, err
	}
	o, err := w.grow(rootTree, other.Tree)
	if err != nil {
		return Root{}, err
	}
	next := rec
	next.origin, next.Of = o, of
	w.mu.Lock()
	if err = record.Put(w.path("roots", id, "root.json"), next); err == nil {
		w.disown("roots", id)
		w.own("roots", id, o)
	}
	w.mu.Unlock()
	if err != nil {
		w.drop(o.Tree)
		return Root{}, err
	}
	return w.root(id, next)
}

// Delete implements Driver.
func (w *whole) Delete(id string) error {
	if err := validID(id); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.trash.take(w.path("roots", id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete root %s: %w", id, err)
	}
	w.disown("roots", id)
	w.forgetRoot(id)
	return nil
}

// Roots implements Driver.
func (w *whole) Roots() ([]string, error) { return w.ids(), nil }

// idle implements complete.
func (w *whole) idle(id string) error {
	tree := w.treeOf("roots", id)
	if tree == "" {
		return nil
	}
	w.mounts.Lock()
	defer w.mounts.Unlock()
	if w.users[tree] > 0 {
		return nil
	}
	return w.trees.Unmounted(tree)
}

// limit implements complete.
func (w *whole) limit(id string, bytes int64) error {
	tree := w.treeOf("roots", id)
	if tree == "" {
		return fault.New(fault.NotFound, "root %s: not found", id)
	}
	return w.trees.Limit(tree, bytes)
}

// wholeRoot is a root that is a tree of its own.
type wholeRoot struct {
	w   *whole
	id  string
	rec wholeRecord
}

// open opens the root's tree and the one that it began as; leave gives them back. below is nil where that was empty.
func (r *wholeRoot) open() (tree, below *os.File, leave func() error, err error) {
	tree, first, err := r.w.enter(r.rec.Tree)
	if err != nil || r.rec.Base == "" {
		return tree, nil, first, err
	}
	below, done, err := r.w.enter(r.rec.Base)
	if errors.Is(err, fault.NotFound) { // the layer was made anew
		var now string
		if now, err = r.w.treeOfChain(r.rec.Chain); err == nil {
			below, done, err = r.w.enter(now)
		}
	}
	if err != nil {
		return nil, nil, nil, errors.Join(err, first())
	}
	return tree, below, func() error { return errors.Join(done(), first()) }, nil
}

// delta finds what the root has beyond the tree that it began as.
func (r *wholeRoot) delta(ctx context.Context, fn func(tree *os.File, d *delta) error) (err error) {
	tree, below, leave, err := r.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, leave()) }()
	d, err := contrast(ctx, tree, below, r.rec.Made)
	if err != nil {
		return err
	}
	return fn(tree, d)
}

// kept is what a Delete frees.
func (r *wholeRoot) kept() (int64, error) {
	s, err := Measure(r.w.path("roots", r.id), nil)
	if err != nil {
		return 0, err
	}
	own, err := r.w.trees.Usage(r.rec.Tree)
	return s.Disk + own, err
}

// written tells what the tree takes for itself, and what its changed files show.
func (r *wholeRoot) written() (s Space, err error) {
	if s.Disk, err = r.w.trees.Usage(r.rec.Tree); err != nil {
		return s, err
	}
	err = r.delta(context.Background(), func(_ *os.File, d *delta) error {
		s.Shown, s.Files = d.shown, d.files
		return nil
	})
	return s, err
}

// data is where tools find it.
func (r *wholeRoot) data() map[string]string {
	if t, ok := r.w.trees.(interface {
		Data(name string) map[string]string
	}); ok {
		return t.Data(r.rec.Tree)
	}
	m, err := r.w.trees.Mount(r.rec.Tree)
	if err != nil || m.Type == "bind" {
		return nil
	}
	return map[string]string{"DeviceName": m.Source}
}
