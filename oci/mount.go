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
)

// mountOptions are a spec's mount options, sorted by who takes them.
type mountOptions struct {
	bind, recursive bool
	set, clear      uint64   // attributes of the mount itself
	rset, rclear    uint64   // attributes of it and all below
	propagation     []spread // in the order given
	data            []string // the file system's own
	copyUp          bool     // tmpfs starts with what lies beneath
	idmap, idmapAll bool     // owners are shown through a user namespace, in all mounts below too
	idmapOwner      bool     // the source's owner is the container's root
	subpath         string   // what of the source is shown; "": all
	outside         bool     // made with the creator's rights
}

type spread struct {
	flag      uint64
	recursive bool
}

type attribute struct {
	bit   uint64
	clear bool
}

var attributes = map[string]attribute{
	"ro": {kernel.ReadOnly, false}, "rw": {kernel.ReadOnly, true},
	"nosuid": {kernel.NoSUID, false}, "suid": {kernel.NoSUID, true},
	"nodev": {kernel.NoDev, false}, "dev": {kernel.NoDev, true},
	"noexec": {kernel.NoExec, false}, "exec": {kernel.NoExec, true},
	"nodiratime": {kernel.NoDirATime, false}, "diratime": {kernel.NoDirATime, true},
	"nosymfollow": {kernel.NoSymFollow, false}, "symfollow": {kernel.NoSymFollow, true},
}

var atimes = map[string]uint64{"noatime": kernel.NoATime, "strictatime": kernel.StrictATime, "relatime": 0, "atime": 0, "norelatime": 0, "nostrictatime": 0}

var spreads = map[string]uint64{"private": kernel.PropPrivate, "slave": kernel.PropSlave, "shared": kernel.PropShared, "unbindable": kernel.PropUnbindable}

// parseOptions sorts the options of a spec's mount (runtime-spec, "Linux mount options").
func parseOptions(options []string) (o mountOptions) {
	for _, name := range options {
		bare, recursive := strings.CutPrefix(name, "r")
		if a, known := attributes[name]; known {
			o.attribute(a, false)
		} else if a, known := attributes[bare]; recursive && known {
			o.attribute(a, true)
		} else if bits, known := atimes[name]; known {
			o.set, o.clear = o.set&^kernel.AtimeModes|bits, o.clear|kernel.AtimeModes
		} else if bits, known := atimes[bare]; recursive && known {
			o.rset, o.rclear = o.rset&^kernel.AtimeModes|bits, o.rclear|kernel.AtimeModes
		} else if flag, known := spreads[name]; known {
			o.propagation = append(o.propagation, spread{flag, false})
		} else if flag, known := spreads[bare]; recursive && known {
			o.propagation = append(o.propagation, spread{flag, true})
		} else {
			o.other(name)
		}
	}
	return o
}

func (o *mountOptions) attribute(a attribute, recursive bool) {
	set, clear := &o.set, &o.clear
	if recursive {
		set, clear = &o.rset, &o.rclear
	}
	if a.clear {
		*set, *clear = *set&^a.bit, *clear|a.bit
	} else {
		*set, *clear = *set|a.bit, *clear&^a.bit
	}
}

func (o *mountOptions) other(name string) {
	switch name {
	case "bind":
		o.bind = true
	case "rbind":
		o.bind, o.recursive = true, true
	case "tmpcopyup":
		o.copyUp = true
	case "idmap":
		o.idmap = true
	case OwnerIsRoot:
		o.idmapOwner = true
	case "ridmap":
		o.idmap, o.idmapAll = true, true
	case Outside:
		o.outside = true
	case "", "defaults", "remount", "async", "nomand", "nolazytime", "loud", "silent", "iversion", "noiversion", "z", "Z":
	default:
		if sub, ok := strings.CutPrefix(name, Subpath); ok {
			o.subpath = sub
			return
		}
		o.data = append(o.data, name)
	}
}

// lateMount is a mount that only the first process can make, in its pid namespace or below such a mount.
type lateMount struct {
	kind    string
	options mountOptions
	mount   *os.File // when it is made already
	target  *os.File // what it goes on; nil when path is used
	path    string   // below the late mount before it
	name    string
}

// procPlace is a directory that every procfs has: a root needs a place until it becomes the root.
const procPlace = "/proc/fs"

// mountRoot makes the container's root a mount of its own and opens it.
func (t *tree) mountRoot() error {
	place := procPlace
	var at string
	if t.spec.Root != nil {
		at = t.spec.Root.Path
	}
	var m *os.File
	var err error
	switch {
	case t.given != nil:
		m, err = t.given.take(givenRoot)
	case t.served != nil:
		m, err = t.served.take(servedRoot)
	case len(t.bundle.Rootfs) == 0:
		place = at
		m, err = t.cloneRoot()
	default:
		if st, err := os.Stat(at); err == nil && st.IsDir() {
			place = at
		}
		m, err = mountOfRoot(t, nil)
	}
	if err != nil {
		return err
	}
	if shared(t) {
		place = procPlace // by itself: what is made private there must not take a bind's source with it
	}
	if err := t.attachRoot(t.own(m), place); err != nil {
		return err
	}
	for i := 1; i < len(t.bundle.Rootfs); i++ {
		if err := t.mountOne(t.bundle.Rootfs[i]); err != nil {
			return err
		}
	}
	return nil
}

