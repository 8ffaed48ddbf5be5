package oci

import (
	"fmt"
	"path"

	"berth/kernel"
	"berth/kernel/namespace"
)

// openTools makes the mounts of ExecSpec.Tools, of this machine's directories, while the thread still sees them.
// They are attached nowhere yet, and gone if they never are.
func (x *entrant) openTools() error {
	if len(x.spec.Tools) == 0 {
		return nil
	}
	if err := kernel.UnshareFS(); err != nil {
		return err
	}
	// Kernels before 6.7 mount an overlay at a path, for a moment.
	if err := namespace.Unshare(namespace.Mount); err != nil {
		return err
	}
	if err := kernel.Propagation("/", kernel.PropPrivate, true); err != nil {
		return err
	}
	for _, m := range x.spec.Tools {
		f, err := x.newMount(m, parseOptions(m.Options), nil)
		if err != nil {
			return fmt.Errorf("tools for %s: %w", m.Destination, err)
		}
		x.tools = append(x.tools, x.own(f))
	}
	return nil
}

// attachTools puts them into a copy of the container's mount namespace that only the new process and its children are
// in: the container's own processes don't see it, and it ends with the last of those.
func (x *entrant) attachTools() error {
	if len(x.tools) == 0 {
		return nil
	}
	if err := namespace.Unshare(namespace.Mount); err != nil {
		return err
	}
	// Nothing goes from here to the container or the host; what the host unmounts goes here too, and is not held.
	if err := kernel.Propagation("/", kernel.PropSlave, true); err != nil {
		return err
	}
	for i, m := range x.spec.Tools {
		dest := path.Clean("/" + m.Destination)
		target, err := kernel.OpenIn(nil, dest, kernel.OPath|kernel.ODirectory, 0, kernel.NoSymlinks)
		if err != nil {
			return fmt.Errorf("the container has no directory %s for tools: %w", dest, bare(err))
		}
		err = x.attachTo(x.tools[i], target, parseOptions(m.Options))
		target.Close()
		if err != nil {
			return fmt.Errorf("tools at %s: %w", dest, err)
		}
	}
	return nil
}
