package archive

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"

	"berth/fault"
	"berth/kernel"
)

// Reduce leaves of the tree beneath root, which nobody works in, what its archive would unpack to, and tells what Unpack would tell; both with Whiteouts.
// top: the root is a member in any case. A tree with names that mean something else in an archive, or with longer ones than Unpack takes, is
// fault.Unsupported. After an error the tree still packs to the same archive.
func Reduce(ctx context.Context, root *os.File, top bool) (Unpacked, error) {
	r := &reducer{ctx: ctx, seen: map[uint64]bool{}}
	if err := r.dir(root, ""); err != nil {
		return Unpacked{}, err
	}
	st, err := kernel.Stat(root)
	if err != nil {
		return Unpacked{}, err
	}
	attrs, err := kernel.XattrsIn(root, ".")
	if err != nil {
		return Unpacked{}, err
	}
	for attr := range attrs {
		top = top || Carries(attr)
	}
	u := Unpacked{Size: r.size}
	if !top && st.Mode&0o7777 == 0o755 && st.Uid == 0 && st.Gid == 0 { // as Packer.top has it
		u.Implied = []string{"."}
	}
	return u, nil
}

// reducer is one run of Reduce.
type reducer struct {
	ctx  context.Context
	seen map[uint64]bool // inodes with several names
	size int64
}

// dir reduces a directory, whose time is that of before.
func (r *reducer) dir(dir *os.File, prefix string) error {
	st, err := kernel.Stat(dir)
	if err != nil {
		return err
	}
	return errors.Join(r.children(dir, prefix), reduce(dir, ".", st.Atim.Sec, st.Mtim.Sec))
}

func (r *reducer) children(dir *os.File, prefix string) error {
	top, err := kernel.OpenIn(dir, ".", kernel.ODirectory, 0, 0) // at its beginning, wherever dir was read to
	if err != nil {
		return err
	}
	names, err := top.Readdirnames(-1)
	if fault.Close(top, &err); err != nil {
		return err
	}
	if err := r.ctx.Err(); err != nil {
		return fault.Wrap(fault.Canceled, err)
	}
	for _, name := range names {
		full := prefix + name
		if strings.HasPrefix(name, whiteoutPrefix) || len(full)+len(whiteoutPrefix)+1 >= maxPath {
			return fault.New(fault.Unsupported, "%s is nothing that an archive of a layer can hold", shown(full))
		}
		if err := r.child(dir, name, full); err != nil {
			return err
		}
	}
	return nil
}

func (r *reducer) child(dir *os.File, name, full string) (err error) {
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
		return r.dir(sub, full+"/")
	case kernel.TypeRegular:
		if st.Nlink > 1 {
			if r.seen[st.Ino] {
				return nil
			}
			r.seen[st.Ino] = true
		}
		r.size += st.Size
	case kernel.TypeChar:
		if isWhiteout(st.Mode, st.Rdev) {
			return nil
		}
	}
	return reduce(dir, name, st.Atim.Sec, st.Mtim.Sec)
}

// reduce takes away attributes that no archive carries, but for what is opaque and for labels, which new files get from the host, and parts of a second.
func reduce(dir *os.File, name string, atime, mtime int64) error {
	attrs, err := kernel.XattrsIn(dir, name)
	if err != nil {
		return err
	}
	for attr := range attrs {
		if attr == opaqueXattr || Carries(attr) || strings.HasPrefix(attr, "security.selinux") {
			continue
		}
		if err := kernel.RemoveXattrIn(dir, name, attr); err != nil {
			return err
		}
	}
	st, err := kernel.StatIn(dir, name)
	if err != nil || st.Mtim.Sec == mtime && st.Mtim.Nsec == 0 {
		return err
	}
	return kernel.TimesIn(dir, name, time.Unix(atime, 0), time.Unix(mtime, 0))
}
