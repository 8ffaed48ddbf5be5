package oci

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"berth/kernel"
)

// maxLinks is how many symbolic links one path may go through, as in the kernel.
const maxLinks = 40

// open opens path inside the container's root, whatever the image's symbolic links say.
func (t *tree) open(path string, flags int) (*os.File, error) {
	return kernel.OpenIn(t.root, path, flags, 0, kernel.InRoot|kernel.NoMagicLinks)
}

// target opens what will be mounted over at path, and makes it, a directory or an empty file, when it is missing.
func (t *tree) target(path string, dir bool) (*os.File, error) {
	f, err := t.open(path, kernel.OPath)
	if errors.Is(err, os.ErrNotExist) {
		return makeIn(t.root, path, dir, 0, 0)
	}
	return f, err
}

// makeIn makes path below root (nil: the thread's own root), through existing symbolic links but never out of it, and
// returns it as an O_PATH file. Made directories belong to uid and gid. It walks by descriptors,
// one name at a time, so that a tree that changes meanwhile can't lead it elsewhere.
func makeIn(root *os.File, path string, dir bool, uid, gid int) (*os.File, error) {
	if root == nil {
		r, err := kernel.OpenIn(nil, "/", kernel.OPath|kernel.ODirectory, 0, 0)
		if err != nil {
			return nil, err
		}
		defer r.Close()
		root = r
	}
	w := walk{stack: []*os.File{root}, uid: uint32(uid), gid: uint32(gid)}
	defer w.close()
	left := strings.Split(path, "/")
	for links := 0; len(left) > 0; {
		name := left[0]
		left = left[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			w.up()
			continue
		}
		last := strings.Trim(strings.Join(left, ""), "/.") == ""
		link, err := w.down(name, dir || !last)
		if err != nil {
			return nil, fmt.Errorf("make %s in the container's root: %w", path, err)
		}
		if link == "" {
			continue
		}
		if links++; links > maxLinks {
			return nil, fmt.Errorf("make %s in the container's root: too many symbolic links", path)
		}
		if strings.HasPrefix(link, "/") {
			w.top()
		}
		left = append(strings.Split(link, "/"), left...)
	}
	return kernel.Dup(w.here())
}

// walk is a position in a tree: the directories from the root down to it.
type walk struct {
	stack    []*os.File
	uid, gid uint32
}

func (w *walk) here() *os.File { return w.stack[len(w.stack)-1] }

func (w *walk) up() {
	if n := len(w.stack); n > 1 {
		w.stack[n-1].Close()
		w.stack = w.stack[:n-1]
	}
}

func (w *walk) top() {
	for len(w.stack) > 1 {
		w.up()
	}
}

func (w *walk) close() { w.top() }

// down steps to name, making it when it is missing. A symbolic link is not followed but returned.
func (w *walk) down(name string, dir bool) (link string, err error) {
	const how = kernel.Beneath | kernel.NoMagicLinks
	f, err := kernel.OpenIn(w.here(), name, kernel.OPath|kernel.ONoFollow, 0, how)
	if errors.Is(err, os.ErrNotExist) {
		if dir {
			err = kernel.MkdirIn(w.here(), name, 0o755)
		} else {
			err = kernel.MknodIn(w.here(), name, kernel.TypeRegular|0o644, 0)
		}
		if err == nil && (w.uid != 0 || w.gid != 0) {
			err = kernel.ChownIn(w.here(), name, w.uid, w.gid)
		}
		if err != nil && !errors.Is(err, os.ErrExist) {
			return "", err
		}
		f, err = kernel.OpenIn(w.here(), name, kernel.OPath|kernel.ONoFollow, 0, how)
	}
	if err != nil {
		return "", err
	}
	if link, err = kernel.Readlink(f); err != nil || link != "" {
		f.Close()
		return link, err
	}
	w.stack = append(w.stack, f)
	return "", nil
}
