package engine

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"berth/container"
	"berth/engine/bundle"
	"berth/volume"

	"github.com/moby/moby/api/types/mount"
)

// findMounts tells where on the host each volume and bind lies. A bind's missing source is made,
// unless the user said that it exists.
func (c *starter) findMounts(ctx context.Context, r *container.Record) ([]bundle.Mount, error) {
	var all []bundle.Mount
	for _, m := range r.Mounts {
		b := bundle.Mount{Mount: m}
		switch m.Type {
		case mount.TypeBind:
			if err := checkBindSource(&m); err != nil {
				return nil, err
			}
			if _, err := os.Stat(m.Source); errors.Is(err, fs.ErrNotExist) {
				if err := os.MkdirAll(m.Source, 0o755); err != nil {
					return nil, invalid("error while creating mount source path '%s': %w", m.Source, err)
				}
				if uid, gid := r.IDs.Root(); uid != 0 && !m.IDMap {
					if err := os.Chown(m.Source, int(uid), int(gid)); err != nil {
						return nil, err
					}
				}
			}
			if err := volume.CheckPropagation(m.Source, m.Propagation); err != nil {
				return nil, err
			}
			b.Path = m.Source
		case mount.TypeVolume:
			// One that a crash or a user took away begins anew, empty.
			if _, _, err := c.volumes.Ensure(ctx, m); err != nil {
				return nil, err
			}
			path, err := c.volumes.Mount(ctx, m.Name, r.ID)
			if err != nil {
				return nil, err
			}
			b.ReadOnly = b.ReadOnly || c.volumes.ReadOnly(m.Name)
			if b.Path, err = below(path, m.Subpath); err != nil {
				return nil, err
			}
		}
		all = append(all, b)
	}
	return all, nil
}

// below is the path of sub in dir, which it may not leave.
func below(dir, sub string) (string, error) {
	if sub == "" {
		return dir, nil
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	defer root.Close()
	if _, err := root.Stat(path.Clean(sub)); err != nil {
		return "", invalid("cannot access path %s of the volume: %w", sub, err)
	}
	return filepath.Join(dir, path.Clean(sub)), nil
}
