package kernel

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Flags of OpenIn beside those of package os (open(2)).
const (
	OPath      = unix.O_PATH
	ODirectory = unix.O_DIRECTORY
	ONoFollow  = unix.O_NOFOLLOW
	ONoCTTY    = unix.O_NOCTTY
	ONonblock  = unix.O_NONBLOCK
	OCloexec   = unix.O_CLOEXEC
	OTmpfile   = unix.O_TMPFILE
)

// How OpenIn walks a path (openat2(2), Linux ≥ 5.6).
const (
	InRoot       = unix.RESOLVE_IN_ROOT       // the directory is "/" for absolute links and ".."
	Beneath      = unix.RESOLVE_BENEATH       // leaving the directory is EXDEV
	NoSymlinks   = unix.RESOLVE_NO_SYMLINKS   // a symbolic link anywhere is ELOOP
	NoMagicLinks = unix.RESOLVE_NO_MAGICLINKS // a link of /proc/PID/fd and the like is ELOOP
	NoXDev       = unix.RESOLVE_NO_XDEV       // crossing a mount point is EXDEV
)

// OpenIn opens path below the directory root with openat2(2). how is a set of
// InRoot, Beneath, …; with 0 path is resolved as openat(2) does. A nil root is the current directory.
// The file is close-on-exec and belongs to the caller.
func OpenIn(root *os.File, path string, flags int, mode uint32, how uint64) (*os.File, error) {
	open := unix.OpenHow{Flags: uint64(flags) | unix.O_CLOEXEC, Mode: uint64(mode), Resolve: how}
	if flags&unix.O_CREAT == 0 && flags&unix.O_TMPFILE != unix.O_TMPFILE { // the latter holds O_DIRECTORY's bit
		open.Mode = 0
	}
	var n int
	for {
		var err error
		n, err = unix.Openat2(fd(root), path, &open)
		// EAGAIN: something was renamed during a scoped walk (openat2(2)).
		if err == unix.EINTR || err == unix.EAGAIN {
			continue
		}
		if err != nil {
			return nil, pathError("open", path, err)
		}
		break
	}
	keep(root)
	return os.NewFile(uintptr(n), path), nil
}

// Reopen opens the object that the O_PATH file f stands for with new flags, through /proc.
func Reopen(f *os.File, flags int) (*os.File, error) {
	var n int
	err := retry(func() (err error) {
		n, err = unix.Open(ProcFD(f), flags|unix.O_CLOEXEC, 0)
		return err
	})
	keep(f)
	if err != nil {
		return nil, pathError("open", f.Name(), err)
	}
	return os.NewFile(uintptr(n), f.Name()), nil
}

// ProcFD is the name under which this thread can reach f by path.
func ProcFD(f *os.File) string { return "/proc/thread-self/fd/" + strconv.Itoa(fd(f)) }

// Dup returns a second, close-on-exec descriptor of f.
func Dup(f *os.File) (*os.File, error) {
	n, err := unix.FcntlInt(uintptr(fd(f)), unix.F_DUPFD_CLOEXEC, 0)
	keep(f)
	if err != nil {
		return nil, pathError("dup", f.Name(), err)
	}
	return os.NewFile(uintptr(n), f.Name()), nil
}

// MkdirIn makes the directory name (one element) in dir.
func MkdirIn(dir *os.File, name string, mode uint32) error {
	err := retry(func() error { return unix.Mkdirat(fd(dir), name, mode) })
	keep(dir)
	return pathError("mkdir", name, err)
}

// MknodIn makes a device, fifo or empty file; mode carries the type (mknod(2)).
func MknodIn(dir *os.File, name string, mode uint32, dev uint64) error {
	err := retry(func() error { return unix.Mknodat(fd(dir), name, mode, int(dev)) })
	keep(dir)
	return pathError("mknod", name, err)
}

// SymlinkIn makes the symbolic link name in dir.
func SymlinkIn(target string, dir *os.File, name string) error {
	err := retry(func() error { return unix.Symlinkat(target, fd(dir), name) })
	keep(dir)
	return pathError("symlink", name, err)
}

// Stat is fstat(2).
func Stat(f *os.File) (unix.Stat_t, error) {
	var st unix.Stat_t
	err := retry(func() error { return unix.Fstat(fd(f), &st) })
	keep(f)
	return st, pathError("stat", f.Name(), err)
}

// FSType returns the magic number of the file system that f lies on (statfs(2)).
func FSType(f *os.File) (int64, error) {
	var st unix.Statfs_t
	err := retry(func() error { return unix.Fstatfs(fd(f), &st) })
	keep(f)
	return int64(st.Type), pathError("statfs", f.Name(), err)
}

// SyncFS writes the whole file system that f lies on to disk (syncfs(2)).
func SyncFS(f *os.File) error {
	err := retry(func() error { return unix.Syncfs(fd(f)) })
	keep(f)
	return pathError("syncfs", f.Name(), err)
}

// Readlink returns what the symbolic link that the O_PATH file f stands for
// points to, and "" when f is something else.
func Readlink(f *os.File) (string, error) {
	st, err := Stat(f)
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return "", err
	}
	buf := make([]byte, 4096)
	n, err := unix.Readlinkat(fd(f), "", buf)
	keep(f)
	if err != nil {
		return "", pathError("readlink", f.Name(), err)
	}
	return string(buf[:n]), nil
}

// IsDir tells whether f is a directory.
func IsDir(f *os.File) (bool, error) {
	st, err := Stat(f)
	return st.Mode&unix.S_IFMT == unix.S_IFDIR, err
}

// IsPipe tells whether a file of that mode is a pipe or a socket.
func IsPipe(mode uint32) bool {
	kind := mode & unix.S_IFMT
	return kind == unix.S_IFIFO || kind == unix.S_IFSOCK
}

// Inherited takes over the descriptor n, which an exec left open, and marks it close-on-exec.
func Inherited(n int, name string) *os.File {
	unix.CloseOnExec(n)
	return os.NewFile(uintptr(n), name)
}

// LeakyDup is Dup without close-on-exec, for tests of what a program inherits.
func LeakyDup(f *os.File) (*os.File, error) {
	n, err := unix.Dup(fd(f))
	keep(f)
	if err != nil {
		return nil, pathError("dup", f.Name(), err)
	}
	return os.NewFile(uintptr(n), f.Name()), nil
}
