// Package btrfs keeps whole file trees as subvolumes of a btrfs, each a snapshot of the one it began as.
//
// It is not a storage driver: layers, roots and their records are package union's, which gives the
// names. It keeps nothing on disk but the subvolumes. Invariant: a tree that a caller saw made is whole, as a subvolume comes into being in one transaction.
package btrfs

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/docker/go-units"

	"berth/fault"
	"berth/kernel"
	"berth/kernel/btrfs"
)

// Trees is a directory of subvolumes:
//
//	DIR/subvolumes/NAME
type Trees struct {
	dir      *os.File // DIR/subvolumes
	path     string
	minSpace int64

	quota sync.Mutex // held while quotas are switched on
}

// Open opens the trees in dir, which must lie on a btrfs: fault.Unsupported otherwise, with what to do. Options are "min_space=SIZE", the
// least that a Limit may be; fault.Invalid for others. The caller closes it.
func Open(dir string, options []string) (*Trees, error) {
	t := &Trees{path: filepath.Join(dir, "subvolumes")}
	for _, o := range options {
		key, value, _ := strings.Cut(o, "=")
		if key != "min_space" {
			return nil, fault.New(fault.Invalid, "storage driver btrfs has no option %q: it takes btrfs.min_space", "btrfs."+key)
		}
		var err error
		if t.minSpace, err = units.RAMInBytes(value); err != nil {
			return nil, fault.New(fault.Invalid, "storage option btrfs.min_space=%s: %w: give a size such as 10G", value, err)
		}
	}
	if err := os.MkdirAll(t.path, 0o700); err != nil {
		return nil, fmt.Errorf("open storage driver btrfs: %w", err)
	}
	var err error
	if t.dir, err = os.Open(t.path); err != nil {
		return nil, fmt.Errorf("open storage driver btrfs: %w", err)
	}
	if err := t.check(); err != nil {
		return nil, errors.Join(err, t.dir.Close())
	}
	return t, nil
}

// check refuses what can't work.
func (t *Trees) check() error {
	on, err := btrfs.On(t.dir)
	if err != nil {
		return fmt.Errorf("open storage driver btrfs: %w", err)
	}
	if !on {
		return fault.New(fault.Unsupported, "storage driver btrfs: %s does not lie on a btrfs: mount one there or choose a --data-root on one, or use --storage-driver overlay2", t.path)
	}
	id, err := btrfs.ID(t.dir)
	if err == nil {
		_, err = btrfs.Inside(t.dir, id)
	}
	if err != nil {
		return fault.New(fault.Unsupported, "storage driver btrfs: it needs root's rights on %s: %w: use --storage-driver overlay2", t.path, err)
	}
	return nil
}

// Status gives the row that the field's engines show.
func (t *Trees) Status() [][2]string { return [][2]string{{"Btrfs", ""}} }

// tree opens the top of a tree; the caller closes it.
func (t *Trees) tree(name string) (*os.File, error) {
	f, err := kernel.OpenIn(t.dir, name, kernel.ODirectory|kernel.ONoFollow, 0, kernel.Beneath)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "tree %s: not found", name)
	}
	return f, err
}

// with calls fn with the open top of a tree.
func (t *Trees) with(name string, fn func(top *os.File) error) (err error) {
	top, err := t.tree(name)
	if err != nil {
		return err
	}
	defer fault.Close(top, &err)
	return fn(top)
}

// Make makes a tree as a snapshot of from, or an empty one. A snapshot waits for the disk.
func (t *Trees) Make(name, from string) error {
	if from != "" {
		return t.with(from, func(top *os.File) error { return btrfs.Snapshot(top, t.dir, name, false) })
	}
	if err := btrfs.Create(t.dir, name); err != nil {
		return err
	}
	return t.with(name, func(top *os.File) error { return top.Chmod(0o755) }) // whatever the umask
}

// Remove removes a tree with the subvolumes that somebody made inside of it. Where it is mounted it goes on as what was deleted there.
func (t *Trees) Remove(name string) error { return btrfs.Delete(t.dir, name) }

// List lists all trees.
func (t *Trees) List() (names []string, err error) {
	entries, err := os.ReadDir(t.path)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

// Mount tells that a tree is its directory.
func (t *Trees) Mount(name string) (m struct {
	Type, Source string
	Options      []string
}, err error) {
	m.Type, m.Source = "bind", filepath.Join(t.path, name)
	return m, t.with(name, func(*os.File) error { return nil })
}

// Unmounted has nothing to let go of.
func (t *Trees) Unmounted(string) error { return nil }

// Freeze makes the subvolume read-only.
func (t *Trees) Freeze(name string) error {
	return t.with(name, func(top *os.File) error { return btrfs.SetReadOnly(top, true) })
}

// Sync writes out the file system that all trees share.
func (t *Trees) Sync(string) error { return kernel.SyncFS(t.dir) }

// Usage counts the content that was written to the tree since it was made. It writes out what waits in memory first, which is not counted.
func (t *Trees) Usage(name string) (own int64, err error) {
	err = t.with(name, func(top *os.File) error {
		if err := kernel.SyncFS(top); err != nil {
			return err
		}
		own, err = btrfs.Own(top)
		return err
	})
	return own, err
}

// Limit bounds what the tree takes of its own, by a quota group; the first call switches quotas on for the whole file system. Subvolumes that somebody makes
// inside of the tree are not counted.
func (t *Trees) Limit(name string, bytes int64) error {
	if bytes < t.minSpace {
		return fault.New(fault.Invalid, "size %s is less than btrfs.min_space, %s: ask for more", units.BytesSize(float64(bytes)), units.BytesSize(float64(t.minSpace)))
	}
	return t.with(name, func(top *os.File) error {
		if err := t.enableQuota(); err != nil {
			return err
		}
		return btrfs.LimitOwn(top, uint64(min(bytes, math.MaxInt64)))
	})
}

func (t *Trees) enableQuota() error {
	t.quota.Lock()
	defer t.quota.Unlock()
	return btrfs.EnableQuota(t.dir)
}

// Close lets go of the directory.
func (t *Trees) Close() error { return t.dir.Close() }
