// Package kernel makes Linux system calls for the rest of the house.
//
// It decides nothing: every function is one facility of the kernel, with the
// interrupted call repeated, the object's name in the error, and file
// descriptors as *os.File (close-on-exec, closed by the caller unless a comment says otherwise).
// Only kernel and the packages below it import golang.org/x/sys/unix.
// Invariant: no function keeps state between calls.
package kernel

import (
	"errors"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// retry repeats call while a signal interrupts it (signal(7)).
func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

// pathError names the object of a failed call; a nil err stays nil.
func pathError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: path, Err: err}
}

// callError names the failed call; a nil err stays nil.
func callError(call string, err error) error { return os.NewSyscallError(call, err) }

// fd gives the number of f, or AT_FDCWD when f is nil. The caller keeps f
// alive over the call (runtime.KeepAlive). Unlike os.File.Fd it never touches the blocking mode.
func fd(f *os.File) int {
	if f == nil {
		return unix.AT_FDCWD
	}
	n := -1
	if c, err := f.SyscallConn(); err == nil {
		c.Control(func(p uintptr) { n = int(p) })
	}
	return n
}

// FD gives the number of f for use in arguments and names such as
// /proc/self/fd/N. The caller keeps f open as long as the number is in use.
func FD(f *os.File) int { return fd(f) }

func keep(files ...*os.File) {
	for _, f := range files {
		runtime.KeepAlive(f)
	}
}

// IsBusy tells whether err means that a mount is in the way.
func IsBusy(err error) bool { return errors.Is(err, unix.EBUSY) }

// IsNotDir tells whether err means that a path leads through something that is no directory.
func IsNotDir(err error) bool { return errors.Is(err, unix.ENOTDIR) }

// IsBrokenPipe tells whether err means that nobody reads any more.
func IsBrokenPipe(err error) bool { return errors.Is(err, unix.EPIPE) }

// IsGone tells whether err means that the process has ended.
func IsGone(err error) bool { return errors.Is(err, unix.ESRCH) }

// IsNoMemory tells ENOMEM, by which clone(2) also says that the first process of the PID namespace is gone.
func IsNoMemory(err error) bool { return errors.Is(err, unix.ENOMEM) }
