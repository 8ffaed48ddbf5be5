// Package quota bounds what directory trees take on disk, by project quotas of ext4 and xfs.
//
// It is not a register: which directory has which project is written in the file system alone, and who asks
// chooses the numbers. Invariant: no function changes a project that the caller did not name.
package quota

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"berth/fault"
	"berth/kernel"
)

// Of linux/fs.h, linux/quota.h and linux/dqblk_xfs.h.
const (
	getAttributes  = 2<<30 | 28<<16 | 'X'<<8 | 31 // FS_IOC_FSGETXATTR
	setAttributes  = 1<<30 | 28<<16 | 'X'<<8 | 32 // FS_IOC_FSSETXATTR
	projectInherit = 0x200                        // FS_XFLAG_PROJINHERIT

	projects   = 2 // PRJQUOTA
	getQuota   = 0x800007
	setQuota   = 0x800008
	getState   = 'X'<<8 | 8 // Q_XGETQSTATV
	blockLimit = 1          // QIF_BLIMITS
	enforced   = 1 << 5     // FS_QUOTA_PDQ_ENFD
	block      = 1024       // bytes; QIF_DQBLKSIZE
)

// attributes is struct fsxattr.
type attributes struct {
	flags, extent, extents, project, cowExtent uint32
	_                                          [8]byte
}

// limits is struct if_dqblk. Blocks are of 1,024 bytes, the space in use is counted in bytes.
type limits struct {
	hard, soft, space    uint64
	inodeHard, inodeSoft uint64
	inodes               uint64
	blockTime, inodeTime uint64
	valid                uint32
	_                    uint32
}

// state is struct fs_quota_statv.
type state struct {
	version int8
	_       uint8
	flags   uint16
	_       [156]byte
}

// Check tells whether limits of projects are kept on the file system of dir: nil, or fault.Unsupported with what is missing.
func Check(dir *os.File) error {
	s := state{version: 1}
	err := call(dir, getState, 0, unsafe.Pointer(&s))
	switch {
	case errors.Is(err, unix.EPERM):
		return fault.New(fault.Unsupported, "quotas can be set by root alone: %w", err)
	case err != nil:
		return fault.New(fault.Unsupported, "its file system keeps no quotas of projects: %w", err)
	case s.flags&enforced == 0:
		return fault.New(fault.Unsupported, "its file system is mounted without quotas of projects")
	}
	_, err = Project(dir)
	return err
}

// Project gives the project that what is made in dir belongs to; 0 is none.
func Project(dir *os.File) (uint32, error) {
	a, err := get(dir)
	return a.project, err
}

// Assign makes the directory dir, and what will be made in it, part of a project. What is in it already stays as it is.
func Assign(dir *os.File, project uint32) error {
	a, err := get(dir)
	if err != nil {
		return err
	}
	a.project, a.flags = project, a.flags|projectInherit
	return control(dir, setAttributes, &a)
}

// Set bounds what a project's files take on the file system of dir to that many bytes, rounded up to whole
// blocks of 1,024; 0 is no bound.
func Set(dir *os.File, project uint32, bytes int64) error {
	l := limits{hard: (uint64(bytes) + block - 1) / block, valid: blockLimit}
	return failed("set the quota of project", project, call(dir, setQuota, project, unsafe.Pointer(&l)))
}

// Get gives a project's bound and what its files take, in bytes, on the file system of dir.
func Get(dir *os.File, project uint32) (bound, used int64, err error) {
	var l limits
	err = call(dir, getQuota, project, unsafe.Pointer(&l))
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) { // never heard of
		return 0, 0, nil
	}
	return int64(l.hard * block), int64(l.space), failed("read the quota of project", project, err)
}

func failed(what string, project uint32, err error) error {
	if err != nil {
		err = fmt.Errorf("%s %d: %w", what, project, err)
	}
	return err
}

func get(dir *os.File) (a attributes, err error) {
	return a, control(dir, getAttributes, &a)
}

func control(dir *os.File, request uint, a *attributes) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(kernel.FD(dir)), uintptr(request), uintptr(unsafe.Pointer(a)))
		runtime.KeepAlive(dir)
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		case unix.ENOTTY, unix.EOPNOTSUPP, unix.EINVAL:
			return fault.New(fault.Unsupported, "its file system has no projects: %w", &os.PathError{Op: "ioctl", Path: dir.Name(), Err: errno})
		default:
			return &os.PathError{Op: "ioctl", Path: dir.Name(), Err: errno}
		}
	}
}

// call is quotactl_fd(2), Linux 5.14, or before that quotactl(2) by the device that dir lies on.
func call(dir *os.File, command int, id uint32, data unsafe.Pointer) error {
	how := uintptr(command<<8 | projects)
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, uintptr(kernel.FD(dir)), how, uintptr(id), uintptr(data), 0, 0)
	runtime.KeepAlive(dir)
	if errno == unix.ENOSYS {
		st, err := kernel.Stat(dir)
		if err != nil {
			return err
		}
		device, err := unix.BytePtrFromString(fmt.Sprintf("/dev/block/%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)))
		if err != nil {
			return err
		}
		_, _, errno = unix.Syscall6(unix.SYS_QUOTACTL, how, uintptr(unsafe.Pointer(device)), uintptr(id), uintptr(data), 0, 0)
		runtime.KeepAlive(device)
	}
	if errno != 0 {
		return errno
	}
	return nil
}
