package archive

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"berth/fault"
	"berth/kernel"
)

var (
	buffers = sync.Pool{New: func() any { return new([256 << 10]byte) }}
	hole    [4096]byte
)

// file makes a regular file.
func (u *unpacker) file(hdr *tar.Header, parent *os.File, name string) (err error) {
	if u.size += hdr.Size; u.size < 0 || u.o.MaxBytes > 0 && u.size > u.o.MaxBytes {
		return fault.New(fault.Invalid, "the archive's files are larger than the %d bytes allowed", u.o.MaxBytes)
	}
	var f *os.File
	mode := uint32(0o600)
	if !u.o.Live { // nobody looks into the tree yet
		mode = u.mode(hdr) & 0o777
	}
	err = u.replace(parent, name, func() (err error) {
		f, err = kernel.OpenIn(parent, name, os.O_CREATE|os.O_EXCL|os.O_WRONLY|kernel.ONoFollow, mode, kernel.Beneath)
		return err
	})
	if u.o.Live && kernel.IsBusy(err) { // a mount, such as a container's hosts file: it takes the new content
		var there error
		if f, there = u.inPlace(parent, name); there == nil {
			err = nil
		}
	}
	if err != nil {
		return err
	}
	defer fault.Close(f, &err)
	if hdr.Size > 0 {
		if err := u.content(hdr, f); err != nil {
			return err
		}
	}
	return u.finishFile(hdr, f)
}

// finishFile gives a file what it lacks. Looking is cheap; what changes an inode is not.
func (u *unpacker) finishFile(hdr *tar.Header, f *os.File) error {
	st, err := kernel.Stat(f)
	if err != nil {
		return err
	}
	mode := st.Mode & 0o7777
	if !u.o.Mine && (st.Uid != uint32(hdr.Uid) || st.Gid != uint32(hdr.Gid)) {
		if err := kernel.Chown(f, uint32(hdr.Uid), uint32(hdr.Gid)); err != nil {
			return err
		}
		mode = 0 // chown takes capabilities and the setuid bit away
	}
	if err := u.xattrs(hdr, func(attr, value string) error { return kernel.SetXattr(f, attr, value) }); err != nil {
		return err
	}
	if mode != u.mode(hdr) || len(hdr.PAXRecords) > 0 { // an ACL changes the mode, too
		if err := kernel.Chmod(f, u.mode(hdr)); err != nil {
			return err
		}
	}
	return kernel.Times(f, hdr.ModTime, hdr.ModTime)
}

