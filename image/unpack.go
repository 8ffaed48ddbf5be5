package image

import (
	"context"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/fault"
)

// packed returns the variant for want that is here but not unpacked, as an archive of many platforms brings it; nil: none.
func (g *graph) packed(want ocispec.Platform) *variant {
	var found *variant
	at := -1
	for _, v := range g.variants {
		if r := rank(want, v.platform, true); v.here && v.artifact == "" && r >= 0 && (at < 0 || r < at) {
			found, at = v, r
		}
	}
	return found
}

// Unpack makes the layers of an image that Get or GetPlatform gave ready to run. Those of the platform that suits this machine
// best always are; others came with an archive and are unpacked when they are needed first.
func Unpack(ctx context.Context, s *Store, img *Image) error {
	if img.Chain == "" || s.layers.Has(img.Chain) {
		return nil
	}
	c := s.newCopy(nowhere("the blob store"), nil)
	defer c.end()
	c.loading, c.want, c.exact = true, img.Config.Platform, true
	_, manifest, err := c.graph(ctx, img.Target)
	if err != nil {
		return err
	}
	if manifest != img.Manifest.Digest {
		return fault.New(fault.Conflict, "image %s has two manifests for %s: name one by its digest", img.ID, FormatPlatform(img.Config.Platform))
	}
	return c.keep([]named{{target: img.Target, kept: true}})
}
