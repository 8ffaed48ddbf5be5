package engine

import (
	"context"

	"berth/container"
	"berth/engine/bundle"
	"berth/engine/mounts"
	"berth/image"
	"berth/union"

	"github.com/moby/moby/api/types/mount"
)

// findMounts tells where on the host each volume, bind and image lies.
func (c *starter) findMounts(ctx context.Context, r *container.Record) (all []bundle.Mount, err error) {
	for _, m := range r.Mounts {
		b := bundle.Mount{Mount: m}
		switch m.Type {
		case mount.TypeBind:
			if b.Path, err = mounts.FindBind(m, r.IDs); err != nil {
				return nil, err
			}
		case mount.TypeImage:
			if err := c.shown().Show(&b); err != nil {
				return nil, err
			}
		case mount.TypeVolume:
			// One that a crash or a user took away begins anew, empty.
			if _, _, err := c.volumes.Ensure(ctx, m); err != nil {
				return nil, err
			}
			b.ReadOnly = b.ReadOnly || c.volumes.ReadOnly(m.Name)
			if b.Path, err = c.volumes.Mount(ctx, m.Name, r.ID); err != nil {
				return nil, err
			}
		}
		all = append(all, b)
	}
	return append(all, c.beside...), nil
}

// shown holds the images that containers show.
func (c *shared) shown() mounts.Images {
	return mounts.Images{Layers: c.layers, Find: func(ctx context.Context, ref string) (*image.Image, error) { return c.images.ForCreate(ctx, ref, nil) },
		Root: func(ctx context.Context, id string, img *image.Image, ids container.IDs) (union.Root, error) {
			return c.overLayers(ctx, id, img.Chain, ids, nil)
		}}
}
