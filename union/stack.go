package union

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/fault"
	"berth/kernel"
)

// Stack is the layers of one chain, each open to be read by itself. Nothing is mounted, and nothing holds the layers: one
// that is removed meanwhile makes reading fail, and Check say so. What lies in them is foreign, and walked by
// the kernel beneath each layer's top without following links.
type Stack struct {
	driver Driver
	chains []digest.Digest // the deepest first, as roots
	roots  []*os.File      // layers by themselves, or, with index, the trees that they show together with those below
	index  []layerIndex    // what each layer has; nil where its root tells
	by     stacking        // how, where it does
	leave  []func() error
}

func (o *overlay) layerDir(chain digest.Digest) string { return o.path("layers", key(chain), "diff") }

// OpenStack opens the layers of a chain; "" has none. The caller closes the stack. fault.NotFound: no such chain.
func OpenStack(d Driver, chain digest.Digest) (*Stack, error) {
	if chain == "" {
		return &Stack{driver: d}, nil
	}
	return d.(complete).openStack(chain)
}

// openStack implements complete.
func (o *overlay) openStack(chain digest.Digest) (*Stack, error) {
	s := &Stack{driver: o, chains: o.chain(chain), by: o.by}
	slices.Reverse(s.chains)
	if len(s.chains) == 0 {
		return nil, fault.New(fault.NotFound, "layer %s: not found", chain)
	}
	for _, c := range s.chains {
		f, err := kernel.OpenIn(nil, o.layerDir(c), kernel.ODirectory|kernel.OPath, 0, 0)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open layer %s: %w", c, err), s.Close())
		}
		s.roots = append(s.roots, f)
	}
	return s, nil
}

// look implements complete.
func (o *overlay) look(chain digest.Digest, fn func(dir *os.File) error) (err error) {
	if chain == "" {
		return noTree(fn)
	}
	if err := o.hold(chain); err != nil {
		return err
	}
	defer o.release(chain)
	dirs, err := o.lower(chain)
	if err != nil {
		return err
	}
	m, err := merged(dirs, o.by)
	if err != nil {
		return err
	}
	defer fault.Close(m, &err)
	dir, err := kernel.OpenIn(m, ".", kernel.ODirectory, 0, 0)
	if err != nil {
		return err
	}
	defer fault.Close(dir, &err)
	return fn(dir)
}

