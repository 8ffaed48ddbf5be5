package archive

import (
	"errors"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"berth/fault"
	"berth/kernel"
)

// The functions here take a path as a process sees it whose "/" is root. The kernel walks it (openat2(2), RESOLVE_IN_ROOT), so that
// links, wherever they lead and however fast they change, stay inside.

// inside is how such paths are walked.
const inside = kernel.InRoot | kernel.NoMagicLinks

// Clean makes a user's path absolute and takes "." and ".." out as written; a slash or "/." at its end, by which a user says
// that it must be a directory, stays.
func Clean(p string) string {
	clean := path.Clean("/" + p)
	switch {
	case clean == "/":
	case strings.HasSuffix(p, "/."):
		clean += "/."
	case strings.HasSuffix(p, "/"):
		clean += "/"
	}
	return clean
}

// Stat describes what p names below root; of a symbolic link, the link itself, and in target where it leads, as far as that exists.
func Stat(root *os.File, p string) (info os.FileInfo, target string, err error) {
	f, err := kernel.OpenIn(root, Clean(p), kernel.OPath|kernel.ONoFollow, 0, inside)
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return nil, "", err
	}
	if info.Mode()&os.ModeSymlink != 0 {
		target, err = Resolve(root, p)
	}
	return info, target, err
}

// OpenDir opens the directory that p names below root, links followed. The caller closes it.
func OpenDir(root *os.File, p string) (*os.File, error) {
	return kernel.OpenIn(root, Clean(p), kernel.ODirectory, 0, inside)
}

// AddPath is Add for what p names below root; a symbolic link is packed as such.
func (p *Packer) AddPath(root *os.File, name, as string) (err error) {
	name = Clean(name)
	f, err := kernel.OpenIn(root, name, kernel.OPath|kernel.ONoFollow, 0, inside)
	if err != nil {
		return err
	}
	defer fault.Close(f, &err)
	if made, err := MadeUp(f); err != nil || made {
		if made {
			err = fault.New(fault.Invalid, "cannot copy from %q: the kernel makes up what is there; read it by a program inside", name)
		}
		return err
	}
	if is, err := kernel.IsDir(f); err != nil {
		return err
	} else if is {
		return p.Add(f, ".", as)
	}
	dir, err := kernel.OpenIn(root, path.Dir(name), kernel.OPath|kernel.ODirectory, 0, inside)
	if err != nil {
		return err
	}
	defer fault.Close(dir, &err)
	return p.Add(dir, path.Base(name), as)
}

// maxLinks is how many symbolic links one path may go through, as in the kernel (path_resolution(7)).
const maxLinks = 40

// Resolve follows all symbolic links of p below root and returns an absolute path without any, as things stood. What
// does not exist is taken as written.
func Resolve(root *os.File, p string) (string, error) {
	at, rest := "/", strings.Split(path.Clean("/" + p)[1:], "/")
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			at = path.Dir(at)
			continue
		}
		next := path.Join(at, name)
		link, err := readlink(root, next)
		if err != nil && !missing(err) {
			return "", err
		}
		if link == "" {
			at = next
			continue
		}
		if links++; links > maxLinks {
			return "", &os.PathError{Op: "resolve", Path: p, Err: syscall.ELOOP}
		}
		if path.IsAbs(link) {
			at = "/"
		}
		rest = append(strings.Split(link, "/"), rest...)
	}
	return at, nil
}

