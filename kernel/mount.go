package kernel

import (
	"errors"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Attributes of a mount (mount_setattr(2)).
const (
	ReadOnly       = unix.MOUNT_ATTR_RDONLY
	NoSUID         = unix.MOUNT_ATTR_NOSUID
	NoDev          = unix.MOUNT_ATTR_NODEV
	NoExec         = unix.MOUNT_ATTR_NOEXEC
	NoATime        = unix.MOUNT_ATTR_NOATIME
	StrictATime    = unix.MOUNT_ATTR_STRICTATIME
	NoDirATime     = unix.MOUNT_ATTR_NODIRATIME
	NoSymFollow    = unix.MOUNT_ATTR_NOSYMFOLLOW
	AtimeModes     = unix.MOUNT_ATTR__ATIME
	PropPrivate    = unix.MS_PRIVATE
	PropSlave      = unix.MS_SLAVE
	PropShared     = unix.MS_SHARED
	PropUnbindable = unix.MS_UNBINDABLE
)

// newMount is NewMount by fsopen(2), Linux ≥ 5.2.
func newMount(kind, source string, options []string, attrs int) (*os.File, error) {
	n, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, pathError("mount", kind, err)
	}
	ctx := os.NewFile(uintptr(n), kind)
	defer ctx.Close()
	if source == "" {
		source = kind
	}
	if err := unix.FsconfigSetString(n, "source", source); err != nil {
		return nil, contextError(ctx, kind, "source", err)
	}
	for _, o := range options {
		key, value, given := strings.Cut(o, "=")
		if given {
			err = unix.FsconfigSetString(n, key, value)
		} else {
			err = unix.FsconfigSetFlag(n, key)
		}
		if err != nil {
			return nil, contextError(ctx, kind, o, err)
		}
	}
	if err := retry(func() error { return unix.FsconfigCreate(n) }); err != nil {
		return nil, contextError(ctx, kind, source, err)
	}
	m, err := unix.Fsmount(n, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return nil, contextError(ctx, kind, source, err)
	}
	return os.NewFile(uintptr(m), kind), nil
}

// contextError adds what the kernel wrote to the fs context's log.
func contextError(ctx *os.File, kind, object string, err error) error {
	var said []string
	buf := make([]byte, 4096)
	for {
		n, rerr := unix.Read(fd(ctx), buf)
		if rerr != nil || n <= 2 {
			break
		}
		said = append(said, strings.TrimSpace(string(buf[2:n])))
	}
	if len(said) > 0 {
		err = &detail{err, strings.Join(said, "; ")}
	}
	return pathError("mount "+kind, object, err)
}

type detail struct {
	err  error
	said string
}

func (d *detail) Error() string { return d.err.Error() + " (" + d.said + ")" }
func (d *detail) Unwrap() error { return d.err }

// CloneMount returns a detached copy of the mount at path below dir (open_tree(2)); an empty path is dir itself.
// Symbolic links in path are followed.
func CloneMount(dir *os.File, path string, recursive bool) (*os.File, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	name := path
	if path == "" {
		flags |= unix.AT_EMPTY_PATH
		name = dir.Name()
	}
	var n int
	err := retry(func() (err error) {
		n, err = unix.OpenTree(fd(dir), path, flags)
		return err
	})
	keep(dir)
	if err != nil {
		return nil, pathError("open_tree", name, err)
	}
	return os.NewFile(uintptr(n), name), nil
}

