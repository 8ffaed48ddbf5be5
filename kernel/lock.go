package kernel

import (
	"os"

	"golang.org/x/sys/unix"
)

// Lock is TryLock that waits.
func Lock(f *os.File) error {
	err := retry(func() error { return unix.Flock(fd(f), unix.LOCK_EX) })
	keep(f)
	return pathError("lock", f.Name(), err)
}

// Unlock gives the lock of TryLock or Lock back before f is closed.
func Unlock(f *os.File) error {
	err := unix.Flock(fd(f), unix.LOCK_UN)
	keep(f)
	return pathError("unlock", f.Name(), err)
}
