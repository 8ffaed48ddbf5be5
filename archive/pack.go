package archive

import (
	"archive/tar"
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"berth/fault"
	"berth/kernel"
)

// PackOptions says what Pack writes.
type PackOptions struct {
	// Whiteouts translates overlay's 0/0 devices and opaque directories into .wh. members, and leaves out the files that fuse-overlayfs has for itself.
	Whiteouts bool
	// IDs are those of a container whose tree it is: the archive gets owners as the container sees them.
	IDs IDMap
	// Live says that others may work in the tree: what vanishes is left out, what shrinks is filled up with zeros. File systems
	// that the kernel makes up, such as /proc, become empty directories below the top.
	Live bool
	// Hollow tells directories, by device and inode, that become empty ones too; nil: none.
	Hollow func(dev, ino uint64) bool
	// Pick, unless it is nil, chooses what is packed of a directory, which it gets as the path below the top ("" for the top itself): the names, and those
	// that become whiteouts, each list sorted; or all.
	Pick func(dir string) (names, gone []string, all bool)
	// Top makes the root itself a member in any case.
	Top bool
	// Holes writes files with holes as sparse members (PAX format 1.0 of GNU tar), which only readers of such archives understand.
	Holes bool
	// Member, when not nil, is asked before each member is written, and may change its mode and owner. keep: write it; enter: go on with what
	// lies below a directory, each of which is asked for by itself.
	Member func(hdr *tar.Header) (keep, enter bool)
}

// Pack writes the tree beneath root as a tar stream with its end marker. The
// same tree gives the same bytes: members sorted by name, times in whole seconds, numeric owners only.
// The root itself is a member ("./") only when its owner, mode or attributes aren't 0:0, 0755 and none.
// Sockets are left out. A file that shrinks meanwhile is an error. root stays the caller's.
func Pack(ctx context.Context, w io.Writer, root *os.File, o PackOptions) error {
	p := NewPacker(ctx, w, o)
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
	return p.Close()
}

// Packer writes parts of trees into one tar stream.
type Packer struct {
	ctx   context.Context
	o     PackOptions
	out   *bufio.Writer
	tw    *tar.Writer
	links map[inode]string // first name of what has several
}

type inode struct{ dev, ino uint64 }

// NewPacker begins a stream to w, which stays the caller's.
func NewPacker(ctx context.Context, w io.Writer, o PackOptions) *Packer {
	out := bufio.NewWriterSize(w, 128<<10) // headers are small, and who reads is often another goroutine or process
	return &Packer{ctx: ctx, o: o, out: out, tw: tar.NewWriter(out), links: map[inode]string{}}
}

// Add writes what is called name in dir, "." for dir itself, with all below it, as the member called as. With "" the members'
// names begin with a slash. A symbolic link is a member itself.
func (p *Packer) Add(dir *os.File, name, as string) error { return p.child(dir, name, as, false) }

// Close writes the end marker and all that was held back.
func (p *Packer) Close() error {
	if err := p.tw.Close(); err != nil {
		return err
	}
	return p.out.Flush()
}

func (p *Packer) top(dir *os.File) error {
	st, err := kernel.Stat(dir)
	if err != nil {
		return err
	}
	records, opaque, err := p.attributes(dir, ".")
	if err != nil {
		return err
	}
	hdr := p.header("./", st.Mode, st.Uid, st.Gid, st.Mtim.Unix)
	if p.o.Top || st.Mode&0o7777 != 0o755 || hdr.Uid != 0 || hdr.Gid != 0 || len(records) > 0 {
		hdr.Typeflag, hdr.PAXRecords = tar.TypeDir, records
		if err := p.tw.WriteHeader(hdr); err != nil {
			return fmt.Errorf("pack the root directory: %w", err)
		}
	}
	return p.opaque("", opaque)
}

func (p *Packer) header(name string, mode, uid, gid uint32, mtime func() (int64, int64)) *tar.Header {
	sec, _ := mtime()
	uid, gid = p.o.IDs.ToContainer(uid, gid)
	return &tar.Header{
		Name: name, Mode: int64(mode & 0o7777), Uid: int(uid), Gid: int(gid),
		ModTime: time.Unix(sec, 0), Format: tar.FormatPAX,
	}
}

