package union

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"berth/archive"
	"berth/fault"
	"berth/internal/record"
	"berth/kernel"
)

// Stage implements Driver.
func (o *overlay) Stage() (*Stage, error) {
	dir, diff, err := o.newStage("layer-")
	if err != nil {
		return nil, err
	}
	root, err := os.Open(diff)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	s := &Stage{root: root, abort: func() error { return o.trash.take(dir) }}
	s.commit = func(root *os.File, chain, parent digest.Digest, u archive.Unpacked) error {
		return o.commit(dir, root, Layer{Chain: chain, Parent: parent, Size: u.Size, IDs: s.ids}, u)
	}
	return s, nil
}

// newStage makes an unnamed directory with an empty diff, 0755 as a root directory is.
func (o *home) newStage(prefix string) (dir, diff string, err error) {
	if dir, err = os.MkdirTemp(o.path("stage"), prefix); err != nil {
		return "", "", err
	}
	diff = filepath.Join(dir, "diff")
	if err = os.Mkdir(diff, 0o755); err == nil {
		err = os.Chmod(diff, 0o755)
	}
	if err != nil {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return dir, diff, err
}

func (o *overlay) commit(dir string, root *os.File, l Layer, u archive.Unpacked) error {
	if err := validChain(l.Chain); err != nil {
		return err
	}
	if err := o.hold(l.Parent); err != nil { // it stays until the layer counts as its child
		return err
	}
	defer o.release(l.Parent)
	if err := o.fit(dir, root, l, u); err != nil {
		return err
	}
	return o.publish(dir, l)
}

// fit makes a staged layer what it is to be over its parent, and gives it its record.
func (o *overlay) fit(dir string, root *os.File, l Layer, u archive.Unpacked) error {
	if l.Parent != "" && len(u.Implied) > 0 {
		dirs, err := o.lower(l.Parent)
		if err != nil {
			return err
		}
		lower, err := merged(dirs, o.by)
		if err != nil {
			return err
		}
		err = adopt(root, u.Implied, lower)
		if fault.Close(lower, &err); err != nil {
			return err
		}
	}
	if o.by.marks() {
		if err := markTree(root); err != nil {
			return err
		}
	}
	return record.Put(filepath.Join(dir, "layer.json"), l)
}

// publish puts a staged layer in place. Only the renaming process sees a layer before it is indexed, and both happen under o.mu.
func (o *overlay) publish(dir string, l Layer) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if have := o.layers[l.Chain]; have != nil {
		if have.Parent != l.Parent {
			return fault.New(fault.Conflict, "it is here already over parent %q, not %q", have.Parent, l.Parent)
		}
		return o.trash.take(dir)
	}
	if err := o.mark(); err != nil {
		return err
	}
	if err := os.Rename(dir, o.path("layers", key(l.Chain))); err != nil {
		return err
	}
	o.add(l)
	return nil
}

// copyAttributes gives the open directory to the mode, owner, attributes and times of from/name.
func copyAttributes(to, from *os.File, name string) error {
	st, err := kernel.StatIn(from, name)
	if err != nil {
		return err
	}
	attrs, err := kernel.XattrsIn(from, name)
	if err != nil {
		return err
	}
	if err := kernel.Chown(to, st.Uid, st.Gid); err != nil {
		return err
	}
	for attr, value := range attrs {
		if isOverlays(attr) {
			continue
		}
		if err := kernel.SetXattr(to, attr, value); err != nil && !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
	}
	if err := kernel.Chmod(to, st.Mode&0o7777); err != nil {
		return err
	}
	return kernel.Times(to, unixTime(st.Atim.Unix()), unixTime(st.Mtim.Unix()))
}
