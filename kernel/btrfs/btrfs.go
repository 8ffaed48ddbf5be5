// Package btrfs speaks to the btrfs file system by its ioctls: subvolumes, snapshots and quota groups.
//
// It is not a storage driver and runs no program: every function is one facility of the kernel
// (linux/btrfs.h and linux/btrfs_tree.h of Linux 5.10 and later). Invariant: no function keeps
// state, and none follows a symbolic link that lies inside of a subvolume.
package btrfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"berth/fault"
	"berth/kernel"
)

// Requests, from linux/btrfs.h; the size of the argument is part of the number (ioctl(2)).
const (
	magic = 0x94

	write = 1 << 30
	read  = 2 << 30

	snapDestroy    = write | 4096<<16 | magic<<8 | 15
	treeSearch     = read | write | 4096<<16 | magic<<8 | 17
	inoLookup      = read | write | 4096<<16 | magic<<8 | 18
	snapCreate     = write | 4096<<16 | magic<<8 | 23
	subvolCreate   = write | 4096<<16 | magic<<8 | 24
	getFlags       = read | 8<<16 | magic<<8 | 25
	setFlags       = write | 8<<16 | magic<<8 | 26
	quotaCtl       = read | write | 16<<16 | magic<<8 | 40
	qgroupCreate   = write | 16<<16 | magic<<8 | 42
	qgroupLimit    = read | 48<<16 | magic<<8 | 43
	rescanWait     = magic<<8 | 46
	subvolInfo     = read | 504<<16 | magic<<8 | 60
	snapDestroyV2  = write | 4096<<16 | magic<<8 | 63
	subvolReadOnly = 1 << 1 // BTRFS_SUBVOL_RDONLY
	specByID       = 1 << 4 // BTRFS_SUBVOL_SPEC_BY_ID (Linux 5.7)

	topInode  = 256 // of every subvolume (BTRFS_FIRST_FREE_OBJECTID)
	maxName   = 255 // BTRFS_VOL_NAME_MAX
	rootTree  = 1   // BTRFS_ROOT_TREE_OBJECTID
	quotaTree = 8   // BTRFS_QUOTA_TREE_OBJECTID

	fidWithoutParent = 0x4d // FILEID_BTRFS_WITHOUT_PARENT of linux/exportfs.h
)

// page is the argument of most requests. The kernel's byte order is the machine's.
type page [4096]byte

func (p *page) u64(at int) uint64       { return binary.NativeEndian.Uint64(p[at:]) }
func (p *page) put64(at int, v uint64)  { binary.NativeEndian.PutUint64(p[at:], v) }
func (p *page) put32(at int, v uint32)  { binary.NativeEndian.PutUint32(p[at:], v) }
func (p *page) u32(at int) uint32       { return binary.NativeEndian.Uint32(p[at:]) }
func (p *page) pointer() unsafe.Pointer { return unsafe.Pointer(p) }
func ioctl(f *os.File, request uint, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(kernel.FD(f)), uintptr(request), uintptr(arg))
		runtime.KeepAlive(f)
		if errno == 0 {
			return nil
		}
		if errno != unix.EINTR {
			return errno
		}
	}
}

func failed(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: name, Err: err}
}

// On tells whether f lies on a btrfs.
func On(f *os.File) (bool, error) {
	kind, err := kernel.FSType(f)
	return kind == unix.BTRFS_SUPER_MAGIC, err
}

// IsSubvolume tells whether f is the top of a subvolume or snapshot.
func IsSubvolume(f *os.File) (bool, error) {
	on, err := On(f)
	if err != nil || !on {
		return false, err
	}
	st, err := kernel.Stat(f)
	return st.Ino == topInode && st.Mode&unix.S_IFMT == unix.S_IFDIR, err
}

func checkName(name string) error {
	if name == "" || len(name) > maxName || name == "." || name == ".." {
		return fault.New(fault.Invalid, "subvolume name %q: 1 to %d bytes", name, maxName)
	}
	return nil
}

// Create makes the empty subvolume name in dir, mode 0755 less the umask, owned by the caller.
func Create(dir *os.File, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	var args page // struct btrfs_ioctl_vol_args_v2: fd, transid, flags, unused[4], name
	copy(args[56:], name)
	return failed("create subvolume", name, ioctl(dir, subvolCreate, args.pointer()))
}

// Snapshot makes name in dir a copy of the subvolume that source is the top of, which shares all bytes with it until either is written. What was written to
// source before the call is in it. Subvolumes inside of source are empty directories in it. It commits the file system's transaction: the
// snapshot is there after a power cut.
func Snapshot(source, dir *os.File, name string, readOnly bool) error {
	if err := checkName(name); err != nil {
		return err
	}
	var args page
	args.put64(0, uint64(kernel.FD(source)))
	if readOnly {
		args.put64(16, subvolReadOnly)
	}
	copy(args[56:], name)
	err := ioctl(dir, snapCreate, args.pointer())
	runtime.KeepAlive(source)
	return failed("snapshot subvolume", name, err)
}

// SetReadOnly makes the subvolume that f is the top of read-only or writable.
func SetReadOnly(f *os.File, on bool) error {
	var flags uint64
	if err := ioctl(f, getFlags, unsafe.Pointer(&flags)); err != nil {
		return failed("read flags of subvolume", f.Name(), err)
	}
	want := flags &^ subvolReadOnly
	if on {
		want |= subvolReadOnly
	}
	if want == flags {
		return nil
	}
	return failed("set flags of subvolume", f.Name(), ioctl(f, setFlags, unsafe.Pointer(&want)))
}

