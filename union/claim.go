package union

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"berth/archive"
	"berth/fault"
	"berth/kernel"
)

// CanClaim tells whether Claim can take r: a root of overlay's without a bound and with owners as they are.
func CanClaim(d Driver, r Root) bool {
	o, ok := d.(*overlay)
	return ok && o.by.kind == "overlay" && o.quotas.size == 0 && r.Stacked != nil && r.IDs.Empty()
}

// Claim makes of what was written to r a layer in the making: nothing is copied, and the root is gone afterwards. Nobody may use it, nor may it
// have been bounded. What Pack leaves out goes, so that the layer is what its tar unpacks to; where that can't be done (fault.Unsupported),
// and after other errors, the root stays, unless it is lost, and packs as before.
func Claim(ctx context.Context, d Driver, r Root) (*Stage, archive.Unpacked, error) {
	o := d.(*overlay)
	root, err := os.Open(r.Stacked.Upper)
	if err != nil {
		return nil, archive.Unpacked{}, err
	}
	top, err := r.Stacked.newTop(root)
	var u archive.Unpacked
	if err == nil {
		u, err = archive.Reduce(ctx, root, top)
	}
	dir := o.path("stage", "layer-"+r.ID) // a prefix of newStage's: it is no stray
	if err == nil {
		err = unroot(o, r.ID, dir)
	}
	if err != nil {
		return nil, archive.Unpacked{}, errors.Join(err, root.Close())
	}
	s := &Stage{root: root, abort: func() error { return o.trash.take(dir) }}
	s.commit = func(root *os.File, chain, parent digest.Digest, u archive.Unpacked) error {
		return o.commit(dir, root, Layer{Chain: chain, Parent: parent, Size: u.Size}, u)
	}
	return s, u, nil
}

// unroot makes of a root a directory that holds its files only.
func unroot(o *overlay, id, dir string) error {
	o.mu.Lock()
	err := os.Rename(o.path("roots", id), dir)
	if err == nil {
		o.forgetRoot(id)
	}
	o.mu.Unlock()
	if err != nil {
		return err
	}
	for _, name := range []string{"work", "lower"} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			return errors.Join(err, o.trash.take(dir))
		}
	}
	return nil
}

// newTop tells whether the top directory has another owner, mode or attributes than the one below.
func (s *Stacked) newTop(upper *os.File) (is bool, err error) {
	if len(s.Lower) == 0 {
		return false, nil
	}
	below, err := os.Open(s.Lower[0])
	if err != nil {
		return false, err
	}
	defer fault.Close(below, &err)
	return unlike(upper, below)
}

// unlike compares two directories themselves, but for their times.
func unlike(up, low *os.File) (bool, error) {
	is, err := kernel.Stat(up)
	if err != nil {
		return false, err
	}
	was, err := kernel.Stat(low)
	if err != nil || is.Mode != was.Mode || is.Uid != was.Uid || is.Gid != was.Gid {
		return true, err
	}
	same, err := sameXattrs(up, low, ".")
	return !same, err
}
