package kernel

import (
	"errors"
	"os"
	"path/filepath"
)

// SendFile hands f over to whoever listens on the unix socket at path, with data beside it.
func SendFile(path, data string, f *os.File) error {
	dir, err := OpenIn(nil, filepath.Dir(path), OPath|ODirectory, 0, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	s, err := DialUnix(dir, filepath.Base(path))
	if err != nil {
		return err
	}
	return errors.Join(SendFiles(s, []byte(data), []*os.File{f}), s.Close())
}
