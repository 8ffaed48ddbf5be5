package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/fault"
)

// Media types of Docker's schema 2, beside those of OCI.
const (
	dockerIndex     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerManifest  = "application/vnd.docker.distribution.manifest.v2+json"
	dockerConfig    = "application/vnd.docker.container.image.v1+json"
	dockerLayer     = "application/vnd.docker.image.rootfs.diff.tar"
	dockerLayerGz   = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	dockerLayerZstd = "application/vnd.docker.image.rootfs.diff.tar.zstd"
	dockerForeign   = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
)

// Bounds on foreign documents. The distribution specification lets registries refuse manifests above 4 MiB.
const (
	maxDocument = 4 << 20
	maxConfig   = 8 << 20
	maxLayers   = 1024
	maxDepth    = 3 // of indexes in indexes
)

var layerTypes = []string{
	ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd,
	"application/vnd.oci.image.layer.nondistributable.v1.tar", "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
	"application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
	dockerLayer, dockerLayerGz, dockerForeign, dockerLayerZstd,
}

// document is a manifest or an index, of OCI or Docker's schema 2; their fields have the same names.
type document struct {
	SchemaVersion int                  `json:"schemaVersion"`
	MediaType     string               `json:"mediaType"`
	Config        *ocispec.Descriptor  `json:"config"`
	Layers        []ocispec.Descriptor `json:"layers"`
	Manifests     []ocispec.Descriptor `json:"manifests"`
	FSLayers      json.RawMessage      `json:"fsLayers"` // schema 1
}

func isIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == dockerIndex
}

func isManifest(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageManifest || mediaType == dockerManifest
}

// parseDocument reads the manifest or index that desc names. A document that could be taken for both, or
// says that it is something other than desc says, is refused (CVE-2021-41190).
func parseDocument(desc ocispec.Descriptor, data []byte) (*document, error) {
	var d document
	if err := json.Unmarshal(data, &d); err != nil {
		return nil, fault.New(fault.Corrupt, "parse manifest %s: %w", desc.Digest, err)
	}
	switch {
	case len(d.FSLayers) > 0 || d.SchemaVersion == 1:
		return nil, fault.New(fault.Unsupported, "manifest %s has Docker's schema 1, which is no longer pulled: push the image again with a newer tool", desc.Digest)
	case d.MediaType != "" && desc.MediaType != "" && d.MediaType != desc.MediaType:
		return nil, fault.New(fault.Corrupt, "manifest %s says it is %q, but was announced as %q", desc.Digest, d.MediaType, desc.MediaType)
	case d.Manifests != nil && (d.Config != nil || d.Layers != nil):
		return nil, fault.New(fault.Corrupt, "manifest %s is both an index and an image manifest", desc.Digest)
	}
	kind := kindOf(desc.MediaType, &d)
	switch {
	case isIndex(kind):
		if d.Config != nil || d.Layers != nil {
			return nil, fault.New(fault.Corrupt, "index %s has a config or layers of its own", desc.Digest)
		}
		if d.Manifests == nil {
			d.Manifests = []ocispec.Descriptor{}
		}
	case isManifest(kind):
		if d.Config == nil || d.Manifests != nil {
			return nil, fault.New(fault.Corrupt, "manifest %s has no config", desc.Digest)
		}
	default:
		return nil, fault.New(fault.Unsupported, "manifest %s: unsupported media type %q", desc.Digest, kind)
	}
	d.MediaType = kind
	return &d, d.check(desc.Digest)
}

// kindOf returns a document's media type: as announced, as it says itself, or as it looks (OCI once left the field out).
func kindOf(announced string, d *document) string {
	switch {
	case announced != "":
		return announced
	case d.MediaType != "":
		return d.MediaType
	case d.Manifests != nil:
		return ocispec.MediaTypeImageIndex
	}
	return ocispec.MediaTypeImageManifest
}

func (d *document) check(name digest.Digest) error {
	if len(d.Layers) > maxLayers {
		return fault.New(fault.Unsupported, "manifest %s has %d layers, more than %d are not supported", name, len(d.Layers), maxLayers)
	}
	for _, c := range d.children() {
		if err := checkDescriptor(c); err != nil {
			return fmt.Errorf("manifest %s: %w", name, err)
		}
	}
	return nil
}

// children returns all descriptors in the document.
func (d *document) children() []ocispec.Descriptor {
	list := slices.Concat(d.Manifests, d.Layers)
	if d.Config != nil {
		list = append(list, *d.Config)
	}
	return list
}

func checkDescriptor(d ocispec.Descriptor) error {
	if err := d.Digest.Validate(); err != nil {
		return fault.New(fault.Corrupt, "digest %q: %w", d.Digest, err)
	}
	if d.Digest.Algorithm() != digest.SHA256 {
		return fault.New(fault.Unsupported, "digest %s: only sha256 is supported", d.Digest)
	}
	if d.Size < 0 {
		return fault.New(fault.Corrupt, "%s has a negative size", d.Digest)
	}
	return nil
}

