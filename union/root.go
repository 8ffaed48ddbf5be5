package union

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"

	"berth/fault"
	"berth/kernel"
)

func validID(id string) error {
	if id == "" || len(id) > 80 || strings.ContainsAny(id, "/\x00,:\\") || strings.HasPrefix(id, ".") {
		return fault.New(fault.Invalid, "root id %q: 1 to 80 characters without / , : \\ and no leading dot", id)
	}
	return nil
}

// Create implements Driver.
func (o *overlay) Create(id string, chain digest.Digest, init func(root *os.File) error) (Root, error) {
	r, err := o.create(id, chain, init)
	if err != nil {
		return Root{}, fmt.Errorf("create root %s: %w", id, err)
	}
	return r, nil
}

func (o *overlay) create(id string, chain digest.Digest, init func(root *os.File) error) (r Root, err error) {
	if err := validID(id); err != nil {
		return Root{}, err
	}
	if err := o.reserve(id, chain); err != nil {
		return Root{}, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, o.Delete(id))
		}
	}()
	b := base{chain, filepath.Join("layers", key(chain))}
	switch {
	case init != nil:
		if err := o.ensureInit(chain, init); err != nil {
			return Root{}, fmt.Errorf("prepare the layer for containers: %w", err)
		}
		b.below = filepath.Join("inits", key(chain))
	case chain == "":
		b.below = "empty"
	}
	if r, err = o.root(id, b); err != nil {
		return Root{}, err
	}
	dir := o.spares.take(b)
	if dir == "" {
		if dir, err = o.newRoot(b); err != nil {
			return Root{}, err
		}
	}
	if err := os.Rename(dir, o.path("roots", id)); err != nil {
		return Root{}, errors.Join(err, o.trash.take(dir))
	}
	if o.quotas.size > 0 {
		if err := o.limit(id, o.quotas.size); err != nil {
			return Root{}, err
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.roots[id].ready = true
	return r, nil
}

// makeUpper makes a writable directory that looks like the root directory below
// it: the merged root takes its attributes from the top.
func makeUpper(upper, lower string) error {
	if err := os.Mkdir(upper, 0o755); err != nil {
		return err
	}
	st, err := kernel.StatIn(nil, lower)
	if err != nil {
		return err
	}
	if err := kernel.ChownIn(nil, upper, st.Uid, st.Gid); err != nil {
		return err
	}
	attrs, err := kernel.XattrsIn(nil, lower)
	if err != nil {
		return err
	}
	for attr, value := range attrs {
		if isOverlays(attr) {
			continue
		}
		if err := kernel.SetXattrIn(nil, upper, attr, value); err != nil {
			return err
		}
	}
	if err := kernel.ChmodIn(nil, upper, st.Mode&0o7777); err != nil {
		return err
	}
	return kernel.TimesIn(nil, upper, unixTime(st.Mtim.Unix()), unixTime(st.Mtim.Unix()))
}

// root puts the description together.
func (o *overlay) root(id string, b base) (Root, error) {
	lower, err := o.lower(b.chain)
	if err != nil {
		return Root{}, err
	}
	if !strings.HasPrefix(b.below, "layers") {
		lower = append([]string{o.top(b.below)}, lower...)
	}
	dir := o.path("roots", id)
	r := Root{ID: id, Merged: filepath.Join(dir, "merged"), Stacked: &Stacked{Lower: lower, Upper: filepath.Join(dir, "diff"), Work: filepath.Join(dir, "work"), by: o.by}}
	r.Mount = r.Stacked.mount()
	o.mu.Lock()
	defer o.mu.Unlock()
	if l := o.layers[b.chain]; l != nil {
		r.IDs = l.IDs
	}
	return r, nil
}

// ensureInit makes the shared layer over chain unless it is there.
func (o *overlay) ensureInit(chain digest.Digest, init func(root *os.File) error) error {
	o.building.Lock()
	defer o.building.Unlock()
	to := o.path("inits", key(chain))
	if _, err := os.Lstat(to); err == nil {
		return nil
	}
	dir, diff, err := o.newStage("init-")
	if err != nil {
		return err
	}
	if err := o.fillInit(dir, diff, chain, init); err != nil {
		return errors.Join(err, o.trash.take(dir))
	}
	return os.Rename(dir, to)
}

func (o *overlay) fillInit(dir, diff string, chain digest.Digest, init func(root *os.File) error) error {
	lower, err := o.lowerLocked(chain)
	if err != nil {
		return err
	}
	if len(lower) == 0 {
		lower = []string{o.path("empty")}
	}
	if err := os.Remove(diff); err != nil {
		return err
	}
	if err := makeUpper(diff, lower[0]); err != nil {
		return err
	}
	work := filepath.Join(dir, "work")
	if err := os.Mkdir(work, 0o700); err != nil {
		return err
	}
	r := Root{ID: "init of " + key(chain), Mount: o.by.mount(lower, diff, work), Stacked: &Stacked{lower, diff, work, o.by}}
	if err := View(r, init); err != nil {
		return err
	}
	return os.RemoveAll(work)
}

// Open implements Driver.
func (o *overlay) Open(id string) (Root, error) {
	o.mu.Lock()
	st := o.roots[id]
	if st == nil || !st.ready {
		o.mu.Unlock()
		return Root{}, fault.New(fault.NotFound, "root %s: not found", id)
	}
	chain := st.chain
	lost := chain != "" && o.layers[chain] == nil
	o.mu.Unlock()
	if lost {
		return Root{}, fault.New(fault.Corrupt, "open root %s: its layer %s is lost: pull or load the image again", id, chain)
	}
	target, err := os.Readlink(o.path("roots", id, "lower"))
	if err != nil {
		return Root{}, fmt.Errorf("open root %s: %w", id, err)
	}
	below, err := filepath.Rel(filepath.Join("..", ".."), target)
	if err != nil {
		return Root{}, fault.New(fault.Corrupt, "open root %s: %w", id, err)
	}
	r, err := o.root(id, base{chain, below})
	if err != nil {
		return Root{}, fmt.Errorf("open root %s: %w", id, err)
	}
	// A volatile mount that ended, or died with the machine, leaves its note; whoever asked
	// for volatile accepted that.
	if err := clearVolatile(r.Stacked.Work); err != nil {
		return Root{}, fmt.Errorf("open root %s: %w", id, err)
	}
	return r, nil
}

// Delete implements Driver.
func (o *overlay) Delete(id string) error {
	if err := validID(id); err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.trash.take(o.path("roots", id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete root %s: %w", id, err)
	}
	o.forgetRoot(id)
	return nil
}

// Roots implements Driver.
func (o *overlay) Roots() ([]string, error) { return o.ids(), nil }
