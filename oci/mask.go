package oci

import (
	"errors"
	"os"

	"berth/kernel"
)

// lateMask is a path below /proc that the first process covers or makes read-only.
type lateMask struct {
	path     string // below the late procfs
	cover    *os.File
	readOnly bool
}

// maskPaths hides and write-protects paths; those that don't exist are skipped. What lies below
// a procfs that is yet to come is prepared for the first process.
func (t *tree) maskPaths() error {
	for _, p := range t.spec.Linux.ReadonlyPaths {
		if rest, ok := below("/proc", p); ok && t.hasLateProc() {
			t.masks = append(t.masks, lateMask{path: rest, readOnly: true})
			continue
		}
		if err := t.protect(p); err != nil {
			return err
		}
	}
	for _, p := range t.spec.Linux.MaskedPaths {
		if err := t.mask(p); err != nil {
			return err
		}
	}
	return nil
}

// mask covers p: a file by /dev/null, a directory by an empty tmpfs.
func (t *tree) mask(p string) error {
	rest, late := below("/proc", p)
	late = late && t.hasLateProc()
	var target *os.File
	var err error
	if late { // every procfs of this kernel has the same entries
		target, err = kernel.OpenIn(t.proc, rest, kernel.OPath|kernel.ONoFollow, 0, kernel.Beneath|kernel.NoSymlinks)
	} else {
		target, err = t.open(p, kernel.OPath)
	}
	if errors.Is(err, os.ErrNotExist) || kernel.IsNotDir(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer target.Close()
	dir, err := kernel.IsDir(target)
	if err != nil {
		return err
	}
	cover, err := t.cover(dir)
	if err != nil {
		return err
	}
	if late {
		t.masks = append(t.masks, lateMask{path: rest, cover: t.own(cover)})
		return nil
	}
	defer cover.Close()
	return kernel.AttachMount(cover, target)
}

// cover makes a detached mount that hides a directory or a file. The null device is the host's, verified
// (CVE-2025-31133: the container's own may be anything).
func (t *tree) cover(dir bool) (*os.File, error) {
	if dir {
		return kernel.NewMount("tmpfs", "tmpfs", []string{"mode=755", "nr_inodes=2"}, kernel.ReadOnly)
	}
	null, err := kernel.OpenIn(nil, os.DevNull, kernel.OPath|kernel.ONoFollow, 0, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	if err := kernel.IsDevice(null, false, 1, 3); err != nil {
		return nil, err
	}
	return kernel.CloneMount(null, "", false)
}

// protect makes p and all mounts below it read-only, by a bind on itself.
func (t *tree) protect(p string) error {
	target, err := t.open(p, kernel.OPath)
	if errors.Is(err, os.ErrNotExist) || kernel.IsNotDir(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer target.Close()
	m, err := kernel.CloneMount(target, "", true)
	if err != nil {
		return err
	}
	defer m.Close()
	if err := kernel.AttachMount(m, target); err != nil {
		return err
	}
	return kernel.Attributes(m, false, kernel.ReadOnly, 0)
}

// readonlyRoot protects the root itself, after everything was made in it.
func (t *tree) readonlyRoot() error {
	if t.spec.Root == nil || !t.spec.Root.Readonly {
		return nil
	}
	return kernel.Attributes(t.root, false, kernel.ReadOnly, 0)
}

// pivot makes the container's root the thread's root.
func (t *tree) pivot() error {
	into := kernel.Pivot
	if t.noPivot {
		into = kernel.MoveRoot
	}
	if err := into(t.root); err != nil {
		return err
	}
	switch t.spec.Linux.RootfsPropagation {
	case "shared", "rshared":
		return kernel.Propagation("/", kernel.PropShared, t.spec.Linux.RootfsPropagation[0] == 'r')
	case "slave", "rslave":
		return kernel.Propagation("/", kernel.PropSlave, t.spec.Linux.RootfsPropagation[0] == 'r')
	case "unbindable", "runbindable":
		return kernel.Propagation("/", kernel.PropUnbindable, t.spec.Linux.RootfsPropagation[0] == 'r')
	}
	return nil
}
