package union

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/opencontainers/go-digest"

	"berth/fault"
	"berth/internal/record"
	"berth/kernel"
)

// overlay is the overlay2 driver, and those that differ in what they mount.
//
//	DIR/lock                      held by the process that has the driver open
//	DIR/layers/HEX/diff           a layer's own files, in overlay's form
//	DIR/layers/HEX/layer.json     a Layer
//	DIR/inits/HEX/diff            what init made over that chain ("none" = over no layers)
//	DIR/merged/HEX/diff           that chain in one directory, hard links to its layers' files
//	DIR/roots/ID/{diff,work}      a root's writable part
//	DIR/roots/ID/lower            symbolic link to the layer or init right below
//	DIR/empty                     what a root without layers stands on
//	DIR/stage, DIR/spare          unfinished layers, roots made ahead; swept
//	DIR/trash                     removed things; swept
//	DIR/unsynced                  boot id: layers were committed since the last Sync, during this boot
//
// Everything is built under stage or spare and put in place by one rename.
type overlay struct {
	home
	by     stacking
	spares *spares
	quotas quotas
	closed sync.Once

	building sync.Mutex // one init or merged directory at a time
}

// maxDir keeps every path in a mount option below the 256 bytes that fsconfig(2) takes.
const maxDir = 160

func openOverlay(dir string, options []string) (Driver, error) {
	return openStacking(dir, options, overlayStack())
}

func openFuseOverlay(dir string, options []string) (Driver, error) {
	by, err := fuseStack(dir)
	if err != nil {
		return nil, err
	}
	return openStacking(dir, options, by)
}

func openStacking(dir string, options []string, by stacking) (Driver, error) {
	if len(dir) > maxDir {
		return nil, fault.New(fault.Unsupported, "storage driver %s: the path %s is longer than %d bytes, which mount options can't hold: choose a shorter --data-root", by.driver, dir, maxDir)
	}
	o := &overlay{home: newHome(dir), by: by}
	o.quotas.home, o.quotas.by = &o.home, by.driver
	if err := o.quotas.parse(options); err != nil {
		return nil, err
	}
	if err := o.make("layers", "inits", "merged", "roots", "empty", "stage", "spare", "trash"); err != nil {
		return nil, fmt.Errorf("open storage driver %s: %w", by.driver, err)
	}
	if err := os.Chmod(o.path("empty"), 0o755); err != nil {
		return nil, fmt.Errorf("open storage driver %s: %w", by.driver, err)
	}
	if err := scatter(o.path("stage"), o.path("spare")); err != nil {
		return nil, fmt.Errorf("open storage driver %s: %w", by.driver, err)
	}
	if err := o.open(); err != nil {
		if o.lock != nil {
			o.lock.Close()
		}
		return nil, err
	}
	return o, nil
}

// scatter keeps what is made under stage and spare away from what was just removed:
// 2,000 → 25,000 files/s, and a root in 0.2 ms where it took between 0.1 and 3.
func scatter(paths ...string) error {
	for _, path := range paths {
		dir, err := os.Open(path)
		if err != nil {
			return err
		}
		err = kernel.ScatterDirs(dir)
		fault.Close(dir, &err)
		if err != nil {
			return err
		}
	}
	return nil
}

func (o *overlay) open() (err error) {
	if err := o.acquire(); err != nil {
		return err
	}
	if err := errors.Join(o.check(), o.quotas.check()); err != nil {
		return err
	}
	o.trash = newTrash(o.path("trash"), o.quotas.unbind)
	if err := o.load(); err != nil {
		o.trash.close()
		return fmt.Errorf("open storage driver %s: %w", o.by.driver, err)
	}
	o.spares = newSpares(o.newRoot, o.trash.take, o.alive)
	return nil
}

// load reads what is on disk and moves every half state to the trash.
func (o *overlay) load() error {
	if err := o.sweepStages(); err != nil {
		return err
	}
	if err := o.dropTorn("layers", "merged"); err != nil {
		return err
	}
	if err := o.loadLayers(); err != nil {
		return err
	}
	if err := o.loadRoots(); err != nil {
		return err
	}
	for _, kind := range []string{"inits", "merged"} {
		err := each(o.path(kind), func(name string) error {
			chain := digest.NewDigestFromEncoded(digest.SHA256, name)
			l := o.layers[chain]
			if l == nil && !(kind == "inits" && name == key("")) {
				return o.trash.take(o.path(kind, name))
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if err := record.Sweep(o.dir); err != nil {
		return err
	}
	if o.unsynced {
		return o.Sync()
	}
	return nil
}

func (o *overlay) sweepStages() error {
	for _, kind := range []string{"stage", "spare"} {
		if err := each(o.path(kind), func(name string) error { return o.trash.take(o.path(kind, name)) }); err != nil {
			return err
		}
	}
	return nil
}

func (o *overlay) loadRoots() error {
	return each(o.path("roots"), func(id string) error {
		target, err := os.Readlink(o.path("roots", id, "lower"))
		if errors.Is(err, fs.ErrNotExist) {
			return o.trash.take(o.path("roots", id))
		}
		if err != nil {
			return err
		}
		var chain digest.Digest
		if name := filepath.Base(target); name != key("") && name != "empty" {
			chain = digest.NewDigestFromEncoded(digest.SHA256, name)
		}
		o.roots[id] = &rootState{chain, true}
		if l := o.layers[chain]; l != nil {
			l.roots++
		}
		return nil
	})
}

// Name implements Driver.
func (o *overlay) Name() string { return o.by.driver }

// Status implements Driver.
func (o *overlay) Status() [][2]string {
	if o.by.marks() {
		return o.aufsStatus()
	}
	return [][2]string{
		{"Backing Filesystem", o.backing},
		{"Supports d_type", "true"},     // open refuses what doesn't
		{"Using metacopy", "false"},     // switched off in every mount
		{"Native Overlay Diff", "true"}, // the writable directory alone tells what changed
		{"userxattr", "false"},
	}
}

// Has implements Driver.
func (o *overlay) Has(chain digest.Digest) bool { return o.has(chain) }

// Layers implements Driver.
func (o *overlay) Layers() ([]Layer, error) { return o.list(), nil }

// Remove implements Driver.
func (o *overlay) Remove(chain digest.Digest) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	l, err := o.removable(chain)
	if err != nil {
		return err
	}
	defer o.spares.forget(chain)                                 // after the layer is gone, when no new ones can come
	for _, kind := range []string{"layers", "inits", "merged"} { // without the layer, open sweeps the others
		err := o.trash.take(o.path(kind, key(chain)))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove layer %s: %w", chain, err)
		}
		if kind == "layers" {
			o.forget(l)
		}
	}
	return nil
}

// Close implements Driver.
func (o *overlay) Close() (err error) {
	o.closed.Do(func() { err = o.close() })
	return err
}

func (o *overlay) close() error {
	o.spares.close()
	o.trash.close()
	return o.lock.Close()
}