// noTree is the tree of no layers.
func noTree(fn func(dir *os.File) error) (err error) {
	dir, err := os.MkdirTemp("", "no-layers-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(dir)) }()
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer fault.Close(f, &err)
	return fn(f)
}

// Dirs are the directories that a chain's layers lie in, top first, for tools; none where the driver keeps them otherwise, where the field's
// has nothing to tell (aufs), or when there is no such chain.
func Dirs(d Driver, chain digest.Digest) []string {
	if chain == "" || d.Name() == "aufs" {
		return nil
	}
	return d.(complete).dirs(chain)
}

// Len is how many layers there are.
func (s *Stack) Len() int { return len(s.chains) }

// Chain is the key of a layer; 0 is the deepest.
func (s *Stack) Chain(layer int) digest.Digest { return s.chains[layer] }

// Check tells whether all that was read is whole: fault.NotFound when the layers were removed since OpenStack.
func (s *Stack) Check() error {
	if n := len(s.chains); n > 0 && !s.driver.Has(s.chains[n-1]) {
		return fault.New(fault.NotFound, "layer %s was removed while it was read", s.chains[n-1])
	}
	return nil
}

// Close closes the layers.
func (s *Stack) Close() (err error) {
	if s.index != nil { // the roots are given back
		s.roots = nil
	}
	for _, f := range s.roots {
		err = errors.Join(err, f.Close())
	}
	for _, leave := range s.leave {
		err = errors.Join(err, leave())
	}
	s.roots, s.leave = nil, nil
	return err
}

// Entry is a name in a layer's directory.
type Entry struct {
	Name     string
	Mode     uint32 // type and permissions, as st_mode in inode(7)
	UID, GID uint32
	Size     int64 // bytes of a regular file, else 0
	Modified time.Time
	Device   uint64 // of a device node
	Inode    uint64
	Links    uint64
}

// IsDir tells whether it is a directory.
func (e *Entry) IsDir() bool { return e.Mode&kernel.TypeMask == kernel.TypeDir }

// IsRegular tells whether it is a regular file.
func (e *Entry) IsRegular() bool { return e.Mode&kernel.TypeMask == kernel.TypeRegular }

// IsLink tells whether it is a symbolic link.
func (e *Entry) IsLink() bool { return e.Mode&kernel.TypeMask == kernel.TypeSymlink }

// IsDevice tells whether it is a device node.
func (e *Entry) IsDevice() bool {
	return e.Mode&kernel.TypeMask == kernel.TypeChar || e.Mode&kernel.TypeMask == kernel.TypeBlock
}

// Whiteout tells whether the layer takes the name away instead of having it.
func (e *Entry) Whiteout() bool {
	return e.Mode&kernel.TypeMask == kernel.TypeChar && e.Device == 0
}

// beneath is how paths in layers are walked.
const beneath = kernel.Beneath | kernel.NoSymlinks | kernel.NoMagicLinks

// ReadDir lists a layer's directory, sorted by name; dir is relative, "." the top. opaque: it hides what the layers below have there.
func (s *Stack) ReadDir(ctx context.Context, layer int, dir string) (list []Entry, opaque bool, err error) {
	f, err := kernel.OpenIn(s.roots[layer], dir, kernel.ODirectory|kernel.ONoFollow, 0, beneath)
	if err != nil {
		return nil, false, err
	}
	defer fault.Close(f, &err)
	names, gone, opaque, err := s.names(layer, dir, f)
	if err != nil {
		return nil, false, err
	}
	list = make([]Entry, len(names))
	for i, n := range names {
		if err := ctx.Err(); err != nil {
			return nil, false, fault.Wrap(fault.Canceled, err)
		}
		if gone[n] {
			list[i] = Entry{Name: n, Mode: kernel.TypeChar, Links: 1} // as overlay has a whiteout
			continue
		}
		st, err := kernel.StatIn(f, n)
		if err != nil {
			return nil, false, err
		}
		list[i] = Entry{
			Name: n, Mode: st.Mode, UID: st.Uid, GID: st.Gid, Modified: unixTime(st.Mtim.Unix()).UTC(), Inode: st.Ino, Links: uint64(st.Nlink),
		}
		switch e := &list[i]; {
		case e.IsRegular():
			e.Size = st.Size
		case e.IsDevice():
			e.Device = st.Rdev
		}
	}
	return list, opaque, nil
}

// names lists what a layer's directory f has, sorted; gone are those that it takes away.
func (s *Stack) names(layer int, dir string, f *os.File) (names []string, gone map[string]bool, opaque bool, err error) {
	if s.index != nil {
		d := s.index[layer][path.Clean(dir)]
		if d == nil {
			return nil, nil, false, &os.PathError{Op: "open", Path: dir, Err: os.ErrNotExist}
		}
		return d.names, d.gone, d.opaque, nil
	}
	if opaque, err = s.by.opaque(f, "."); err != nil {
		return nil, nil, false, err
	}
	names, without, err := s.by.names(f)
	if len(without) > 0 {
		gone = map[string]bool{}
	}
	for _, n := range without {
		names, gone[n] = append(names, n), true
	}
	slices.Sort(names)
	return names, gone, opaque, err
}

// Readlink gives the target of the symbolic link p of a layer.
func (s *Stack) Readlink(layer int, p string) (target string, err error) {
	f, err := kernel.OpenIn(s.roots[layer], p, kernel.OPath|kernel.ONoFollow, 0, beneath)
	if err != nil {
		return "", err
	}
	defer fault.Close(f, &err)
	return kernel.Readlink(f)
}

// Open opens the regular file p of a layer. The caller closes it.
func (s *Stack) Open(layer int, p string) (*os.File, error) {
	f, err := kernel.OpenIn(s.roots[layer], p, kernel.ONoFollow|kernel.ONonblock|kernel.ONoCTTY, 0, beneath)
	if err != nil {
		return nil, err
	}
	if st, err := kernel.Stat(f); err != nil || st.Mode&kernel.TypeMask != kernel.TypeRegular {
		return nil, errors.Join(err, f.Close(), fault.New(fault.Invalid, "%s is not a regular file", p))
	}
	return f, nil
}

// Attributes gives the extended attributes of p in a layer, without those by which layers are stacked.
func (s *Stack) Attributes(layer int, p string) (attrs map[string]string, err error) {
	dir, err := kernel.OpenIn(s.roots[layer], path.Dir(p), kernel.ODirectory|kernel.ONoFollow, 0, beneath)
	if err != nil {
		return nil, err
	}
	defer fault.Close(dir, &err)
	attrs, err = kernel.XattrsIn(dir, path.Base(p))
	for a := range attrs {
		if isOverlays(a) || strings.HasPrefix(a, "security.selinux") {
			delete(attrs, a)
		}
	}
	return attrs, err
}
