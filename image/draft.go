package image

import (
	"context"
	"fmt"
	"io"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/fault"
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
	d.c.s.blobs.Flush() // while the next step runs: the image's keeper waits for less
	return l, err
}

// Blob keeps what write writes. An error of write's comes back.
func (d *Draft) Blob(ctx context.Context, mediaType string, write func(io.Writer) error) (desc ocispec.Descriptor, err error) {
	w, err := d.c.s.blobs.Create()
	if err != nil {
		return desc, err
	}
	defer w.Close()
	if err := write(w); err != nil {
		return desc, err
	}
	if ctx.Err() != nil {
		return desc, fault.Wrap(fault.Canceled, context.Cause(ctx))
	}
	desc = ocispec.Descriptor{MediaType: mediaType, Digest: w.Digest(), Size: w.Size()}
	d.c.lease.hold(desc.Digest)
	_, err = w.Commit(desc.Digest, desc.Size)
	return desc, err
}

// Document keeps v as JSON.
func (d *Draft) Document(mediaType string, v any) (ocispec.Descriptor, error) {
	return d.c.putDocument(v, mediaType)
}

// Has holds a blob and tells whether it is here.
func (d *Draft) Has(desc ocispec.Descriptor) bool {
	d.c.lease.hold(desc.Digest)
	return d.c.s.blobs.Has(desc.Digest)
}

// Open reads content that the draft holds. The caller closes it.
func (d *Draft) Open(desc ocispec.Descriptor) (io.ReadCloser, error) {
	return d.c.s.blobs.Open(desc.Digest)
}

// Name makes an image of a manifest or index whose content the draft holds, and gives it names.
func (d *Draft) Name(target ocispec.Descriptor, tags []reference.Named) (*Image, error) {
	if img := d.c.s.now.Load().known(target.Digest, tags); img != nil {
		return img, nil
	}
	if err := d.c.keep([]named{{target: target, names: tags}}); err != nil {
		return nil, fmt.Errorf("keep image: %w", err)
	}
	return d.c.s.Get(string(target.Digest))
}

// Save writes a manifest or index with all below it as an OCI layout in a tar, and with table as a docker-archive too.
func (d *Draft) Save(ctx context.Context, w io.Writer, target ocispec.Descriptor, tags []reference.NamedTagged, table bool) error {
	g, err := d.c.s.walk(target)
	if err != nil {
		return err
	}
	have := &saving{target: target, g: g, shown: g.best(Host(), true), tags: tags}
	if have.shown == nil {
		return fault.New(fault.Corrupt, "image %s has no content", target.Digest)
	}
	return d.c.s.pack(ctx, w, []*saving{have}, table)
}

// Push copies a manifest or index with all below it to dst, as Store.Push does; name says which tag it gets there, if any.
func (d *Draft) Push(ctx context.Context, dst Target, name reference.Named, target ocispec.Descriptor, p Progress) error {
	g, err := d.c.s.walk(target)
	if err != nil {
		return err
	}
	u := &upload{s: d.c.s, dst: dst, name: name, lease: d.c.lease, report: &reporter{to: p}, mounts: d.c.s.now.Load().mounts(name)}
	defer u.report.close()
	if err := u.send(ctx, g); err != nil {
		return err
	}
	return d.c.s.sent(target.Digest, name)
}

// known is an image that is here and has all names already; nil: there is something to do.
func (st *state) known(id digest.Digest, tags []reference.Named) *Image {
	for _, t := range tags {
		if img := st.byName[t.String()]; img == nil || img.ID != id {
			return nil
		}
	}
	return st.byID[id]
}
