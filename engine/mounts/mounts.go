// Package mounts says what the mounts of a container are on this host: where a bind lies, what shows an image, and how clients are told.
//
// It mounts nothing, and it keeps no volumes (engine/volumes does). Invariant: the image that a mount shows stays as long as the container
// that has the mount, whatever becomes of its name.
package mounts

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"

	"berth/container"
	"berth/engine/bundle"
	"berth/engine/volumes"
	"berth/fault"
	"berth/image"
	"berth/union"
	"berth/volume"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
)

// Points describes volumes, binds, images and tmpfs in the API's words.
func Points(kept *volume.Store, r *container.Record) []api.MountPoint {
	points := []api.MountPoint{}
	for _, m := range r.Mounts {
		p := api.MountPoint{Type: m.Type, Source: m.Source, Destination: m.Destination, Mode: m.Mode, RW: !m.ReadOnly, Propagation: m.Propagation}
		switch m.Type {
		case mount.TypeVolume:
			p.Name, p.Driver, p.Propagation = m.Name, cmp.Or(m.Driver, volumes.Local), ""
			p.Source = kept.Path(m.Name)
		case mount.TypeImage:
			p.Name, p.Source = m.Source, m.Image.String()
		}
		points = append(points, p)
	}
	return points
}

// CheckBindSource is an error for a source that the user must have made.
func CheckBindSource(m container.Mount) error {
	if m.Type != mount.TypeBind || !m.Explicit {
		return nil
	}
	_, err := os.Stat(m.Source)
	if errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.Invalid, "invalid mount config for type %q: bind source path does not exist: %s", m.Type, m.Source)
	}
	return err
}

// FindBind gives the place that a bind shows. A missing one is made, unless the user said that it exists; it belongs to the root of the
// container's ids.
func FindBind(m container.Mount, ids container.IDs) (path string, err error) {
	if err := CheckBindSource(m); err != nil {
		return "", err
	}
	if _, err := os.Stat(m.Source); errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(m.Source, 0o755); err != nil {
			return "", fault.New(fault.Invalid, "error while creating mount source path '%s': %w", m.Source, err)
		}
		if uid, gid := ids.Root(); uid != 0 && !m.IDMap {
			if err := os.Chown(m.Source, int(uid), int(gid)); err != nil {
				return "", err
			}
		}
	}
	return m.Source, volume.CheckPropagation(m.Source, m.Propagation)
}

// Images holds the images that containers show.
type Images struct {
	Find   func(ctx context.Context, ref string) (*image.Image, error)
	Layers union.Driver
	// Root makes a root over an image's layers, with owners for the container's ids.
	Root func(ctx context.Context, id string, img *image.Image, ids container.IDs) (union.Root, error)
}

// Settle decides which images the mounts show that have none yet, by the names that users gave.
func (i Images) Settle(ctx context.Context, all []container.Mount) error {
	for k := range all {
		m := &all[k]
		if m.Type != mount.TypeImage || m.Root != "" {
			continue
		}
		img, err := i.Find(ctx, cmp.Or(m.Image.String(), m.Source))
		if errors.Is(err, fault.NotFound) {
			// 404 would make clients pull the container's own image.
			err = fault.New(fault.Invalid, "invalid mount config for type %q: %w: pull it first", m.Type, fault.Wrap(fault.Invalid, err))
		}
		if err != nil {
			return err
		}
		m.Image, m.Root = img.ID, "image-"+container.NewID()
	}
	return nil
}

// Hold keeps what a new container's mounts show. undo is told how each is let go.
func (i Images) Hold(ctx context.Context, r *container.Record, undo func(root string)) error {
	for _, m := range r.Mounts {
		if m.Type != mount.TypeImage {
			continue
		}
		img, err := i.Find(ctx, m.Image.String())
		if err != nil {
			return err
		}
		if _, err := i.Root(ctx, m.Root, img, r.IDs); err != nil {
			return err
		}
		undo(m.Root)
	}
	return nil
}

// Show completes a mount that shows an image.
func (i Images) Show(b *bundle.Mount) error {
	root, err := i.Layers.Open(b.Root)
	if errors.Is(err, fault.NotFound) {
		return fault.New(fault.Corrupt, "the image %s that is mounted at %s is lost: make the container anew", b.Source, b.Destination)
	}
	b.Tree, b.Shifted = root.Lent(), !root.IDs.Empty()
	return err
}

// Roots are those that hold a container's images.
func Roots(r *container.Record) (ids []string) {
	for _, m := range r.Mounts {
		if m.Root != "" {
			ids = append(ids, m.Root)
		}
	}
	return ids
}
