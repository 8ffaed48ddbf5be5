package cgroup

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// mkdir makes the group's directories; those that did not exist are returned, also with an error.
func (g *Group) mkdir() (made []string, err error) {
	for _, d := range g.dirs {
		isNew, err := d.make()
		if isNew {
			made = append(made, d.path)
		}
		if err != nil {
			return made, err
		}
	}
	return made, nil
}

// make makes one directory with its parents, and prepares it for processes.
func (d dir) make() (isNew bool, err error) {
	parent := path.Dir(d.path)
	err = unix.Mkdir(d.path, 0o755)
	if err == unix.ENOENT {
		if err := (dir{d.h, parent}).makeParent(); err != nil {
			return false, err
		}
		err = unix.Mkdir(d.path, 0o755)
	}
	if err != nil && err != unix.EEXIST {
		return false, kind(&os.PathError{Op: "mkdir", Path: d.path, Err: err})
	}
	isNew = err == nil
	if d.h.Version == 2 {
		return isNew, d.h.handDown(parent)
	}
	if slices.Contains(d.h.Controllers, "cpuset") {
		return isNew, fillCpuset(d.path, d.h.Base)
	}
	return isNew, nil
}

// makeParent makes a group that only holds groups. Another process may be doing the same.
func (d dir) makeParent() error {
	if d.path == d.h.Base {
		return nil
	}
	if err := (dir{d.h, path.Dir(d.path)}).makeParent(); err != nil {
		return err
	}
	if err := unix.Mkdir(d.path, 0o755); err != nil && err != unix.EEXIST {
		return kind(&os.PathError{Op: "mkdir", Path: d.path, Err: err})
	}
	if d.h.Version == 1 && slices.Contains(d.h.Controllers, "memory") {
		// Before Linux 5.11 a limit does not count the groups below unless it is said; later kernels always do and may lack the file.
		write(d.path, "memory.use_hierarchy", "1")
	}
	return nil
}

// fillCpuset copies the parent's processors and memory nodes into an empty v1 group, which could hold no process otherwise (cpuset(7)).
func fillCpuset(d, base string) error {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		if err := fillFrom(d, base, file); err != nil {
			return err
		}
	}
	return nil
}

func fillFrom(d, base, file string) error {
	if own, err := read(d, file); err != nil || own != "" || d == base {
		return err
	}
	parent := path.Dir(d)
	if err := fillFrom(parent, base, file); err != nil {
		return err
	}
	value, err := read(parent, file)
	if err != nil {
		return err
	}
	return kind(write(d, file, value))
}

// handDown enables all of the hierarchy's controllers for the children of parent, from the top down.
func (h *Hierarchy) handDown(parent string) error {
	enabled, err := read(parent, "cgroup.subtree_control")
	if err != nil {
		return err
	}
	missing := without(h.Controllers, strings.Fields(enabled))
	if len(missing) == 0 {
		return nil
	}
	if parent != h.Base {
		if err := h.handDown(path.Dir(parent)); err != nil {
			return err
		}
	}
	err = enable(parent, missing)
	if errors.Is(err, unix.EBUSY) && parent == h.Base {
		// Processes sit in this group, which v2 forbids beside controllers for children, except at the true top:
		// a nested engine at the top of its cgroup namespace. They move one level down.
		if err := evacuate(parent); err != nil {
			return err
		}
		err = enable(parent, missing)
	}
	if err == nil || !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOENT) {
		return kind(err)
	}
	// One of them can't be handed down (the cpu controller while realtime tasks run, for instance): take the others.
	// Limits that need it become warnings when they are set.
	for _, c := range missing {
		enable(parent, []string{c})
	}
	return nil
}

func enable(group string, controllers []string) error {
	return write(group, "cgroup.subtree_control", "+"+strings.Join(controllers, " +"))
}

// evacuate moves all processes of a v2 group into a child called "init". A fork may race: it tries a few times.
func evacuate(group string) error {
	leaf := group + "/init"
	if err := unix.Mkdir(leaf, 0o755); err != nil && err != unix.EEXIST {
		return kind(&os.PathError{Op: "mkdir", Path: leaf, Err: err})
	}
	for range 10 {
		pids, err := read(group, "cgroup.procs")
		if err != nil || pids == "" {
			return err
		}
		for pid := range strings.FieldsSeq(pids) {
			if err := write(leaf, "cgroup.procs", pid); err != nil && !errors.Is(err, unix.ESRCH) {
				return kind(err)
			}
		}
	}
	return nil
}

func without(all, some []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return slices.Contains(some, s) })
}

// walk calls fn for group and every group below it, parents first. Groups that vanish are passed over.
func walk(group string, fn func(dir string) error) error {
	if err := fn(group); err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
			return nil
		}
		return err
	}
	entries, err := os.ReadDir(group)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := walk(group+"/"+e.Name(), fn); err != nil {
				return err
			}
		}
	}
	return nil
}
