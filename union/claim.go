package union

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

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

// Claim makes of what was written to r a layer in the making: nothing is copied, and the root is gone afterwards, also when it fails. Nobody may
// use the root, nor may it have been bounded. What Pack leaves out goes, so that the layer is what its tar unpacks to.
func Claim(ctx context.Context, d Driver, r Root) (*Stage, archive.Unpacked, error) {
	o := d.(*overlay)
	dir := o.path("stage", "claim-"+r.ID)
	o.mu.Lock()
	err := os.Rename(o.path("roots", r.ID), dir)
	if err == nil {
		o.forgetRoot(r.ID)
	}
	o.mu.Unlock()
	if err != nil {
		return nil, archive.Unpacked{}, err
	}
	c := &claim{ctx: ctx, seen: map[uint64]bool{}}
	s, err := c.stage(o, dir)
	if err != nil {
		return nil, archive.Unpacked{}, errors.Join(err, o.trash.take(dir))
	}
	return s, archive.Unpacked{Size: c.size}, nil
}

// stage makes a stage of the directory of a root.
func (c *claim) stage(o *overlay, dir string) (*Stage, error) {
	for _, name := range []string{"work", "lower"} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			return nil, err
		}
	}
	root, err := os.Open(filepath.Join(dir, "diff"))
	if err != nil {
		return nil, err
	}
	if err := c.dir(root); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	s := &Stage{root: root, abort: func() error { return o.trash.take(dir) }}
	s.commit = func(root *os.File, chain, parent digest.Digest, u archive.Unpacked) error {
		return o.commit(dir, root, Layer{Chain: chain, Parent: parent, Size: u.Size}, u)
	}
	return s, nil
}

// claim walks what is claimed.
type claim struct {
	ctx  context.Context
	seen map[uint64]bool // inodes with several names
	size int64
}

func (c *claim) dir(dir *os.File) error {
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	if err := c.ctx.Err(); err != nil {
		return fault.Wrap(fault.Canceled, err)
	}
	for _, name := range names {
		if err := c.one(dir, name); err != nil {
			return err
		}
	}
	return plain(dir, ".")
}

func (c *claim) one(dir *os.File, name string) (err error) {
	st, err := kernel.StatIn(dir, name)
	if err != nil {
		return err
	}
	switch st.Mode & kernel.TypeMask {
	case kernel.TypeSocket:
		return kernel.RemoveIn(dir, name)
	case kernel.TypeDir:
		sub, err := kernel.OpenIn(dir, name, kernel.ODirectory|kernel.ONoFollow, 0, 0)
		if err != nil {
			return err
		}
		defer fault.Close(sub, &err)
		return c.dir(sub)
	case kernel.TypeRegular:
		if st.Nlink > 1 && c.seen[st.Ino] {
			return nil
		}
		c.seen[st.Ino] = st.Nlink > 1
		c.size += st.Size
	case kernel.TypeChar:
		if st.Rdev == 0 {
			return nil // a whiteout
		}
	}
	return plain(dir, name)
}

// plain takes away what overlay noted in a file, and what a tar has no place for: other attributes, and parts of a second.
func plain(dir *os.File, name string) error {
	attrs, err := kernel.XattrsIn(dir, name)
	if err != nil {
		return err
	}
	for attr := range attrs {
		if attr != opaqueXattr && (isOverlays(attr) || !archive.Carries(attr)) && !strings.HasPrefix(attr, "security.selinux") {
			if err := kernel.RemoveXattrIn(dir, name, attr); err != nil {
				return err
			}
		}
	}
	st, err := kernel.StatIn(dir, name)
	if err != nil {
		return err
	}
	if sec, nsec := st.Mtim.Unix(); nsec != 0 {
		return kernel.TimesIn(dir, name, time.Unix(st.Atim.Unix()), time.Unix(sec, 0))
	}
	return nil
}
