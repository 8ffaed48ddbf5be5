// Package vfs keeps file trees as plain directories, each a copy of another.
//
// It needs nothing of the kernel and works on every file system. Where that has reflinks (btrfs, xfs), copies share their
// blocks; elsewhere each takes its full size. Invariant: a tree's name is its directory's name.
package vfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"berth/fault"
	"berth/kernel"
	"berth/union/clone"
)

// Trees are the trees in one directory. Its methods may be called concurrently.
type Trees struct {
	dir      *os.File
	path     string
	reflinks bool
}

// Open opens the trees in dir, which is made when missing. The caller closes them.
func Open(dir string, options []string) (*Trees, error) {
	if len(options) > 0 {
		return nil, fault.New(fault.Invalid, "storage driver vfs has no option %q", options[0])
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	t := &Trees{dir: f, path: dir}
	if t.reflinks, err = probe(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return t, nil
}

// probe tries whether files can share blocks.
func probe(dir *os.File) (bool, error) {
	var files [2]*os.File
	for k := range files {
		f, err := os.CreateTemp(dir.Name(), ".probe-")
		if err != nil {
			return false, err
		}
		defer f.Close()
		if err := os.Remove(f.Name()); err != nil {
			return false, err
		}
		if _, err := f.Write(make([]byte, 4096)); err != nil {
			return false, err
		}
		files[k] = f
	}
	err := kernel.Clone(files[1], files[0])
	if errors.Is(err, errors.ErrUnsupported) {
		return false, nil
	}
	return err == nil, err
}

// Status tells whether copies share blocks.
func (t *Trees) Status() [][2]string {
	return [][2]string{{"Reflinks", fmt.Sprint(t.reflinks)}}
}

// Make copies a tree, or makes an empty one.
func (t *Trees) Make(name, from string) (err error) {
	if err := kernel.MkdirIn(t.dir, name, 0o755); err != nil {
		return err
	}
	to, err := t.open(name)
	if err != nil {
		return err
	}
	defer fault.Close(to, &err)
	if from == "" {
		return kernel.Chmod(to, 0o755) // whatever the umask is
	}
	src, err := t.open(from)
	if err != nil {
		return err
	}
	defer fault.Close(src, &err)
	return clone.New(to).Tree(src)
}

func (t *Trees) open(name string) (*os.File, error) {
	f, err := kernel.OpenIn(t.dir, name, kernel.ODirectory|kernel.ONoFollow, 0, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "tree %s: not found", name)
	}
	return f, err
}

// Remove removes a tree.
func (t *Trees) Remove(name string) error { return kernel.RemoveIn(t.dir, name) }

// List lists all trees.
func (t *Trees) List() (names []string, err error) {
	entries, err := os.ReadDir(t.path)
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// Mount is the tree's directory.
func (t *Trees) Mount(name string) (m struct {
	Type, Source string
	Options      []string
}, err error) {
	st, err := kernel.StatIn(t.dir, name)
	if errors.Is(err, os.ErrNotExist) || err == nil && st.Mode&kernel.TypeMask != kernel.TypeDir {
		return m, fault.New(fault.NotFound, "tree %s: not found", name)
	}
	m.Type, m.Source = "bind", filepath.Join(t.path, name)
	return m, err
}

// Unmounted has nothing to do.
func (t *Trees) Unmounted(string) error { return nil }

// Freeze can do nothing: root may write to any directory.
func (t *Trees) Freeze(string) error { return nil }

// Sync writes the whole file system out.
func (t *Trees) Sync(string) error { return kernel.SyncFS(t.dir) }

// Usage sums up the tree's files; blocks that they share with others don't count.
func (t *Trees) Usage(name string) (own int64, err error) {
	f, err := t.open(name)
	if err != nil {
		return 0, err
	}
	defer fault.Close(f, &err)
	u := usage{seen: map[uint64]bool{}, reflinks: t.reflinks}
	st, err := kernel.Stat(f)
	if err != nil {
		return 0, err
	}
	u.own = st.Blocks * 512
	err = u.dir(f)
	return u.own, err
}

// Limit can't bound a directory.
func (t *Trees) Limit(string, int64) error {
	return fault.New(fault.Unsupported, "storage driver vfs can't bound the size of a container: its files are plain ones among others")
}

// Close lets go of the directory.
func (t *Trees) Close() error { return t.dir.Close() }

type usage struct {
	own      int64
	seen     map[uint64]bool // inodes with several names
	reflinks bool
}

func (u *usage) dir(dir *os.File) error {
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return gone(err)
	}
	for _, n := range names {
		if err := gone(u.one(dir, n)); err != nil {
			return err
		}
	}
	return nil
}

// gone takes what vanishes meanwhile for nothing.
func gone(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

func (u *usage) one(dir *os.File, name string) (err error) {
	st, err := kernel.StatIn(dir, name)
	if err != nil {
		return err
	}
	kind := st.Mode & kernel.TypeMask
	if kind != kernel.TypeDir && st.Nlink > 1 {
		if u.seen[st.Ino] {
			return nil
		}
		u.seen[st.Ino] = true
	}
	switch {
	case kind == kernel.TypeDir:
		sub, err := kernel.OpenIn(dir, name, kernel.ODirectory|kernel.ONoFollow, 0, 0)
		if err != nil {
			return err
		}
		u.own += st.Blocks * 512
		err = u.dir(sub)
		fault.Close(sub, &err)
		return err
	case kind == kernel.TypeRegular && u.reflinks && st.Blocks > 0:
		f, err := kernel.OpenIn(dir, name, kernel.ONoFollow|kernel.ONonblock, 0, 0)
		if err != nil {
			return err
		}
		own, err := kernel.OwnBytes(f)
		fault.Close(f, &err)
		u.own += own
		return err
	}
	u.own += st.Blocks * 512
	return nil
}
