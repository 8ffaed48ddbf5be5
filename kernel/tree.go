package kernel

import (
	"encoding/binary"
	"errors"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The functions named …In act on one name in an open directory (nil = the
// current one) and never follow it when it is a symbolic link, so that a tree made of hostile
// input can't lead them elsewhere. "." is the directory itself where that makes sense.

// File types in Stat_t.Mode and for MknodIn (inode(7)).
const (
	TypeMask    = unix.S_IFMT
	TypeRegular = unix.S_IFREG
	TypeDir     = unix.S_IFDIR
	TypeSymlink = unix.S_IFLNK
	TypeChar    = unix.S_IFCHR
	TypeBlock   = unix.S_IFBLK
	TypeFifo    = unix.S_IFIFO
	TypeSocket  = unix.S_IFSOCK
)

// Magic numbers for FSType (statfs(2)).
const (
	OverlayMagic = unix.OVERLAYFS_SUPER_MAGIC
	ExtMagic     = unix.EXT4_SUPER_MAGIC
	TmpfsMagic   = unix.TMPFS_MAGIC
	XFSMagic     = unix.XFS_SUPER_MAGIC
	BtrfsMagic   = unix.BTRFS_SUPER_MAGIC
)

// Dev joins the numbers of a device for MknodIn.
func Dev(major, minor uint32) uint64 { return unix.Mkdev(major, minor) }

// DevNumbers splits the number of a device, such as Stat_t.Rdev.
func DevNumbers(dev uint64) (major, minor uint32) { return unix.Major(dev), unix.Minor(dev) }

// StatIn is fstatat(2) without following.
func StatIn(dir *os.File, name string) (unix.Stat_t, error) {
	var st unix.Stat_t
	err := retry(func() error { return unix.Fstatat(fd(dir), name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	keep(dir)
	return st, pathError("stat", name, err)
}

// ReadlinkIn returns the target of the symbolic link name.
func ReadlinkIn(dir *os.File, name string) (string, error) {
	for buf := make([]byte, 256); ; buf = make([]byte, 4*len(buf)) {
		var n int
		err := retry(func() (err error) {
			n, err = unix.Readlinkat(fd(dir), name, buf)
			return err
		})
		keep(dir)
		if err != nil {
			return "", pathError("readlink", name, err)
		}
		if n < len(buf) {
			return string(buf[:n]), nil
		}
	}
}

// LinkIn makes the hard link name in dir to the object called old in from.
func LinkIn(from *os.File, old string, dir *os.File, name string) error {
	err := retry(func() error { return unix.Linkat(fd(from), old, fd(dir), name, 0) })
	keep(from, dir)
	return pathError("link", name, err)
}

// UnlinkIn removes a name that is not a directory.
func UnlinkIn(dir *os.File, name string) error {
	err := retry(func() error { return unix.Unlinkat(fd(dir), name, 0) })
	keep(dir)
	return pathError("unlink", name, err)
}

// RmdirIn removes an empty directory.
func RmdirIn(dir *os.File, name string) error {
	err := retry(func() error { return unix.Unlinkat(fd(dir), name, unix.AT_REMOVEDIR) })
	keep(dir)
	return pathError("rmdir", name, err)
}

// RenameIn moves from/old to dir/name, replacing what is there as rename(2) does.
func RenameIn(from *os.File, old string, dir *os.File, name string) error {
	err := retry(func() error { return unix.Renameat(fd(from), old, fd(dir), name) })
	keep(from, dir)
	return pathError("rename", old, err)
}

// Exchange swaps what two paths name, in one step (renameat2(2), RENAME_EXCHANGE).
func Exchange(a, b string) error {
	err := retry(func() error { return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE) })
	return pathError("exchange", a, err)
}

// ChownIn sets the owner of name.
func ChownIn(dir *os.File, name string, uid, gid uint32) error {
	err := retry(func() error { return unix.Fchownat(fd(dir), name, int(uid), int(gid), unix.AT_SYMLINK_NOFOLLOW) })
	keep(dir)
	return pathError("chown", name, err)
}

// Chown sets the owner of an open file.
func Chown(f *os.File, uid, gid uint32) error {
	err := retry(func() error { return unix.Fchown(fd(f), int(uid), int(gid)) })
	keep(f)
	return pathError("chown", f.Name(), err)
}

// ChmodIn sets the permission bits, setuid, setgid and sticky included, of
// name, which is not a symbolic link (these have none).
func ChmodIn(dir *os.File, name string, mode uint32) error {
	err := retry(func() error { return unix.Fchmodat(fd(dir), name, mode, unix.AT_SYMLINK_NOFOLLOW) })
	keep(dir)
	if err == nil || !errors.Is(err, errors.ErrUnsupported) {
		return pathError("chmod", name, err)
	}
	// Before fchmodat2 (Linux 6.6) the flag is missing: pin the object, then go through /proc.
	f, err := OpenIn(dir, name, OPath|ONoFollow, 0, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return pathError("chmod", name, retry(func() error { return unix.Chmod(ProcFD(f), mode) }))
}

// Chmod is ChmodIn on an open file.
func Chmod(f *os.File, mode uint32) error {
	err := retry(func() error { return unix.Fchmod(fd(f), mode) })
	keep(f)
	return pathError("chmod", f.Name(), err)
}

func times(atime, mtime time.Time) []unix.Timespec {
	return []unix.Timespec{
		{Sec: atime.Unix(), Nsec: int64(atime.Nanosecond())},
		{Sec: mtime.Unix(), Nsec: int64(mtime.Nanosecond())},
	}
}

// TimesIn sets the times of name. The file system clamps what it can't hold.
func TimesIn(dir *os.File, name string, atime, mtime time.Time) error {
	ts := times(atime, mtime)
	err := retry(func() error { return unix.UtimesNanoAt(fd(dir), name, ts, unix.AT_SYMLINK_NOFOLLOW) })
	keep(dir)
	return pathError("set times of", name, err)
}

// Times sets the times of an open file.
func Times(f *os.File, atime, mtime time.Time) error {
	ts := times(atime, mtime)
	err := retry(func() error { return unix.UtimesNanoAt(fd(f), "", ts, unix.AT_EMPTY_PATH) }) // empty path: Linux 5.8
	keep(f)
	return pathError("set times of", f.Name(), err)
}

// RemoveIn removes name with all below it and never follows a symbolic link. An absent name is no error.
func RemoveIn(dir *os.File, name string) error {
	err := UnlinkIn(dir, name)
	if err == nil || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) { // EPERM is POSIX's word for a directory
		return err
	}
	rmErr := RmdirIn(dir, name)
	if rmErr == nil || errors.Is(rmErr, os.ErrNotExist) {
		return nil
	}
	if errors.Is(rmErr, unix.ENOTDIR) {
		return err
	}
	if !errors.Is(rmErr, unix.ENOTEMPTY) && !errors.Is(rmErr, unix.EEXIST) {
		return rmErr
	}
	sub, err := OpenIn(dir, name, ODirectory|ONoFollow, 0, 0)
	if err != nil {
		return err
	}
	defer sub.Close()
	names, err := sub.Readdirnames(-1)
	for _, n := range names {
		err = errors.Join(err, RemoveIn(sub, n))
	}
	if err != nil {
		return err
	}
	return RmdirIn(dir, name)
}

// KnowsTypes tells whether the file system reports the kind of a file in its directory entries (d_type), which overlay needs.
// dir must hold at least one entry beside "." and "..".
func KnowsTypes(dir *os.File) (bool, error) {
	f, err := OpenIn(dir, ".", ODirectory, 0, 0)
	if err != nil {
		return false, err
	}
	defer f.Close()
	for buf := make([]byte, 8192); ; { // a signal makes getdents return with fewer than there are
		n, err := unix.Getdents(fd(f), buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return false, pathError("getdents", dir.Name(), err)
		}
		if n == 0 {
			return false, errors.New("getdents " + dir.Name() + ": the directory is empty")
		}
		// struct linux_dirent64: ino 8, off 8, reclen 2, type 1, name (getdents(2)).
		for b := buf[:n]; len(b) >= 20; {
			reclen := int(binary.NativeEndian.Uint16(b[16:]))
			if reclen < 20 || reclen > len(b) {
				break
			}
			if name := b[19:]; name[0] != '.' {
				return b[18] != unix.DT_UNKNOWN, nil
			}
			b = b[reclen:]
		}
	}
}

// TryLock takes an exclusive lock on f without waiting (flock(2)). It lasts
// until every copy of f is closed, also by the death of the process.
func TryLock(f *os.File) (bool, error) {
	err := retry(func() error { return unix.Flock(fd(f), unix.LOCK_EX|unix.LOCK_NB) })
	keep(f)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, pathError("lock", f.Name(), err)
}

// procPath names dir/name for the calls that have no …at form yet. The name is not followed.
func procPath(dir *os.File, name string) string {
	if dir == nil {
		return name
	}
	return "/proc/self/fd/" + strconv.Itoa(fd(dir)) + "/" + name
}

// ChangeTime is when the object's content or attributes changed last, which no program can set.
func ChangeTime(info os.FileInfo) time.Time {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return time.Unix(st.Ctim.Unix())
	}
	return info.ModTime()
}

// ScatterDirs asks the file system to place the directories made in dir far from
// each other (the T attribute of chattr(1)). On ext4 new files go where their directory lies, and an area in which many
// were deleted within the last minutes makes them up to ten times slower. Where there is no such attribute it does nothing.
func ScatterDirs(dir *os.File) error {
	const topDir = 0x00020000 // FS_TOPDIR_FL of linux/fs.h
	flags, err := unix.IoctlGetInt(fd(dir), unix.FS_IOC_GETFLAGS)
	if err == nil && flags&topDir == 0 {
		err = unix.IoctlSetPointerInt(fd(dir), unix.FS_IOC_SETFLAGS, flags|topDir)
	}
	keep(dir)
	if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		return nil
	}
	return pathError("set attributes of", dir.Name(), err)
}

// IsMount tells whether name in dir, not followed, is where something is mounted (statx(2), STATX_ATTR_MOUNT_ROOT, Linux ≥ 5.8).
func IsMount(dir *os.File, name string) (bool, error) {
	var st unix.Statx_t
	err := retry(func() error { return unix.Statx(fd(dir), name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, 0, &st) })
	keep(dir)
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, pathError("statx", name, err)
}
