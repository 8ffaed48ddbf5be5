package image

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"berth/archive/compress"
	"berth/fault"
)

// Media types of Docker's oldest manifests. They are read and converted; nothing writes them.
const (
	signedSchema1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"
	plainSchema1  = "application/vnd.docker.distribution.manifest.v1+json"
)

// emptyLayer is the digest of a tar without members, compressed as the tools of that time did; a layer of it is none.
const emptyLayer = digest.Digest("sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4")

func isSchema1(mediaType string) bool { return mediaType == signedSchema1 || mediaType == plainSchema1 }

// schema1 is a manifest of that form; in both lists the newest comes first.
type schema1 struct {
	SchemaVersion int    `json:"schemaVersion"`
	Architecture  string `json:"architecture"`
	FSLayers      []struct {
		BlobSum digest.Digest `json:"blobSum"`
	} `json:"fsLayers"`
	History []struct {
		V1Compatibility string `json:"v1Compatibility"`
	} `json:"history"`
}

// step is what one entry of a schema 1 history says.
type step struct {
	Created   *time.Time `json:"created"`
	Author    string     `json:"author"`
	Comment   string     `json:"comment"`
	ThrowAway bool       `json:"throwaway"`
	Container struct {
		Cmd []string `json:"Cmd"`
	} `json:"container_config"`
}

// signedPart returns the bytes over which a signed manifest has its digest: a prefix of the document and a tail that stands
// in each signature (the format of "JSON Web Signature" that registries called pretty). An unsigned one is returned as it is.
func signedPart(data []byte) ([]byte, error) {
	var d struct {
		Signatures []struct {
			Protected string `json:"protected"`
		} `json:"signatures"`
	}
	if err := json.Unmarshal(data, &d); err != nil {
		return nil, fault.New(fault.Corrupt, "parse signed manifest: %w", err)
	}
	if len(d.Signatures) == 0 {
		return data, nil
	}
	var head struct {
		Length int    `json:"formatLength"`
		Tail   string `json:"formatTail"`
	}
	protected, err := decodeBase64(d.Signatures[0].Protected)
	if err == nil {
		err = json.Unmarshal(protected, &head)
	}
	var tail []byte
	if err == nil {
		tail, err = decodeBase64(head.Tail)
	}
	if err != nil || head.Length < 0 || head.Length > len(data) {
		return nil, fault.New(fault.Corrupt, "the manifest's signature does not say what it signs: %v", err)
	}
	return slices.Concat(data[:head.Length], tail), nil
}

func decodeBase64(s string) ([]byte, error) {
	return base64.RawURLEncoding.DecodeString(strings.TrimRight(s, "="))
}

func parseSchema1(data []byte) (*schema1, error) {
	var m schema1
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fault.New(fault.Corrupt, "parse manifest of schema 1: %w", err)
	}
	switch n := len(m.FSLayers); {
	case m.SchemaVersion != 1 || n == 0 || n != len(m.History):
		return nil, fault.New(fault.Corrupt, "the manifest of schema 1 has version %d, %d layers and a history of %d lines", m.SchemaVersion, n, len(m.History))
	case n > maxLayers:
		return nil, fault.New(fault.Unsupported, "the manifest has %d layers, more than %d are not supported", n, maxLayers)
	}
	for _, l := range m.FSLayers {
		if err := checkDescriptor(ocispec.Descriptor{Digest: l.BlobSum}); err != nil {
			return nil, err
		}
	}
	return &m, nil
}

// history translates what the manifest tells, the oldest first, and lists the layers that are some.
func (m *schema1) history() (list []ocispec.History, layers []digest.Digest, err error) {
	for i, h := range slices.Backward(m.History) {
		var s step
		if err := json.Unmarshal([]byte(h.V1Compatibility), &s); err != nil {
			return nil, nil, fault.New(fault.Corrupt, "parse history of the manifest: %w", err)
		}
		empty := s.ThrowAway || m.FSLayers[i].BlobSum == emptyLayer
		if !empty {
			layers = append(layers, m.FSLayers[i].BlobSum)
		}
		list = append(list, ocispec.History{Created: s.Created, Author: s.Author, Comment: s.Comment, CreatedBy: strings.Join(s.Container.Cmd, " "), EmptyLayer: empty})
	}
	return list, layers, nil
}

// config makes an image's config of the newest history entry, which was one in its time.
func (m *schema1) config(history []ocispec.History, diffIDs []digest.Digest) (map[string]any, error) {
	var c map[string]any
	if err := json.Unmarshal([]byte(m.History[0].V1Compatibility), &c); err != nil || c == nil {
		return nil, fault.New(fault.Corrupt, "parse config in the manifest: %v", err)
	}
	maps.DeleteFunc(c, func(key string, _ any) bool {
		return slices.Contains([]string{"id", "parent", "Size", "parent_id", "layer_id", "throwaway"}, key)
	})
	if c["os"] == nil || c["os"] == "" {
		c["os"] = "linux"
	}
	if c["architecture"] == nil || c["architecture"] == "" {
		c["architecture"] = m.Architecture
	}
	c["rootfs"] = ocispec.RootFS{Type: "layers", DiffIDs: append([]digest.Digest{}, diffIDs...)}
	c["history"] = history
	return c, nil
}

// schema1 brings an image whose manifest has Docker's schema 1, and makes a manifest of schema 2 for it, which is always the same.
// What its layers unpack to is known only when they are.
func (c *graphCopy) schema1(ctx context.Context, root ocispec.Descriptor) (target ocispec.Descriptor, err error) {
	m, err := c.fetchSchema1(ctx, root)
	if err != nil {
		return target, err
	}
	history, digests, err := m.history()
	if err != nil {
		return target, err
	}
	manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: dockerManifest, Layers: []ocispec.Descriptor{}}
	var diffIDs []digest.Digest
	manifest.Layers, diffIDs, err = c.unknownLayers(ctx, digests)
	if err != nil {
		return target, err
	}
	config, err := m.config(history, diffIDs)
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
	_, _, err = c.graph(ctx, target) // as any other, which finds all in place
	return target, err
}

func (c *graphCopy) fetchSchema1(ctx context.Context, root ocispec.Descriptor) (*schema1, error) {
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
	signed, err := signedPart(data)
	if err != nil {
		return nil, err
	}
	// Some registries name the digest of all bytes.
	if digest.FromBytes(signed) != root.Digest && digest.FromBytes(data) != root.Digest {
		return nil, fault.New(fault.Corrupt, "digest mismatch: the content of manifest %s has %s", root.Digest, digest.FromBytes(signed))
	}
	return parseSchema1(signed)
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

// converted returns the image that a manifest of schema 1 was converted to before; nil: it is not here, under any of the names.
func (c *graphCopy) converted(names []reference.Named) *Image {
	for _, n := range names {
		st := c.s.now.Load()
		img := st.byName[n.String()]
		if _, digested := n.(reference.Digested); !digested || img == nil {
			continue
		}
		for d := range st.graphs[img.ID].blobs {
			c.lease.hold(d)
		}
		if again := c.s.now.Load().byName[n.String()]; again != nil && again.ID == img.ID { // what is claimed now is still here
			return img
		}
	}
	return nil
}
