package union

import (
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"time"

	"berth/archive"
	"berth/fault"
	"berth/kernel"
)

// delta is how a whole tree differs from the one that it began as.
type delta struct {
	ctx   context.Context
	since time.Time
	list  []Change
	shown int64 // sizes of the regular files that are not as before
	files int64
	top   bool // the top directory itself is not as before

	linked map[[2]uint64]bool // by device and inode, files with several names that are not as before: all their names count
	more   bool               // linked grew

	gone map[string][]string // names that are there no more, by directory
	have map[string][]string // names to pack, by directory; those of new directories are left out
	news map[string]bool     // directories that are new with all that they have
}

// tick is how far a file's change time may lag behind the clock: it is that of the last timer interrupt, and there are 100 a second at least.
const tick = 20 * time.Millisecond

// contrast compares tree with what it was at the time made, when it was a copy of below (nil: empty). Whatever has no later change time is as
// it was; the rest is compared in full. The tree may be in use.
func contrast(ctx context.Context, tree, below *os.File, made time.Time) (*delta, error) {
	linked := map[[2]uint64]bool{}
	for {
		d := &delta{ctx: ctx, since: made.Add(-tick), linked: linked, gone: map[string][]string{}, have: map[string][]string{}, news: map[string]bool{}}
		seen := map[[2]uint64]bool{}
		if below != nil {
			var err error
			if d.top, err = unlike(tree, below); err != nil {
				return nil, err
			}
		}
		if _, err := d.dir(tree, below, "/", seen); err != nil {
			return nil, err
		}
		if !d.more { // nearly always
			return d, nil
		}
	}
}

// dir compares the directories up and low, which are called at; low is nil when there is none below. It tells whether anything is to be packed.
func (d *delta) dir(up, low *os.File, at string, counted map[[2]uint64]bool) (changed bool, err error) {
	if err := d.ctx.Err(); err != nil {
		return false, fault.Wrap(fault.Canceled, err)
	}
	here, err := sortedNames(up)
	if err != nil {
		return false, err
	}
	all := map[string]bool{}
	for _, n := range here {
		all[n] = true
	}
	if low == nil {
		d.news[at] = true
	} else {
		below, err := sortedNames(low)
		if err != nil {
			return false, err
		}
		for _, n := range below {
			all[n] = all[n] || false
		}
	}
	place := len(d.list) // of the directory itself, should what is in it make it modified
	touched := false
	for _, n := range slices.Sorted(maps.Keys(all)) {
		if !all[n] {
			d.list = append(d.list, Change{path.Join(at, n), Deleted})
			d.gone[at] = append(d.gone[at], n)
			touched = true
			continue
		}
		kind, inner, err := d.name(up, low, at, n, counted)
		if err != nil {
			return false, err
		}
		if kind != unchanged || inner {
			changed = true
			d.have[at] = append(d.have[at], n)
		}
		touched = touched || kind == Added
	}
	if listed := place > 0 && d.list[place-1].Path == at; touched && !listed && at != "/" {
		d.list = slices.Insert(d.list, place, Change{at, Modified})
	}
	return changed || touched, nil
}

// name compares one name that is there. inner: something below it is not as before.
func (d *delta) name(up, low *os.File, at, name string, counted map[[2]uint64]bool) (kind Kind, inner bool, err error) {
	full := path.Join(at, name)
	st, err := kernel.StatIn(up, name)
	if errors.Is(err, os.ErrNotExist) {
		return unchanged, false, nil // gone meanwhile
	}
	if err != nil {
		return 0, false, err
	}
	is, id := st.Mode&kernel.TypeMask, [2]uint64{st.Dev, st.Ino} // a subvolume has a device, and inodes, of its own
	kind, below := Added, false
	if low != nil {
		was, err := kernel.StatIn(low, name)
		switch {
		case err == nil:
			below = was.Mode&kernel.TypeMask == kernel.TypeDir
			changed := was.Mode != st.Mode || was.Uid != st.Uid || was.Gid != st.Gid || was.Rdev != st.Rdev || was.Mtim != st.Mtim || is == kernel.TypeRegular && was.Size != st.Size
			if !changed && !unixTime(st.Ctim.Unix()).Before(d.since) {
				if changed, err = d.differs(up, low, name, is); err != nil {
					return 0, false, err
				}
			}
			if kind = Modified; !changed && !d.linked[id] {
				kind = unchanged
			}
		case !errors.Is(err, os.ErrNotExist):
			return 0, false, err
		}
	}
	if kind != unchanged {
		d.list = append(d.list, Change{full, kind})
	}
	if is != kernel.TypeDir {
		if kind == unchanged {
			return kind, false, nil
		}
		d.files++
		if st.Nlink > 1 && !d.linked[id] && is != kernel.TypeSocket {
			d.linked[id], d.more = true, true
		}
		if is == kernel.TypeRegular && !(st.Nlink > 1 && counted[id]) {
			counted[id] = true
			d.shown += st.Size
		}
		return kind, false, nil
	}
	if kind == Added {
		d.files++
	}
	inner, err = d.descend(up, low, name, full, below, counted)
	return kind, inner, err
}

// differs compares what the attributes in the inode don't tell.
func (d *delta) differs(up, low *os.File, name string, kind uint32) (bool, error) {
	a, err := kernel.XattrsIn(up, name)
	if err != nil {
		return false, ignoreGone(err)
	}
	b, err := kernel.XattrsIn(low, name)
	if err != nil || !maps.Equal(a, b) {
		return true, err
	}
	text := ""
	switch kind {
	case kernel.TypeSymlink:
		text, err = compareLinks(up, low, name, name)
	case kernel.TypeRegular:
		text, err = compareContent(up, low, name, name)
	}
	return text != "", ignoreGone(err)
}

// ignoreGone is for trees that are in use.
func ignoreGone(err error) error {
	if none(err) {
		return nil
	}
	return err
}

func (d *delta) descend(up, low *os.File, name, full string, both bool, counted map[[2]uint64]bool) (inner bool, err error) {
	sub, err := kernel.OpenIn(up, name, kernel.ODirectory|kernel.ONoFollow, 0, 0)
	if none(err) {
		return false, nil // gone meanwhile
	}
	if err != nil {
		return false, err
	}
	defer fault.Close(sub, &err)
	if !both || low == nil {
		return d.dir(sub, nil, full, counted)
	}
	below, err := kernel.OpenIn(low, name, kernel.ODirectory|kernel.ONoFollow, 0, 0)
	if err != nil {
		return false, err
	}
	defer fault.Close(below, &err)
	return d.dir(sub, below, full, counted)
}

// changes lists what the root has beyond the tree that it began as.
func (r *wholeRoot) changes(ctx context.Context) (list []Change, err error) {
	err = r.delta(ctx, func(_ *os.File, d *delta) error {
		list = d.list
		return nil
	})
	return list, err
}

// pack writes the same as a layer.
func (r *wholeRoot) pack(ctx context.Context, w io.Writer, ids archive.IDMap) error {
	return r.delta(ctx, func(tree *os.File, d *delta) error {
		pick := func(dir string) (names, gone []string, all bool) {
			at := path.Join("/", dir)
			return d.have[at], d.gone[at], d.news[at]
		}
		return archive.Pack(ctx, w, tree, archive.PackOptions{Live: true, IDs: ids, Pick: pick, Top: d.top})
	})
}
