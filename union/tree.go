package union

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"berth/archive"
	"berth/fault"
	"berth/kernel"
)

// Tree is a container's files as it sees them itself, mounts included. What lies in it is foreign: walk it from Root with
// kernel.InRoot alone, as package archive does, and execute nothing of it.
type Tree struct {
	Root *os.File // the top, good for walking only
	IDs  archive.IDMap
	hold *os.File // the mount namespace, which keeps the mounts together after its last process
	end  func() error
}

// Close lets go of it.
func (t *Tree) Close() error {
	err := t.Root.Close()
	if t.hold != nil {
		err = errors.Join(err, t.hold.Close())
	}
	if t.end != nil {
		err = errors.Join(err, t.end())
	}
	return err
}

// RunningTree opens the tree that the process pid sees. is tells, asked when the tree is open, whether the process of that number is
// the one that was meant: a number may go to another process. The caller closes the tree.
func RunningTree(pid int, is func() error) (t *Tree, err error) {
	proc, err := kernel.OpenIn(nil, "/proc/"+strconv.Itoa(pid), kernel.OPath|kernel.ODirectory, 0, 0)
	if err != nil {
		return nil, err
	}
	defer fault.Close(proc, &err)
	t = &Tree{}
	if t.hold, err = kernel.OpenIn(proc, "ns/mnt", os.O_RDONLY, 0, 0); err != nil {
		return nil, err
	}
	if t.Root, err = kernel.OpenIn(proc, "root", kernel.OPath|kernel.ODirectory, 0, 0); err != nil {
		return nil, errors.Join(err, t.hold.Close())
	}
	if t.IDs, err = idsOf(proc); err == nil {
		err = is()
	}
	if err == nil { // proc is of one process, whatever its number meant later: alive now, it is the one that was meant
		_, err = idsOf(proc)
	}
	if err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

// idsOf reads how a process's user namespace shifts ids (user_namespaces(7)).
func idsOf(proc *os.File) (m archive.IDMap, err error) {
	if m.UIDs, err = idRanges(proc, "uid_map"); err == nil {
		m.GIDs, err = idRanges(proc, "gid_map")
	}
	return m, err
}

func idRanges(proc *os.File, name string) (ranges []archive.IDRange, err error) {
	f, err := kernel.OpenIn(proc, name, os.O_RDONLY, 0, 0)
	if err != nil {
		return nil, err
	}
	defer fault.Close(f, &err)
	text, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		var r archive.IDRange
		if _, err := fmt.Sscan(line, &r.Container, &r.Host, &r.Size); err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		ranges = append(ranges, r)
	}
	if len(ranges) == 1 && ranges[0] == (archive.IDRange{Size: archive.AllIDs}) {
		return nil, nil
	}
	return ranges, nil
}

