package union

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"berth/fault"
	"berth/kernel"
)

// backing names file systems as `info` shows them.
var backing = map[int64]string{
	kernel.ExtMagic:   "extfs",
	kernel.XFSMagic:   "xfs",
	kernel.BtrfsMagic: "btrfs",
	kernel.TmpfsMagic: "tmpfs",
}

// check refuses a directory on which overlay can't work, with the reason, and tries it once for real.
func (o *overlay) check() error {
	magic, err := kernel.FSType(o.lock)
	if err != nil {
		return err
	}
	if magic == kernel.OverlayMagic && o.by.kind == "overlay" {
		return fault.New(fault.Unsupported, "storage driver %s: %s lies on an overlay file system, which can't carry another one: "+
			"give --data-root a directory on a disk, a volume or tmpfs", o.by.driver, o.dir)
	}
	if o.by.marks() {
		if err := refuseBelowAufs(o.dir, magic); err != nil {
			return err
		}
	}
	err = try(o.path("stage"), o.by)
	if o.by.marks() && errors.Is(err, syscall.EINVAL) {
		o.by.options = slices.DeleteFunc(slices.Clone(o.by.options), func(o string) bool { return o == dirperm1 })
		err = try(o.path("stage"), o.by)
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return nil // a full disk says nothing of overlay, and space is freed by an engine that runs
	}
	if err != nil {
		return fault.New(fault.Unsupported, "storage driver %s does not work in %s (%s): %w", o.by.driver, o.dir, o.backing, err)
	}
	return nil
}

var errNoWhiteout = errors.New("a deleted file leaves no whiteout")

// try mounts a small stack and deletes a file in it.
func try(stage string, by stacking) (err error) {
	dir, err := os.MkdirTemp(stage, "check-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	for _, d := range []string{"lower", "upper", "work"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "lower", "f"), nil, 0o600); err != nil {
		return err
	}
	lower, err := os.Open(filepath.Join(dir, "lower"))
	if err != nil {
		return err
	}
	defer fault.Close(lower, &err)
	if known, err := kernel.KnowsTypes(lower); err != nil || !known {
		return errors.Join(err, errors.New("its directories don't tell the types of their entries (d_type; for xfs: make it with ftype=1)"))
	}
	s := &Stacked{[]string{lower.Name()}, filepath.Join(dir, "upper"), filepath.Join(dir, "work"), by}
	r := Root{ID: "check", Stacked: s, Mount: s.mount()}
	if err := View(r, func(d *os.File) error { return kernel.UnlinkIn(d, "f") }); err != nil {
		return err
	}
	upper, err := os.Open(s.Upper)
	if err != nil {
		return err
	}
	defer fault.Close(upper, &err)
	if by.marks() {
		_, gone, err := by.names(upper)
		if err == nil && len(gone) != 1 {
			err = errNoWhiteout
		}
		return err
	}
	st, err := kernel.StatIn(upper, "f")
	if err == nil && (st.Mode&kernel.TypeMask != kernel.TypeChar || st.Rdev != 0) {
		err = errNoWhiteout
	}
	return err
}
