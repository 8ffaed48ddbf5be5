package union

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"berth/fault"
	"berth/kernel"
)

// lower returns the directories to stack for a chain, top first, few enough to leave room for an init layer.
func (o *overlay) lower(chain digest.Digest) ([]string, error) {
	if dirs, short := o.shortLower(chain); short {
		return dirs, nil
	}
	o.building.Lock()
	defer o.building.Unlock()
	return o.lowerLocked(chain)
}

func (o *overlay) shortLower(chain digest.Digest) (dirs []string, short bool) {
	dirs = o.dirs(chain)
	return dirs, len(dirs) < o.by.most
}

// dirs lists the chain's directories, top first.
func (o *overlay) dirs(chain digest.Digest) (dirs []string) {
	for _, c := range o.chain(chain) {
		dirs = append(dirs, o.layerDir(c))
	}
	return dirs
}

// lowerLocked is lower for a caller that holds o.building.
func (o *overlay) lowerLocked(chain digest.Digest) ([]string, error) {
	dirs, short := o.shortLower(chain)
	if short {
		return dirs, nil
	}
	keep := len(dirs) % o.by.step
	bottom := o.ancestor(chain, keep)
	base, err := o.mergedDir(bottom)
	if err != nil {
		return nil, fmt.Errorf("merge the lowest %d layers: %w", len(dirs)-keep, err)
	}
	return append(dirs[:keep:keep], base), nil
}

// mergedDir returns a directory that shows chain, whose depth is a multiple of o.by.step, and makes it when missing.
func (o *overlay) mergedDir(chain digest.Digest) (string, error) {
	to := o.path("merged", key(chain))
	if _, err := os.Lstat(to); err == nil {
		return filepath.Join(to, "diff"), nil
	}
	dirs, step := o.dirs(chain), o.by.step
	if len(dirs) > step {
		base, err := o.mergedDir(o.ancestor(chain, step))
		if err != nil {
			return "", err
		}
		dirs = append(dirs[:step:step], base)
	}
	dir, diff, err := o.newStage("merged-")
	if err != nil {
		return "", err
	}
	for i := len(dirs) - 1; i >= 0; i-- {
		if err := o.by.linkTree(dirs[i], diff); err != nil {
			return "", errors.Join(err, o.trash.take(dir))
		}
	}
	return filepath.Join(to, "diff"), os.Rename(dir, to)
}

// linkTree lays the layer directory from over the directory to, as it would be shown; files become hard links.
func (s stacking) linkTree(from, to string) (err error) {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer fault.Close(src, &err)
	dst, err := os.Open(to)
	if err != nil {
		return err
	}
	defer fault.Close(dst, &err)
	return s.linkDir(src, dst)
}

func (s stacking) linkDir(src, dst *os.File) error {
	names, gone, err := s.names(src)
	if err != nil {
		return err
	}
	for _, name := range gone {
		if err := kernel.RemoveIn(dst, name); err != nil {
			return err
		}
	}
	for _, name := range names {
		if err := s.linkOne(src, dst, name); err != nil {
			return err
		}
	}
	return copyAttributes(dst, src, ".")
}

func (s stacking) linkOne(src, dst *os.File, name string) (err error) {
	st, err := kernel.StatIn(src, name)
	if err != nil {
		return err
	}
	if st.Mode&kernel.TypeMask != kernel.TypeDir {
		if err := kernel.RemoveIn(dst, name); err != nil {
			return err
		}
		if st.Mode&kernel.TypeMask == kernel.TypeChar && st.Rdev == 0 {
			return nil // a whiteout: nothing is below the lowest
		}
		return kernel.LinkIn(src, name, dst, name)
	}
	opaque, err := s.opaque(src, name)
	if err != nil {
		return err
	}
	if have, err := kernel.StatIn(dst, name); err == nil && (opaque || have.Mode&kernel.TypeMask != kernel.TypeDir) {
		if err := kernel.RemoveIn(dst, name); err != nil {
			return err
		}
	}
	if err := kernel.MkdirIn(dst, name, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
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
	return s.linkDir(from, to)
}
