package oci

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/fault"
	"berth/kernel"
	"berth/kernel/namespace"
)

// outside makes, with the caller's rights, what the first process of a container in a user namespace has none for: its
// root, what of the host is bound in, device nodes, sysfs. All of them are detached mounts, which that process
// only attaches. So nothing of the host needs to be open to the container's ids.
type outside struct {
	*tree
	owner      *os.File // the user namespace
	dir        string   // of the first process in the caller's procfs
	uids, gids []specs.LinuxIDMapping
	names      []string // of what was made
	made       []*os.File
}

// What the first process knows the things by that it is given, beside the mounts.
const (
	givenRoot  = "root"
	servedRoot = "served root" // outside of a user namespace
	givenNodes = "nodes"
	givenSys   = "sysfs"
)

func givenMount(m specs.Mount) string { return "mount " + m.Source + " on " + m.Destination }

// givenGroup is for the group in one of v1's hierarchies, by the name of its mount point; of v2 it ends there.
const givenGroup = "cgroup "

// newOutside looks at the user namespace of the process pid, whose maps are written.
func newOutside(t *tree, pid int) (o *outside, err error) {
	o = &outside{tree: t, dir: fmt.Sprintf("/proc/%d", pid)}
	if o.uids, o.gids, err = namespace.ReadMaps(o.dir); err != nil {
		return nil, err
	}
	o.owner, err = os.Open(o.dir + "/ns/user")
	return o, err
}

// close closes what the first process has got by now.
func (o *outside) close() { kernel.CloseAll(append(o.made, o.owner)) }

func (o *outside) add(name string, f *os.File) {
	o.names = append(o.names, name)
	o.made = append(o.made, f)
}

// mapID gives the caller's id for one of a namespace with that map.
func mapID(list []specs.LinuxIDMapping, id uint32) (uint32, error) {
	for _, m := range list {
		if id >= m.ContainerID && id-m.ContainerID < m.Size {
			return m.HostID + (id - m.ContainerID), nil
		}
	}
	return 0, fault.New(fault.Invalid, "id %d is not mapped in the container's user namespace", id)
}

func mapIDs(uids, gids []specs.LinuxIDMapping, uid, gid uint32) (hostUID, hostGID uint32, err error) {
	u, uerr := mapID(uids, uid)
	g, gerr := mapID(gids, gid)
	return u, g, errors.Join(uerr, gerr)
}

// makeAll makes all of it; what was made before a failure is closed by close.
func (o *outside) makeAll(stdio []*os.File) error {
	root, err := o.makeRoot()
	if err != nil {
		return err
	}
	o.add(givenRoot, root)
	o.root = root // for whoever looks names of users up
	mounts := slices.Clone(o.spec.Mounts)
	if len(o.bundle.Rootfs) > 1 {
		mounts = append(mounts, o.bundle.Rootfs[1:]...)
	}
	for _, m := range mounts {
		if err := o.makeMount(m); err != nil {
			return fmt.Errorf("mount %s: %w", m.Destination, err)
		}
	}
	if err := o.makeNodes(); err != nil {
		return err
	}
	return o.giveFiles(stdio)
}

func (o *outside) makeRoot() (*os.File, error) {
	if len(o.bundle.Rootfs) == 0 {
		return o.cloneRoot()
	}
	return mountOfRoot(o.tree, o.owner)
}

// rootIsServed tells whether the container's root is not the container's to make: a program that serves it is started outside of the
// container's namespaces, or it would be one of its processes; a disk can't be opened by who may not use it (cgroup's devices).
func (b *Bundle) rootIsServed() bool {
	if len(b.Rootfs) == 0 {
		return false
	}
	first := b.Rootfs[0]
	return first.Type == kernel.FuseOverlay || first.Type != "bind" && filepath.IsAbs(first.Source)
}