// AttachMount puts a detached mount on the object that target stands for
// (move_mount(2)). target may be an O_PATH file; it still names what lies beneath afterwards.
func AttachMount(mount, target *os.File) error {
	err := retry(func() error {
		return unix.MoveMount(fd(mount), "", fd(target), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	})
	keep(mount, target)
	return pathError("move_mount", target.Name(), err)
}

// SetMount changes attributes and propagation (PropPrivate, …; 0 keeps it) of the mount at
// f, with all mounts below it when recursive (mount_setattr(2), Linux ≥ 5.12).
func SetMount(f *os.File, recursive bool, set, clear uint64, propagation uint64) error {
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	attr := unix.MountAttr{Attr_set: set, Attr_clr: clear, Propagation: propagation}
	err := retry(func() error { return unix.MountSetattr(fd(f), "", flags, &attr) })
	keep(f)
	return pathError("mount_setattr", f.Name(), err)
}

// CanSetMount tells whether this kernel has mount_setattr(2) (5.12).
func CanSetMount() bool {
	return unix.MountSetattr(-1, "", unix.AT_EMPTY_PATH, &unix.MountAttr{}) != unix.ENOSYS
}

// Attributes is SetMount for attributes of the attached mount at f, with a fallback to a
// remount before Linux 5.12, where recursion is fault-free only for nothing to do.
func Attributes(f *os.File, recursive bool, set, clear uint64) error {
	if set|clear == 0 {
		return nil
	}
	err := SetMount(f, recursive, set, clear, 0)
	if !errors.Is(err, unix.ENOSYS) || recursive {
		return err
	}
	var now unix.Statfs_t
	if err := unix.Fstatfs(fd(f), &now); err != nil {
		return pathError("statfs", f.Name(), err)
	}
	keep(f)
	return pathError("remount", f.Name(), unix.Mount("", ProcFD(f), "", unix.MS_REMOUNT|unix.MS_BIND|remountFlags(uint64(now.Flags), set, clear), ""))
}

// remountFlags translates attributes into mount(2)'s flags; the lower ST_* flags of statfs(2) have the same values.
func remountFlags(now, set, clear uint64) uintptr {
	flags := now & (unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_NODIRATIME)
	for attr, flag := range map[uint64]uint64{ReadOnly: unix.MS_RDONLY, NoSUID: unix.MS_NOSUID, NoDev: unix.MS_NODEV,
		NoExec: unix.MS_NOEXEC, NoATime: unix.MS_NOATIME, NoDirATime: unix.MS_NODIRATIME} {
		if clear&attr != 0 {
			flags &^= flag
		}
		if set&attr != 0 {
			flags |= flag
		}
	}
	return uintptr(flags)
}

// Spread sets the propagation of the attached mount at f.
func Spread(f *os.File, propagation uint64, recursive bool) error {
	err := SetMount(f, recursive, 0, 0, propagation)
	if errors.Is(err, unix.ENOSYS) {
		err = Propagation(ProcFD(f), propagation, recursive)
	}
	return err
}

// Unmount detaches the mount at path (umount2(2)); lazy leaves it to its last user.
func Unmount(path string, lazy bool) error {
	flags := unix.UMOUNT_NOFOLLOW
	if lazy {
		flags |= unix.MNT_DETACH
	}
	return pathError("umount", path, retry(func() error { return unix.Unmount(path, flags) }))
}

// IsReadOnlyError tells whether err says that a file system can't be written to.
func IsReadOnlyError(err error) bool { return errors.Is(err, unix.EROFS) }

// IsMountRoot tells whether f is the top of a mount (statx(2), Linux ≥ 5.8).
func IsMountRoot(f *os.File) (bool, error) {
	var st unix.Statx_t
	err := retry(func() error {
		return unix.Statx(fd(f), "", unix.AT_EMPTY_PATH|unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE, &st)
	})
	keep(f)
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, pathError("statx", f.Name(), err)
}

// MountID is the number of the mount that f was opened in (statx(2), Linux ≥ 5.8). No two mounts have the same at a time.
func MountID(f *os.File) (uint64, error) {
	var st unix.Statx_t
	err := retry(func() error {
		return unix.Statx(fd(f), "", unix.AT_EMPTY_PATH|unix.AT_NO_AUTOMOUNT, unix.STATX_MNT_ID, &st)
	})
	keep(f)
	return st.Mnt_id, pathError("statx", f.Name(), err)
}

// UnmountFile detaches the mount that f is the top of, lazily, from a thread that may see another /proc than its own: proc is
// a procfs that shows the thread. It changes the working directory of the thread, which must have one of its own (UnshareFS).
func UnmountFile(proc, f *os.File) error {
	err := retry(func() error { return unix.Fchdir(fd(proc)) })
	if err == nil {
		err = retry(func() error { return unix.Unmount("thread-self/fd/"+strconv.Itoa(fd(f)), unix.MNT_DETACH) })
	}
	keep(proc, f)
	return pathError("umount", f.Name(), err)
}

// PrivateMounts runs fn on a thread with a mount namespace of its own, in
// which every mount is private; what fn mounts is gone when it returns. fn must not start
// goroutines that rely on those mounts. The thread ends afterwards.
func PrivateMounts(fn func() error) error {
	return Thread(func() error {
		if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
			return callError("unshare", err)
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return pathError("make private", "/", err)
		}
		return fn()
	})
}

// InMounts runs fn on a thread inside the mount namespace ns (setns(2)); the thread ends afterwards. Nothing of what is mounted there
// is executed, but fn must not look anything up by a path that it trusts.
func InMounts(ns *os.File, fn func() error) error {
	return Thread(func() error {
		if err := unix.Unshare(unix.CLONE_FS); err != nil { // a thread that shares its root with others can't go
			return callError("unshare", err)
		}
		err := retry(func() error { return unix.Setns(fd(ns), unix.CLONE_NEWNS) })
		keep(ns)
		if err != nil {
			return pathError("setns", ns.Name(), err)
		}
		return fn()
	})
}
