package image

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"syscall"

	"berth/internal/record"
)

// ballastSize is more than a record of a hundred thousand images' names grows between two of its blocks, in bytes.
const ballastSize = 256 << 10

// ballast is a file beside the record that takes room while there is some. It is thrown off where nothing fits any more,
// not even the new record that removes an image, and so makes room.
func ballast(record string) string { return filepath.Join(filepath.Dir(record), "ballast") }

// save replaces the record of names. One that got smaller is saved on a full disk as well.
func (n *names) save(path string, old *names) error {
	err := record.Save(path, n)
	if errors.Is(err, syscall.ENOSPC) && n.count() < old.count() && os.Remove(ballast(path)) == nil {
		return record.Save(path, n)
	}
	if err == nil {
		takeBallast(path)
	}
	return err
}

// takeBallast makes the file where it is missing. A disk without room for it is no reason to fail.
func takeBallast(path string) {
	if _, err := os.Lstat(ballast(path)); err == nil {
		return
	}
	if err := os.WriteFile(ballast(path), bytes.Repeat([]byte{1}, ballastSize), 0o600); err != nil {
		os.Remove(ballast(path))
	}
}

// count is how much the record says.
func (n *names) count() int {
	sum := len(n.Images)
	for _, e := range n.Images {
		sum += len(e.Names)
	}
	return sum
}
