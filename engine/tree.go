package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
)

// tree is a mounted root seen as from inside: absolute links begin at its top, and no
// name leads out of it (os.Root refuses what this resolution would miss).
type tree struct{ root *os.Root }

// openTree opens the tree below top, which stays the caller's.
func openTree(top *os.File) (*tree, error) {
	r, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", top.Fd()))
	if err != nil {
		return nil, err
	}
	return &tree{r}, nil
}

// Close closes the tree.
func (t *tree) Close() error { return t.root.Close() }

// errTooManyLinks stands for ELOOP.
var errTooManyLinks = errors.New("too many levels of symbolic links")

// resolve follows all links of name and returns a path below the top without any. What does
// not exist is taken as it is written.
func (t *tree) resolve(name string) (string, error) {
	rest, done := strings.Split(path.Clean("/" + name)[1:], "/"), "."
	for links := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			done = path.Dir(done)
			continue
		}
		next := path.Join(done, part)
		target, err := t.root.Readlink(next)
		if err != nil { // no link, or not there
			done = next
			continue
		}
		if links++; links > 40 {
			return "", fmt.Errorf("%s: %w", name, errTooManyLinks)
		}
		if path.IsAbs(target) {
			done = "."
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return done, nil
}

// directory opens a directory of the tree, nil when there is none of that name.
func (t *tree) directory(name string) (*os.File, error) {
	at, err := t.resolve(name)
	if err != nil {
		return nil, err
	}
	f, err := t.root.Open(at)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil || !info.IsDir() {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// initLayer makes in a root what every container mounts over or looks for, so that a
// read-only root has it too.
func initLayer(top *os.File) (err error) {
	t, err := openTree(top)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	for _, dir := range []string{"/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/proc", "/sys", "/etc"} {
		if err := t.makeDir(dir); err != nil {
			return err
		}
	}
	for _, file := range []string{"/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/.dockerenv"} {
		if err := t.makeFile(file); err != nil {
			return err
		}
	}
	if _, err := t.root.Lstat("etc/mtab"); errors.Is(err, fs.ErrNotExist) {
		return t.root.Symlink("/proc/mounts", "etc/mtab")
	}
	return nil
}

// makeDir makes a directory with its parents; an image that has something else there keeps it.
func (t *tree) makeDir(name string) error {
	at, err := t.resolve(name)
	if err != nil {
		return err
	}
	if at == "." {
		return nil
	}
	err = t.root.MkdirAll(at, 0o755)
	if info, statErr := t.root.Stat(at); statErr == nil && !info.IsDir() {
		return nil
	}
	return err
}

// makeFile makes an empty file where nothing is.
func (t *tree) makeFile(name string) error {
	at, err := t.resolve(name)
	if err != nil {
		return err
	}
	if _, err := t.root.Lstat(at); err == nil {
		return nil
	}
	if err := t.makeDir(path.Dir("/" + at)); err != nil {
		return err
	}
	f, err := t.root.OpenFile(at, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil // below something that is no directory: the image wants it so
	}
	if err != nil {
		return err
	}
	return f.Close()
}
