package image

import (
	"errors"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/fault"
)

// Content is one manifest below an image's target: one platform of the image, or what stands beside it, such as an attestation.
type Content struct {
	Manifest ocispec.Descriptor      // as in the index
	Platform ocispec.Platform        // of an image; as announced, or as its config says
	Image    bool                    // it can be run, as opposed to attestations and artifacts
	Attests  digest.Digest           // the manifest that an attestation is about; "" for others
	Whole    bool                    // all its blobs are here
	Size     int64                   // bytes of its blobs that are here, the manifest included
	Unpacked int64                   // bytes of the files in its unpacked layers
	Blobs    map[digest.Digest]int64 // that are here, with their sizes in bytes
	Layers   map[digest.Digest]int64 // that are unpacked, by the digests of their chains, with their sizes in bytes
}

// Annotations of attestations, as BuildKit writes them.
const (
	annotationKind    = "vnd.docker.reference.type"
	annotationSubject = "vnd.docker.reference.digest"
)

// Contents returns all manifests below img's target in the order of its index, those that are not here included.
func (s *Store) Contents(img *Image) ([]Content, error) {
	sizes, err := s.layerSizes()
	if err != nil {
		return nil, err
	}
	return (&survey{s, sizes}).contents(img.Target, 0)
}

// survey looks at all manifests below a target.
type survey struct {
	s     *Store
	sizes map[digest.Digest]int64 // of unpacked layers, by chain
}

func (v *survey) contents(desc ocispec.Descriptor, depth int) ([]Content, error) {
	if depth > maxDepth {
		return nil, fault.New(fault.Unsupported, "index %s: more than %d levels of indexes", desc.Digest, maxDepth)
	}
	data, err := v.s.readBlob(desc.Digest, maxDocument)
	missing := errors.Is(err, fault.NotFound)
	switch {
	case missing && isIndex(desc.MediaType):
		return nil, nil // what it holds is not known here
	case missing:
		return []Content{announced(desc)}, nil
	case err != nil:
		return nil, err
	}
	doc, err := parseDocument(desc, data)
	if err != nil {
		return []Content{announced(desc)}, nil // kept for others to read
	}
	if doc.Manifests == nil {
		return []Content{v.present(desc, int64(len(data)), doc)}, nil
	}
	var all []Content
	for _, child := range doc.Manifests {
		below, err := v.contents(child, depth+1)
		if err != nil {
			return nil, err
		}
		all = append(all, below...)
	}
	return all, nil
}

// announced is what a descriptor alone tells.
func announced(desc ocispec.Descriptor) Content {
	c := Content{Manifest: desc, Image: true}
	if desc.Platform != nil {
		c.Platform = *desc.Platform
		c.Image = c.Platform.OS != "unknown" || c.Platform.Architecture != "unknown"
	}
	if _, attests := desc.Annotations[annotationKind]; attests {
		c.Image = false
		if d, err := digest.Parse(desc.Annotations[annotationSubject]); err == nil {
			c.Attests = d
		}
	}
	return c
}

// present looks at a manifest that is here.
func (v *survey) present(desc ocispec.Descriptor, size int64, doc *document) Content {
	c := announced(desc)
	c.Whole, c.Size, c.Blobs = true, size, map[digest.Digest]int64{desc.Digest: size}
	for _, b := range doc.children() {
		size, err := v.s.blobs.Size(b.Digest)
		if err != nil {
			c.Whole = false
			continue
		}
		if _, seen := c.Blobs[b.Digest]; !seen {
			c.Blobs[b.Digest] = size
			c.Size += size
		}
	}
	if !c.Image || doc.Config == nil {
		c.Image = false
		return c
	}
	data, err := v.s.readBlob(doc.Config.Digest, maxConfig)
	if err != nil {
		return c
	}
	config, err := parseConfig(doc, data)
	if err != nil {
		c.Image = false
		return c
	}
	if desc.Platform == nil {
		c.Platform = config.Platform
	}
	c.Layers = map[digest.Digest]int64{}
	for _, chain := range chains(config.RootFS.DiffIDs) {
		if size, unpacked := v.sizes[chain]; unpacked {
			c.Layers[chain] = size
			c.Unpacked += size
		}
	}
	return c
}