// IsReadOnly tells whether the subvolume that f is the top of is read-only.
func IsReadOnly(f *os.File) (bool, error) {
	var flags uint64
	err := ioctl(f, getFlags, unsafe.Pointer(&flags))
	return flags&subvolReadOnly != 0, failed("read flags of subvolume", f.Name(), err)
}

// ID is the number of the subvolume that f lies in.
func ID(f *os.File) (uint64, error) {
	var args page // struct btrfs_ioctl_ino_lookup_args: treeid, objectid, name
	args.put64(8, topInode)
	err := ioctl(f, inoLookup, args.pointer())
	return args.u64(0), failed("look up subvolume of", f.Name(), err)
}

// Info is what the file system keeps about a subvolume.
type Info struct {
	ID         uint64
	Generation uint64 // transaction that changed it last
	Made       uint64 // transaction that made it
	Copy       bool   // a snapshot of another one
}

// About describes the subvolume that f lies in.
func About(f *os.File) (Info, error) {
	var args struct { // struct btrfs_ioctl_get_subvol_info_args
		id         uint64
		name       [256]byte
		parent     uint64
		dir        uint64
		generation uint64
		flags      uint64
		uuid       [16]byte
		origin     [16]byte
		received   [16]byte
		ctransid   uint64
		otransid   uint64
		_          [2]uint64
		_          [4][2]uint64
		_          [8]uint64
	}
	err := ioctl(f, subvolInfo, unsafe.Pointer(&args))
	return Info{args.id, args.generation, args.otransid, args.origin != [16]byte{}}, failed("describe subvolume of", f.Name(), err)
}

// Delete removes the subvolume name in dir with all subvolumes inside of it; an absent one is no error. Its bytes are freed in the background, at
// the earliest when nobody has a file of it open. Where it is mounted it stays visible to those who see the mount. After a power cut it
// may be there again. It needs CAP_SYS_ADMIN and CAP_DAC_READ_SEARCH.
func Delete(dir *os.File, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	sub, err := kernel.OpenIn(dir, name, os.O_RDONLY|kernel.ODirectory|kernel.ONoFollow, 0, kernel.Beneath|kernel.NoSymlinks)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	id, err := ID(sub)
	if err == nil {
		err = deleteInside(dir, id)
	}
	if err = errors.Join(err, sub.Close()); err != nil {
		return fmt.Errorf("delete subvolume %s: %w", name, err)
	}
	var args page // struct btrfs_ioctl_vol_args: fd, name
	copy(args[8:], name)
	if err := ioctl(dir, snapDestroy, args.pointer()); err != nil && err != unix.ENOENT {
		return failed("delete subvolume", name, err)
	}
	dropGroup(dir, id)
	return nil
}

// deleteInside removes the subvolumes inside of the one with that number, the innermost first. Any process that may write
// there can make them, as deep as it likes and read-only, so no path is walked.
func deleteInside(dir *os.File, id uint64) error {
	refs, err := below(dir, id)
	if err != nil {
		return err
	}
	for k := len(refs) - 1; k > 0; k-- {
		if err := deleteByID(dir, refs[k]); err != nil {
			return fmt.Errorf("subvolume %d inside of it: %w", refs[k].id, err)
		}
	}
	return nil
}

// below lists a subvolume and all that lie in it, parents before children.
func below(f *os.File, id uint64) ([]ref, error) {
	refs := []ref{{id: id}}
	for k := 0; k < len(refs); k++ {
		inside, err := Inside(f, refs[k].id)
		if err != nil {
			return nil, err
		}
		for _, c := range inside {
			refs = append(refs, ref{c, refs[k].id})
		}
	}
	return refs, nil
}

// ref is a subvolume and the one that it lies in.
type ref struct{ id, parent uint64 }

func deleteByID(dir *os.File, r ref) error {
	parent, err := openByID(dir, r.parent)
	if err != nil {
		return err
	}
	err = SetReadOnly(parent, false)
	if err = errors.Join(err, parent.Close()); err != nil {
		return err
	}
	var args page // struct btrfs_ioctl_vol_args_v2
	args.put64(16, specByID)
	args.put64(56, r.id)
	if err := ioctl(dir, snapDestroyV2, args.pointer()); err != nil && err != unix.ENOENT {
		return os.NewSyscallError("ioctl", err)
	}
	dropGroup(dir, r.id)
	return nil
}

// openByID opens the top of a subvolume in the file system of dir, wherever it lies (open_by_handle_at(2); struct btrfs_fid). One that is gone
// gives ESTALE.
func openByID(dir *os.File, id uint64) (*os.File, error) {
	generation, err := generationOf(dir, id)
	if err != nil {
		return nil, fmt.Errorf("open subvolume %d: %w", id, err)
	}
	var fid [20]byte // inode, subvolume, generation of the inode
	binary.NativeEndian.PutUint64(fid[0:], topInode)
	binary.NativeEndian.PutUint64(fid[8:], id)
	binary.NativeEndian.PutUint32(fid[16:], generation)
	n, err := unix.OpenByHandleAt(kernel.FD(dir), unix.NewFileHandle(fidWithoutParent, fid[:]), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC)
	runtime.KeepAlive(dir)
	if err != nil {
		return nil, fmt.Errorf("open subvolume %d: %w", id, err)
	}
	return os.NewFile(uintptr(n), fmt.Sprintf("subvolume %d", id)), nil
}
