package shim

import (
	"encoding/json"
	"os"
	"path/filepath"

	"berth/oci"
)

// prepareHooks makes the run directory what hooks are told of as the bundle's: with its config.json, and a place for the
// root, which is mounted there in the container's mount namespace (runtime-spec, "POSIX-platform Hooks").
func (sup *supervisor) prepareHooks(b *oci.Bundle) error {
	if b.Foreign != nil || !b.HasHooks() {
		return nil
	}
	b.Dir, sup.settled = sup.dir, true
	root := filepath.Join(sup.dir, "rootfs")
	if err := os.MkdirAll(root, 0o711); err != nil {
		return err
	}
	b.Spec.Root.Path = root
	text, err := json.Marshal(b.Spec)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(sup.dir, "config.json"), text, 0o600)
}

// poststop runs the hooks of a container that is gone. What goes wrong is written down, as the runtime-spec wants it.
func (sup *supervisor) poststop() {
	if !sup.settled {
		return
	}
	b, err := sup.bundle()
	if err == nil && b.Foreign == nil { // another runtime has run them
		b.Dir = sup.dir
		err = b.Poststop()
	}
	if err != nil {
		sup.complain(err)
	}
}
