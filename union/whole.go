package union

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/fault"
	"berth/internal/record"
	"berth/kernel"
)

// trees keeps whole file trees by name, each begun as a copy of another; copying is all that tells a backend from a directory. Names
// are drawn by the caller, [a-z0-9-]{1,64}, and never given twice. Different trees may be worked on at a time, and Mount of one too; one tree has one caller of Make or
// Remove. fault.NotFound: no such tree.
type trees interface {
	// Status returns the rows that `info` shows.
	Status() [][2]string
	// Make makes a writable tree as a copy of from, or an empty one for "", whose top is the root's with mode 0755. The tree is whole when it returns nil; after a
	// crash it may be there half-made, and is removed as no record has its name.
	Make(name, from string) error
	// Remove removes a tree with all that is in it, a half-made one too. One that is absent is no error; fault.Conflict while it is mounted.
	Remove(name string) error
	// List lists all trees, half-made ones too.
	List() ([]string, error)
	// Mount tells how the tree is mounted, by whoever gets to know it, in any process and after a restart of this one: as Mount of this package. What that needs, such as a device, is there when it returns.
	Mount(name string) (struct {
		Type, Source string
		Options      []string
	}, error)
	// Unmounted says that nobody mounts the tree any more: what Mount made for that may go. It may be called too often.
	Unmounted(name string) error
	// Freeze makes the tree read-only for all, where that can be done.
	Freeze(name string) error
	// Sync makes the tree survive a power cut as it is now.
	Sync(name string) error
	// Usage is how many bytes of the disk the tree takes that its origin doesn't: what Remove would free.
	Usage(name string) (own int64, err error)
	// Limit bounds what the tree may take beyond its origin, in bytes: fault.Unsupported with the reason where that can't be.
	Limit(name string, bytes int64) error
	// Close lets go of what is held. Trees stay mounted where they are.
	Close() error
}

// whole is a driver of which every layer and every root is a whole tree, begun as a copy of the one below.
//
//	DIR/lock, trash, unsynced     as home has them
//	DIR/trees                     the backend's
//	DIR/layers/HEX/layer.json     a wholeLayer
//	DIR/layers/HEX/names          what the layer itself has and takes away, see names
//	DIR/inits/HEX/init.json       an origin: what init made over that chain ("none" = over no layers)
//	DIR/roots/ID/root.json        a wholeRecord
//	DIR/stage                     unfinished layers and records; swept
//
// A tree is made before the record that names it, and removed after it: those that no record names are removed at the next start.
type whole struct {
	home
	name   string
	trees  trees
	reaper *reaper
	closed sync.Once

	made     map[string]string // the trees of layers and roots by their directory's path below DIR; under mu
	making   map[string]bool   // trees that have no record yet; under mu
	pending  map[string]bool   // trees of layers to be synced; under mu
	building sync.Mutex        // one init at a time
	mounts   sync.Mutex        // held for Mount and Unmounted of the trees that we mount
	users    map[string]int    // how often we have a tree open; under mounts
}

// origin is a tree and when it was made.
type origin struct {
	Tree string
	Made time.Time // what changed later was changed in it
}

// What the names of trees begin with.
const (
	layerTree = "layer-"
	initTree  = "init-"
	rootTree  = "root-"
)

// wholeLayer is the record of a layer.
type wholeLayer struct {
	Layer
	origin
}

// wholeRecord is the record of a root.
type wholeRecord struct {
	origin
	Chain digest.Digest `json:",omitempty"`
	Base  string        // the tree that it is compared with
	Of    string        `json:",omitempty"` // the root whose copy it is (see Beneath)
}

// wholeOver makes the driver called name from a backend.
func wholeOver[T trees](name string, open func(dir string, options []string) (T, error)) func(dir string, options []string) (Driver, error) {
	return func(dir string, options []string) (Driver, error) {
		w := &whole{home: newHome(dir), name: name, made: map[string]string{}, making: map[string]bool{}, pending: map[string]bool{}, users: map[string]int{}}
		err := w.make("layers", "inits", "roots", "stage", "trash")
		if err == nil {
			err = w.acquire()
		}
		if err == nil {
			w.trees, err = open(w.path("trees"), options)
			if err != nil {
				w.trees = nil // it may be a T that is nil
			}
		}
		if err == nil {
			err = w.load()
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open storage driver %s: %w", name, err), w.Close())
		}
		return w, nil
	}
}

