package union

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	"berth/fault"
	"berth/kernel"
)

func unixTime(sec, nsec int64) time.Time { return time.Unix(sec, nsec) }

// isOverlays tells attributes by which overlay keeps its own state.
func isOverlays(attr string) bool {
	return strings.HasPrefix(attr, "trusted.overlay.") || strings.HasPrefix(attr, "user.overlay.") || strings.HasPrefix(attr, "user.fuseoverlayfs.")
}

const opaqueXattr = "trusted.overlay.opaque"

// adoption fits a layer's implied directories to what lies below: a tar that
// holds only usr/bin/x says nothing about usr and usr/bin, so they must look as before; and where
// /bin is a symbolic link to usr/bin below, bin/x is meant to come into usr/bin.
type adoption struct {
	top     *os.File          // the layer
	lower   *os.File          // the merged parent chain
	implied map[string]bool   // by the path that the archive used
	below   map[string]string // the path under lower that a directory of the layer covers, "" = none
	moved   map[string]string // where an implied directory's content went
	made    map[string]bool   // directories that it went to and that the archive did not have
}

// adopt fits the implied directories of the layer top to the tree that its parents show.
func adopt(top *os.File, implied []string, lower *os.File) error {
	a := &adoption{top: top, lower: lower, implied: map[string]bool{}, below: map[string]string{".": "."}, moved: map[string]string{}, made: map[string]bool{}}
	for _, p := range implied {
		a.implied[p] = true
	}
	for _, p := range implied {
		if err := a.one(p); err != nil {
			return fmt.Errorf("fit the directory %q to the layers below: %w", p, err)
		}
	}
	return nil
}

// merged opens a read-only view of directories, top first. The caller closes it, which unmounts it.
func merged(dirs []string, by stacking) (*os.File, error) {
	if by.alone(dirs) { // overlay wants two; one alone looks the same
		return os.Open(dirs[0])
	}
	m := by.mount(dirs, "", "")
	f, err := kernel.NewMount(m.Type, m.Source, m.Options, kernel.ReadOnly|kernel.NoDev|kernel.NoSUID|kernel.NoExec)
	if err != nil {
		return nil, fmt.Errorf("mount the layers below: %w", err)
	}
	return f, nil
}

// one fits one implied directory; those above it were fitted before.
func (a *adoption) one(p string) (err error) {
	v, err := a.covers(p)
	if err != nil || v == "" {
		return err
	}
	own, err := kernel.StatIn(a.top, v) // before anything moves in
	named := err == nil && !a.implied[v] && !a.made[v]
	if err != nil && !none(err) {
		return err
	}
	if at := a.place(p); at != v {
		if err := a.move(at, v); err != nil {
			return err
		}
		a.moved[p] = v
	}
	to, err := kernel.OpenIn(a.top, v, kernel.ODirectory, 0, kernel.Beneath|kernel.NoSymlinks)
	if err != nil {
		return err
	}
	defer fault.Close(to, &err)
	if named { // the archive itself says what it looks like
		return kernel.Times(to, unixTime(own.Atim.Unix()), unixTime(own.Mtim.Unix()))
	}
	return copyAttributes(to, a.lower, v)
}

