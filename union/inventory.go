package union

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"

	"berth/archive"
	"berth/fault"
	"berth/internal/record"
	"berth/kernel"
)

// Inventory is a driver's other side, for those who account for its directory and check it.
type Inventory interface {
	// Places lists all that lies in the driver's directory by kind, strays included.
	Places() ([]Place, error)
	// Dir is the directory that stands for a layer, whether it is here or not: it is another one when the layer was put in place anew.
	Dir(chain digest.Digest) string
	// Measure sums up what a layer takes: on the disk all that goes with it, in files all that it has, and what its own files show.
	// os.ErrNotExist when its files are gone.
	Measure(chain digest.Digest) (Space, error)
	// Apart lists directories below the driver's whose bytes count as those of layers, roots and places.
	Apart() []string
	// Drop moves a stray to the trash; fault.Conflict when it is none any more.
	Drop(p Place) error
	// Settle waits until what was removed before the call is gone from the disk, or can't be removed.
	Settle(ctx context.Context) error
	// Renew compares a layer's directory with a stage that has the same layer unpacked anew. It tells the first difference, "" when
	// there is none. With replace set, a stage that differs takes the layer's place; the caller sees to it that
	// no container runs on the layer. The stage is ended in any case.
	Renew(chain digest.Digest, s *Stage, u archive.Unpacked, replace bool) (difference string, err error)
}

// InventoryOf returns the other side of a driver that Open returned.
func InventoryOf(d Driver) Inventory { return d.(complete).inventory() }

// inventory is overlay's.
type inventory struct{ *overlay }

// Place is a directory (rarely a file) that a driver has.
type Place struct {
	Kind  PlaceKind
	Name  string // the chain's digits, the root's id, or whatever it is called
	Path  string
	Stray bool                  // nothing that the driver knows refers to it
	below *digest.Digest        // what it stands on, when a link in it doesn't tell
	more  func() (int64, error) // bytes that it takes elsewhere; nil for none
}

// PlaceKind says what a place is for.
type PlaceKind string

// The kinds of places.
const (
	LayerPlace  PlaceKind = "layer"
	InitPlace   PlaceKind = "init"   // mount points of containers, one for each image
	MergedPlace PlaceKind = "merged" // a chain in one directory; its files are links to those of layers
	RootPlace   PlaceKind = "root"
	SparePlace  PlaceKind = "spare" // a root made ahead
	StagePlace  PlaceKind = "stage" // a layer in the making
	TrashPlace  PlaceKind = "trash"
	TreePlace   PlaceKind = "tree" // a whole tree that nothing refers to
)

// folders are the directories of the kinds.
var folders = map[PlaceKind]string{
	LayerPlace: "layers", InitPlace: "inits", MergedPlace: "merged", RootPlace: "roots", SparePlace: "spare", StagePlace: "stage", TrashPlace: "trash",
}

// Chain is the chain that a layer's, init's or merged place belongs to; "" over no layers, and for what is no digest.
func (p Place) Chain() digest.Digest {
	d := digest.NewDigestFromEncoded(digest.SHA256, p.Name)
	if d.Validate() != nil {
		return ""
	}
	return d
}

// Below is the chain that a root's or spare's place stands on; "" for none.
func (p Place) Below() digest.Digest {
	if p.below != nil {
		return *p.below
	}
	target, err := os.Readlink(filepath.Join(p.Path, "lower"))
	if err != nil {
		return ""
	}
	return Place{Name: filepath.Base(target)}.Chain()
}

// Size is what the place takes on disk. Of a merged place, the files that are links to those of layers don't count.
func (p Place) Size() (int64, error) {
	s, err := measure(p.Path, nil, p.Kind == MergedPlace)
	if p.more == nil {
		return s.Disk, err
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, err
	}
	more, err := p.more()
	return s.Disk + more, err
}