// mountOfRoot makes the mount of the root.
func mountOfRoot(t *tree, owner *os.File) (*os.File, error) {
	first := t.bundle.Rootfs[0]
	f, err := t.newMount(first, parseOptions(first.Options), owner)
	if err != nil {
		return nil, fmt.Errorf("root file system: %w", err)
	}
	return f, nil
}

func (o *outside) makeMount(m specs.Mount) error {
	options := parseOptions(m.Options)
	switch {
	case o.ns.shows(m, options):
		f, err := o.newMount(m, options, o.owner)
		if err != nil {
			return err
		}
		o.add(givenMount(m), f)
	case m.Type == "sysfs":
		f, err := o.makeSys(options)
		if err != nil {
			return err
		}
		o.add(givenSys, f)
	case m.Type == "cgroup" || m.Type == "cgroup2":
		return o.makeGroups(options)
	}
	return nil
}

// shows tells whether a mount shows what is the host's: a bind, or message queues when the IPC namespace is.
func (n namespaces) shows(m specs.Mount, o mountOptions) bool {
	return o.bind || m.Type == "bind" || o.outside || m.Type == "mqueue" && !n.has(namespace.IPC)
}

// makeSys makes a sysfs that shows the container's network.
func (o *outside) makeSys(options mountOptions) (f *os.File, err error) {
	net, err := os.Open(o.dir + "/ns/net")
	if err != nil {
		return nil, err
	}
	defer net.Close()
	err = kernel.Thread(func() error {
		if err := namespace.Enter(net, namespace.Net); err != nil {
			return err
		}
		f, err = kernel.NewMount("sysfs", "sysfs", options.data, int(options.set))
		return err
	})
	return f, err
}

func (o *outside) makeGroups(options mountOptions) error {
	if o.group == nil {
		return nil
	}
	groups := o.v1Groups()
	if v2, ok := o.group.Paths()[""]; ok {
		if options.set&kernel.ReadOnly == 0 && len(groups) == 0 {
			if err := o.delegate(v2); err != nil {
				return err
			}
		}
		groups[""] = v2
	}
	for name, dir := range groups {
		name = givenGroup + name
		if slices.Contains(o.names, name) {
			continue
		}
		f, err := kernel.CloneMount(nil, dir, false)
		if errors.Is(err, os.ErrNotExist) {
			continue // a hybrid's v2, not used by this group
		}
		if err != nil {
			return err
		}
		o.add(name, f)
	}
	return nil
}

