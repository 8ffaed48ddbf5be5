package oci

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/fault"
	"berth/kernel"
	"berth/kernel/namespace"
)

// MountIn adds a bind or a tmpfs to the running container whose first process is pid; a missing place to put it is made, in the container's own root.
// fault.Unsupported: this kernel, or this kind of mount, can't be added while the container runs.
func MountIn(pid int, m specs.Mount) error {
	o := parseOptions(m.Options)
	isBind := o.bind || m.Type == "bind"
	if !isBind && m.Type != "tmpfs" {
		return fault.New(fault.Unsupported, "mount %s: a file system of type %s can't be added to a running container", m.Destination, m.Type)
	}
	if !kernel.CanSetMount() {
		return fault.New(fault.Unsupported, "mount %s: adding a mount to a running container needs Linux 5.12", m.Destination)
	}
	var t tree
	defer t.close()
	var bind *os.File
	if isBind { // the source is the host's
		if len(m.UIDMappings)+len(m.GIDMappings) > 0 || slices.Contains(m.Options, "idmap") || slices.Contains(m.Options, "ridmap") {
			return fault.New(fault.Unsupported, "mount %s: an id-mapped mount can't be added to a running container", m.Destination)
		}
		f, err := cloneSource(m.Source, o)
		if err != nil {
			return err
		}
		bind = t.own(f)
		// Before anybody in the container can see it.
		if err := finishMount(bind, o); err != nil {
			return fmt.Errorf("mount %s: %w", m.Destination, err)
		}
	}
	return inMounts(pid, func(root *os.File) error {
		t.root = root
		dest := path.Clean("/" + m.Destination)
		err := error(nil)
		if isBind {
			err = t.attach(bind, dest, mountOptions{})
		} else {
			err = t.addTmpfs(m, o, dest)
		}
		if kernel.IsReadOnlyError(err) {
			return fault.New(fault.Unsupported, "mount %s: there is no such place in the container, and its root is read-only: %w", m.Destination, err)
		}
		if err != nil {
			return fmt.Errorf("mount %s: %w", m.Destination, err)
		}
		return nil
	})
}

// addTmpfs is mountTmpfs for a thread that can't use its own /proc.
func (t *tree) addTmpfs(m specs.Mount, o mountOptions, dest string) error {
	mode := uint32(0o1777)
	target, err := t.open(dest, kernel.OPath)
	if errors.Is(err, os.ErrNotExist) {
		target, err = makeIn(t.root, dest, true, 0, 0)
	} else if err == nil {
		st, serr := kernel.Stat(target)
		mode, err = st.Mode&0o7777, serr
	}
	if err != nil {
		return err
	}
	defer target.Close()
	if err := checkProc(dest, target, nil); err != nil {
		return err
	}
	if !slices.ContainsFunc(o.data, func(d string) bool { return strings.HasPrefix(d, "mode=") }) {
		o.data = append(o.data, fmt.Sprintf("mode=%o", mode))
	}
	f, err := kernel.NewMount("tmpfs", m.Source, o.data, int(o.set))
	if err != nil {
		return err
	}
	defer f.Close()
	return kernel.AttachMount(f, target)
}

// finishMount gives a mount all its attributes; a detached one takes them since Linux 5.12.
func finishMount(f *os.File, o mountOptions) error {
	if err := kernel.Attributes(f, false, o.set, o.clear); err != nil {
		return err
	}
	if err := kernel.Attributes(f, true, o.rset, o.rclear); err != nil {
		return err
	}
	for _, p := range o.propagation {
		if err := kernel.Spread(f, p.flag, p.recursive); err != nil {
			return err
		}
	}
	return nil
}

// UnmountIn takes the mount at dest, with those on it, away from the running container whose first process is pid. What has files open there
// keeps them. fault.NotFound: nothing is mounted there.
func UnmountIn(pid int, dest string) error {
	proc, err := kernel.OpenIn(nil, "/proc", kernel.OPath|kernel.ODirectory, 0, 0)
	if err != nil {
		return err
	}
	defer proc.Close()
	return atMount(pid, dest, func(mount *os.File) error {
		if mount == nil {
			return fault.New(fault.NotFound, "nothing is mounted at %s", dest)
		}
		return kernel.UnmountFile(proc, mount)
	})
}

// MountedIn tells whether something is mounted at dest in the running container whose first process is pid.
func MountedIn(pid int, dest string) (there bool, err error) {
	err = atMount(pid, dest, func(mount *os.File) error {
		there = mount != nil
		return nil
	})
	return there, err
}

// atMount runs fn in the container's mount namespace with the top of the mount at dest; nil when there is none.
func atMount(pid int, dest string, fn func(mount *os.File) error) error {
	return inMounts(pid, func(root *os.File) error {
		t := tree{root: root}
		f, err := t.open(path.Clean("/"+dest), kernel.OPath)
		if errors.Is(err, os.ErrNotExist) {
			return fn(nil)
		}
		if err != nil {
			return err
		}
		defer f.Close()
		isTop, err := kernel.IsMountRoot(f)
		if err != nil {
			return err
		}
		if !isTop {
			return fn(nil)
		}
		return fn(f)
	})
}

// inMounts runs fn on a thread in the mount namespace of the container whose first process is pid, with its root.
func inMounts(pid int, fn func(root *os.File) error) error {
	first, err := kernel.OpenPid(pid)
	if err != nil {
		return fault.New(fault.Conflict, "process %d has ended", pid)
	}
	defer first.Close()
	return kernel.Thread(func() error {
		if err := kernel.UnshareFS(); err != nil {
			return err
		}
		kernel.Umask(0)
		if err := namespace.Enter(first, namespace.Mount); err != nil {
			if kernel.IsGone(err) {
				return fault.New(fault.Conflict, "process %d has ended", pid)
			}
			return err
		}
		root, err := kernel.OpenIn(nil, "/", kernel.OPath|kernel.ODirectory, 0, 0)
		if err != nil {
			return err
		}
		defer root.Close()
		return fn(root)
	})
}
