package kernel

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Aufs is the kind of mount that NewMount makes of aufs' branches. Options are one "br:PATH=PERMISSION" for each, the topmost first,
// "xino=PATH", of which the kernel needs a new file for a moment, so that a name of its own is put behind PATH, and what
// else aufs(5) has. No path may have a comma, a colon or an equals sign.
const Aufs = "aufs"

// AufsMagic is the file system's number ("aufs" as four letters).
const AufsMagic = 0x61756673

// HasFileSystem tells whether the kernel has a file system, after it looked for a module of that name (fsopen(2)).
func HasFileSystem(kind string) (bool, error) {
	n, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if errors.Is(err, unix.ENODEV) {
		return false, nil
	}
	if err != nil {
		return false, pathError("fsopen", kind, err)
	}
	return true, unix.Close(n)
}

// newAufs mounts it, in a mount namespace of its own, which the caller need not have.
func newAufs(options []string, attrs int) (m *os.File, err error) {
	data, err := aufsData(options, "-"+rand.Text(), os.Getpagesize())
	if err != nil {
		return nil, err
	}
	err = PrivateMounts(func() (err error) {
		m, err = mountAside(Aufs, data, attrs)
		return err
	})
	return m, err
}

// aufsData gives the options of mount(2) and those of the remounts after it: those of each call have to fit into one page, so the
// branches for which the first has no room are appended. own is put behind the name of the file for inode numbers.
func aufsData(options []string, own string, page int) (calls []string, err error) {
	var branches, rest []string
	for _, o := range options {
		if branch, is := strings.CutPrefix(o, "br:"); is {
			branches = append(branches, branch)
			continue
		}
		if strings.HasPrefix(o, "xino=") {
			o += own
		}
		rest = append(rest, o)
	}
	call, tail := "br:", strings.Join(append([]string{""}, rest...), ",")
	for k, b := range branches {
		part := ":" + b
		switch {
		case k == 0:
			part = b
		case len(calls) > 0:
			part = ",append:" + b
		}
		if len(call)+len(part)+len(tail) < page { // the kernel needs a zero byte
			call += part
			continue
		}
		calls = append(calls, call+tail)
		call, tail = "append:"+b, ""
		if k == 0 || len(call) >= page {
			return nil, fmt.Errorf("mount aufs: %s does not fit into the options", b)
		}
	}
	return append(calls, call+tail), nil
}
