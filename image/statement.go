package image

import (
	"encoding/json"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/fault"
)

// Statement is one in-toto statement about an image, such as where it came from or what is in it.
type Statement struct {
	Descriptor ocispec.Descriptor
	Predicate  string // the URI of its predicate's type
	Content    json.RawMessage
}

const (
	statementType       = "application/vnd.in-toto+json"
	annotationPredicate = "in-toto.io/predicate-type"
	maxStatement        = 64 << 20 // bytes; lists of all that is in an image are long
)

// Statements returns what is attested of an image's manifest and is here. With predicates, only those of these types.
func Statements(s *Store, img *Image, predicates []string) ([]Statement, error) {
	manifests, err := Manifests(s, img)
	if err != nil {
		return nil, err
	}
	list := []Statement{}
	for _, m := range manifests {
		if m.Kind != Attestation || m.Attests != img.Manifest.Digest || !m.Available {
			continue
		}
		data, err := s.readBlob(m.Descriptor.Digest, maxDocument)
		if err != nil {
			return nil, err
		}
		doc, err := parseDocument(m.Descriptor, data)
		if err != nil {
			return nil, err
		}
		for _, l := range doc.Layers {
			predicate := l.Annotations[annotationPredicate]
			if l.MediaType != statementType || len(predicates) > 0 && !slices.Contains(predicates, predicate) {
				continue
			}
			content, err := s.readBlob(l.Digest, maxStatement)
			if err != nil {
				return nil, err
			}
			if !json.Valid(content) {
				return nil, fault.New(fault.Corrupt, "statement %s of image %s is no JSON", l.Digest, img.ID)
			}
			list = append(list, Statement{l, predicate, content})
		}
	}
	return list, nil
}
