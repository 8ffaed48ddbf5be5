package oci

import (
	"errors"
	"io"
	"os"
	"time"

	"berth/kernel"
)

// copyTree copies what lies in the directory from into the empty directory to, with owners, modes, times and attributes.
// It goes by descriptors and follows no symbolic link; hard links become files of their own.
func copyTree(from, to *os.File) error {
	entries, err := from.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := copyEntry(from, to, e.Name()); err != nil {
			return err
		}
	}
	return nil
}

func copyEntry(from, to *os.File, name string) error {
	st, err := kernel.StatIn(from, name)
	if err != nil {
		return err
	}
	kind, mode := st.Mode&kernel.TypeMask, st.Mode&0o7777
	switch kind {
	case kernel.TypeSymlink:
		target, err := kernel.ReadlinkIn(from, name)
		if err == nil {
			err = kernel.SymlinkIn(target, to, name)
		}
		return errors.Join(err, kernel.ChownIn(to, name, st.Uid, st.Gid))
	case kernel.TypeDir:
		err = kernel.MkdirIn(to, name, 0o700)
		if err == nil {
			err = inBoth(from, to, name, kernel.ODirectory, kernel.ODirectory, copyTree)
		}
	case kernel.TypeRegular:
		err = inBoth(from, to, name, kernel.ONonblock, os.O_WRONLY|os.O_CREATE|os.O_EXCL, func(in, out *os.File) error {
			_, err := io.Copy(out, in)
			return err
		})
	default:
		err = kernel.MknodIn(to, name, kind|mode, uint64(st.Rdev))
	}
	if err != nil {
		return err
	}
	if err := copyAttributes(from, to, name); err != nil {
		return err
	}
	// The owner first: a change of owner takes setuid bits away.
	return errors.Join(
		kernel.ChownIn(to, name, st.Uid, st.Gid),
		kernel.ChmodIn(to, name, mode),
		kernel.TimesIn(to, name, time.Unix(st.Atim.Unix()), time.Unix(st.Mtim.Unix())),
	)
}

func inBoth(from, to *os.File, name string, inFlags, outFlags int, do func(in, out *os.File) error) error {
	const how = kernel.Beneath | kernel.NoSymlinks
	in, err := kernel.OpenIn(from, name, os.O_RDONLY|inFlags, 0, how)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := kernel.OpenIn(to, name, outFlags, 0o600, how)
	if err != nil {
		return err
	}
	return errors.Join(do(in, out), out.Close())
}

// copyAttributes copies extended attributes, as far as a tmpfs takes them.
func copyAttributes(from, to *os.File, name string) error {
	all, err := kernel.XattrsIn(from, name)
	for attr, value := range all {
		if err := kernel.SetXattrIn(to, name, attr, value); err != nil && !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
	}
	return err
}