// cloneRoot makes the mount of a root that is a ready directory.
func (t *tree) cloneRoot() (*os.File, error) {
	if t.spec.Root == nil || t.spec.Root.Path == "" {
		return nil, fault.New(fault.Invalid, "the bundle has no root file system")
	}
	m, err := kernel.CloneMount(nil, t.spec.Root.Path, true)
	if err != nil {
		return nil, fmt.Errorf("root file system %s: %w", t.spec.Root.Path, err)
	}
	return m, nil
}

func (t *tree) attachRoot(m *os.File, at string) error {
	target, err := kernel.OpenIn(nil, at, kernel.OPath|kernel.ODirectory, 0, 0)
	if err != nil {
		return err
	}
	defer target.Close()
	if shared(t) {
		if err := detachPlace(t.proc, target); err != nil {
			return err
		}
	}
	if err := kernel.AttachMount(m, target); err != nil {
		return err
	}
	t.root = m
	// Not shared, or pivot_root refuses; the caller's choice is set at the end.
	return kernel.Spread(m, kernel.PropPrivate, true)
}

// newFileSystem mounts one. An overlay can't be id-mapped itself, but its layers can.
func newFileSystem(m specs.Mount, o mountOptions, ids *os.File) (*os.File, error) {
	switch {
	case ids == nil:
		return kernel.NewMount(m.Type, m.Source, o.data, int(o.set))
	case m.Type != "overlay":
		f, err := kernel.NewMount(m.Type, m.Source, o.data, int(o.set))
		if err != nil {
			return nil, err
		}
		if err := kernel.MapIDs(f, ids, false); err != nil {
			f.Close()
			return nil, fault.New(fault.Unsupported, "its file system (%s) can't show owners through a user namespace: %w", m.Type, bare(err))
		}
		return f, nil
	}
	uid, gid, err := mapIDs(m.UIDMappings, m.GIDMappings, 0, 0)
	if err != nil {
		return nil, err
	}
	return kernel.NewMappedOverlay(o.data, int(o.set), ids, uid, gid)
}

// hostMount is newMount for what shows something of the host's, or a copy of what was made outside for the first process.
func (t *tree) hostMount(m specs.Mount, o mountOptions) (*os.File, error) {
	if t.given != nil && t.ns.shows(m, o) {
		return t.given.take(givenMount(m))
	}
	return t.newMount(m, o, nil)
}

// mountAll makes the spec's mounts, in order.
func (t *tree) mountAll() error {
	for _, m := range t.spec.Mounts {
		if m.Type == "cgroup" || m.Type == "cgroup2" { // what keeps the group from being made is no matter of the mount
			if err := t.awaitGroup(); err != nil {
				return err
			}
		}
		if err := t.mountOne(m); err != nil {
			return fmt.Errorf("mount %s: %w", m.Destination, err)
		}
	}
	return nil
}

func (t *tree) mountOne(m specs.Mount) error {
	o := parseOptions(m.Options)
	dest := path.Clean("/" + m.Destination)
	if dest == "/" {
		return fault.New(fault.Invalid, "a mount can't cover the container's root")
	}
	if below, ok := strings.CutPrefix(dest, "/proc/"); ok && t.hasLateProc() {
		return t.mountLate(m, o, below)
	}
	switch m.Type {
	case "proc":
		return t.mountProc(o, dest)
	case "sysfs":
		return t.mountSys(m, o, dest)
	case "cgroup", "cgroup2":
		return t.mountCgroups(o, dest)
	case "tmpfs":
		return t.mountTmpfs(m, o, dest)
	}
	f, err := t.hostMount(m, o)
	if err != nil {
		return err
	}
	return t.attach(f, dest, o)
}

// attach puts the detached mount f at dest and closes it.
func (t *tree) attach(f *os.File, dest string, o mountOptions) error {
	defer f.Close()
	dir, err := kernel.IsDir(f)
	if err != nil {
		return err
	}
	target, err := t.target(dest, dir)
	if err != nil {
		return err
	}
	defer target.Close()
	if err := checkProc(dest, target, f); err != nil {
		return err
	}
	if there, err := kernel.IsDir(target); err != nil {
		return err
	} else if there != dir {
		return fmt.Errorf("not a directory: are you trying to mount a directory onto a file (or vice-versa)? "+
			"Check that %s exists on the host and is what you expect", f.Name())
	}
	return attachTo(f, target, o)
}

// attachTo attaches f and then gives it its attributes: nobody else is here yet, and kernels before
// 5.12 can't change a detached mount.
func attachTo(f, target *os.File, o mountOptions) error {
	if err := kernel.AttachMount(f, target); err != nil {
		return err
	}
	return finishMount(f, o)
}

