// Package block works on block devices: loop devices over files, sizes, discards, and growing the file system on one.
//
// It is not a volume manager. Invariant: a loop device lives no longer than its last user; the kernel frees it, whatever dies.
package block

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"berth/fault"
	"berth/kernel"
)

// Loop gives the file a loop device (loop(4); LOOP_CONFIGURE, Linux 5.8) and returns it open: it is free again
// when that and every other holder is closed. Requests bypass the page cache where the file can do that. A node that /dev
// lacks is made in the directory nodes and removed at once. fault.Unsupported: this kernel has no loop devices.
func Loop(file *os.File, nodes string) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, fault.New(fault.Unsupported, "find a loop device: %w", err)
	}
	defer control.Close()
	for range 100 { // somebody else may be faster
		n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(kernel.FD(control)), unix.LOOP_CTL_GET_FREE, 0)
		if errno != 0 {
			return nil, fmt.Errorf("find a loop device: %w", errno)
		}
		dev, err := openLoop(int(n), nodes)
		if err != nil {
			return nil, err
		}
		config := unix.LoopConfig{Fd: uint32(kernel.FD(file))}
		config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_DIRECT_IO
		copy(config.Info.File_name[:len(config.Info.File_name)-1], file.Name()) // for losetup
		err = ioctl(dev, unix.LOOP_CONFIGURE, unsafe.Pointer(&config))
		runtime.KeepAlive(file)
		if err == nil {
			return dev, nil
		}
		dev.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("attach %s to a loop device: %w", file.Name(), err)
		}
	}
	return nil, fault.New(fault.Conflict, "attach %s to a loop device: every free one was taken by somebody else", file.Name())
}

func openLoop(n int, nodes string) (*os.File, error) {
	const major = 7 // Documentation/admin-guide/devices.txt
	dev, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
	if !errors.Is(err, os.ErrNotExist) {
		return dev, err
	}
	own := filepath.Join(nodes, fmt.Sprintf("loop%d", n))
	if err := unix.Mknod(own, unix.S_IFBLK|0o600, int(unix.Mkdev(major, uint32(n)))); err != nil && err != unix.EEXIST {
		return nil, &os.PathError{Op: "mknod", Path: own, Err: err}
	}
	dev, err = os.OpenFile(own, os.O_RDWR, 0)
	return dev, errors.Join(err, os.Remove(own))
}

// Numbers names an open device as MAJOR:MINOR.
func Numbers(dev *os.File) (string, error) {
	var st unix.Stat_t
	err := unix.Fstat(kernel.FD(dev), &st)
	runtime.KeepAlive(dev)
	if err != nil {
		return "", &os.PathError{Op: "stat", Path: dev.Name(), Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return "", fault.New(fault.Invalid, "%s is not a block device", dev.Name())
	}
	return fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)), nil
}

// Size is the size of an open device in bytes.
func Size(dev *os.File) (int64, error) {
	var size uint64
	if err := ioctl(dev, unix.BLKGETSIZE64, unsafe.Pointer(&size)); err != nil {
		return 0, fmt.Errorf("size of %s: %w", dev.Name(), err)
	}
	return int64(size), nil
}

// Discard tells the device that its whole content is not needed any more; fault.Unsupported when it has no use for that.
func Discard(dev *os.File) error {
	size, err := Size(dev)
	if err != nil {
		return err
	}
	all := [2]uint64{0, uint64(size)}
	err = ioctl(dev, unix.BLKDISCARD, unsafe.Pointer(&all))
	if errors.Is(err, unix.EOPNOTSUPP) {
		return fault.New(fault.Unsupported, "discard %s: %w", dev.Name(), err)
	}
	if err != nil {
		return fmt.Errorf("discard %s: %w", dev.Name(), err)
	}
	return nil
}

// Requests to a mounted file system to take more of its device (linux/fs/ext4/ext4.h; fs/xfs/libxfs/xfs_fs.h).
const (
	ext4Resize = 0x40086610 // _IOW('f', 16, __u64)
	xfsGrow    = 0x4010586e // _IOW('X', 110, struct xfs_growfs_data)
)

// Grow grows the mounted file system that dir is in, an ext4 or xfs, to bytes of its device; one that is as large stays.
func Grow(dir *os.File, bytes int64) error {
	var st unix.Statfs_t
	err := unix.Fstatfs(kernel.FD(dir), &st)
	runtime.KeepAlive(dir)
	if err != nil {
		return &os.PathError{Op: "statfs", Path: dir.Name(), Err: err}
	}
	blocks := uint64(bytes) / uint64(st.Bsize)
	switch st.Type {
	case unix.EXT4_SUPER_MAGIC:
		err = ioctl(dir, ext4Resize, unsafe.Pointer(&blocks))
	case unix.XFS_SUPER_MAGIC:
		grow := struct {
			blocks         uint64
			inodes, unused uint32
		}{blocks, 25, 0} // percent for inodes, as mkfs.xfs has it below 1 TiB
		err = ioctl(dir, xfsGrow, unsafe.Pointer(&grow))
	default:
		return fault.New(fault.Unsupported, "grow file system at %s: type %#x is neither ext4 nor xfs", dir.Name(), st.Type)
	}
	if err != nil {
		return fmt.Errorf("grow file system at %s to %d bytes: %w", dir.Name(), bytes, err)
	}
	return nil
}

func ioctl(f *os.File, number uintptr, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(kernel.FD(f)), number, uintptr(arg))
		runtime.KeepAlive(f)
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}

// Open opens the device with the number MAJOR:MINOR for reading, by a node in the directory nodes that is gone again when it returns.
func Open(numbers, nodes string) (*os.File, error) {
	var major, minor uint32
	if _, err := fmt.Sscanf(numbers, "%d:%d", &major, &minor); err != nil {
		return nil, fault.New(fault.Invalid, "open device %q: MAJOR:MINOR is wanted", numbers)
	}
	path := filepath.Join(nodes, fmt.Sprintf("block-%d-%d", major, minor))
	if err := unix.Mknod(path, unix.S_IFBLK|0o600, int(unix.Mkdev(major, minor))); err != nil && err != unix.EEXIST {
		return nil, &os.PathError{Op: "mknod", Path: path, Err: err}
	}
	dev, err := os.Open(path)
	return dev, errors.Join(err, os.Remove(path))
}

// DropCache forgets what the kernel remembers of an open device's content, for a reader of what others write past that (BLKFLSBUF).
func DropCache(dev *os.File) error {
	if err := unix.IoctlSetInt(kernel.FD(dev), unix.BLKFLSBUF, 0); err != nil {
		return fmt.Errorf("drop cache of %s: %w", dev.Name(), err)
	}
	runtime.KeepAlive(dev)
	return nil
}