// parseConfig reads the config of manifest m and checks that it describes m's layers.
func parseConfig(m *document, data []byte) (dockerspec.DockerOCIImage, error) {
	var c dockerspec.DockerOCIImage
	if t := m.Config.MediaType; t != ocispec.MediaTypeImageConfig && t != dockerConfig {
		return c, fault.New(fault.Unsupported, "%s is not the config of a container image but of an artifact of type %q", m.Config.Digest, t)
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return c, fault.New(fault.Corrupt, "parse image config %s: %w", m.Config.Digest, err)
	}
	if len(c.RootFS.DiffIDs) != len(m.Layers) {
		return c, fault.New(fault.Corrupt, "image config %s names %d layers, its manifest %d", m.Config.Digest, len(c.RootFS.DiffIDs), len(m.Layers))
	}
	for i, d := range c.RootFS.DiffIDs {
		if err := checkDescriptor(ocispec.Descriptor{Digest: d}); err != nil {
			return c, fmt.Errorf("image config %s: layer %d: %w", m.Config.Digest, i, err)
		}
		if t := m.Layers[i].MediaType; !slices.Contains(layerTypes, t) {
			return c, fault.New(fault.Unsupported, "layer %s: unsupported media type %q", m.Layers[i].Digest, t)
		}
	}
	return c, nil
}

// chains returns the chain IDs of all layers: the first is the first diff ID, each further one the digest of
// its parent's chain and its own diff ID (OCI image specification, "Layer ChainID").
func chains(diffIDs []digest.Digest) []digest.Digest {
	list := make([]digest.Digest, len(diffIDs))
	for i, d := range diffIDs {
		if list[i] = d; i > 0 {
			list[i] = digest.FromString(string(list[i-1]) + " " + string(d))
		}
	}
	return list
}

// readBlob returns a small blob; limit is in bytes.
func (s *Store) readBlob(d digest.Digest, limit int64) (data []byte, err error) {
	f, err := s.blobs.Open(d)
	if err != nil {
		return nil, err
	}
	defer fault.Close(f, &err)
	data, err = io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fault.New(fault.Corrupt, "%s is larger than the %d bytes that such a document may have", d, limit)
	}
	return data, err
}

// variant is an image's content for one platform.
type variant struct {
	platform ocispec.Platform
	manifest ocispec.Descriptor
	config   dockerspec.DockerOCIImage
	configID digest.Digest
	layers   []ocispec.Descriptor
	chains   []digest.Digest
	whole    bool // all its blobs and its unpacked chain are here
}

func (v *variant) chain() digest.Digest {
	if len(v.chains) == 0 {
		return ""
	}
	return v.chains[len(v.chains)-1]
}

// graph is what is here of the tree below one target.
type graph struct {
	variants []*variant
	blobs    map[digest.Digest]int64 // present blobs and their sizes, target included
}

// walk reads the tree below target as far as it is here.
func (s *Store) walk(target ocispec.Descriptor) (*graph, error) {
	g := &graph{blobs: map[digest.Digest]int64{}}
	if err := s.visit(g, target, 0); err != nil {
		return nil, err
	}
	return g, nil
}

func (s *Store) visit(g *graph, desc ocispec.Descriptor, depth int) error {
	if depth > maxDepth {
		return fault.New(fault.Unsupported, "index %s: more than %d levels of indexes", desc.Digest, maxDepth)
	}
	data, err := s.readBlob(desc.Digest, maxDocument)
	if err != nil {
		return err
	}
	doc, err := parseDocument(desc, data)
	if err != nil {
		return err
	}
	desc.MediaType, desc.Size = doc.MediaType, int64(len(data))
	g.blobs[desc.Digest] = desc.Size
	if doc.Manifests == nil {
		return s.visitManifest(g, desc, doc)
	}
	for _, child := range doc.Manifests {
		if _, seen := g.blobs[child.Digest]; seen || !s.blobs.Has(child.Digest) {
			continue
		}
		err := s.visit(g, child, depth+1)
		if errors.Is(err, fault.Unsupported) {
			continue // an artifact beside the images is kept, not looked into
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) visitManifest(g *graph, desc ocispec.Descriptor, doc *document) error {
	whole := true
	for _, c := range doc.children() {
		size, err := s.blobs.Size(c.Digest)
		switch {
		case errors.Is(err, fault.NotFound):
			whole = false
		case err != nil:
			return err
		default:
			g.blobs[c.Digest] = size
		}
	}
	if _, ok := g.blobs[doc.Config.Digest]; !ok {
		return nil
	}
	data, err := s.readBlob(doc.Config.Digest, maxConfig)
	if err != nil {
		return err
	}
	config, err := parseConfig(doc, data)
	if err != nil {
		return err
	}
	v := &variant{platform: config.Platform, manifest: desc, config: config, configID: doc.Config.Digest, layers: doc.Layers, chains: chains(config.RootFS.DiffIDs)}
	if p := desc.Platform; p != nil && v.platform.Variant == "" {
		v.platform.Variant = p.Variant
	}
	v.whole = whole && (v.chain() == "" || s.layers.Has(v.chain()))
	g.variants = append(g.variants, v)
	return nil
}

// best returns the whole variant that serves want best; with any set, some whole variant if none does, else
// only one of want's own architecture. nil: none.
func (g *graph) best(want ocispec.Platform, any bool) *variant {
	var found *variant
	at := -1
	for _, v := range g.variants {
		if !v.whole {
			continue
		}
		r := rank(want, v.platform, !any)
		if r >= 0 && (at < 0 || r < at) {
			found, at = v, r
		}
		if found == nil && any {
			found = v
		}
	}
	return found
}