// directory opens dest as a plain directory, no symbolic link on the way: what is
// mounted there is trusted later (CVE-2019-19921, CVE-2025-52881).
func (t *tree) directory(dest string) (*os.File, error) {
	const how = kernel.InRoot | kernel.NoSymlinks
	f, err := kernel.OpenIn(t.root, dest, kernel.OPath|kernel.ODirectory, 0, how)
	if errors.Is(err, os.ErrNotExist) {
		made, merr := makeIn(t.root, dest, true, 0, 0)
		if merr != nil {
			return nil, merr
		}
		made.Close()
		f, err = kernel.OpenIn(t.root, dest, kernel.OPath|kernel.ODirectory, 0, how)
	}
	if err != nil {
		return nil, fmt.Errorf("%s must be an ordinary directory in the container's root: %w", dest, bare(err))
	}
	return f, nil
}

func (t *tree) hasLateProc() bool {
	for _, l := range t.late {
		if l.kind == "proc" {
			return true
		}
	}
	return false
}

// mountProc leaves procfs to the first process, as it shows the pid namespace of the process that makes it, unless we are that.
func (t *tree) mountProc(o mountOptions, dest string) error {
	target, err := t.directory(dest)
	if err != nil {
		return err
	}
	if t.first {
		defer target.Close()
		f, err := kernel.NewMount("proc", "proc", o.data, int(o.set))
		if err != nil {
			return err
		}
		defer f.Close()
		return attachTo(f, target, o)
	}
	t.late = append(t.late, lateMount{kind: "proc", options: o, target: t.own(target), name: dest})
	return nil
}

// mountLate prepares a mount on something below /proc.
func (t *tree) mountLate(m specs.Mount, o mountOptions, below string) error {
	if !o.bind && m.Type != "bind" && m.Type != "tmpfs" {
		return fault.New(fault.Unsupported, "a file system of type %s below /proc", m.Type)
	}
	if err := checkProc("/proc/"+below, nil, nil); err != nil {
		return err
	}
	f, err := t.hostMount(m, o)
	if err != nil {
		return err
	}
	t.late = append(t.late, lateMount{mount: t.own(f), path: below, name: m.Destination})
	return nil
}

// mountSys makes a sysfs, which shows the network namespace of the thread that makes it.
func (t *tree) mountSys(m specs.Mount, o mountOptions, dest string) error {
	target, err := t.directory(dest)
	if err != nil {
		return err
	}
	defer target.Close()
	var f *os.File
	if t.given != nil {
		f, err = t.given.take(givenSys)
	} else {
		f, err = kernel.NewMount("sysfs", "sysfs", o.data, int(o.set))
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return attachTo(f, target, o)
}

// makeShared makes a directory that everybody may write to.
func (t *tree) makeShared(dest string) (*os.File, error) {
	target, err := makeIn(t.root, dest, true, 0, 0)
	if err != nil {
		return nil, err
	}
	f, err := kernel.Reopen(target, os.O_RDONLY|kernel.ODirectory)
	if err == nil {
		err = errors.Join(f.Chmod(os.ModeSticky|0o777), f.Close())
	}
	if err != nil {
		return nil, errors.Join(err, target.Close())
	}
	return target, nil
}

// mountTmpfs makes an empty tmpfs with the mode of the directory that it covers, unless one is given. A directory that
// was not there is anybody's, as /tmp is: whoever asks for a tmpfs wants to write there, as any user.
func (t *tree) mountTmpfs(m specs.Mount, o mountOptions, dest string) error {
	target, err := t.open(dest, kernel.OPath)
	if errors.Is(err, os.ErrNotExist) {
		target, err = t.makeShared(dest)
	}
	if err != nil {
		return err
	}
	defer target.Close()
	if err := checkProc(dest, target, nil); err != nil {
		return err
	}
	given := false
	for _, d := range o.data {
		given = given || strings.HasPrefix(d, "mode=")
	}
	if !given {
		st, err := kernel.Stat(target)
		if err != nil {
			return err
		}
		o.data = append(o.data, fmt.Sprintf("mode=%o", st.Mode&0o7777))
	}
	f, err := kernel.NewMount("tmpfs", m.Source, o.data, int(o.set&^kernel.ReadOnly))
	if err != nil {
		return err
	}
	defer f.Close()
	if o.copyUp {
		from, err := kernel.Reopen(target, os.O_RDONLY|kernel.ODirectory)
		if err != nil {
			return err
		}
		err = copyTree(from, f)
		if err = errors.Join(err, from.Close()); err != nil {
			return fmt.Errorf("copy what lies beneath: %w", err)
		}
	}
	return attachTo(f, target, o)
}

// MountOptions names all options of a mount that are not the file system's own, sorted.
func MountOptions() []string {
	names := []string{"bind", "rbind", "defaults", "remount", "idmap", "ridmap"}
	for name := range attributes {
		names = append(names, name, "r"+name)
	}
	for name := range atimes {
		names = append(names, name, "r"+name)
	}
	for name := range spreads {
		names = append(names, name, "r"+name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