// Bare opens a copy of the tree's own file system, without what is mounted in it. The caller closes it.
func (t *Tree) Bare() (*os.File, error) {
	var m *os.File
	err := kernel.InMounts(t.hold, func() (err error) {
		m, err = kernel.CloneMount(t.Root, "", false)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look below the mounts: %w", err)
	}
	return m, nil
}

// MadeUp tells whether the kernel makes up what p names in the tree.
func (t *Tree) MadeUp(p string) (is bool, err error) {
	f, err := kernel.OpenIn(t.Root, archive.Clean(p), kernel.OPath|kernel.ONoFollow, 0, kernel.InRoot|kernel.NoMagicLinks)
	if err != nil {
		return false, err
	}
	defer fault.Close(f, &err)
	return archive.MadeUp(f)
}

// Elsewhere tells whether f lies in something that is mounted in the tree.
func (t *Tree) Elsewhere(f *os.File) (bool, error) {
	same, err := sameMount(t.Root, f)
	return !same, err
}

// sameMount compares mounts, as a volume may lie on the file system that the tree lies on.
func sameMount(a, b *os.File) (bool, error) {
	one, err := kernel.MountID(a)
	if err != nil {
		return false, err
	}
	other, err := kernel.MountID(b)
	return one == other, err
}

// Devices gives a test, by device and inode, for the /dev that a running container has of its own, which is nobody's files.
func (t *Tree) Devices() (is func(dev, ino uint64) bool, err error) {
	dev, err := kernel.OpenIn(t.Root, "/dev", kernel.OPath, 0, kernel.InRoot|kernel.NoMagicLinks|kernel.NoSymlinks)
	if err != nil {
		return nil, nil // none, or a link
	}
	defer fault.Close(dev, &err)
	if other, err := t.Elsewhere(dev); err != nil || !other {
		return nil, err
	}
	st, err := kernel.Stat(dev)
	return func(dev, ino uint64) bool { return dev == st.Dev && ino == st.Ino }, err
}

// Untouchable tells whether dir, opened by the path p, is of those that are made anew for each run: /proc, /sys and /dev, unless
// something else is mounted there, and all that the kernel makes up.
func (t *Tree) Untouchable(p string, dir *os.File) (is bool, err error) {
	if made, err := archive.MadeUp(dir); err != nil || made {
		return made, err
	}
	real, err := archive.Resolve(t.Root, p)
	if err != nil {
		return false, err
	}
	top, _, _ := strings.Cut(strings.TrimPrefix(real, "/"), "/")
	if top != "proc" && top != "sys" && top != "dev" {
		return false, nil
	}
	f, err := kernel.OpenIn(t.Root, top, kernel.OPath, 0, kernel.InRoot|kernel.NoMagicLinks)
	if err != nil {
		return false, err
	}
	defer fault.Close(f, &err)
	return sameMount(f, dir)
}

// Bind is a file or directory of the host that shows in a tree.
type Bind struct {
	Source    string
	Subpath   string // what of it is shown, beneath it; "": all
	Target    string // made when missing
	ReadOnly  bool
	Recursive bool // with what is mounted below it
}

// StoppedTree mounts r with binds, parents first, in a mount namespace that nobody else sees. readOnly is for the
// root alone. r must not be in use: two mounts of one root disagree about it. A bind whose source is gone is left out. The caller closes the tree, which unmounts it.
func StoppedTree(r Root, binds []Bind, readOnly bool) (*Tree, error) {
	m, end, err := r.mount()
	if err != nil {
		return nil, err
	}
	t := &Tree{IDs: r.IDs, end: end}
	err = kernel.PrivateMounts(func() error { return t.build(m, binds, readOnly) })
	if err = errors.Join(err, m.Close()); err != nil {
		if t.Root != nil {
			err = errors.Join(err, t.Root.Close())
		}
		if t.hold != nil {
			err = errors.Join(err, t.hold.Close())
		}
		return nil, errors.Join(fmt.Errorf("mount root %s: %w", r.ID, err), end())
	}
	return t, nil
}

// mounted is where the root goes in its namespace: a directory that is always there.
const mounted = "/proc/fs"

// build runs in the new namespace.
func (t *Tree) build(m *os.File, binds []Bind, readOnly bool) (err error) {
	sources := make([]*os.File, len(binds))
	defer func() {
		for _, s := range sources {
			if s != nil {
				err = errors.Join(err, s.Close())
			}
		}
	}()
	for k, b := range binds {
		sources[k], err = b.clone()
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	at, err := kernel.OpenIn(nil, mounted, kernel.OPath|kernel.ODirectory, 0, 0)
	if err != nil {
		return err
	}
	defer fault.Close(at, &err)
	if err := kernel.AttachMount(m, at); err != nil {
		return err
	}
	if t.Root, err = kernel.OpenIn(nil, mounted, kernel.OPath|kernel.ODirectory, 0, 0); err != nil {
		return err
	}
	if t.hold, err = kernel.OpenIn(nil, "/proc/thread-self/ns/mnt", os.O_RDONLY, 0, 0); err != nil {
		return err
	}
	for k, b := range binds {
		if sources[k] == nil {
			continue
		}
		if err := t.attach(sources[k], b); err != nil {
			return fmt.Errorf("%s: %w", b.Target, err)
		}
	}
	if readOnly {
		return kernel.Attributes(t.Root, false, kernel.ReadOnly, 0)
	}
	return nil
}

// attach puts one bind in its place. Where the image has another kind of thing, as no start would bear, it stays out.
func (t *Tree) attach(source *os.File, b Bind) (err error) {
	dir, err := kernel.IsDir(source)
	if err != nil {
		return err
	}
	target, err := kernel.OpenIn(t.Root, b.Target, kernel.OPath, 0, kernel.InRoot|kernel.NoMagicLinks)
	if errors.Is(err, os.ErrNotExist) && dir {
		target, err = archive.MakeDir(t.Root, b.Target)
	} else if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer fault.Close(target, &err)
	if there, err := kernel.IsDir(target); err != nil || there != dir {
		return err
	}
	if err := kernel.AttachMount(source, target); err != nil {
		return err
	}
	if b.ReadOnly {
		return kernel.Attributes(source, b.Recursive && kernel.CanSetMount(), kernel.ReadOnly, 0)
	}
	return nil
}

// mount makes a detached mount of r; end clears up after it was closed.
func (r Root) mount() (m *os.File, end func() error, err error) {
	options, end := slices.Clone(r.Mount.Options), func() error { return nil }
	if r.Mount.Type == "overlay" && r.Stacked.Upper != "" {
		// Unmounting would sync the whole file system below; a container's own mount doesn't promise more.
		options = append(options, "volatile")
		end = func() error { return clearVolatile(r.Stacked.Work) }
	}
	if m, err = (Mount{r.Mount.Type, r.Mount.Source, options}).open(); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("mount root %s: %w", r.ID, err), end())
	}
	return m, end, nil
}

// open makes a detached mount. The caller closes it.
func (m Mount) open() (*os.File, error) {
	// An image's device nodes and programs are nothing to open or run from outside.
	const attrs = kernel.NoDev | kernel.NoSUID | kernel.NoExec
	if m.Type != "bind" {
		return kernel.NewMount(m.Type, m.Source, m.Options, attrs)
	}
	f, err := kernel.CloneMount(nil, m.Source, false)
	if err != nil {
		return nil, err
	}
	if !kernel.CanSetMount() { // a mount that is attached nowhere can't be changed otherwise
		return f, nil
	}
	if err := kernel.SetMount(f, false, attrs, 0, 0); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
