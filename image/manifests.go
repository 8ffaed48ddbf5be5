package image

import (
	"errors"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/fault"
)

// Annotations by which an index says that a manifest is no image but tells of one (BuildKit's attestation storage).
const (
	referenceType   = "vnd.docker.reference.type"
	referenceDigest = "vnd.docker.reference.digest"
	attestation     = "attestation-manifest"
)

// Manifest is what is known of one manifest below an image's target, whether it is here or not.
type Manifest struct {
	Descriptor ocispec.Descriptor
	Kind       ManifestKind
	Attests    digest.Digest     // of what manifest it is an attestation
	Platform   *ocispec.Platform // of an image; nil when neither index nor config says
	Available  bool              // the manifest and all that it names are here
	Content    int64             // bytes of it and of what it names, as far as they are here
	Unpacked   int64             // bytes of the files in its unpacked layers
	// Blobs and Layers are what Content and Unpacked are the sums of: blobs that are here by digest, unpacked layers by chain.
	Blobs, Layers map[digest.Digest]int64
}

// ManifestKind says what a manifest describes.
type ManifestKind uint8

// The kinds.
const (
	UnknownManifest ManifestKind = iota // an artifact, or a manifest that is not here and of which the index says nothing
	ImageManifest
	Attestation
)

// Manifests lists the manifests below an image's target in the order of their index, those that are not here included.
func Manifests(s *Store, img *Image) ([]Manifest, error) {
	sizes, err := s.layerSizes()
	if err != nil {
		return nil, err
	}
	m := &manifests{store: s, sizes: sizes, seen: map[digest.Digest]bool{}}
	if err := m.visit(img.Target, 0); err != nil {
		return nil, err
	}
	return m.list, nil
}

type manifests struct {
	store *Store
	sizes map[digest.Digest]int64 // of unpacked layers, by chain
	seen  map[digest.Digest]bool
	list  []Manifest
}

func (m *manifests) visit(desc ocispec.Descriptor, depth int) error {
	if m.seen[desc.Digest] || depth > maxDepth {
		return nil
	}
	m.seen[desc.Digest] = true
	data, err := m.store.readBlob(desc.Digest, maxDocument)
	if errors.Is(err, fault.NotFound) && !isIndex(desc.MediaType) {
		m.list = append(m.list, absent(desc))
		return nil
	}
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	doc, err := parseDocument(desc, data)
	if errors.Is(err, fault.Unsupported) {
		m.list = append(m.list, Manifest{Descriptor: desc, Available: true, Content: int64(len(data))})
		return nil
	}
	if err != nil {
		return err
	}
	if desc.MediaType == "" {
		desc.MediaType = doc.MediaType
	}
	if doc.Manifests == nil {
		one, err := m.describe(desc, doc, int64(len(data)))
		if err == nil {
			m.list = append(m.list, one)
		}
		return err
	}
	for _, child := range doc.Manifests {
		err := m.visit(child, depth+1)
		if errors.Is(err, fault.Corrupt) {
			m.list = append(m.list, absent(child)) // others of the image may be whole, and it is a list that is asked for
		} else if err != nil {
			return err
		}
	}
	return nil
}

// absent is what an index tells of a manifest that is not here.
func absent(desc ocispec.Descriptor) Manifest {
	m := Manifest{Descriptor: desc, Platform: desc.Platform}
	if of, ok := attests(desc); ok {
		m.Kind, m.Attests, m.Platform = Attestation, of, nil
	} else if p := desc.Platform; p != nil && p.OS != "unknown" {
		m.Kind = ImageManifest
	}
	return m
}

func attests(desc ocispec.Descriptor) (of digest.Digest, is bool) {
	return digest.Digest(desc.Annotations[referenceDigest]), desc.Annotations[referenceType] == attestation
}

// describe describes one that is here.
func (m *manifests) describe(desc ocispec.Descriptor, doc *document, size int64) (Manifest, error) {
	one := absent(desc)
	one.Available, one.Content = true, size
	one.Blobs, one.Layers = map[digest.Digest]int64{desc.Digest: size}, map[digest.Digest]int64{}
	for _, c := range doc.children() {
		n, err := m.store.blobs.Size(c.Digest)
		switch {
		case errors.Is(err, fault.NotFound):
			one.Available = false
		case err != nil:
			return one, err
		default:
			if _, counted := one.Blobs[c.Digest]; !counted {
				one.Blobs[c.Digest] = n
				one.Content += n
			}
		}
	}
	if one.Kind == Attestation || doc.Config == nil {
		return one, nil
	}
	if _, here := one.Blobs[doc.Config.Digest]; !here {
		return one, nil
	}
	data, err := m.store.readBlob(doc.Config.Digest, maxConfig)
	if err != nil {
		return one, err
	}
	config, err := parseConfig(doc, data)
	if errors.Is(err, fault.Unsupported) {
		one.Kind = UnknownManifest
		return one, nil
	}
	if err != nil {
		return one, err
	}
	one.Kind = ImageManifest
	if one.Platform == nil {
		one.Platform = &config.Platform
	}
	for _, c := range chains(config.RootFS.DiffIDs) {
		if size, here := m.sizes[c]; here {
			one.Layers[c] = size
			one.Unpacked += size
		}
	}
	return one, nil
}
