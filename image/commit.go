package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/distribution/reference"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/fault"
)

// emptyTar is the length of a tar archive with nothing but its end marker, as package archive writes it.
const emptyTar = 1024

// CommitOptions describe the image that Commit makes.
type CommitOptions struct {
	Parent    *Image // nil: none
	Config    dockerspec.DockerOCIImageConfig
	Ref       reference.NamedTagged // nil: the image gets no name
	Author    string
	Message   string // the history's comment
	CreatedBy string // the history's command line
	Origin    Origin
}

// Origin is the container that an image was made of, in the fields of the image's config in which Docker has it.
type Origin struct {
	Container string          `json:"container,omitempty"`
	Config    json.RawMessage `json:"container_config,omitempty"`
}

// OriginOf reads what an image's config says of the container that it was made of; nothing for one that was not.
func (s *Store) OriginOf(img *Image) (o Origin, err error) {
	data, err := s.readBlob(img.ConfigID, maxConfig)
	if err == nil {
		err = json.Unmarshal(data, &o)
	}
	return o, err
}

// Commit makes an image of a parent with one more layer, the plain tar that pack writes in the form of layers. The layer is stored,
// digested and unpacked in that one pass; one without members leaves a line in the history only. An error of pack's comes back.
func (s *Store) Commit(ctx context.Context, pack func(context.Context, io.Writer) error, o CommitOptions) (*Image, error) {
	c := s.newCopy(nowhere("the blob store"), nil)
	target, err := c.commit(ctx, pack, o)
	if err == nil {
		n := named{target: target}
		if o.Ref != nil {
			n.names = []reference.Named{o.Ref}
		}
		err = c.keep([]named{n})
	}
	c.end()
	if err != nil {
		_, sweepErr := s.Sweep(context.WithoutCancel(ctx))
		return nil, fmt.Errorf("commit: %w", errors.Join(err, sweepErr))
	}
	return s.Get(string(target.Digest))
}

func (c *graphCopy) commit(ctx context.Context, pack func(context.Context, io.Writer) error, o CommitOptions) (target ocispec.Descriptor, err error) {
	manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{}}
	image := dockerspec.DockerOCIImage{Config: o.Config}
	image.Platform, image.RootFS = Host(), ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{}}
	if p := o.Parent; p != nil {
		if err := c.rely(p); err != nil {
			return target, err
		}
		image.Platform, image.RootFS.DiffIDs, image.History = p.Config.Platform, slices.Clone(p.DiffIDs), slices.Clone(p.Config.History)
		for _, l := range p.Layers {
			manifest.Layers = append(manifest.Layers, ocispec.Descriptor{MediaType: ociMediaType(l.MediaType), Digest: l.Digest, Size: l.Size})
		}
	}
	layer, diffID, err := c.packLayer(ctx, pack, image.RootFS.DiffIDs)
	if err != nil {
		return target, err
	}
	if diffID != "" {
		manifest.Layers, image.RootFS.DiffIDs = append(manifest.Layers, layer), append(image.RootFS.DiffIDs, diffID)
	}
	now := time.Now().UTC()
	image.Created, image.Author = &now, o.Author
	image.History = append(image.History, ocispec.History{Created: &now, CreatedBy: o.CreatedBy, Author: o.Author, Comment: o.Message, EmptyLayer: diffID == ""})
	if manifest.Config, err = c.putDocument(struct {
		dockerspec.DockerOCIImage
		Origin
	}{image, o.Origin}, ocispec.MediaTypeImageConfig); err != nil {
		return target, err
	}
	return c.putDocument(manifest, ocispec.MediaTypeImageManifest)
}

// rely claims the content of an image and makes sure that it is here.
func (c *graphCopy) rely(p *Image) error {
	for k, l := range p.Layers {
		c.lease.hold(l.Digest, chains(p.DiffIDs)[k])
		if !c.s.blobs.Has(l.Digest) {
			return fault.New(fault.Conflict, "layer %s of the parent image %s is not here any more: pull or load that image again", l.Digest, p.ID)
		}
	}
	return nil
}

// ociMediaType is the OCI's name for a layer's type.
func ociMediaType(t string) string {
	switch t {
	case "application/vnd.docker.image.rootfs.diff.tar":
		return ocispec.MediaTypeImageLayer
	case "application/vnd.docker.image.rootfs.diff.tar.gzip":
		return ocispec.MediaTypeImageLayerGzip
	}
	return t
}

// packLayer keeps what pack writes as a layer over those of below; an empty one has no digest.
func (c *graphCopy) packLayer(ctx context.Context, pack func(context.Context, io.Writer) error, below []digest.Digest) (desc ocispec.Descriptor, diffID digest.Digest, err error) {
	err = reading(ctx, pack, func(r io.Reader) error {
		desc, diffID, err = c.keepLayer(ctx, r, below, true)
		return err
	})
	return desc, diffID, err
}

// reading calls take with what pack writes. The cause of an error of both is pack's.
func reading(ctx context.Context, pack func(context.Context, io.Writer) error, take func(io.Reader) error) error {
	r, w := io.Pipe()
	packed := make(chan error, 1)
	go func() {
		err := pack(ctx, w)
		w.CloseWithError(err)
		packed <- err
	}()
	err := take(r)
	r.CloseWithError(errors.Join(err, io.ErrClosedPipe))
	if packErr := <-packed; packErr != nil && err != nil {
		err = packErr
	}
	return err
}