// inPlace opens an existing file to be overwritten.
func (u *unpacker) inPlace(parent *os.File, name string) (*os.File, error) {
	f, err := kernel.OpenIn(parent, name, os.O_WRONLY|os.O_TRUNC|kernel.ONoFollow|kernel.ONonblock, 0, kernel.NoSymlinks)
	if err != nil {
		return nil, err
	}
	st, err := kernel.Stat(f)
	if err == nil && st.Mode&kernel.TypeMask != kernel.TypeRegular {
		err = fault.New(fault.Invalid, "it is a mount, and no file")
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// minHoles is the size in bytes from which zeros are looked for.
const minHoles = 64 << 10

// content copies the member's bytes; a sparse member keeps its holes.
func (u *unpacker) content(hdr *tar.Header, f *os.File) error {
	sparse := hdr.Typeflag == tar.TypeGNUSparse || u.o.Holes && hdr.Size >= minHoles
	for key := range hdr.PAXRecords {
		sparse = sparse || strings.HasPrefix(key, "GNU.sparse.")
	}
	if sparse {
		if err := f.Truncate(hdr.Size); err != nil { // also refuses a size that no file can have, before reading it
			return err
		}
	}
	buf := buffers.Get().(*[256 << 10]byte)
	defer buffers.Put(buf)
	for at := int64(0); ; {
		n, err := u.tr.Read(buf[:])
		if !sparse {
			// Blocks that this piece is the first in.
			if berr := u.meter.take(roundUp(at+int64(n))-roundUp(at), 0); berr != nil {
				return berr
			}
		}
		if sparse {
			if werr := u.writeBlocks(f, buf[:n], at); werr != nil {
				return werr
			}
			if cerr := u.ctx.Err(); cerr != nil { // holes are read without input
				return fault.Wrap(fault.Canceled, cerr)
			}
		} else if n > 0 {
			if _, werr := f.Write(buf[:n]); werr != nil {
				return werr
			}
		}
		at += int64(n)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return u.in.blame(err)
		}
	}
}

// writeBlocks writes what is not zero.
func (u *unpacker) writeBlocks(f *os.File, data []byte, at int64) error {
	for len(data) > 0 {
		part := data[:min(len(data), len(hole))]
		if !bytes.Equal(part, hole[:len(part)]) {
			if err := u.meter.take(blockSize, 0); err != nil {
				return err
			}
			if _, err := f.WriteAt(part, at); err != nil {
				return err
			}
		}
		at += int64(len(part))
		data = data[len(part):]
	}
	return nil
}

// dir makes a directory, or takes the one that is there.
func (u *unpacker) dir(hdr *tar.Header, p, dir, name string) error {
	opaque := false
	if p != "." {
		parent, err := u.parent(dir)
		if err != nil {
			return err
		}
		if opaque, err = u.mkdir(parent, name); err != nil {
			return err
		}
	}
	f, err := u.tree.open(p)
	if err != nil {
		return err
	}
	if opaque {
		if err := kernel.SetXattr(f, opaqueXattr, "y"); err != nil {
			return err
		}
	}
	if !u.o.Mine {
		if err := kernel.Chown(f, uint32(hdr.Uid), uint32(hdr.Gid)); err != nil {
			return err
		}
	}
	if err := u.xattrs(hdr, func(attr, value string) error { return kernel.SetXattr(f, attr, value) }); err != nil {
		return err
	}
	return u.later(p, f, dirMeta{mode: u.mode(hdr), mtime: hdr.ModTime})
}

// mkdir makes a directory where none is yet; any other thing there goes. opaque:
// a whiteout was there, so that nothing from lower layers may show in the new directory.
func (u *unpacker) mkdir(parent *os.File, name string) (opaque bool, err error) {
	if err := u.meter.take(blockSize, 0); err != nil {
		return false, err
	}
	err = kernel.MkdirIn(parent, name, 0o700)
	if !errors.Is(err, os.ErrExist) {
		return false, err
	}
	st, err := kernel.StatIn(parent, name)
	if err != nil || st.Mode&kernel.TypeMask == kernel.TypeDir {
		return false, err
	}
	if u.o.KeepKinds {
		return false, fault.New(fault.Invalid, "cannot overwrite non-directory %q with directory %q", name, u.into())
	}
	if err := u.remove(parent, name); err != nil {
		return false, err
	}
	return u.o.Whiteouts && isWhiteout(st.Mode, st.Rdev), kernel.MkdirIn(parent, name, 0o700)
}

// later notes what the open directory at p gets at the end.
func (u *unpacker) later(p string, f *os.File, m dirMeta) error {
	st, err := kernel.Stat(f)
	if err != nil {
		return err
	}
	m.ino = st.Ino
	u.dirs[p] = m
	return nil
}

// parent opens the directory p and makes it, with those above, when no member has named it yet.
func (u *unpacker) parent(p string) (*os.File, error) {
	f, err := u.tree.open(p)
	whiteout := u.o.Whiteouts && errors.Is(err, syscall.ENOTDIR) // perhaps a mark that a directory was replaced
	if err == nil || !errors.Is(err, os.ErrNotExist) && !whiteout {
		return f, err
	}
	dir, name := split(p)
	above, aerr := u.parent(dir)
	if aerr != nil {
		return nil, aerr
	}
	if st, serr := kernel.StatIn(above, name); serr == nil && !(u.o.Whiteouts && isWhiteout(st.Mode, st.Rdev)) {
		return nil, err // a file, or a link to nowhere, stands where a directory is needed
	}
	if err := u.meter.take(0, 1); err != nil {
		return nil, err
	}
	opaque, err := u.mkdir(above, name)
	if err != nil {
		return nil, err
	}
	if f, err = u.tree.open(p); err != nil {
		return nil, err
	}
	if opaque {
		if err := kernel.SetXattr(f, opaqueXattr, "y"); err != nil {
			return nil, err
		}
	}
	if uid, gid, err := u.o.IDs.ToHost(0, 0); err != nil {
		return nil, err
	} else if uid != 0 || gid != 0 {
		if err := kernel.Chown(f, uid, gid); err != nil {
			return nil, err
		}
	}
	if u.o.Live {
		return f, kernel.Chmod(f, 0o755)
	}
	return f, u.later(p, f, dirMeta{mode: 0o755, mtime: time.Unix(0, 0), implied: true})
}

// marks handles members that stand for something about lower layers; done is false for all others.
func (u *unpacker) marks(hdr *tar.Header, p, dir, name string) (done bool, err error) {
	if !strings.Contains(p, whiteoutPrefix) {
		return false, nil
	}
	for part := range strings.SplitSeq(dir, "/") {
		if strings.HasPrefix(part, metaPrefix) {
			return true, nil
		}
		if strings.HasPrefix(part, whiteoutPrefix) {
			return true, fault.New(fault.Invalid, "a whiteout can't be a directory")
		}
	}
	if !strings.HasPrefix(name, whiteoutPrefix) || strings.HasPrefix(name, metaPrefix) && name != opaqueName {
		return strings.HasPrefix(name, metaPrefix), nil
	}
	hidden := strings.TrimPrefix(name, whiteoutPrefix)
	if hidden == "" || hidden == "." || hidden == ".." {
		return true, fault.New(fault.Invalid, "a whiteout of nothing")
	}
	parent, err := u.parent(dir)
	if err != nil {
		return true, err
	}
	if name == opaqueName {
		return true, kernel.SetXattr(parent, opaqueXattr, "y")
	}
	err = kernel.MknodIn(parent, hidden, kernel.TypeChar, 0)
	if !errors.Is(err, os.ErrExist) {
		return true, err
	}
	// A whiteout hides what lies below, never what its own layer brings.
	st, err := kernel.StatIn(parent, hidden)
	if err == nil && st.Mode&kernel.TypeMask == kernel.TypeDir {
		err = kernel.SetXattrIn(parent, hidden, opaqueXattr, "y")
	}
	return true, err
}

// finishDirs gives all directories their modes and times and drops those that were replaced.
func (u *unpacker) finishDirs() error {
	for p, m := range u.dirs {
		f, err := u.tree.find(p, kernel.ODirectory|kernel.ONoFollow)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.EXDEV) {
			delete(u.dirs, p)
			continue
		}
		if err != nil {
			return err
		}
		st, err := kernel.Stat(f)
		if err == nil && st.Ino != m.ino {
			delete(u.dirs, p)
		} else if err == nil {
			if err = kernel.Chmod(f, m.mode); err == nil {
				err = kernel.Times(f, m.mtime, m.mtime)
			}
		}
		fault.Close(f, &err)
		if err != nil {
			return err
		}
	}
	return nil
}