// load reads what is on disk and has every half state removed.
func (w *whole) load() error {
	w.trash = newTrash(w.path("trash"), nil)
	err := each(w.path("stage"), func(name string) error { return w.trash.take(w.path("stage", name)) })
	if err == nil {
		err = w.dropTorn("layers")
	}
	if err == nil {
		err = w.loadLayers()
	}
	if err != nil {
		return err
	}
	have, err := w.trees.List()
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for _, name := range have {
		there[name] = true
	}
	if err := w.loadTrees(there); err != nil {
		return err
	}
	if err := record.Sweep(w.dir); err != nil {
		return err
	}
	named := map[string]bool{}
	for _, tree := range w.made {
		named[tree] = true
	}
	w.reaper = newReaper(w.trees)
	for _, name := range have {
		if !named[name] {
			w.reaper.take(name)
		}
	}
	if w.unsynced {
		return w.Sync()
	}
	return nil
}

// loadTrees reads which trees belong to what. A layer whose tree is lost stays, as what stands on it has trees of its own, and a check tells.
func (w *whole) loadTrees(there map[string]bool) error {
	for chain := range w.layers {
		var l wholeLayer
		if err := record.Load(w.path("layers", key(chain), "layer.json"), &l); err != nil {
			return err
		}
		w.own("layers", key(chain), l.origin)
		if w.unsynced {
			w.pending[l.Tree] = true
		}
	}
	err := each(w.path("inits"), func(name string) error {
		var o origin
		err := record.Load(w.path("inits", name, "init.json"), &o)
		if err != nil || !there[o.Tree] || name != key("") && w.layers[digest.NewDigestFromEncoded(digest.SHA256, name)] == nil {
			return w.trash.take(w.path("inits", name))
		}
		w.own("inits", name, o)
		return nil
	})
	if err != nil {
		return err
	}
	return each(w.path("roots"), func(id string) error {
		var r wholeRecord
		err := record.Load(w.path("roots", id, "root.json"), &r)
		if errors.Is(err, fault.NotFound) || errors.Is(err, fault.Corrupt) || err == nil && !there[r.Tree] {
			return w.trash.take(w.path("roots", id))
		}
		if err != nil {
			return err
		}
		w.own("roots", id, r.origin)
		w.roots[id] = &rootState{r.Chain, true}
		if l := w.layers[r.Chain]; l != nil {
			l.roots++
		}
		return nil
	})
}

// own notes whose tree it is. The caller holds mu, or is alone.
func (w *whole) own(kind, name string, o origin) {
	w.made[filepath.Join(kind, name)] = o.Tree
	delete(w.making, o.Tree)
}

// disown has the tree of what is no longer there removed. The caller holds mu.
func (w *whole) disown(kind, name string) {
	place := filepath.Join(kind, name)
	if tree := w.made[place]; tree != "" {
		delete(w.made, place)
		delete(w.pending, tree)
		w.reaper.take(tree)
	}
}

// treeOf is the tree of a layer, an init or a root, "" when there is none.
func (w *whole) treeOf(kind, name string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.made[filepath.Join(kind, name)]
}

// treeOfChain is the tree that shows a chain, "" for no layers.
func (w *whole) treeOfChain(chain digest.Digest) (string, error) {
	if chain == "" {
		return "", nil
	}
	tree := w.treeOf("layers", key(chain))
	if tree == "" {
		return "", fault.New(fault.NotFound, "layer %s: not found", chain)
	}
	return tree, nil
}

// grow makes a tree as a copy of from; until it is owned, the caller drops it in case of an error.
func (w *whole) grow(kind, from string) (origin, error) {
	o := origin{Tree: kind + strings.ToLower(rand.Text())}
	w.mu.Lock()
	w.making[o.Tree] = true
	w.mu.Unlock()
	if err := w.trees.Make(o.Tree, from); err != nil {
		w.drop(o.Tree)
		return o, err
	}
	o.Made = time.Now().UTC()
	return o, nil
}

