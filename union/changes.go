package union

import (
	"context"
	"errors"
	"maps"
	"os"
	"path"
	"slices"

	"berth/fault"
	"berth/kernel"
)

// Kind says what happened to a path of a root.
type Kind uint8

// The kinds, with the API's numbers.
const (
	Modified Kind = 0
	Added    Kind = 1
	Deleted  Kind = 2
)

// Change is one path of a root that differs from the layers below.
type Change struct {
	Path string // absolute in the root
	Kind Kind
}

// differ compares a writable directory with what lies below.
type differ struct {
	ctx  context.Context
	by   stacking
	list []Change
}

// dir compares the directories up and low, which are called at; low is nil when there is none below.
func (d *differ) dir(up, low *os.File, at string) error {
	if err := d.ctx.Err(); err != nil {
		return fault.Wrap(fault.Canceled, err)
	}
	names, without, err := d.by.names(up)
	if err != nil {
		return err
	}
	here := map[string]bool{}
	for _, n := range names {
		here[n] = true
	}
	if gone, err := d.hidden(up, low, here, without); err != nil {
		return err
	} else if low != nil {
		for _, n := range gone {
			here[n] = false
		}
	}
	place := len(d.list) // of the directory itself, should what is in it make it modified
	touched := false
	for _, n := range slices.Sorted(maps.Keys(here)) {
		kind, err := d.name(up, low, at, n, here[n])
		if err != nil {
			return err
		}
		touched = touched || kind == Added || kind == Deleted
	}
	if listed := place > 0 && d.list[place-1].Path == at; touched && !listed && at != "/" {
		d.list = slices.Insert(d.list, place, Change{at, Modified})
	}
	return nil
}

// hidden lists what an opaque directory hides without having anything of that name, or else what of without lies below.
func (d *differ) hidden(up, low *os.File, here map[string]bool, without []string) (gone []string, err error) {
	if low == nil {
		return nil, nil
	}
	if opaque, err := d.by.opaque(up, "."); err != nil {
		return nil, err
	} else if opaque {
		names, err := low.Readdirnames(-1)
		return slices.DeleteFunc(names, func(n string) bool { return here[n] }), err
	}
	for _, n := range without {
		if _, err := kernel.StatIn(low, n); err == nil {
			gone = append(gone, n)
		} else if !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	return gone, nil
}

// unchanged is a Kind for what is there but no change.
const unchanged Kind = 255

// name compares one name; there is false when an opaque directory only hides it.
func (d *differ) name(up, low *os.File, at, name string, there bool) (Kind, error) {
	full := path.Join(at, name)
	if !there {
		d.list = append(d.list, Change{full, Deleted})
		return Deleted, nil
	}
	st, err := kernel.StatIn(up, name)
	if errors.Is(err, os.ErrNotExist) {
		return unchanged, nil // gone meanwhile
	}
	if err != nil {
		return 0, err
	}
	kind, below := Added, uint32(0)
	if low != nil {
		was, err := kernel.StatIn(low, name)
		switch {
		case err == nil:
			kind, below = Modified, was.Mode&kernel.TypeMask
			if below == kernel.TypeDir && was.Mode == st.Mode && was.Uid == st.Uid && was.Gid == st.Gid && was.Mtim == st.Mtim {
				if same, err := sameXattrs(up, low, name); err != nil {
					return 0, err
				} else if same {
					kind = unchanged
				}
			}
		case !errors.Is(err, os.ErrNotExist):
			return 0, err
		}
	}
	if st.Mode&kernel.TypeMask == kernel.TypeChar && st.Rdev == 0 {
		if kind == Added {
			return unchanged, nil // made and deleted while something of that name lay below a deeper layer
		}
		kind = Deleted
	}
	if kind != unchanged {
		d.list = append(d.list, Change{full, kind})
	}
	if st.Mode&kernel.TypeMask != kernel.TypeDir {
		return kind, nil
	}
	return kind, d.descend(up, low, name, full, below == kernel.TypeDir)
}

func (d *differ) descend(up, low *os.File, name, full string, both bool) (err error) {
	sub, err := kernel.OpenIn(up, name, kernel.ODirectory|kernel.ONoFollow, 0, 0)
	if none(err) {
		return nil // gone meanwhile
	}
	if err != nil {
		return err
	}
	defer fault.Close(sub, &err)
	if !both {
		return d.dir(sub, nil, full)
	}
	below, err := kernel.OpenIn(low, name, kernel.ODirectory|kernel.ONoFollow, 0, 0)
	if err != nil {
		return err
	}
	defer fault.Close(below, &err)
	return d.dir(sub, below, full)
}

// sameXattrs compares attributes, but for those that overlay has for itself.
func sameXattrs(up, low *os.File, name string) (bool, error) {
	a, err := kernel.XattrsIn(up, name)
	if err != nil {
		return true, ignoreGone(err)
	}
	b, err := kernel.XattrsIn(low, name)
	if err != nil {
		return false, err
	}
	own := func(attr, _ string) bool { return isOverlays(attr) }
	maps.DeleteFunc(a, own)
	maps.DeleteFunc(b, own)
	return maps.Equal(a, b), nil
}
