package thin

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"berth/fault"
	"berth/kernel"
)

// baseName is the tree with an empty file system; the name is none that a caller can have.
func baseName(fs string) string { return "_base-" + fs }

// openBase makes the empty file system that trees begin as, once, and grows it when a larger one is asked for.
func (t *Trees) openBase() error {
	name := baseName(t.options.fs)
	base := t.trees[name]
	if base != nil && !base.Ready { // its maker was killed; mkfs may be at work still
		for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
			err := t.Remove(name)
			if err == nil {
				break
			}
			if !errors.Is(err, fault.Conflict) || time.Now().After(end) {
				return err
			}
		}
		base = nil
	}
	size := t.options.baseSize / t.blocks * t.blocks
	if base == nil {
		return t.makeBase(name, size)
	}
	switch {
	case size > base.Bytes:
		return t.Limit(name, size)
	case size < base.Bytes && t.options.given["dm.basesize"]:
		return fault.New(fault.Invalid, "base device has %s and can't shrink to %s: give dm.basesize=%d at least, or another --data-root", human(base.Bytes), human(size), base.Bytes)
	}
	return nil
}

func (t *Trees) makeBase(name string, size int64) error {
	r := &tree{name: name, volume: volume{FS: t.options.fs, Bytes: size, Grown: size}}
	if err := t.add(r); err != nil {
		return err
	}
	_, err := t.dm.Message(t.pool.name, makeMessage(r.ID))
	if err == nil {
		err = t.format(r)
	}
	err = errors.Join(err, t.deactivate(r, t.options.deferred))
	if err == nil {
		_, err = t.state(true)
	}
	if err == nil {
		r.Ready = true
		err = t.save(r)
	}
	if err != nil {
		return fmt.Errorf("make base device: %w", err) // the next Open removes what is there
	}
	return nil
}

// format makes the file system of a base and empties it.
func (t *Trees) format(r *tree) error {
	m, err := t.mount(r)
	if err != nil {
		return err
	}
	words := mkfs(r.FS, t.options.mkfs, m.Source)
	path, err := program(words[0])
	if err != nil {
		return fault.New(fault.Unsupported, "program %s is missing: install it (packages e2fsprogs, xfsprogs), or choose another dm.fs: %w", words[0], err)
	}
	if out, err := exec.Command(path, words[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(words, " "), err, strings.TrimSpace(string(out)))
	}
	return within(m, func(dir *os.File) error {
		if err := kernel.RmdirIn(dir, "lost+found"); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := kernel.Chmod(dir, 0o755); err != nil {
			return err
		}
		return kernel.SyncFS(dir)
	})
}

// program finds a program of the system's administrator also for a daemon that was started by a user's shell.
func program(name string) (path string, err error) {
	for _, dir := range []string{"", "/usr/sbin/", "/sbin/"} {
		if path, err = exec.LookPath(dir + name); err == nil {
			return path, nil
		}
	}
	return "", err
}

// mkfs is the command that makes a file system. Inode tables of ext4 are left unwritten (see mountOptions): written, they
// would take a sixtieth of the size. The journal is written, as a used pool may show an old one in its place.
func mkfs(fs string, more []string, device string) []string {
	var words []string
	switch fs {
	case "xfs":
		words = []string{"mkfs.xfs", "-q", "-f", "-K"}
	default:
		words = []string{"mkfs.ext4", "-q", "-F", "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=0"}
	}
	return append(append(words, more...), device)
}
