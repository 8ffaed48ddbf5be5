// Package record keeps small JSON documents on disk, one file each.
//
// It is not a database: no queries, no transactions over several files.
// Invariant: a reader sees the old document or the new one, whole, whatever
// dies when. A document that does not parse is fault.Corrupt and stays where it is.
package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"berth/fault"
)

// Save writes v to path and returns when it would survive a power cut: the
// file and its directory are synced. Use it for what a user configured.
func Save(path string, v any) error { return write(path, v, true) }

// Put writes v to path atomically without syncing. Use it for run state,
// which a reboot makes void anyway.
func Put(path string, v any) error { return write(path, v, false) }

func write(path string, v any, durable bool) (err error) {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("record %s: %w", path, err)
	}
	return WriteFile(path, append(data, '\n'), 0o600, durable)
}

// tempInfix stands in the names of unfinished files; Sweep removes them.
const tempInfix = ".tmp-"

// WriteFile replaces path by data in one step (a rename), synced first when durable is set.
func WriteFile(path string, data []byte, mode fs.FileMode, durable bool) (err error) {
	dir, base := filepath.Split(path)
	f, err := os.CreateTemp(dir, base+tempInfix+"*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = f.Write(data)
	if err == nil && mode != 0o600 {
		err = f.Chmod(mode)
	}
	if err == nil && durable {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil || !durable {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(filepath.Clean(dir))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Load reads the document at path into v. It returns fault.NotFound when there
// is none and fault.Corrupt when it does not parse.
func Load(path string, v any) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fault.Wrap(fault.NotFound, err)
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fault.New(fault.Corrupt, "%s: %w", path, err)
	}
	return nil
}

// Sweep removes what a killed writer left in dir.
func Sweep(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.Contains(e.Name(), tempInfix) {
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return err
}
