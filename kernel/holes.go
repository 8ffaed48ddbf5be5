package kernel

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// SeekData finds the first byte at or after offset that is not in a hole (lseek(2)); ok is false when there is none. It moves f's position.
func SeekData(f *os.File, offset int64) (at int64, ok bool, err error) {
	err = retry(func() (err error) {
		at, err = unix.Seek(fd(f), offset, unix.SEEK_DATA)
		return err
	})
	keep(f)
	if errors.Is(err, unix.ENXIO) {
		return 0, false, nil
	}
	return at, err == nil, seekError(f, err)
}

// SeekHole finds the first hole at or after offset, at the latest the end of the file. It moves f's position.
func SeekHole(f *os.File, offset int64) (at int64, err error) {
	err = retry(func() (err error) {
		at, err = unix.Seek(fd(f), offset, unix.SEEK_HOLE)
		return err
	})
	keep(f)
	return at, seekError(f, err)
}

func seekError(f *os.File, err error) error {
	if errors.Is(err, unix.EINVAL) { // a file system without the notion
		err = unix.ENOTSUP
	}
	return pathError("seek", f.Name(), err)
}

// MadeUp tells the magic numbers (statfs(2)) of file systems whose files exist only while they are read.
func MadeUp(magic int64) bool {
	switch magic {
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.DEVPTS_SUPER_MAGIC, mqueueMagic,
		unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC, unix.BPF_FS_MAGIC, unix.BINFMTFS_MAGIC, unix.EFIVARFS_MAGIC, unix.NSFS_MAGIC, unix.PSTOREFS_MAGIC:
		return true
	}
	return false
}

const mqueueMagic = 0x19800202 // of ipc/mqueue.c

// IsReadOnly tells whether the mount that f lies on, or its file system, can't be written (statfs(2)).
func IsReadOnly(f *os.File) (bool, error) {
	var st unix.Statfs_t
	err := retry(func() error { return unix.Fstatfs(fd(f), &st) })
	keep(f)
	return st.Flags&unix.ST_RDONLY != 0, pathError("statfs", f.Name(), err)
}
