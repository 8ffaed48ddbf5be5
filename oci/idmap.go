package oci

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/fault"
	"berth/kernel"
	"berth/kernel/namespace"
)

// CanMapLayers tries whether what a storage driver shows of dir's file system can show owners through a user namespace
// (overlays: Linux 5.19; and file systems one by one). It makes and removes a directory called name in dir; the error says why they can't.
func CanMapLayers(dir, name, driver string) (err error) {
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1 << 30, Size: 1}}
	ns, err := namespace.NewUser(ids, ids)
	if err != nil {
		return err
	}
	defer ns.Close()
	top := filepath.Join(dir, name)
	defer os.RemoveAll(top) // and what a killed one left
	for _, d := range []string{"lower", "root/diff", "root/work"} {
		if err := os.MkdirAll(filepath.Join(top, d), 0o700); err != nil {
			return err
		}
	}
	switch driver {
	case "overlay2":
	case "vfs", "btrfs", "devicemapper": // whole trees, on file systems of the kernel's own
		return canMapTree(filepath.Join(top, "lower"), ns)
	default:
		return fault.New(fault.Unsupported, "storage driver %s has no id-mapped mounts", driver)
	}
	m, err := kernel.NewMappedOverlay([]string{"lowerdir+=" + top + "/lower", "upperdir=" + top + "/root/diff", "workdir=" + top + "/root/work"}, 0, ns, 1<<30, 1<<30)
	if err != nil {
		return err
	}
	defer m.Close()
	made, err := kernel.OpenIn(m, ".", kernel.ODirectory, 0, 0)
	if err != nil {
		return err
	}
	defer made.Close()
	// A file of the namespace's root must come to belong to root on disk: an overlay may be read-only for want of that.
	return kernel.Thread(func() error {
		if err := kernel.ActAs(1<<30, 1<<30); err != nil {
			return err
		}
		return kernel.MkdirIn(made, "made", 0o700)
	})
}

// canMapTree tries whether a bind of dir can show owners through a user namespace.
func canMapTree(dir string, ns *os.File) error {
	m, err := kernel.CloneMount(nil, dir, false)
	if err != nil {
		return err
	}
	return errors.Join(kernel.MapIDs(m, ns, false), m.Close())
}

// OwnerIsRoot is our own option of a bind: whoever owns the source on the host is the program's user in the container, root where it has none,
// with or without a user namespace, and everybody else is as always. Files that the user makes there are the owner's on the host.
const OwnerIsRoot = "idmap=owner"

// ownerMap makes the user namespace for that; owner is the container's, nil when it is the host's. The caller closes it.
func ownerMap(t *tree, source, owner *os.File) (*os.File, error) {
	st, err := kernel.Stat(source)
	if err != nil {
		return nil, err
	}
	u, err := programUser(t)
	if err != nil {
		return nil, err
	}
	everybody := []specs.LinuxIDMapping{{Size: 1<<32 - 1}}
	uids, gids := everybody, everybody
	if owner != nil {
		uids, gids = t.spec.Linux.UIDMappings, t.spec.Linux.GIDMappings
	}
	if len(uids) == 0 || len(gids) == 0 {
		return nil, errors.New("the user namespace's uidMappings and gidMappings are not given")
	}
	ids, err := namespace.NewUser(swapped(st.Uid, u.uid, uids), swapped(st.Gid, u.gid, gids))
	if err != nil {
		return nil, fmt.Errorf("map %d:%d to the container's user: %w", st.Uid, st.Gid, err)
	}
	return ids, nil
}

// programUser is who the program runs as, as far as it is known before the container's root is looked at: a name in there is none.
func programUser(t *tree) (user, error) {
	var given *specs.User
	if t.bundle != nil && t.bundle.UserFromSpec && t.spec.Process != nil {
		given = &t.spec.Process.User
	}
	if t.bundle == nil || t.bundle.User == "" && given == nil {
		return user{}, nil
	}
	if t.root == nil {
		return resolveUser(t.bundle.User, given, nil, nil, nil)
	}
	return findUserIn(t.root, t.bundle.User, given, nil)
}

// swapped maps ids on disk to the host's ids for a container whose ids are mapped as given: owner to whom the container calls user, user to whom it
// calls by the owner's number, all others as the container has them.
func swapped(owner, user uint32, ids []specs.LinuxIDMapping) (list []specs.LinuxIDMapping) {
	const all = 1<<32 - 1
	low, high := min(owner, user), max(owner, user)
	parts := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 0, Size: all}} // on disk, in the container
	if low != high {
		parts = []specs.LinuxIDMapping{
			{ContainerID: 0, HostID: 0, Size: low}, {ContainerID: low, HostID: high, Size: 1}, {ContainerID: low + 1, HostID: low + 1, Size: high - low - 1},
			{ContainerID: high, HostID: low, Size: 1}, {ContainerID: high + 1, HostID: high + 1, Size: all - high - 1},
		}
	}
	for _, p := range parts {
		for _, m := range ids {
			first, end := max(uint64(p.HostID), uint64(m.ContainerID)), min(uint64(p.HostID)+uint64(p.Size), uint64(m.ContainerID)+uint64(m.Size))
			if first < end {
				list = append(list, specs.LinuxIDMapping{
					ContainerID: p.ContainerID + uint32(first) - p.HostID, HostID: m.HostID + uint32(first) - m.ContainerID, Size: uint32(end - first),
				})
			}
		}
	}
	return list
}
