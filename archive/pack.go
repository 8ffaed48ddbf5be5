package archive

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"berth/fault"
	"berth/kernel"
)

// PackOptions says what Pack writes.
type PackOptions struct {
	// Whiteouts translates overlay's 0/0 devices and opaque directories into .wh. members.
	Whiteouts bool
}

// Pack writes the tree beneath root as a tar stream with its end marker. The
// same tree gives the same bytes: members sorted by name, times in whole seconds, numeric owners only.
// The root itself is a member ("./") only when its owner, mode or attributes aren't 0:0, 0755 and none.
// Sockets are left out. A file that shrinks meanwhile is an error. root stays the caller's.
func Pack(ctx context.Context, w io.Writer, root *os.File, o PackOptions) error {
	p := &packer{ctx: ctx, o: o, tw: tar.NewWriter(w), links: map[inode]string{}}
	top, err := kernel.OpenIn(root, ".", kernel.ODirectory, 0, 0)
	if err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	defer top.Close()
	if err := p.top(top); err != nil {
		return err
	}
	if err := p.children(top, ""); err != nil {
		return err
	}
	return p.tw.Close()
}

type packer struct {
	ctx   context.Context
	o     PackOptions
	tw    *tar.Writer
	links map[inode]string // first name of what has several
}

type inode struct{ dev, ino uint64 }

func (p *packer) top(dir *os.File) error {
	st, err := kernel.Stat(dir)
	if err != nil {
		return err
	}
	records, opaque, err := p.attributes(dir, ".")
	if err != nil {
		return err
	}
	if st.Mode&0o7777 != 0o755 || st.Uid != 0 || st.Gid != 0 || len(records) > 0 {
		hdr := header("./", st.Mode, st.Uid, st.Gid, st.Mtim.Unix)
		hdr.Typeflag, hdr.PAXRecords = tar.TypeDir, records
		if err := p.tw.WriteHeader(hdr); err != nil {
			return fmt.Errorf("pack the root directory: %w", err)
		}
	}
	return p.opaque("", opaque)
}

func header(name string, mode, uid, gid uint32, mtime func() (int64, int64)) *tar.Header {
	sec, _ := mtime()
	return &tar.Header{
		Name: name, Mode: int64(mode & 0o7777), Uid: int(uid), Gid: int(gid),
		ModTime: time.Unix(sec, 0), Format: tar.FormatPAX,
	}
}

// opaque writes the mark of an opaque directory.
func (p *packer) opaque(prefix string, is bool) error {
	if !is || !p.o.Whiteouts {
		return nil
	}
	return p.tw.WriteHeader(mark(prefix + opaqueName))
}

// mark is a member that only stands for something: when it was made means nothing.
func mark(name string) *tar.Header {
	return &tar.Header{Name: name, Typeflag: tar.TypeReg, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
}

// attributes gives the extended attributes as PAX records.
func (p *packer) attributes(dir *os.File, name string) (records map[string]string, opaque bool, err error) {
	all, err := kernel.XattrsIn(dir, name)
	for attr, value := range all {
		switch {
		case attr == opaqueXattr:
			opaque = value == "y"
		case carried(attr):
			if records == nil {
				records = map[string]string{}
			}
			records["SCHILY.xattr."+attr] = value
		}
	}
	return records, opaque, err
}

func (p *packer) children(dir *os.File, prefix string) error {
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("pack %q: %w", prefix, err)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := p.ctx.Err(); err != nil {
			return fault.New(fault.Canceled, "pack: %w", err)
		}
		if err := p.child(dir, prefix, name); err != nil {
			return err
		}
	}
	return nil
}

