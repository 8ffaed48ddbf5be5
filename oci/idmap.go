package oci

import (
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/kernel"
	"berth/kernel/namespace"
)

// CanMapLayers tries whether overlays over directories of dir's file system can show owners through a user namespace
// (Linux 5.19, and file systems one by one). It makes and removes a directory called name in dir; the error says why they can't.
func CanMapLayers(dir, name string) (err error) {
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
