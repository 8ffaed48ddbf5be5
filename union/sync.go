package union

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"berth/fault"
	"berth/internal/record"
	"berth/kernel"
)

// Sync implements Driver.
func (o *overlay) Sync() error { return o.sync(nil) }

// sync writes all out and takes the mark back; first, when given, what lies elsewhere.
func (o *home) sync(first func() error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.unsynced {
		return nil
	}
	if first != nil {
		if err := first(); err != nil {
			return fmt.Errorf("sync layers: %w", err)
		}
	}
	if err := kernel.SyncFS(o.lock); err != nil {
		return fmt.Errorf("sync layers: %w", err)
	}
	if err := os.Remove(o.path("unsynced")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("sync layers: %w", err)
	}
	o.unsynced = false
	return nil
}

// mark notes on disk that a layer is about to be committed without its bytes
// being there for sure. The caller holds o.mu.
func (o *home) mark() error {
	if o.unsynced {
		return nil
	}
	boot, err := bootID()
	if err != nil {
		return err
	}
	if err := record.Save(o.path("unsynced"), boot); err != nil {
		return err
	}
	o.unsynced = true
	return nil
}

// dropTorn acts on that mark. In the boot that wrote it the page cache holds everything; after
// another one, layers committed since are dropped: nothing durable refers to them yet.
func (o *home) dropTorn(kinds ...string) error {
	var boot string
	err := record.Load(o.path("unsynced"), &boot)
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil && !errors.Is(err, fault.Corrupt) {
		return err
	}
	o.unsynced = true
	now, err := bootID()
	if err != nil || boot == now {
		return err
	}
	info, err := os.Lstat(o.path("unsynced"))
	if err != nil {
		return err
	}
	since := info.ModTime().Add(-time.Minute)
	for _, kind := range kinds {
		err := each(o.path(kind), func(name string) error {
			// The rename into place changed the directory's own change time at the earliest.
			info, err := os.Lstat(o.path(kind, name))
			if err != nil || kernel.ChangeTime(info).Before(since) {
				return err
			}
			return o.trash.take(o.path(kind, name))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func bootID() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(data)), err
}
