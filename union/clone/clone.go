// Package clone copies file trees as they are: owners, modes, times to the nanosecond, extended attributes, hard links, holes, devices and sockets.
//
// It is no archiver and translates nothing. Blocks are shared where the file system can (reflinks), and copied elsewhere. Invariant: what it
// copied can be told from the original by its inode numbers and change times alone.
package clone

import (
	"errors"
	"io"
	"maps"
	"os"
	"path"
	"time"

	"berth/fault"
	"berth/kernel"
)

// Copier copies into one tree; names that are one file in the source become one file there. It is for one goroutine.
type Copier struct {
	Skip   func(attr string) bool // extended attributes to leave out; nil: none
	Live   bool                   // others work in the source: what vanishes is left out
	root   *os.File
	links  map[[2]uint64]string // source inode with several names → path below root
	shared bool                 // no clone failed yet
}

// New begins copying into the tree root, which stays the caller's.
func New(root *os.File) *Copier {
	return &Copier{root: root, links: map[[2]uint64]string{}, shared: true}
}

// Tree copies all that is in the directory from, with its own attributes, into the copier's root, which is empty.
func (c *Copier) Tree(from *os.File) error { return c.dir(from, c.root, "") }

// Shared tells whether no block was copied: the file system shares them all.
func (c *Copier) Shared() bool { return c.shared }

// dir copies what is in from to the directory to, which lies at the path at below the root.
func (c *Copier) dir(from, to *os.File, at string) error {
	names, err := from.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, n := range names {
		err := c.One(from, n, to, path.Join(at, n))
		if c.Live && errors.Is(err, os.ErrNotExist) {
			maps.DeleteFunc(c.links, func(_ [2]uint64, name string) bool { return name == path.Join(at, n) })
			err = kernel.RemoveIn(to, n)
		}
		if err != nil {
			return err
		}
	}
	return c.Attributes(from, ".", to)
}

// One copies what is called name in from, with all below it, to the same name in the directory to, where nothing of that name is. full is its path below the
// copier's root, which no symbolic link is part of.
func (c *Copier) One(from *os.File, name string, to *os.File, full string) (err error) {
	st, err := kernel.StatIn(from, name)
	if err != nil {
		return err
	}
	kind := st.Mode & kernel.TypeMask
	if kind == kernel.TypeDir {
		return c.sub(from, name, to, full)
	}
	if st.Nlink > 1 {
		id := [2]uint64{st.Dev, st.Ino}
		if first, ok := c.links[id]; ok {
			return kernel.LinkIn(c.root, first, to, name)
		}
		c.links[id] = full
	}
	switch kind {
	case kernel.TypeRegular:
		return c.file(from, name, to)
	case kernel.TypeSymlink:
		target, err := kernel.ReadlinkIn(from, name)
		if err != nil {
			return err
		}
		if err := kernel.SymlinkIn(target, to, name); err != nil {
			return err
		}
	default:
		if err := kernel.MknodIn(to, name, kind|0o600, st.Rdev); err != nil {
			return err
		}
	}
	if err := kernel.ChownIn(to, name, st.Uid, st.Gid); err != nil {
		return err
	}
	if err := c.xattrs(from, name, func(attr, value string) error { return kernel.SetXattrIn(to, name, attr, value) }); err != nil {
		return err
	}
	if kind != kernel.TypeSymlink {
		if err := kernel.ChmodIn(to, name, st.Mode&0o7777); err != nil {
			return err
		}
	}
	return kernel.TimesIn(to, name, time.Unix(st.Atim.Unix()), time.Unix(st.Mtim.Unix()))
}

func (c *Copier) sub(from *os.File, name string, to *os.File, full string) (err error) {
	in, err := kernel.OpenIn(from, name, kernel.ODirectory|kernel.ONoFollow, 0, 0)
	if err != nil {
		return err
	}
	defer fault.Close(in, &err)
	if err := kernel.MkdirIn(to, name, 0o700); err != nil {
		return err
	}
	out, err := kernel.OpenIn(to, name, kernel.ODirectory|kernel.ONoFollow, 0, 0)
	if err != nil {
		return err
	}
	defer fault.Close(out, &err)
	return c.dir(in, out, full)
}

func (c *Copier) file(from *os.File, name string, to *os.File) (err error) {
	in, err := kernel.OpenIn(from, name, kernel.ONoFollow|kernel.ONonblock, 0, 0)
	if err != nil {
		return err
	}
	defer fault.Close(in, &err)
	out, err := kernel.OpenIn(to, name, os.O_CREATE|os.O_EXCL|os.O_WRONLY|kernel.ONoFollow, 0o600, 0)
	if err != nil {
		return err
	}
	defer fault.Close(out, &err)
	if err := c.content(out, in); err != nil {
		return err
	}
	return c.Attributes(from, name, out)
}

// content copies what is in a file.
func (c *Copier) content(out, in *os.File) error {
	st, err := kernel.Stat(in)
	if err != nil || st.Size == 0 {
		return err
	}
	if c.shared {
		err := kernel.Clone(out, in)
		if !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
		c.shared = false
	}
	if st.Blocks*512 >= st.Size { // no holes
		if _, err := io.Copy(out, in); err != nil {
			return err
		}
		return nil
	}
	return sparse(out, in, st.Size)
}

// sparse copies the parts that hold data.
func sparse(out, in *os.File, size int64) error {
	for at := int64(0); at < size; {
		from, ok, err := kernel.SeekData(in, at)
		if err != nil {
			return err
		}
		if !ok || from >= size {
			break
		}
		to, err := kernel.SeekHole(in, from)
		if err != nil {
			return err
		}
		for _, f := range []*os.File{in, out} {
			if _, err := f.Seek(from, io.SeekStart); err != nil {
				return err
			}
		}
		if _, err := io.CopyN(out, in, to-from); err != nil {
			return err
		}
		at = to
	}
	return out.Truncate(size)
}

// Attributes gives the open file or directory to the owner, mode, attributes and times of name in from; "." is from itself.
func (c *Copier) Attributes(from *os.File, name string, to *os.File) error {
	st, err := kernel.StatIn(from, name)
	if err != nil {
		return err
	}
	if err := kernel.Chown(to, st.Uid, st.Gid); err != nil {
		return err
	}
	if err := c.xattrs(from, name, func(attr, value string) error { return kernel.SetXattr(to, attr, value) }); err != nil {
		return err
	}
	if err := kernel.Chmod(to, st.Mode&0o7777); err != nil {
		return err
	}
	return kernel.Times(to, time.Unix(st.Atim.Unix()), time.Unix(st.Mtim.Unix()))
}

func (c *Copier) xattrs(from *os.File, name string, set func(attr, value string) error) error {
	attrs, err := kernel.XattrsIn(from, name)
	if err != nil {
		return err
	}
	for attr, value := range attrs {
		if c.Skip != nil && c.Skip(attr) {
			continue
		}
		if err := set(attr, value); err != nil && !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
	}
	return nil
}
