package session

import (
	"errors"
	"io"
	"os"
	"path/filepath"
)

// ToFile writes r to a file that is its owner's alone. A broken stream does not take the place of what was there.
// What is no regular file, such as a pipe, is written to.
func ToFile(output string, r io.Reader) (err error) {
	if i, err := os.Stat(output); err == nil && !i.Mode().IsRegular() {
		f, err := os.OpenFile(output, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, r)
		return errors.Join(err, f.Close())
	}
	f, err := os.CreateTemp(filepath.Dir(output), "."+filepath.Base(output)+"-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = io.Copy(f, r)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), output)
}