// Places implements Inventory.
func (o inventory) Places() (all []Place, err error) {
	// What is being put in place is known before it is seen: both happen under mu, or the index comes first.
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, kind := range []PlaceKind{LayerPlace, InitPlace, MergedPlace, RootPlace, SparePlace, StagePlace, TrashPlace} {
		err := each(o.path(folders[kind]), func(name string) error {
			p := Place{Kind: kind, Name: name, Path: o.path(folders[kind], name)}
			p.Stray = o.stray(p)
			all = append(all, p)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// stray tells whether a place is nobody's. The caller holds mu.
func (o inventory) stray(p Place) bool {
	switch p.Kind {
	case LayerPlace, MergedPlace:
		return o.layers[p.Chain()] == nil
	case InitPlace:
		return p.Name != key("") && o.layers[p.Chain()] == nil
	case RootPlace:
		return o.roots[p.Name] == nil
	case SparePlace:
		return !strings.HasPrefix(p.Name, "root-")
	case StagePlace: // opening swept all that was there: those with names of ours are being filled
		for _, prefix := range []string{"layer-", "init-", "merged-", "check-", "xino-"} {
			if strings.HasPrefix(p.Name, prefix) {
				return false
			}
		}
		return true
	}
	return false
}

// Dir implements Inventory.
func (o inventory) Dir(chain digest.Digest) string { return o.path("layers", key(chain)) }

// Measure implements Inventory.
func (o inventory) Measure(chain digest.Digest) (Space, error) {
	diff := o.layerDir(chain)
	s, err := Measure(diff, nil)
	if err != nil {
		return s, err
	}
	beside, err := Measure(o.Dir(chain), func(path string) bool { return path == diff })
	return Space{Disk: s.Disk + beside.Disk, Top: beside.Top, Shown: s.Shown, Files: s.Files + beside.Files + 1}, err
}

// Apart implements Inventory.
func (o inventory) Apart() []string { return nil }

// Drop implements Inventory.
func (o inventory) Drop(p Place) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.stray(p) || p.Path != o.path(folders[p.Kind], p.Name) {
		return fault.New(fault.Conflict, "%s is in use", p.Path)
	}
	return o.trash.take(p.Path)
}

// Settle implements Inventory.
func (o inventory) Settle(ctx context.Context) error { return o.trash.settle(ctx) }

// Renew implements Inventory.
func (o inventory) Renew(chain digest.Digest, s *Stage, u archive.Unpacked, replace bool) (difference string, err error) {
	return s.renew(chain, replace, func() (string, error) { return o.renew(chain, s, u, replace) })
}

// renew ends the stage with what fn finds. It stays where fn has put it when it was to replace the layer and differs.
func (s *Stage) renew(chain digest.Digest, replace bool, fn func() (string, error)) (difference string, err error) {
	err = fault.New(fault.Conflict, "the stage has ended")
	s.once.Do(func() {
		difference, err = fn()
		err = errors.Join(err, s.root.Close())
		if err != nil || difference == "" || !replace {
			err = errors.Join(err, s.abort())
		}
	})
	if err != nil {
		return "", fmt.Errorf("check layer %s: %w", chain, err)
	}
	return difference, nil
}

func (o inventory) renew(chain digest.Digest, s *Stage, u archive.Unpacked, replace bool) (difference string, err error) {
	if err := o.hold(chain); err != nil {
		return "", err
	}
	defer o.release(chain)
	o.mu.Lock()
	l := o.layers[chain].Layer
	o.mu.Unlock()
	dir := filepath.Dir(s.root.Name())
	if err := o.fit(dir, s.root, Layer{Chain: l.Chain, Parent: l.Parent, Size: u.Size, IDs: s.ids}, u); err != nil {
		return "", err
	}
	if difference, err = compareLayer(o.layerDir(chain), s.root); err != nil {
		return "", err
	}
	if difference == "" {
		var have Layer
		if record.Load(o.path("layers", key(chain), "layer.json"), &have) != nil || have.Chain != l.Chain || have.Parent != l.Parent {
			difference = "its record is damaged"
		}
	}
	if difference == "" || !replace {
		return difference, nil
	}
	return difference, o.swap(dir, chain)
}

// swap puts dir in the place of a layer, and drops what was made from that one.
func (o inventory) swap(dir string, chain digest.Digest) error {
	o.building.Lock()
	defer o.building.Unlock()
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.mark(); err != nil {
		return err
	}
	to := o.path("layers", key(chain))
	err := kernel.Exchange(dir, to) // never without the layer: the next start would drop all that stands on it
	if errors.Is(err, os.ErrNotExist) {
		err = os.Rename(dir, to)
	} else if err == nil {
		err = o.trash.take(dir)
	}
	if err != nil {
		return err
	}
	return each(o.path("merged"), func(name string) error {
		for l := o.layers[digest.NewDigestFromEncoded(digest.SHA256, name)]; l != nil; l = o.layers[l.Parent] {
			if l.Chain == chain {
				return o.trash.take(o.path("merged", name))
			}
		}
		return nil
	})
}

// settle waits for the sweep that begins after the call.
func (t *trash) settle(ctx context.Context) error { return settled(ctx, t.asked, t.done) }

// settled asks for a round of background work and waits for it, unless that has stopped.
func settled(ctx context.Context, asked chan<- chan struct{}, stopped <-chan struct{}) error {
	done := make(chan struct{})
	select {
	case asked <- done:
	case <-stopped:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case <-done:
		return nil
	case <-stopped:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