// missing tells that a path leads to nothing.
func missing(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

func readlink(root *os.File, p string) (string, error) {
	f, err := kernel.OpenIn(root, p, kernel.OPath|kernel.ONoFollow, 0, inside)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return kernel.Readlink(f)
}

// Glob lists, sorted, the paths below root that a pattern of path.Match fits, of which * and ? stand for no leading dot and none
// for a slash. One without special characters fits itself when it exists. fault.Invalid: a malformed pattern.
func Glob(root *os.File, pattern string) ([]string, error) { return glob(root, pattern, false) }

// GlobAll is Glob with * and ? standing for a leading dot too, as in a Dockerfile.
func GlobAll(root *os.File, pattern string) ([]string, error) { return glob(root, pattern, true) }

func glob(root *os.File, pattern string, dots bool) ([]string, error) {
	if _, err := path.Match(pattern, ""); err != nil {
		return nil, fault.New(fault.Invalid, "pattern %q: %w", pattern, err)
	}
	found := []string{"/"}
	for part := range strings.SplitSeq(path.Clean("/" + pattern)[1:], "/") {
		var next []string
		for _, dir := range found {
			if !IsPattern(part) {
				next = append(next, path.Join(dir, part))
				continue
			}
			names, err := list(root, dir)
			if err != nil && !missing(err) {
				return nil, err
			}
			for _, n := range names {
				if ok, _ := path.Match(part, n); ok && (dots || n[0] != '.' || part[0] == '.') {
					next = append(next, path.Join(dir, n))
				}
			}
		}
		found = next
	}
	found = slices.DeleteFunc(found, func(p string) bool {
		f, err := kernel.OpenIn(root, p, kernel.OPath|kernel.ONoFollow, 0, inside)
		if err == nil {
			f.Close()
		}
		return err != nil
	})
	slices.Sort(found)
	return found, nil
}

// IsPattern tells whether p has characters that Glob takes for more than themselves.
func IsPattern(p string) bool { return strings.ContainsAny(p, `*?[\`) }

func list(root *os.File, dir string) ([]string, error) {
	f, err := OpenDir(root, dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

// MakeDir makes the directory p below root, with those above it, and returns it as an O_PATH file that the caller closes. One that is
// there is returned as it is, and so is what else is there. Where p leads by links to nothing yet, that is made.
func MakeDir(root *os.File, p string) (*os.File, error) {
	return MakeDirFor(root, p, Owner{})
}

// MakeDirFor is MakeDir with an owner for the directories that are made.
func MakeDirFor(root *os.File, p string, owner Owner) (*os.File, error) {
	real, err := Resolve(root, p)
	if err != nil {
		return nil, err
	}
	return makeDir(root, real, owner)
}

func makeDir(root *os.File, p string, owner Owner) (*os.File, error) {
	f, err := kernel.OpenIn(root, p, kernel.OPath, 0, inside)
	if !errors.Is(err, os.ErrNotExist) || p == "/" {
		return f, err
	}
	above, err := makeDir(root, path.Dir(p), owner)
	if err != nil {
		return nil, err
	}
	defer above.Close()
	err = kernel.MkdirIn(above, path.Base(p), 0o755)
	if err == nil && owner != (Owner{}) {
		err = kernel.ChownIn(above, path.Base(p), owner.UID, owner.GID)
	}
	if err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	return kernel.OpenIn(root, p, kernel.OPath, 0, inside)
}

// MakeFile makes an empty file, with the directories above it, where nothing is. Where p leads by links to nothing yet, that is made.
func MakeFile(root *os.File, p string) error {
	real, err := Resolve(root, p)
	if err != nil {
		return err
	}
	if _, _, err := Stat(root, real); err == nil {
		return nil
	}
	return makeIn(root, real, func(dir *os.File, name string) error { return kernel.MknodIn(dir, name, kernel.TypeRegular|0o755, 0) })
}

// MakeLink makes the symbolic link p to target, with the directories above it; os.ErrExist when something is there.
func MakeLink(root *os.File, p, target string) error {
	return makeIn(root, p, func(dir *os.File, name string) error { return kernel.SymlinkIn(target, dir, name) })
}

func makeIn(root *os.File, p string, mk func(dir *os.File, name string) error) error {
	p = path.Clean("/" + p)
	dir, err := MakeDir(root, path.Dir(p))
	if err != nil {
		return err
	}
	defer dir.Close()
	return mk(dir, path.Base(p))
}

// ReadFile reads at most limit bytes of the regular file that p names below root.
func ReadFile(root *os.File, p string, limit int64) ([]byte, error) {
	f, err := OpenFile(root, p)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}

// OpenFile opens the regular file p below root, links followed; what is none is refused with EINVAL. The caller closes it.
func OpenFile(root *os.File, p string) (*os.File, error) {
	f, err := kernel.OpenIn(root, Clean(p), kernel.ONonblock|kernel.ONoCTTY, 0, inside)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, f.Close(), &os.PathError{Op: "read", Path: p, Err: syscall.EINVAL})
	}
	return f, nil
}
