package oci

import (
	"errors"
	"fmt"
	"os"
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
	var views []view
	if x.spec.ToolsRoot != "" { // as the container is without its tools
		var err error
		if views, err = x.openViews(); err != nil {
			return err
		}
	}
	for i, m := range x.spec.Tools {
		dest := path.Clean("/" + m.Destination)
		target, err := kernel.OpenIn(nil, dest, kernel.OPath|kernel.ODirectory, 0, kernel.NoSymlinks)
		if err != nil {
			return fmt.Errorf("the container has no directory %s for tools: %w", dest, bare(err))
		}
		err = attachTo(x.tools[i], target, parseOptions(m.Options))
		target.Close()
		if err != nil {
			return fmt.Errorf("tools at %s: %w", dest, err)
		}
	}
	if x.spec.ToolsRoot == "" {
		return nil
	}
	return x.enterTools(views)
}

// view is a copy of a part of the container's tree, and where it goes in the tools' root.
type view struct {
	at    string
	mount *os.File
}

// openViews copies what a process whose root are the tools sees of the container.
func (x *entrant) openViews() ([]view, error) {
	var all []view
	for _, v := range []struct{ from, at string }{{"/", x.spec.ToolsRoot}, {"/proc", "proc"}, {"/sys", "sys"}, {"/dev", "dev"}} {
		m, err := kernel.CloneMount(nil, v.from, true)
		if err != nil {
			if v.from != "/" {
				continue // the container has none
			}
			return nil, err
		}
		all = append(all, view{v.at, x.own(m)})
	}
	return all, nil
}

// enterTools puts the views into the first of the tools, by a path without links of that foreign tree, and makes it the root.
func (x *entrant) enterTools(views []view) error {
	root, err := kernel.OpenIn(nil, x.spec.Tools[0].Destination, kernel.OPath|kernel.ODirectory, 0, kernel.NoSymlinks)
	if err != nil {
		return err
	}
	x.own(root)
	for _, v := range views {
		target, err := kernel.OpenIn(root, v.at, kernel.OPath|kernel.ODirectory, 0, kernel.Beneath|kernel.NoSymlinks)
		if errors.Is(err, os.ErrNotExist) && v.at != x.spec.ToolsRoot {
			continue
		}
		if err != nil {
			return fmt.Errorf("the tools have no directory %s: %w", v.at, bare(err))
		}
		err = kernel.AttachMount(v.mount, target)
		target.Close()
		if err != nil {
			return fmt.Errorf("the container at %s of its tools: %w", v.at, err)
		}
	}
	return kernel.Chroot(root)
}
