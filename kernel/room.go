package kernel

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// reserveMax is the most bytes that Room keeps free.
const reserveMax = 1 << 30

// Room gives an error with ENOSPC in its chain when the file system of f is as good as full: less than a hundredth of its blocks (never
// more than 1 GiB) or of its inodes is free to us (statfs(2)). It is for work that can wait, so that what can't, such as records and logs, goes on.
func Room(f *os.File) error {
	var st unix.Statfs_t
	err := retry(func() error { return unix.Fstatfs(fd(f), &st) })
	keep(f)
	if err != nil {
		return pathError("statfs", f.Name(), err)
	}
	reserve := min(st.Blocks/100, reserveMax/uint64(max(st.Bsize, 1)))
	switch {
	case st.Bavail < reserve:
		return fmt.Errorf("only %d MiB are free, which are kept for what runs: %w", st.Bavail*uint64(st.Bsize)>>20, unix.ENOSPC)
	case st.Files > 0 && st.Ffree < st.Files/100: // btrfs has no count of inodes
		return fmt.Errorf("only %d inodes are free, which are kept for what runs: %w", st.Ffree, unix.ENOSPC)
	}
	return nil
}

// FreeSpace is how many bytes more the file system of f takes from us (statfs(2)).
func FreeSpace(f *os.File) (int64, error) {
	var st unix.Statfs_t
	err := retry(func() error { return unix.Fstatfs(fd(f), &st) })
	keep(f)
	return int64(st.Bavail) * int64(st.Bsize), pathError("statfs", f.Name(), err)
}

// DiskSize is how many bytes the file system of f has in all (statfs(2)).
func DiskSize(f *os.File) (int64, error) {
	var st unix.Statfs_t
	err := retry(func() error { return unix.Fstatfs(fd(f), &st) })
	keep(f)
	return int64(st.Blocks) * int64(st.Bsize), pathError("statfs", f.Name(), err)
}
