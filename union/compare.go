package union

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"syscall"

	"berth/fault"
	"berth/kernel"
)

// compareLayer is compareTrees for the layer directory at have, which may be damaged.
func compareLayer(have string, want *os.File) (difference string, err error) {
	a, err := kernel.OpenIn(nil, have, kernel.ODirectory|kernel.ONoFollow, 0, 0)
	if errors.Is(err, os.ErrNotExist) {
		return "its directory is gone", nil
	}
	if errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) {
		return "it is no directory", nil
	}
	if err != nil {
		return "", err
	}
	defer fault.Close(a, &err)
	return compareTrees(a, want)
}

// compareTrees tells the first way in which the directory a differs from want: names, types, owners, modes,
// attributes, links, devices, content, and the times of files. "" when it doesn't.
func compareTrees(a, want *os.File) (difference string, err error) {
	c := &comparison{same: map[[2]uint64]uint64{}}
	if difference, err = c.one(a, want, ".", "/"); err == nil && difference == "" {
		difference, err = c.dir(a, want, "/")
	}
	return difference, err
}

type comparison struct {
	same map[[2]uint64]uint64 // inodes with several names whose content was found equal
}

func (c *comparison) dir(a, b *os.File, at string) (string, error) {
	have, err := sortedNames(a)
	if err != nil {
		return "", err
	}
	want, err := sortedNames(b)
	if err != nil {
		return "", err
	}
	for _, n := range want {
		if _, found := slices.BinarySearch(have, n); !found {
			return fmt.Sprintf("%q is missing", path.Join(at, n)), nil
		}
	}
	for _, n := range have {
		if _, found := slices.BinarySearch(want, n); !found {
			return fmt.Sprintf("%q is too much", path.Join(at, n)), nil
		}
	}
	for _, n := range want {
		if d, err := c.one(a, b, n, path.Join(at, n)); err != nil || d != "" {
			return d, err
		}
	}
	return "", nil
}

func sortedNames(dir *os.File) ([]string, error) {
	if _, err := dir.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	names, err := dir.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

// one compares a name in both directories; of directories, what is in them too, except for ".".
func (c *comparison) one(a, b *os.File, name, full string) (string, error) {
	sa, err := kernel.StatIn(a, name)
	if err != nil {
		return "", err
	}
	sb, err := kernel.StatIn(b, name)
	if err != nil {
		return "", err
	}
	kind := sb.Mode & kernel.TypeMask
	switch {
	case sa.Mode != sb.Mode:
		return fmt.Sprintf("%q has mode %o instead of %o", full, sa.Mode, sb.Mode), nil
	case sa.Uid != sb.Uid || sa.Gid != sb.Gid:
		return fmt.Sprintf("%q belongs to %d:%d instead of %d:%d", full, sa.Uid, sa.Gid, sb.Uid, sb.Gid), nil
	case sa.Rdev != sb.Rdev:
		return fmt.Sprintf("%q is another device", full), nil
	case kind == kernel.TypeRegular && sa.Size != sb.Size:
		return fmt.Sprintf("%q has %d bytes instead of %d", full, sa.Size, sb.Size), nil
	case kind == kernel.TypeRegular && sa.Mtim != sb.Mtim:
		return fmt.Sprintf("%q was modified", full), nil
	}
	xa, err := kernel.XattrsIn(a, name)
	if err != nil {
		return "", err
	}
	xb, err := kernel.XattrsIn(b, name)
	if err != nil {
		return "", err
	}
	if !maps.Equal(xa, xb) {
		return fmt.Sprintf("%q has other extended attributes", full), nil
	}
	switch {
	case kind == kernel.TypeSymlink:
		return compareLinks(a, b, name, full)
	case kind == kernel.TypeRegular:
		id := [2]uint64{sa.Dev, sa.Ino}
		if sa.Nlink > 1 && c.same[id] == sb.Ino {
			return "", nil
		}
		d, err := compareContent(a, b, name, full)
		if sa.Nlink > 1 && err == nil && d == "" {
			c.same[id] = sb.Ino
		}
		return d, err
	case kind == kernel.TypeDir && name != ".":
		return c.descend(a, b, name, full)
	}
	return "", nil
}

func (c *comparison) descend(a, b *os.File, name, full string) (d string, err error) {
	sub, err := kernel.OpenIn(a, name, kernel.ODirectory|kernel.ONoFollow, 0, 0)
	if err != nil {
		return "", err
	}
	defer fault.Close(sub, &err)
	want, err := kernel.OpenIn(b, name, kernel.ODirectory|kernel.ONoFollow, 0, 0)
	if err != nil {
		return "", err
	}
	defer fault.Close(want, &err)
	return c.dir(sub, want, full)
}

func compareLinks(a, b *os.File, name, full string) (string, error) {
	la, err := kernel.ReadlinkIn(a, name)
	if err != nil {
		return "", err
	}
	lb, err := kernel.ReadlinkIn(b, name)
	if err == nil && la != lb {
		return fmt.Sprintf("%q leads to %q instead of %q", full, la, lb), nil
	}
	return "", err
}

func compareContent(a, b *os.File, name, full string) (d string, err error) {
	fa, err := kernel.OpenIn(a, name, os.O_RDONLY|kernel.ONoFollow, 0, 0)
	if err != nil {
		return "", err
	}
	defer fault.Close(fa, &err)
	fb, err := kernel.OpenIn(b, name, os.O_RDONLY|kernel.ONoFollow, 0, 0)
	if err != nil {
		return "", err
	}
	defer fault.Close(fb, &err)
	var bufA, bufB [64 << 10]byte
	for {
		na, errA := io.ReadFull(fa, bufA[:])
		nb, errB := io.ReadFull(fb, bufB[:])
		if !bytes.Equal(bufA[:na], bufB[:nb]) {
			return fmt.Sprintf("%q has other content", full), nil
		}
		for _, err := range []error{errA, errB} {
			if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
				return "", err
			}
		}
		if errA != nil || errB != nil {
			return "", nil
		}
	}
}
