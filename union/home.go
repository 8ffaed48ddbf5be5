package union

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"berth/fault"
	"berth/internal/record"
	"berth/kernel"
)

// home is a driver's directory and what all drivers keep there.
//
//	DIR/lock                      held by the process that has the driver open
//	DIR/layers/HEX/layer.json     a Layer
//	DIR/trash                     removed things; swept
//	DIR/unsynced                  boot id: layers were committed since the last Sync, during this boot
type home struct {
	dir     string
	lock    *os.File
	backing string // the file system that it lies on, as `info` shows it
	trash   *trash

	index
	unsynced bool // DIR/unsynced is there; under mu
}

func newHome(dir string) home {
	return home{dir: dir, index: index{layers: map[digest.Digest]*layer{}, roots: map[string]*rootState{}}}
}

func (o *home) path(elem ...string) string {
	return filepath.Join(append([]string{o.dir}, elem...)...)
}

// make makes the directories that are missing.
func (o *home) make(names ...string) error {
	for _, d := range names {
		if err := os.MkdirAll(o.path(d), 0o700); err != nil {
			return err
		}
	}
	return nil
}

// acquire takes the directory for this process: fault.Conflict when another one has it. The lock is to be closed also after an error.
func (o *home) acquire() (err error) {
	if o.lock, err = os.OpenFile(o.path("lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return err
	}
	free, err := kernel.TryLock(o.lock)
	if err != nil {
		return err
	}
	if !free {
		return fault.New(fault.Conflict, "storage directory %s is in use by another process: stop that daemon or choose another --data-root", o.dir)
	}
	magic, err := kernel.FSType(o.lock)
	if err != nil {
		return err
	}
	if o.backing = backing[magic]; o.backing == "" {
		o.backing = fmt.Sprintf("0x%x", magic)
	}
	return nil
}

// key is the directory name of a chain.
func key(chain digest.Digest) string {
	if chain == "" {
		return "none"
	}
	return chain.Encoded()
}

func validChain(chain digest.Digest) error {
	if err := chain.Validate(); err != nil || chain.Algorithm() != digest.SHA256 {
		return fault.New(fault.Invalid, "layer chain %q is not a sha256 digest", chain)
	}
	return nil
}

// each calls fn for all names in a directory, until it fails.
func each(dir string, fn func(name string) error) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if err == nil {
			err = fn(e.Name())
		}
	}
	return err
}

// loadLayers indexes the layers; one that doesn't parse or has lost its parent can't be used by anyone.
func (o *home) loadLayers() error {
	err := each(o.path("layers"), func(name string) error {
		var l layer
		err := record.Load(o.path("layers", name, "layer.json"), &l.Layer)
		switch {
		case errors.Is(err, fault.NotFound), errors.Is(err, fault.Corrupt), err == nil && key(l.Chain) != name:
			return o.trash.take(o.path("layers", name))
		case err != nil:
			return err
		}
		o.layers[l.Chain] = &l
		return nil
	})
	if err != nil {
		return err
	}
	for lost := true; lost; {
		lost = false
		for chain, l := range o.layers {
			if l.Parent == "" || o.layers[l.Parent] != nil {
				continue
			}
			lost = true
			delete(o.layers, chain)
			if err := o.trash.take(o.path("layers", key(chain))); err != nil {
				return err
			}
		}
	}
	for _, l := range o.layers {
		for p := l.Parent; p != ""; p = o.layers[p].Parent {
			l.depth++
		}
		if p := o.layers[l.Parent]; p != nil {
			p.children++
		}
	}
	return nil
}
