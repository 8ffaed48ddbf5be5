package files

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"berth/archive"
)

// Prepare makes in a root what every container mounts over or looks for, so that a read-only root has it too. An image that has
// something else in such a place keeps it.
func Prepare(top *os.File) error {
	for _, dir := range []string{"/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/proc", "/sys", "/etc"} {
		f, err := archive.MakeDir(top, dir)
		if unwilling(err) {
			continue
		}
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	for _, file := range []string{"/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/.dockerenv"} {
		if err := archive.MakeFile(top, file); err != nil && !unwilling(err) {
			return err
		}
	}
	if err := archive.MakeLink(top, "/etc/mtab", "/proc/mounts"); err != nil && !errors.Is(err, fs.ErrExist) && !unwilling(err) {
		return err
	}
	return nil
}

// unwilling tells that a tree has something in the way: the image wants it so.
func unwilling(err error) bool {
	for _, e := range []error{syscall.ENOTDIR, syscall.ELOOP, syscall.ENOENT, syscall.EEXIST} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