// opaque writes the mark of an opaque directory.
func (p *Packer) opaque(prefix string, is bool) error {
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
func (p *Packer) attributes(dir *os.File, name string) (records map[string]string, opaque bool, err error) {
	all, err := kernel.XattrsIn(dir, name)
	for attr, value := range all {
		switch {
		case attr == opaqueXattr:
			opaque = value == "y"
		case Carries(attr):
			if records == nil {
				records = map[string]string{}
			}
			if attr == "security.capability" {
				value = p.capability(value)
			}
			records["SCHILY.xattr."+attr] = value
		}
	}
	return records, opaque, err
}

// capability gives a file's as layers have it. Given by a container's root on files whose owners are shifted, it names the host's id of that root, in
// 4 bytes behind version 2's 20 (capabilities(7), "File capability extended attribute versioning").
func (p *Packer) capability(value string) string {
	const version, v2 = 3, 20 // where the version lies, and how long version 2 is
	if p.o.IDs.Empty() || len(value) != v2+4 || value[version] != 3 {
		return value
	}
	if root, _ := p.o.IDs.ToContainer(binary.LittleEndian.Uint32([]byte(value[v2:])), 0); root != 0 {
		return value
	}
	return value[:version] + "\x02" + value[version+1:v2]
}

func (p *Packer) children(dir *os.File, prefix string) error {
	names, gone, all := []string(nil), []string(nil), true
	if p.o.Pick != nil {
		names, gone, all = p.o.Pick(prefix)
	}
	if all {
		var err error
		if names, err = dir.Readdirnames(-1); err != nil && !p.vanished(err) {
			return fmt.Errorf("pack %q: %w", prefix, err)
		}
	}
	both := slices.Concat(names, gone)
	slices.Sort(both)
	for _, name := range both {
		if p.o.Whiteouts && ofUnion(name) {
			continue
		}
		if err := p.ctx.Err(); err != nil {
			return fault.New(fault.Canceled, "pack: %w", err)
		}
		if _, without := slices.BinarySearch(gone, name); without {
			if err := p.write(prefix+name, mark(prefix+whiteoutPrefix+name)); err != nil {
				return err
			}
			continue
		}
		if err := p.child(dir, name, prefix+name, true); err != nil {
			return err
		}
	}
	return nil
}

// ofUnion tells the names of files that a file system leaves in a writable directory for itself, such as fuse-overlayfs in one that
// is opaque. A file of a container's that is called so would be taken for one when the archive is unpacked.
func ofUnion(name string) bool {
	return name == ".wh..opq" || strings.HasPrefix(name, ".wh..wh.")
}

// vanished tells an error by which a live tree says that something went or was replaced since its directory was read.
func (p *Packer) vanished(err error) bool {
	return p.o.Live && (errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) || errors.Is(err, errReplaced))
}

// child writes what is called name in dir as full; inner: it was found in a directory that is being packed.
func (p *Packer) child(dir *os.File, name, full string, inner bool) error {
	st, err := kernel.StatIn(dir, name)
	if err != nil {
		if inner && p.vanished(err) {
			return nil
		}
		return p.failed(full, err)
	}
	hdr := p.header(full, st.Mode, st.Uid, st.Gid, st.Mtim.Unix)
	kind := st.Mode & kernel.TypeMask
	if p.o.Whiteouts && isWhiteout(st.Mode, st.Rdev) {
		dir, base := path.Split(full)
		return p.write(full, mark(dir+whiteoutPrefix+base))
	}
	enter := true
	if hdr.Typeflag = typeflags[kind]; p.o.Member != nil {
		var keep bool
		if keep, enter = p.o.Member(hdr); !keep {
			if kind != kernel.TypeDir || !enter {
				return nil
			}
			return p.failed(full, p.below(dir, name, full))
		}
	}
	if kind != kernel.TypeDir && st.Nlink > 1 && kind != kernel.TypeSocket {
		id := inode{st.Dev, st.Ino}
		if first, ok := p.links[id]; ok {
			hdr.Typeflag, hdr.Linkname = tar.TypeLink, first
			return p.write(full, hdr)
		}
		p.links[id] = full
	}
	written := false
	err = p.content(dir, name, hdr, member{kind, st.Rdev, inner, enter, &written})
	if !written && inner && p.vanished(err) {
		delete(p.links, inode{st.Dev, st.Ino})
		return nil
	}
	return p.failed(full, err)
}

