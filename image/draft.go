package image

import (
	"context"
	"fmt"
	"io"

	"github.com/distribution/reference"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Draft is images in the making: what it was given, or told to hold, stays until it is released. Its methods may be called concurrently.
type Draft struct{ c *graphCopy }

// Layer is one layer of an image.
type Layer struct {
	Desc   ocispec.Descriptor // of its blob
	DiffID digest.Digest
}

// Draft begins one. The caller releases it.
func (s *Store) Draft() *Draft { return &Draft{s.newCopy(nowhere("the blob store"), nil)} }

// Release gives up what no image came to need.
func (d *Draft) Release() { d.c.end() }

// Hold keeps layers, deepest first, and tells how many of them are here, with their files.
func (d *Draft) Hold(layers []Layer) (here int) {
	for k, chain := range Chains(layers) {
		l := layers[k]
		d.c.lease.hold(l.Desc.Digest, chain)
		if !d.c.s.blobs.Has(l.Desc.Digest) || !d.c.s.layers.Has(chain) {
			return k
		}
	}
	return len(layers)
}

// LayersOf lists the layers of an image that Get gave.
func LayersOf(img *Image) (list []Layer) {
	for k, l := range img.Layers {
		list = append(list, Layer{ocispec.Descriptor{MediaType: ociMediaType(l.MediaType), Digest: l.Digest, Size: l.Size}, img.DiffIDs[k]})
	}
	return list
}

// Chains are the keys in union.Driver of layers, deepest first.
func Chains(layers []Layer) []digest.Digest {
	ids := make([]digest.Digest, len(layers))
	for k, l := range layers {
		ids[k] = l.DiffID
	}
	return chains(ids)
}

// Layer makes one of the plain tar that pack writes, over those of below. One without members has no DiffID. An error of pack's comes back.
func (d *Draft) Layer(ctx context.Context, below []Layer, pack func(context.Context, io.Writer) error) (l Layer, err error) {
	ids := make([]digest.Digest, len(below))
	for k, b := range below {
		ids[k] = b.DiffID
	}
	l.Desc, l.DiffID, err = d.c.packLayer(ctx, pack, ids)
	return l, err
}

// Keep makes an image of layers and settings, and gives it names. What the settings say of layers is set here.
func (d *Draft) Keep(settings dockerspec.DockerOCIImage, layers []Layer, annotations map[string]string, tags []reference.NamedTagged) (*Image, error) {
	manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{}, Annotations: annotations}
	settings.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{}}
	for _, l := range layers {
		manifest.Layers = append(manifest.Layers, l.Desc)
		settings.RootFS.DiffIDs = append(settings.RootFS.DiffIDs, l.DiffID)
	}
	var err error
	if manifest.Config, err = d.c.putDocument(settings, ocispec.MediaTypeImageConfig); err != nil {
		return nil, fmt.Errorf("keep image: %w", err)
	}
	target, err := d.c.putDocument(manifest, ocispec.MediaTypeImageManifest)
	if err != nil {
		return nil, fmt.Errorf("keep image: %w", err)
	}
	n := named{target: target}
	for _, t := range tags {
		n.names = append(n.names, t)
	}
	if err := d.c.keep([]named{n}); err != nil {
		return nil, fmt.Errorf("keep image: %w", err)
	}
	return d.c.s.Get(string(target.Digest))
}
