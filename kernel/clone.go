package kernel

import (
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Clone makes dst the whole content of src without copying a byte: they share their blocks until one of them is written (ioctl_ficlone(2)).
// errors.ErrUnsupported where the file system can't, or the files lie on different ones.
func Clone(dst, src *os.File) error {
	err := retry(func() error { return unix.IoctlFileClone(fd(dst), fd(src)) })
	keep(dst, src)
	if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTTY) {
		err = unix.EOPNOTSUPP
	}
	return pathError("clone into", dst.Name(), err)
}

// OwnBytes is what of a file's blocks no other file shares, in bytes (FS_IOC_FIEMAP; linux/fiemap.h). Where the file system doesn't tell,
// it is all of them.
func OwnBytes(f *os.File) (own int64, err error) {
	defer keep(f)
	for at := uint64(0); ; {
		m := fiemap{Start: at, Length: ^uint64(0) - at, Count: uint32(len(fiemap{}.Extents))}
		err := retry(func() error {
			if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd(f)), fiemapRequest, uintptr(unsafe.Pointer(&m))); errno != 0 {
				return errno
			}
			return nil
		})
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOTTY) {
			st, err := Stat(f)
			return st.Blocks * 512, err
		}
		if err != nil {
			return 0, pathError("map the extents of", f.Name(), err)
		}
		for _, e := range m.Extents[:m.Mapped] {
			if e.Flags&(extentShared|extentInline) == 0 {
				own += int64(e.Length)
			}
			at = e.Logical + e.Length
			if e.Flags&extentLast != 0 {
				return own, nil
			}
		}
		if m.Mapped == 0 {
			return own, nil
		}
	}
}

// fiemap is struct fiemap with room for some extents.
type fiemap struct {
	Start, Length uint64
	Flags, Mapped uint32
	Count, _      uint32
	Extents       [64]fiemapExtent
}

// fiemapExtent is struct fiemap_extent.
type fiemapExtent struct {
	Logical, Physical, Length uint64
	_                         [2]uint64
	Flags                     uint32
	_                         [3]uint32
}

const (
	fiemapRequest = 0xc020660b // _IOWR('f', 11, struct fiemap)
	extentLast    = 0x1
	extentInline  = 0x200 // in the inode itself
	extentShared  = 0x2000
)
