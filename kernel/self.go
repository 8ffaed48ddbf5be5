package kernel

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// What follows changes the calling thread alone, which must be locked and have
// a file system state of its own (UnshareFS).

// UnshareFS gives the calling thread its own root, working directory and umask.
func UnshareFS() error { return callError("unshare", unix.Unshare(unix.CLONE_FS)) }

// Chdir is chdir(2) for the calling thread.
func Chdir(path string) error {
	return pathError("chdir", path, retry(func() error { return unix.Chdir(path) }))
}

// Chroot makes dir the calling thread's root and working directory (chroot(2)), for a thread that shares them with nobody (UnshareFS).
func Chroot(dir *os.File) error {
	err := unix.Fchdir(fd(dir))
	keep(dir)
	if err == nil {
		err = unix.Chroot(".")
	}
	return pathError("chroot", dir.Name(), err)
}

// Umask sets the calling thread's mask.
func Umask(mask int) { unix.Umask(mask) }

// InsideRoot checks that the working directory is below the thread's root: the kernel
// names one that is not "(unreachable)…" (getcwd(2)).
func InsideRoot() error {
	buf := make([]byte, 4097)
	n, err := unix.Getcwd(buf)
	if err != nil {
		return callError("getcwd", err)
	}
	if n == 0 || buf[0] != '/' {
		return errors.New("the working directory is outside of the container's root")
	}
	return nil
}

// SetHostname and SetDomainname name the thread's uts namespace.
func SetHostname(name string) error { return callError("sethostname", unix.Sethostname([]byte(name))) }

// SetDomainname sets the NIS domain name.
func SetDomainname(name string) error {
	return callError("setdomainname", unix.Setdomainname([]byte(name)))
}

// Pivot makes the directory root, a mount of its own, the root of the thread's mount
// namespace and lets go of everything else (pivot_root(2)).
func Pivot(root *os.File) (err error) {
	old, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return pathError("open", "/", err)
	}
	defer func() { err = errors.Join(err, unix.Close(old)) }()
	if err := unix.Fchdir(fd(root)); err != nil {
		return pathError("chdir", root.Name(), err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return pathError("pivot_root", root.Name(), err)
	}
	// The old root now lies on top of the new one at "/"; what is unmounted in it must not be unmounted on the host. For mount(2)
	// "." would still be the new root, whose own mounts are to stay as they are.
	if err := unix.Fchdir(old); err != nil {
		return pathError("chdir", "old root", err)
	}
	if err := unix.Mount("", ".", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return pathError("make slave", "old root", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return pathError("umount", "old root", err)
	}
	return Chdir("/")
}

// MoveRoot is Pivot for a host whose root can't be pivoted (an initramfs): what lay there stays reachable for
// a privileged process.
func MoveRoot(root *os.File) error {
	if err := unix.Fchdir(fd(root)); err != nil {
		return pathError("chdir", root.Name(), err)
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return pathError("move mount", root.Name(), err)
	}
	if err := unix.Chroot("."); err != nil {
		return pathError("chroot", root.Name(), err)
	}
	return Chdir("/")
}

// Propagation sets how mounts spread from and to the mount at path (mount(2)).
func Propagation(path string, flag uint64, recursive bool) error {
	flags := uintptr(flag)
	if recursive {
		flags |= unix.MS_REC
	}
	return pathError("set propagation", path, unix.Mount("", path, "", flags, ""))
}

// The magic numbers of file systems (statfs(2)).
const (
	ProcMagic   = unix.PROC_SUPER_MAGIC
	SysMagic    = unix.SYSFS_MAGIC
	DevptsMagic = unix.DEVPTS_SUPER_MAGIC
)

// IsProc checks that f is the root of a procfs.
func IsProc(f *os.File) error {
	kind, err := FSType(f)
	if err != nil {
		return err
	}
	st, err := Stat(f)
	if err != nil {
		return err
	}
	const rootInode = 1 // PROC_ROOT_INO
	if kind != ProcMagic || st.Ino != rootInode {
		return fmt.Errorf("%s is not the root of a proc file system", f.Name())
	}
	return nil
}

// IsDevice checks that f is the character (or block) device with these numbers.
func IsDevice(f *os.File, block bool, major, minor uint32) error {
	st, err := Stat(f)
	if err != nil {
		return err
	}
	kind := uint32(unix.S_IFCHR)
	if block {
		kind = unix.S_IFBLK
	}
	if st.Mode&unix.S_IFMT != kind || st.Rdev != unix.Mkdev(major, minor) {
		return fmt.Errorf("%s is not the device %d:%d", f.Name(), major, minor)
	}
	return nil
}

// SetDumpable tells whether others may look into this process by /proc and ptrace (prctl(2)).
func SetDumpable(on bool) error {
	v := uintptr(0)
	if on {
		v = 1
	}
	return callError("prctl", unix.Prctl(unix.PR_SET_DUMPABLE, v, 0, 0, 0))
}
