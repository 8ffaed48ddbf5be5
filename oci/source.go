package oci

import (
	"errors"
	"os"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/fault"
	"berth/kernel"
)

// Subpath is our own option of a mount, "subpath=PATH": only what lies at PATH of the source is shown. The path is walked by
// descriptors when the mount is made, and leads nowhere out of the source, whatever links somebody puts there meanwhile.
const Subpath = "subpath="

// Outside is our own option of a file system that is mounted with the rights of whoever makes the container, not with those of the container's
// user namespace.
const Outside = "outside"

// newMount makes a detached mount, a new file system or a bind. owner is the container's user namespace, when the caller is outside of it.
func (t *tree) newMount(m specs.Mount, o mountOptions, owner *os.File) (*os.File, error) {
	if m.Type == fileType {
		return newFile(m, o)
	}
	ids, err := idmap(t.spec.Linux, m, o, owner)
	if err != nil {
		return nil, err
	}
	if ids != nil && ids != owner {
		defer ids.Close()
	}
	if !o.bind && m.Type != "bind" {
		f, err := newFileSystem(m, o, ids)
		if err != nil || o.subpath == "" {
			return f, err
		}
		defer f.Close()
		return part(f, o.subpath)
	}
	f, err := cloneSource(m.Source, o)
	if err != nil {
		return nil, err
	}
	if o.idmapOwner {
		if ids, err = ownerMap(t, f, owner); err != nil {
			f.Close()
			return nil, err
		}
		defer ids.Close()
	}
	if ids == nil {
		return f, nil
	}
	if err := kernel.MapIDs(f, ids, o.idmapAll); err != nil {
		f.Close()
		return nil, fault.New(fault.Unsupported, "bind source %s: its file system can't show owners through a user namespace: leave idmap out: %w", m.Source, bare(err))
	}
	return f, nil
}

// cloneSource makes the mount of a bind.
func cloneSource(source string, o mountOptions) (*os.File, error) {
	if pid, path, ok := borrowed(source); ok {
		return borrow(pid, path, o.subpath)
	}
	if o.subpath == "" {
		f, err := kernel.CloneMount(nil, source, o.recursive)
		if err != nil {
			return nil, fault.New(fault.Invalid, "bind source %s: %w", source, bare(err))
		}
		return f, nil
	}
	top, err := kernel.OpenIn(nil, source, kernel.OPath|kernel.ODirectory, 0, 0)
	if err != nil {
		return nil, fault.New(fault.Invalid, "bind source %s: %w", source, bare(err))
	}
	defer top.Close()
	at, err := openPart(top, o.subpath)
	if err != nil {
		return nil, err
	}
	defer at.Close()
	return kernel.CloneMount(at, "", o.recursive)
}

// openPart opens what lies at sub of top.
func openPart(top *os.File, sub string) (*os.File, error) {
	f, err := kernel.OpenIn(top, sub, kernel.OPath, 0, kernel.Beneath|kernel.NoMagicLinks)
	if errors.Is(err, syscall.EXDEV) {
		return nil, fault.New(fault.Invalid, "cannot access path %s/%s: it leads out of there", top.Name(), sub)
	}
	if err != nil {
		return nil, fault.New(fault.Invalid, "cannot access path %s/%s: %w", top.Name(), sub, bare(err))
	}
	return f, nil
}

// part makes a mount of what lies at sub of a detached mount.
func part(m *os.File, sub string) (*os.File, error) {
	at, err := openPart(m, sub)
	if err != nil {
		return nil, err
	}
	defer at.Close()
	f, err := kernel.CloneMount(at, "", false)
	if !errors.Is(err, syscall.EINVAL) {
		return f, err
	}
	return partAttached(m, at)
}

// partAttached is part for kernels before 6.15, which copy no mount that is detached: it stands at a place of no importance meanwhile.
func partAttached(m, at *os.File) (f *os.File, err error) {
	place, err := kernel.OpenIn(nil, procPlace, kernel.OPath|kernel.ODirectory, 0, 0)
	if err != nil {
		return nil, err
	}
	defer place.Close()
	if err := kernel.AttachMount(m, place); err != nil {
		return nil, err
	}
	f, err = kernel.CloneMount(at, "", false)
	return f, errors.Join(err, kernel.Unmount(procPlace, true))
}
