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
	dockerForeign   = "application/vnd.docker.image.rootfs.foreign.diff.tar"
	dockerForeignGz = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
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
	dockerLayer, dockerLayerGz, dockerForeign, dockerForeignGz, dockerLayerZstd,
}

// document is a manifest or an index, of OCI or Docker's schema 2; their fields have the same names.
type document struct {
	SchemaVersion int                  `json:"schemaVersion"`
	MediaType     string               `json:"mediaType"`
	Config        *ocispec.Descriptor  `json:"config"`
	Layers        []ocispec.Descriptor `json:"layers"`
	Manifests     []ocispec.Descriptor `json:"manifests"`
	ArtifactType  string               `json:"artifactType"`
	FSLayers      json.RawMessage      `json:"fsLayers"` // schema 1
}

// artifact returns the type of a manifest's content when it is not a container image, else "".
func (d *document) artifact() string {
	image := d.Config.MediaType == ocispec.MediaTypeImageConfig || d.Config.MediaType == dockerConfig
	for _, l := range d.Layers {
		image = image && slices.Contains(layerTypes, l.MediaType)
	}
	switch {
	case image:
		return ""
	case d.ArtifactType != "":
		return d.ArtifactType
	case d.Config.MediaType != ocispec.MediaTypeImageConfig || len(d.Layers) == 0:
		return d.Config.MediaType
	}
	return d.Layers[0].MediaType // such as attestations beside an image
}

func isIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == dockerIndex
}

func isManifest(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageManifest || mediaType == dockerManifest
}

// isDocument tells whether content of that type names other content; one that has no type is taken for such.
func isDocument(mediaType string) bool {
	return mediaType == "" || isIndex(mediaType) || isManifest(mediaType)
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
	artifact string // the type of content that is no container image; "": it is one
	config   dockerspec.DockerOCIImage
	configID digest.Digest
	layers   []ocispec.Descriptor
	chains   []digest.Digest
	here     bool // all its blobs are here
	whole    bool // and its chain is unpacked, if it has one
}

func (v *variant) chain() digest.Digest {
	if len(v.chains) == 0 {
		return ""
	}
	return v.chains[len(v.chains)-1]
}

// graph is what is here of the tree below one target, and what is not.
type graph struct {
	variants  []*variant
	documents []ocispec.Descriptor    // manifests and indexes, children before their parents, target last
	rest      []ocispec.Descriptor    // other blobs: configs, layers, and what artifacts have
	missing   []ocispec.Descriptor    // what a document names though it is not here
	blobs     map[digest.Digest]int64 // all that is here, and its size
}

// walk reads the tree below target as far as it is here.
func (s *Store) walk(target ocispec.Descriptor) (*graph, error) {
	w := walker{s, &graph{blobs: map[digest.Digest]int64{}}}
	if err := w.visit(target, 0); err != nil {
		return nil, err
	}
	return w.g, nil
}

// walker fills a graph.
type walker struct {
	s *Store
	g *graph
}

func (w walker) visit(desc ocispec.Descriptor, depth int) error {
	if depth > maxDepth {
		return fault.New(fault.Unsupported, "index %s: more than %d levels of indexes", desc.Digest, maxDepth)
	}
	data, err := w.s.readBlob(desc.Digest, maxDocument)
	if err != nil {
		return err
	}
	doc, err := parseDocument(desc, data)
	if err != nil {
		return err
	}
	desc.MediaType, desc.Size = doc.MediaType, int64(len(data))
	w.g.blobs[desc.Digest] = desc.Size
	if doc.Manifests == nil {
		err = w.visitManifest(desc, doc)
	} else {
		err = w.visitIndex(doc, depth)
	}
	if err != nil {
		return err
	}
	w.g.documents = append(w.g.documents, ocispec.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size})
	return nil
}

func (w walker) visitIndex(doc *document, depth int) error {
	for _, child := range doc.Manifests {
		if _, seen := w.g.blobs[child.Digest]; seen {
			continue
		}
		if isDocument(child.MediaType) && w.s.blobs.Has(child.Digest) {
			err := w.visit(child, depth+1)
			if err == nil {
				continue
			}
			if !errors.Is(err, fault.Unsupported) {
				return err
			}
			delete(w.g.blobs, child.Digest) // it is kept as any other blob, not looked into
		}
		if _, err := w.visitBlob(child); err != nil {
			return err
		}
	}
	return nil
}

// visitBlob takes note of a blob that is no document, and tells whether it is here.
func (w walker) visitBlob(desc ocispec.Descriptor) (bool, error) {
	if _, seen := w.g.blobs[desc.Digest]; seen {
		return true, nil
	}
	size, err := w.s.blobs.Size(desc.Digest)
	if errors.Is(err, fault.NotFound) {
		w.g.missing = append(w.g.missing, desc)
		return false, nil
	}
	if err != nil {
		return false, err
	}
	w.g.blobs[desc.Digest] = size
	w.g.rest = append(w.g.rest, desc)
	return true, nil
}

func (w walker) visitManifest(desc ocispec.Descriptor, doc *document) error {
	here := true
	for _, c := range doc.children() {
		found, err := w.visitBlob(c)
		if err != nil {
			return err
		}
		here = here && found
	}
	v := &variant{manifest: desc, configID: doc.Config.Digest, layers: doc.Layers, here: here, artifact: doc.artifact()}
	if p := desc.Platform; p != nil {
		v.platform = *p
	}
	if v.artifact != "" {
		v.whole = here
		w.g.variants = append(w.g.variants, v)
		return nil
	}
	if _, ok := w.g.blobs[doc.Config.Digest]; !ok {
		return nil
	}
	data, err := w.s.readBlob(doc.Config.Digest, maxConfig)
	if err != nil {
		return err
	}
	if v.config, err = parseConfig(doc, data); err != nil {
		return err
	}
	v.chains = chains(v.config.RootFS.DiffIDs)
	variant := v.platform.Variant
	if v.platform = v.config.Platform; v.platform.Variant == "" {
		v.platform.Variant = variant
	}
	v.whole = here && (v.chain() == "" || w.s.layers.Has(v.chain()))
	w.g.variants = append(w.g.variants, v)
	return nil
}

// best returns the whole variant that serves want best; with any set, some whole variant if none does, an artifact last, else
// only one of want's own architecture. nil: none.
func (g *graph) best(want ocispec.Platform, any bool) *variant {
	var found *variant
	at := -1
	for _, v := range g.variants {
		if !v.whole || v.artifact != "" {
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
	if found == nil && any {
		if i := slices.IndexFunc(g.variants, func(v *variant) bool { return v.whole }); i >= 0 {
			found = g.variants[i]
		}
	}
	return found
}
