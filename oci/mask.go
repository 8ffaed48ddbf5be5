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
func (b *builder) maskPaths() error {
	for _, p := range b.spec.Linux.ReadonlyPaths {
		if rest, ok := below("/proc", p); ok && b.hasLateProc() {
			b.masks = append(b.masks, lateMask{path: rest, readOnly: true})
			continue
		}
		if err := b.protect(p); err != nil {
			return err
		}
	}
	for _, p := range b.spec.Linux.MaskedPaths {
		if err := b.mask(p); err != nil {
			return err
		}
	}
	return nil
}

// mask covers p: a file by /dev/null, a directory by an empty tmpfs.
func (b *builder) mask(p string) error {
	rest, late := below("/proc", p)
	late = late && b.hasLateProc()
	var target *os.File
	var err error
	if late { // every procfs of this kernel has the same entries
		target, err = kernel.OpenIn(b.proc, rest, kernel.OPath|kernel.ONoFollow, 0, kernel.Beneath|kernel.NoSymlinks)
	} else {
		target, err = b.open(p, kernel.OPath)
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
	cover, err := b.cover(dir)
	if err != nil {
		return err
	}
	if late {
		b.masks = append(b.masks, lateMask{path: rest, cover: b.own(cover)})
		return nil
	}
	defer cover.Close()
	return kernel.AttachMount(cover, target)
}

// cover makes a detached mount that hides a directory or a file. The null device is the host's, verified
// (CVE-2025-31133: the container's own may be anything).
func (b *builder) cover(dir bool) (*os.File, error) {
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
func (b *builder) protect(p string) error {
	target, err := b.open(p, kernel.OPath)
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
func (b *builder) readonlyRoot() error {
	if b.spec.Root == nil || !b.spec.Root.Readonly {
		return nil
	}
	return kernel.Attributes(b.root, false, kernel.ReadOnly, 0)
}

// pivot makes the container's root the thread's root.
func (b *builder) pivot() error {
	into := kernel.Pivot
	if b.noPivot {
		into = kernel.MoveRoot
	}
	if err := into(b.root); err != nil {
		return err
	}
	switch b.spec.Linux.RootfsPropagation {
	case "shared", "rshared":
		return kernel.Propagation("/", kernel.PropShared, b.spec.Linux.RootfsPropagation[0] == 'r')
	case "slave", "rslave":
		return kernel.Propagation("/", kernel.PropSlave, b.spec.Linux.RootfsPropagation[0] == 'r')
	case "unbindable", "runbindable":
		return kernel.Propagation("/", kernel.PropUnbindable, b.spec.Linux.RootfsPropagation[0] == 'r')
	}
	return nil
}