// delegate makes the container's root the owner of its group, so that it may make further ones in there (runtime-spec, config-linux,
// "Cgroup ownership"). The kernel lists the files that go with it (cgroups(7), /sys/kernel/cgroup/delegate).
func (o *outside) delegate(dir string) error {
	uid, gid, err := mapIDs(o.uids, o.gids, 0, 0)
	if err != nil {
		return err
	}
	files, err := os.ReadFile("/sys/kernel/cgroup/delegate")
	if err != nil {
		return err
	}
	for _, name := range append(strings.Fields(string(files)), ".") {
		if err := os.Chown(path.Join(dir, name), int(uid), int(gid)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// makeNodes makes the container's device nodes in a file system of the host's root, as nodes in one of a
// user namespace can't be opened. They belong to whom the container takes for their owners.
func (o *outside) makeNodes() error {
	m, err := kernel.NewMount("tmpfs", "devices", []string{"mode=0755"}, kernel.NoSUID|kernel.NoExec)
	if err != nil {
		return err
	}
	dir, err := kernel.OpenIn(m, ".", kernel.ODirectory, 0, 0)
	if err != nil {
		m.Close()
		return err
	}
	defer dir.Close()
	for i, d := range allDevices(o.spec) {
		err := o.makeNode(dir, strconv.Itoa(i), d)
		if errors.Is(err, os.ErrPermission) { // we are in a user namespace ourselves: the nodes we have are bound
			return m.Close()
		}
		if err != nil {
			m.Close()
			return fmt.Errorf("make device %s: %w", d.Path, err)
		}
	}
	o.add(givenNodes, m)
	return nil
}

func (o *outside) makeNode(dir *os.File, name string, d specs.LinuxDevice) error {
	kind, mode, err := nodeMode(d)
	if err != nil {
		return err
	}
	uid, gid, err := mapIDs(o.uids, o.gids, value(d.UID), value(d.GID))
	if err != nil { // an owner that the container has no number for
		uid, gid = 0, 0
	}
	return errors.Join(
		kernel.MknodIn(dir, name, kind|mode, kernel.Dev(uint32(d.Major), uint32(d.Minor))),
		kernel.ChownIn(dir, name, uid, gid),
		kernel.ChmodIn(dir, name, mode),
	)
}

// giveFiles makes the container's root the owner of the pipes that the program gets, so that it can pass them on to the user.
func (o *outside) giveFiles(files []*os.File) error {
	uid, gid, err := mapIDs(o.uids, o.gids, 0, 0)
	if err != nil {
		return err
	}
	for _, f := range files {
		if f == nil {
			continue
		}
		if st, err := kernel.Stat(f); err != nil || !kernel.IsPipe(st.Mode) {
			continue
		}
		if err := kernel.Chown(f, uid, gid); err != nil && !errors.Is(err, os.ErrPermission) {
			return err
		}
	}
	return nil
}

// idmap opens the user namespace by which the owners in a mount are shown: the container's own (owner, nil when it has none)
// unless the mount has other maps. The caller closes what is not owner.
func idmap(l *specs.Linux, m specs.Mount, o mountOptions, owner *os.File) (*os.File, error) {
	switch {
	case len(m.UIDMappings)+len(m.GIDMappings) == 0 && !o.idmap:
		return nil, nil
	case owner != nil && (len(m.UIDMappings)+len(m.GIDMappings) == 0 || slices.Equal(m.UIDMappings, l.UIDMappings) && slices.Equal(m.GIDMappings, l.GIDMappings)):
		return owner, nil
	case len(m.UIDMappings) == 0 || len(m.GIDMappings) == 0:
		return nil, fault.New(fault.Invalid, "an id-mapped mount needs uidMappings and gidMappings, or a container with a user namespace")
	}
	return namespace.NewUser(m.UIDMappings, m.GIDMappings)
}

// gifts are the files that the first process was given, by their names; nil outside of a user namespace.
type gifts map[string][]*os.File

// take gives away what was made under that name.
func (g gifts) take(name string) (*os.File, error) {
	f := g[name]
	if len(f) == 0 {
		return nil, fmt.Errorf("the container's creator made no %s", name)
	}
	g[name] = f[1:]
	return f[0], nil
}

// nodePlace is where the nodes lie while they are bound, in the container's mount namespace: an empty directory of
// every procfs, that goes with the old root.
const nodePlace = "/proc/driver"

// takeNodes opens the directory of nodes, nil when there is none.
func (t *tree) takeNodes() (*os.File, error) {
	if len(t.given[givenNodes]) == 0 {
		return nil, nil
	}
	m, err := t.given.take(givenNodes)
	if err != nil {
		return nil, err
	}
	at, err := kernel.OpenIn(nil, nodePlace, kernel.OPath|kernel.ODirectory, 0, 0)
	if err != nil {
		return nil, err
	}
	defer at.Close()
	return t.own(m), kernel.AttachMount(m, at)
}

// bindNode binds the node called number to the device's place.
func (t *tree) bindNode(nodes *os.File, number int, d specs.LinuxDevice) error {
	f, err := kernel.OpenIn(nodes, strconv.Itoa(number), kernel.OPath|kernel.ONoFollow, 0, kernel.Beneath|kernel.NoSymlinks)
	if err != nil {
		return err
	}
	defer f.Close()
	clean := path.Clean("/" + d.Path)
	dir, err := t.target(path.Dir(clean), true)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := bindFile(f, dir, path.Base(clean)); err != nil {
		return fmt.Errorf("device %s: %w", d.Path, err)
	}
	return nil
}
