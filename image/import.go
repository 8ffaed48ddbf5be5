package image

import (
	"bufio"
	"bytes"
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

	"berth/archive/compress"
	"berth/fault"
	"berth/image/instruction"
)

// ImportOptions describe the image that Import makes.
type ImportOptions struct {
	Ref      reference.NamedTagged // nil: the image gets no name
	Message  string                // the history's comment; "" = "Imported from -"
	Changes  []string              // Dockerfile instructions: CMD, ENV, EXPOSE …
	Platform *ocispec.Platform     // nil: this machine's
}

// Import makes an image of one layer from a root file system's tar of any compression. The
// layer's blob is the stream as it came, except that bzip2 and xz, for which there is no media type, are undone.
func (s *Store) Import(ctx context.Context, r io.Reader, o ImportOptions) (*Image, error) {
	platform := Host()
	if o.Platform != nil {
		platform = normalPlatform(*o.Platform)
	}
	var config dockerspec.DockerOCIImageConfig
	if err := instruction.Apply(&config, o.Changes); err != nil {
		return nil, err
	}
	c := s.newCopy(nowhere("the blob store"), nil)
	c.budget = s.Limits.budget()
	desc, diffID, err := c.importLayer(ctx, r)
	var target ocispec.Descriptor
	if err == nil {
		target, err = c.describeImport(desc, diffID, config, platform, o.Message)
	}
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
		return nil, fmt.Errorf("import: %w", errors.Join(err, sweepErr))
	}
	return s.Get(string(target.Digest))
}

// importLayer stores a foreign stream and unpacks it as a layer on nothing.
func (c *graphCopy) importLayer(ctx context.Context, r io.Reader) (desc ocispec.Descriptor, diffID digest.Digest, err error) {
	in := bufio.NewReaderSize(r, 4096)
	head, err := in.Peek(6)
	if len(head) == 0 {
		if err == io.EOF {
			err = fault.New(fault.Invalid, "the archive is empty")
		}
		return desc, "", err
	}
	var stream io.Reader = in
	if bytes.HasPrefix(head, []byte("BZh")) || bytes.HasPrefix(head, []byte("\xfd7zXZ\x00")) {
		plain, _, err := compress.Open(in)
		if err != nil {
			return desc, "", err
		}
		defer fault.Close(plain, &err)
		stream = plain
	}
	return c.keepLayer(ctx, stream, nil, false)
}

// keepLayer stores and unpacks a stream in one pass, as a layer over those of below. An empty one that may be left out has no digest.
func (c *graphCopy) keepLayer(ctx context.Context, stream io.Reader, below []digest.Digest, leaveOut bool) (desc ocispec.Descriptor, diffID digest.Digest, err error) {
	w, err := c.s.blobs.Create()
	if err != nil {
		return desc, "", err
	}
	defer w.Close()
	st, err := c.s.unpackWhile(ctx, c.budget, w, func(ctx context.Context, told func(int)) error {
		return copyChunks(ctx, stream, w, -1, told)
	})
	if err != nil {
		return desc, "", err
	}
	defer st.stage.Abort()
	if st.diffID == "" {
		st.diffID = w.Digest()
	}
	if leaveOut && w.Size() == emptyTar {
		return desc, "", nil
	}
	all := chains(append(slices.Clone(below), st.diffID))
	chain, parent := all[len(all)-1], digest.Digest("")
	if len(below) > 0 {
		parent = all[len(below)-1]
	}
	c.lease.hold(chain, w.Digest())
	if err := st.stage.Commit(chain, parent, st.unpacked); err != nil {
		return desc, "", err
	}
	desc = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Size: w.Size()}
	switch st.compression {
	case compress.Gzip:
		desc.MediaType = ocispec.MediaTypeImageLayerGzip
	case compress.Zstd:
		desc.MediaType = ocispec.MediaTypeImageLayerZstd
	}
	desc.Digest, err = w.Commit("", -1)
	return desc, st.diffID, err
}

// describeImport makes config and manifest of an imported layer.
func (c *graphCopy) describeImport(layer ocispec.Descriptor, diffID digest.Digest, config dockerspec.DockerOCIImageConfig, platform ocispec.Platform, message string) (ocispec.Descriptor, error) {
	if message == "" {
		message = "Imported from -"
	}
	now := time.Now().UTC()
	image := dockerspec.DockerOCIImage{Config: config}
	image.Created, image.Platform = &now, platform
	image.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{diffID}}
	image.History = []ocispec.History{{Created: &now, Comment: message}}
	configDesc, err := c.putDocument(image, ocispec.MediaTypeImageConfig)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return c.putDocument(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: configDesc, Layers: []ocispec.Descriptor{layer},
	}, ocispec.MediaTypeImageManifest)
}

func (c *graphCopy) putDocument(v any, mediaType string) (ocispec.Descriptor, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d, err := c.put(data)
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}, err
}
