package oci

import (
	"os"
	"path"
	"strings"

	"berth/fault"
	"berth/kernel"
	"berth/kernel/cgroup"
	"berth/kernel/namespace"
)

// mountCgroups shows the container its own groups. v1: a tmpfs with each hierarchy's own group bound in;
// v2: the unified hierarchy, made by the first process in its cgroup namespace, or its own group bound.
func (t *tree) mountCgroups(o mountOptions, dest string) error {
	if err := t.awaitGroup(); err != nil {
		return err
	}
	if t.group == nil {
		return nil
	}
	target, err := t.directory(dest)
	if err != nil {
		return err
	}
	dirs := t.group.Paths()
	v2, unified := dirs[""]
	if t.given != nil { // from inside they can't be told apart
		_, unified = t.given[givenGroup]
	}
	if unified && len(t.v1Groups()) == 0 {
		if t.ns.fresh&namespace.Cgroup != 0 {
			t.late = append(t.late, lateMount{kind: "cgroup2", options: o, target: t.own(target), name: dest})
			return nil
		}
		defer target.Close()
		f, err := t.cloneGroup("", v2)
		if err != nil {
			return err
		}
		defer f.Close()
		return attachTo(f, target, o)
	}
	defer target.Close()
	top, err := kernel.NewMount("tmpfs", "tmpfs", []string{"mode=755"}, int(o.set&^kernel.ReadOnly))
	if err != nil {
		return err
	}
	defer top.Close()
	if err := kernel.AttachMount(top, target); err != nil {
		return err
	}
	for name, dir := range t.v1Groups() {
		if err := t.bindGroup(top, name, dir, o); err != nil {
			return err
		}
	}
	return kernel.Attributes(top, false, o.set, 0)
}

// cloneGroup makes a mount of one of the container's groups.
func (t *tree) cloneGroup(name, dir string) (*os.File, error) {
	if t.given != nil {
		return t.given.take(givenGroup + name)
	}
	return kernel.CloneMount(nil, dir, false)
}

// v1Groups gives the container's directory in each v1 hierarchy, by the name of
// the hierarchy's mount point, such as "cpu,cpuacct".
func (t *tree) v1Groups() map[string]string {
	groups := map[string]string{}
	for name := range t.given {
		if name, is := strings.CutPrefix(name, givenGroup); is && name != "" {
			groups[name] = name
		}
	}
	if t.given != nil {
		return groups
	}
	for _, h := range cgroup.Detect().Hierarchies {
		if h.Version != 1 || h.Base == "" {
			continue
		}
		for _, dir := range t.group.Paths() {
			if strings.HasPrefix(dir, h.Mount+"/") {
				groups[path.Base(h.Mount)] = dir
			}
		}
	}
	return groups
}

// bindGroup binds the directory dir of a hierarchy under its name in top, a fresh tmpfs, with a link for each
// of several controllers.
func (t *tree) bindGroup(top *os.File, name, dir string, o mountOptions) error {
	if err := kernel.MkdirIn(top, name, 0o755); err != nil {
		return err
	}
	f, err := t.cloneGroup(name, dir)
	if err != nil {
		return err
	}
	defer f.Close()
	target, err := kernel.OpenIn(top, name, kernel.OPath, 0, kernel.Beneath|kernel.NoSymlinks)
	if err != nil {
		return err
	}
	defer target.Close()
	if err := attachTo(f, target, mountOptions{set: o.set}); err != nil {
		return err
	}
	if both := strings.Split(name, ","); len(both) > 1 {
		for _, one := range both {
			if err := kernel.SymlinkIn(name, top, one); err != nil {
				return err
			}
		}
	}
	return nil
}

// openGroup opens the groups of a container that runs, while their paths can be seen.
func (b *builder) openGroup() error {
	if b.group == nil {
		return nil
	}
	files, err := joinFiles(b.group)
	for _, f := range files {
		b.own(f)
	}
	b.groups = files
	return err
}

// joinFiles opens what a process writes "0" to in order to join the container's groups by itself: a
// single-threaded process joins v1's tasks without the lock that all forks take.
func joinFiles(g *cgroup.Group) ([]*os.File, error) {
	done := map[string]bool{}
	var files []*os.File
	for _, dir := range g.Paths() {
		if done[dir] {
			continue
		}
		done[dir] = true
		f, err := os.OpenFile(path.Join(dir, "tasks"), os.O_WRONLY, 0)
		if os.IsNotExist(err) {
			f, err = os.OpenFile(path.Join(dir, "cgroup.procs"), os.O_WRONLY, 0)
		}
		if os.IsNotExist(err) {
			continue // a hybrid's v2, not used by this group
		}
		if err != nil {
			kernel.CloseAll(files)
			return nil, err
		}
		files = append(files, f)
	}
	if len(files) == 0 {
		return nil, fault.New(fault.NotFound, "cgroup %s: no such group", g.Path())
	}
	return files, nil
}