func (p *packer) child(dir *os.File, prefix, name string) error {
	full := prefix + name
	st, err := kernel.StatIn(dir, name)
	if err != nil {
		return p.failed(full, err)
	}
	hdr := header(full, st.Mode, st.Uid, st.Gid, st.Mtim.Unix)
	kind := st.Mode & kernel.TypeMask
	if p.o.Whiteouts && isWhiteout(st.Mode, st.Rdev) {
		return p.write(full, mark(prefix+whiteoutPrefix+name))
	}
	if kind != kernel.TypeDir && st.Nlink > 1 && kind != kernel.TypeSocket {
		id := inode{st.Dev, st.Ino}
		if first, ok := p.links[id]; ok {
			hdr.Typeflag, hdr.Linkname = tar.TypeLink, first
			return p.write(full, hdr)
		}
		p.links[id] = full
	}
	var opaque bool
	if hdr.PAXRecords, opaque, err = p.attributes(dir, name); err != nil {
		return p.failed(full, err)
	}
	switch kind {
	case kernel.TypeDir:
		return p.failed(full, p.dir(dir, name, full, hdr, opaque))
	case kernel.TypeRegular:
		return p.failed(full, p.file(dir, name, hdr))
	case kernel.TypeSymlink:
		hdr.Typeflag = tar.TypeSymlink
		if hdr.Linkname, err = kernel.ReadlinkIn(dir, name); err != nil {
			return p.failed(full, err)
		}
	case kernel.TypeFifo:
		hdr.Typeflag = tar.TypeFifo
	case kernel.TypeChar, kernel.TypeBlock:
		hdr.Typeflag = map[uint32]byte{kernel.TypeChar: tar.TypeChar, kernel.TypeBlock: tar.TypeBlock}[kind]
		major, minor := kernel.DevNumbers(st.Rdev)
		hdr.Devmajor, hdr.Devminor = int64(major), int64(minor)
	default:
		return nil // a socket means nothing without its listener
	}
	return p.write(full, hdr)
}

// packError has named its member already.
type packError struct{ error }

func (e packError) Unwrap() error { return e.error }

func (p *packer) failed(name string, err error) error {
	if inner := (packError{}); err == nil || errors.As(err, &inner) {
		return err
	}
	return packError{fmt.Errorf("pack %q: %w", name, err)}
}

func (p *packer) write(name string, hdr *tar.Header) error {
	return p.failed(name, p.tw.WriteHeader(hdr))
}

func (p *packer) dir(dir *os.File, name, full string, hdr *tar.Header, opaque bool) error {
	hdr.Typeflag, hdr.Name = tar.TypeDir, full+"/"
	if err := p.tw.WriteHeader(hdr); err != nil {
		return err
	}
	if err := p.opaque(full+"/", opaque); err != nil {
		return err
	}
	sub, err := kernel.OpenIn(dir, name, kernel.ODirectory|kernel.ONoFollow, 0, 0)
	if err != nil {
		return err
	}
	defer sub.Close()
	return p.children(sub, full+"/")
}

func (p *packer) file(dir *os.File, name string, hdr *tar.Header) error {
	// Nonblocking: should the name have become a fifo meanwhile, the open doesn't hang.
	f, err := kernel.OpenIn(dir, name, kernel.ONoFollow|kernel.ONonblock, 0, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := kernel.Stat(f)
	if err != nil {
		return err
	}
	if st.Mode&kernel.TypeMask != kernel.TypeRegular {
		return fault.New(fault.Conflict, "it changed its kind while it was read")
	}
	hdr.Typeflag, hdr.Size = tar.TypeReg, st.Size
	if err := p.tw.WriteHeader(hdr); err != nil {
		return err
	}
	buf := buffers.Get().(*[256 << 10]byte)
	defer buffers.Put(buf)
	left := st.Size
	for left > 0 {
		n, err := f.Read(buf[:min(left, int64(len(buf)))])
		if n > 0 {
			if _, err := p.tw.Write(buf[:n]); err != nil {
				return err
			}
			left -= int64(n)
		}
		if err == io.EOF && left > 0 {
			return fault.New(fault.Conflict, "it shrank by %d bytes while it was read", left)
		}
		if err != nil {
			return err
		}
		if err := p.ctx.Err(); err != nil {
			return fault.New(fault.Canceled, "%w", err)
		}
	}
	return nil
}