// typeflags are the types of members as tar(5) has them.
var typeflags = map[uint32]byte{
	kernel.TypeRegular: tar.TypeReg, kernel.TypeDir: tar.TypeDir, kernel.TypeSymlink: tar.TypeSymlink,
	kernel.TypeFifo: tar.TypeFifo, kernel.TypeChar: tar.TypeChar, kernel.TypeBlock: tar.TypeBlock,
}

// below writes what a directory has that is no member itself.
func (p *Packer) below(dir *os.File, name, full string) (err error) {
	sub, err := kernel.OpenIn(dir, name, kernel.ODirectory|kernel.ONoFollow, 0, 0)
	if err != nil {
		return err
	}
	defer fault.Close(sub, &err)
	return p.children(sub, full+"/")
}

// member is what child knows of one.
type member struct {
	kind    uint32
	rdev    uint64
	inner   bool
	enter   bool
	written *bool // set once the header is out
}

// content writes a member that is no further name of one before.
func (p *Packer) content(dir *os.File, name string, hdr *tar.Header, m member) (err error) {
	var opaque bool
	if hdr.PAXRecords, opaque, err = p.attributes(dir, name); err != nil {
		return err
	}
	switch m.kind {
	case kernel.TypeDir:
		return p.dir(dir, name, hdr, opaque, m)
	case kernel.TypeRegular:
		return p.file(dir, name, hdr, m.written)
	case kernel.TypeSymlink:
		if hdr.Linkname, err = kernel.ReadlinkIn(dir, name); err != nil {
			return err
		}
	case kernel.TypeFifo:
	case kernel.TypeChar, kernel.TypeBlock:
		major, minor := kernel.DevNumbers(m.rdev)
		hdr.Devmajor, hdr.Devminor = int64(major), int64(minor)
	default:
		return nil // a socket means nothing without its listener
	}
	*m.written = true
	return p.tw.WriteHeader(hdr)
}

// packError has named its member already.
type packError struct{ error }

func (e packError) Unwrap() error { return e.error }

func (p *Packer) failed(name string, err error) error {
	if inner := (packError{}); err == nil || errors.As(err, &inner) {
		return err
	}
	return packError{fmt.Errorf("pack %q: %w", name, err)}
}

func (p *Packer) write(name string, hdr *tar.Header) error {
	return p.failed(name, p.tw.WriteHeader(hdr))
}

func (p *Packer) dir(dir *os.File, name string, hdr *tar.Header, opaque bool, m member) error {
	sub, err := kernel.OpenIn(dir, name, kernel.ODirectory|kernel.ONoFollow, 0, 0)
	if err != nil {
		return err
	}
	defer sub.Close()
	prefix := hdr.Name + "/"
	hdr.Name, *m.written = prefix, true
	if err := p.tw.WriteHeader(hdr); err != nil {
		return err
	}
	if err := p.opaque(prefix, opaque); err != nil {
		return err
	}
	if m.inner {
		if hollow, err := p.hollow(sub); err != nil || hollow {
			return err
		}
	}
	if !m.enter {
		return nil
	}
	return p.children(sub, prefix)
}

// hollow tells a directory whose content is nobody's files.
func (p *Packer) hollow(dir *os.File) (bool, error) {
	if p.o.Live {
		if made, err := MadeUp(dir); err != nil || made {
			return made, err
		}
	}
	if p.o.Hollow == nil {
		return false, nil
	}
	st, err := kernel.Stat(dir)
	return err == nil && p.o.Hollow(st.Dev, st.Ino), err
}

// MadeUp tells whether f lies on a file system whose content the kernel makes up when it is read.
func MadeUp(f *os.File) (bool, error) {
	magic, err := kernel.FSType(f)
	return kernel.MadeUp(magic), err
}