// drop removes a tree that nobody owns.
func (w *whole) drop(tree string) {
	w.mu.Lock()
	delete(w.making, tree)
	w.reaper.take(tree)
	w.mu.Unlock()
}

// enter opens the top directory of a tree, mounted where no process can reach it by path unless it is a plain directory; leave gives it back.
func (w *whole) enter(tree string) (dir *os.File, leave func() error, err error) {
	w.mounts.Lock()
	defer w.mounts.Unlock()
	m, err := w.trees.Mount(tree)
	if err != nil {
		return nil, nil, err
	}
	if dir, err = topOf(Mount(m)); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("open tree %s: %w", tree, err), w.unmount(tree))
	}
	w.users[tree]++
	return dir, func() error {
		err := dir.Close()
		w.mounts.Lock()
		defer w.mounts.Unlock()
		if w.users[tree]--; w.users[tree] > 0 {
			return err
		}
		delete(w.users, tree)
		return errors.Join(err, w.unmount(tree))
	}, nil
}

// unmount lets go of what a mount took, unless the tree is a container's: whether that runs only the engine knows. The caller holds mounts.
func (w *whole) unmount(tree string) error {
	if w.users[tree] > 0 || strings.HasPrefix(tree, rootTree) {
		return nil
	}
	return w.trees.Unmounted(tree)
}

// within calls fn with the top directory of a tree.
func (w *whole) within(tree string, fn func(dir *os.File) error) (err error) {
	dir, leave, err := w.enter(tree)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, leave()) }()
	return fn(dir)
}

// topOf opens what a mount shows. A directory is opened itself: renames within its file system stay possible.
func topOf(m Mount) (dir *os.File, err error) {
	if m.Type == "bind" {
		return kernel.OpenIn(nil, m.Source, kernel.ODirectory|kernel.ONoFollow, 0, 0)
	}
	f, err := m.open()
	if err != nil {
		return nil, err
	}
	defer fault.Close(f, &err) // the directory holds it
	return kernel.OpenIn(f, ".", kernel.ODirectory, 0, 0)
}

// Name implements Driver.
func (w *whole) Name() string { return w.name }

// Status implements Driver.
func (w *whole) Status() [][2]string {
	rows := w.trees.Status()
	const below = "Backing Filesystem"
	if slices.ContainsFunc(rows, func(r [2]string) bool { return r[0] == below }) { // trees have file systems of their own
		return rows
	}
	return append([][2]string{{below, w.backing}}, rows...)
}

// Has implements Driver.
func (w *whole) Has(chain digest.Digest) bool { return w.has(chain) }

// Layers implements Driver.
func (w *whole) Layers() ([]Layer, error) { return w.list(), nil }

// Remove implements Driver.
func (w *whole) Remove(chain digest.Digest) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	l, err := w.removable(chain)
	if err != nil {
		return err
	}
	if err := w.trash.take(w.path("layers", key(chain))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove layer %s: %w", chain, err)
	}
	w.disown("layers", key(chain))
	w.forget(l)
	return w.dropInit(chain)
}

// dropInit removes what init made over a chain. The caller holds mu.
func (w *whole) dropInit(chain digest.Digest) error {
	if err := w.trash.take(w.path("inits", key(chain))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove layer %s: %w", chain, err)
	}
	w.disown("inits", key(chain))
	return nil
}

// Sync implements Driver.
func (w *whole) Sync() error {
	return w.sync(func() error {
		for tree := range w.pending {
			if err := w.trees.Sync(tree); err != nil && !errors.Is(err, fault.NotFound) {
				return err
			}
			delete(w.pending, tree)
		}
		return nil
	})
}

// Close implements Driver.
func (w *whole) Close() (err error) {
	w.closed.Do(func() {
		if w.reaper != nil {
			w.reaper.close()
		}
		if w.trash != nil {
			w.trash.close()
		}
		if w.trees != nil {
			err = w.trees.Close()
		}
		if w.lock != nil {
			err = errors.Join(err, w.lock.Close())
		}
	})
	return err
}