// none tells that a path leads to nothing.
func none(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// place is where the layer has the content of the archive's directory p now.
func (a *adoption) place(p string) string {
	if to, ok := a.moved[p]; ok {
		return to
	}
	if p == "." {
		return p
	}
	return path.Join(a.place(path.Dir(p)), path.Base(p))
}

// covers returns the directory under lower that p covers in the merged tree, "" when there is none.
func (a *adoption) covers(p string) (v string, err error) {
	if v, ok := a.below[p]; ok {
		return v, nil
	}
	defer func() {
		if err == nil {
			a.below[p] = v
		}
	}()
	up, err := a.covers(path.Dir(p))
	if err != nil || up == "" {
		return "", err
	}
	if hidden, err := a.hidden(path.Dir(p)); err != nil || hidden {
		return "", err
	}
	if own, err := statBeneath(a.top, a.place(p)); none(err) || err == nil && own != kernel.TypeDir {
		return "", nil // the layer has a link of its own there, which the archive went through
	} else if err != nil {
		return "", err
	}
	v = path.Join(up, path.Base(p))
	if a.implied[p] {
		v, err = resolve(a.lower, v)
		if err != nil {
			return "", err
		}
	}
	st, err := statBeneath(a.lower, v)
	if none(err) {
		return "", nil
	}
	if err != nil || st != kernel.TypeDir {
		return "", err
	}
	return v, nil
}

// hidden tells whether the layer's directory p shows nothing from below.
func (a *adoption) hidden(p string) (bool, error) {
	value, ok, err := kernel.XattrIn(a.top, a.place(p), opaqueXattr)
	return ok && value == "y", err
}

// move merges the layer's directory from into its directory to, made when missing.
func (a *adoption) move(from, to string) error {
	dst, err := a.ensure(to)
	if err != nil {
		return err
	}
	defer dst.Close()
	src, err := kernel.OpenIn(a.top, from, kernel.ODirectory, 0, kernel.Beneath|kernel.NoSymlinks)
	if err != nil {
		return err
	}
	err = mergeInto(src, dst)
	if err = errors.Join(err, src.Close()); err != nil {
		return err
	}
	return kernel.RmdirIn(a.top, from)
}

// ensure opens the layer's directory p and makes it, with those above, as they look below.
func (a *adoption) ensure(p string) (*os.File, error) {
	f, err := kernel.OpenIn(a.top, p, kernel.ODirectory, 0, kernel.Beneath|kernel.NoSymlinks)
	if err == nil || !errors.Is(err, os.ErrNotExist) {
		return f, err
	}
	up, err := a.ensure(path.Dir(p))
	if err != nil {
		return nil, err
	}
	defer up.Close()
	a.made[p] = true
	if err := kernel.MkdirIn(up, path.Base(p), 0o755); err != nil {
		return nil, err
	}
	if f, err = kernel.OpenIn(up, path.Base(p), kernel.ODirectory|kernel.ONoFollow, 0, 0); err != nil {
		return nil, err
	}
	if err := copyAttributes(f, a.lower, p); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// mergeInto moves what is in src to dst; directories that both have are merged, otherwise src wins.
func mergeInto(src, dst *os.File) error {
	names, err := src.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := moveOne(src, dst, name); err != nil {
			return err
		}
	}
	return nil
}

func moveOne(src, dst *os.File, name string) (err error) {
	st, err := kernel.StatIn(dst, name)
	if errors.Is(err, os.ErrNotExist) {
		return kernel.RenameIn(src, name, dst, name)
	}
	if err != nil {
		return err
	}
	mine, err := kernel.StatIn(src, name)
	if err != nil {
		return err
	}
	if mine.Mode&kernel.TypeMask != kernel.TypeDir || st.Mode&kernel.TypeMask != kernel.TypeDir {
		if err := kernel.RemoveIn(dst, name); err != nil {
			return err
		}
		return kernel.RenameIn(src, name, dst, name)
	}
	from, err := kernel.OpenIn(src, name, kernel.ODirectory|kernel.ONoFollow, 0, 0)
	if err != nil {
		return err
	}
	defer fault.Close(from, &err)
	to, err := kernel.OpenIn(dst, name, kernel.ODirectory|kernel.ONoFollow, 0, 0)
	if err != nil {
		return err
	}
	defer fault.Close(to, &err)
	if err := mergeInto(from, to); err != nil {
		return err
	}
	return kernel.RmdirIn(src, name)
}

// statBeneath returns the type bits of root/p, which has no symbolic link on the way.
func statBeneath(root *os.File, p string) (uint32, error) {
	f, err := kernel.OpenIn(root, p, kernel.OPath|kernel.ONoFollow, 0, kernel.Beneath|kernel.NoMagicLinks)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	st, err := kernel.Stat(f)
	return st.Mode & kernel.TypeMask, err
}

// resolve follows all symbolic links of p with root as "/" and returns a path
// without any. A loop, or a name that isn't there, ends it where it stands.
func resolve(root *os.File, p string) (string, error) {
	const maxLinks = 40 // as the kernel has it, path_resolution(7)
	at, rest := ".", p
	for links := 0; rest != ""; {
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		switch name {
		case "", ".":
			continue
		case "..":
			at = path.Dir(at)
			continue
		}
		next := path.Join(at, name)
		kind, err := statBeneath(root, next)
		if none(err) {
			return path.Join(next, rest), nil
		}
		if err != nil {
			return "", err
		}
		if kind != kernel.TypeSymlink {
			at = next
			continue
		}
		if links++; links > maxLinks {
			return path.Join(next, rest), nil
		}
		target, err := kernel.ReadlinkIn(root, next)
		if err != nil {
			return "", err
		}
		if path.IsAbs(target) {
			at = "."
		}
		rest = target + "/" + rest
	}
	return at, nil
}
