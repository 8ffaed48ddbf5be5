package union

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"berth/archive"
	"berth/fault"
)

// Changes lists what r has beyond its layers, sorted by directory. It may run
// while r is in use, and what changes meanwhile is in the list or not. A directory counts as modified when its
// attributes did change, or when something directly in it was added or deleted, as the field's engines have it; "/" itself is never listed.
func Changes(ctx context.Context, r Root) (list []Change, err error) {
	if r.tree != nil {
		list, err = r.tree.changes(ctx)
	} else {
		list, err = r.Stacked.changes(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("compare root %s with its layers: %w", r.ID, err)
	}
	return list, nil
}

// Pack writes what r has beyond its layers as a layer's tar, with owners as the container sees them. It may run while r is in use.
func Pack(ctx context.Context, w io.Writer, r Root) error {
	if r.tree != nil {
		return r.tree.pack(ctx, w, r.IDs)
	}
	return r.Stacked.pack(ctx, w, r.IDs)
}

// Written is what r's own files take and show. The top directory counts as Top.
func (r Root) Written() (Space, error) {
	if r.tree != nil {
		return r.tree.written()
	}
	return Measure(r.Stacked.Upper, nil)
}

// Kept is how many bytes of the disk Delete would free.
func (r Root) Kept() (int64, error) {
	if r.tree != nil {
		return r.tree.kept()
	}
	s, err := Measure(filepath.Dir(r.Stacked.Upper), nil)
	return s.Disk, err
}

// Data is where r lies, in the words that tools expect of the driver; nil when there is nothing to tell.
func (r Root) Data() map[string]string {
	if r.tree != nil {
		return r.tree.data()
	}
	if r.Stacked.by.marks() {
		return nil // as the field has it
	}
	return map[string]string{"LowerDir": strings.Join(r.Stacked.Lower, ":"), "UpperDir": r.Stacked.Upper, "WorkDir": r.Stacked.Work, "MergedDir": r.Merged}
}

// Lent is how the root is mounted to be read only, more than once at a time. It must not be in use otherwise.
func (r Root) Lent() Mount {
	m := Mount{Type: r.Mount.Type, Source: r.Mount.Source}
	switch {
	case r.tree != nil:
		m.Options = append(m.Options, r.Mount.Options...)
	case r.Stacked.by.alone(r.Stacked.Lower): // an overlay has two at least
		m.Type, m.Source = "bind", r.Stacked.Lower[0]
	default:
		m = r.Stacked.by.mount(r.Stacked.Lower, "", "")
	}
	return m
}

func (s *Stacked) pack(ctx context.Context, w io.Writer, ids archive.IDMap) (err error) {
	upper, err := os.Open(s.Upper)
	if err != nil {
		return err
	}
	defer fault.Close(upper, &err)
	top, err := s.newTop(upper)
	if err != nil {
		return err
	}
	if s.by.marks() {
		return packMarked(ctx, w, upper, ids, top)
	}
	return archive.Pack(ctx, w, upper, archive.PackOptions{Whiteouts: true, Live: true, IDs: ids, Top: top})
}

// changes reads the writable directory and those below.
func (s *Stacked) changes(ctx context.Context) (list []Change, err error) {
	upper, err := os.Open(s.Upper)
	if err != nil {
		return nil, err
	}
	defer fault.Close(upper, &err)
	lower, err := merged(s.Lower, s.by)
	if err != nil {
		return nil, err
	}
	defer fault.Close(lower, &err)
	d := &differ{ctx: ctx, by: s.by}
	err = d.dir(upper, lower, "/")
	return d.list, err
}

// beneath implements complete.
func (o *overlay) beneath(id, of string) (Root, error) {
	r, err := o.Open(id)
	if err != nil {
		return Root{}, err
	}
	other, err := o.Open(of)
	if err != nil {
		return Root{}, err
	}
	s := r.Stacked
	s.Lower = append([]string{other.Stacked.Upper}, s.Lower...)
	r.Mount = s.mount()
	return r, nil
}

// idle implements complete for drivers that hold nothing for a mount.
func (o *home) idle(string) error { return nil }

// inventory implements complete.
func (o *overlay) inventory() Inventory { return inventory{o} }
