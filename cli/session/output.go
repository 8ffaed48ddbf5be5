package session

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// CheckOutput refuses a file that has no directory, before an engine is asked for what shall be in it; "" is standard output.
func CheckOutput(output string) error {
	dir := filepath.Dir(output)
	if _, err := os.Stat(dir); output != "" && err != nil {
		return fmt.Errorf("invalid output path: directory %q does not exist", dir)
	}
	return nil
}

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
	dir := filepath.Dir(output)
	f, err := os.CreateTemp(dir, "."+filepath.Base(output)+"-")
	if err != nil {
		return fmt.Errorf("create a file in %s: %w", dir, errors.Unwrap(err)) // without the name that nobody gave
	}
	defer os.Remove(f.Name())
	_, err = io.Copy(f, r)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), output)
}
