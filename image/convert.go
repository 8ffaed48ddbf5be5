package image

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"berth/archive/compress"
	"berth/fault"
	"berth/image/schema1"
)

func isSchema1(mediaType string) bool {
	return mediaType == schema1.SignedType || mediaType == schema1.PlainType
}

// convert brings an image whose manifest has Docker's schema 1, and makes a manifest of schema 2 for it, which is always the same.
// What its layers unpack to is known only when they are.
func (c *graphCopy) convert(ctx context.Context, root ocispec.Descriptor) (target ocispec.Descriptor, err error) {
	m, err := c.fetchSchema1(ctx, root)
	if err != nil {
		return target, err
	}
	history, digests, err := m.Steps()
	if err != nil {
		return target, err
	}
	manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: dockerManifest, Layers: []ocispec.Descriptor{}}
	var diffIDs []digest.Digest
	manifest.Layers, diffIDs, err = c.unknownLayers(ctx, digests)
	if err != nil {
		return target, err
	}
	config, err := m.Config(history, diffIDs)
	if err != nil {
		return target, err
	}
	if manifest.Config, err = c.putDocument(config, dockerConfig); err != nil {
		return target, err
	}
	target, err = c.putDocument(manifest, dockerManifest)
	if err != nil {
		return target, err
	}
	again := *c
	again.loading = true
	_, _, err = again.graph(ctx, target) // as any other, which finds all in place and has nothing to tell
	return target, err
}

func (c *graphCopy) fetchSchema1(ctx context.Context, root ocispec.Descriptor) (*schema1.Manifest, error) {
	if err := checkDescriptor(root); err != nil {
		return nil, err
	}
	r, err := c.src.Fetch(ctx, root, 0)
	if err != nil {
		return nil, remote{err}
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, maxDocument+1))
	if err != nil {
		return nil, remote{err}
	}
	if len(data) > maxDocument {
		return nil, fault.New(fault.Unsupported, "manifest %s is larger than %d bytes", root.Digest, maxDocument)
	}
	signed, err := schema1.Signed(data)
	if err != nil {
		return nil, err
	}
	// Some registries name the digest of all bytes.
	if digest.FromBytes(signed) != root.Digest && digest.FromBytes(data) != root.Digest {
		return nil, fault.New(fault.Corrupt, "digest mismatch: the content of manifest %s has %s", root.Digest, digest.FromBytes(signed))
	}
	return schema1.Parse(signed)
}

// unknownLayers brings layers of which neither size nor diff ID is known, the deepest first.
func (c *graphCopy) unknownLayers(ctx context.Context, digests []digest.Digest) (layers []ocispec.Descriptor, diffIDs []digest.Digest, err error) {
	list := make([]*job, len(digests))
	staging := make([]*staged, len(digests))
	defer func() {
		for _, st := range staging {
			st.abort() // those that were kept are none any more
		}
	}()
	first := map[digest.Digest]*job{}
	budget := c.s.Limits.budget()
	group, all := errgroup.WithContext(ctx)
	for i, d := range digests {
		j := &job{desc: ocispec.Descriptor{Digest: d, Size: -1}, done: make(chan struct{}), budget: budget, same: first[d]}
		if list[i] = j; j.same == nil {
			first[d] = j
		}
		c.lease.hold(d)
		group.Go(func() (err error) {
			defer close(j.done)
			if j.err = j.same.wait(all); j.err == nil {
				c.report.tell(j.event(StatusPulling))
				staging[i], j.err = c.s.prepare(all, c.src, j, c.report.tell)
			}
			return j.err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, nil, err
	}
	for _, st := range staging {
		diffIDs = append(diffIDs, st.diffID)
	}
	layers = []ocispec.Descriptor{}
	parent := digest.Digest("")
	for i, chain := range chains(diffIDs) {
		size, err := c.s.blobs.Size(digests[i])
		if err != nil {
			return nil, nil, err
		}
		mediaType := dockerLayer
		if staging[i].compression == compress.Gzip {
			mediaType = dockerLayerGz
		}
		layers = append(layers, ocispec.Descriptor{MediaType: mediaType, Digest: digests[i], Size: size})
		c.lease.hold(chain)
		if err := staging[i].stage.Commit(chain, parent, staging[i].unpacked); err != nil {
			return nil, nil, fmt.Errorf("keep layer %s: %w", digests[i], err)
		}
		c.report.tell(list[i].event(StatusComplete))
		parent = chain
	}
	return layers, diffIDs, nil
}

// converted returns the image that a manifest of schema 1 was converted to before; nil: it is not here, from any of the sources.
func (c *graphCopy) converted(sources []reference.Canonical) *Image {
	from := func(img *Image) bool {
		return slices.ContainsFunc(sources, func(s reference.Canonical) bool {
			return slices.ContainsFunc(img.Sources, func(have reference.Canonical) bool { return have.String() == s.String() })
		})
	}
	var img *Image
	_, err := c.lease.images(c.s, func(st *state) ([]*Image, error) {
		i := slices.IndexFunc(st.list, from)
		if i < 0 {
			return nil, fault.New(fault.NotFound, "not here")
		}
		img = st.list[i]
		return st.list[i : i+1], nil
	})
	if err != nil {
		return nil
	}
	return img
}
