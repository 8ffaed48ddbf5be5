package output

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/image"
)

// Statement is what is said of an image: a predicate, and the URI of its type (in-toto attestation framework).
type Statement struct {
	Type      string
	Predicate any
}

const (
	statementMedia = "application/vnd.in-toto+json"
	statementType  = "https://in-toto.io/Statement/v0.1"
)

// attest writes a manifest of what is said of the image m (BuildKit's attestation storage).
func attest(draft *image.Draft, m ocispec.Descriptor, p Part, f Form) (desc ocispec.Descriptor, err error) {
	type subject struct {
		Name   string            `json:"name"`
		Digest map[string]string `json:"digest"`
	}
	var of []subject
	for _, name := range f.Names {
		purl, err := PackageURL(name, &p.Settings.Platform)
		if err != nil {
			return desc, err
		}
		of = append(of, subject{purl, map[string]string{m.Digest.Algorithm().String(): m.Digest.Encoded()}})
	}
	if len(of) == 0 {
		of = []subject{{"_", map[string]string{m.Digest.Algorithm().String(): m.Digest.Encoded()}}}
	}
	unknown := ocispec.Platform{Architecture: "unknown", OS: "unknown"}
	config := ocispec.Image{Platform: unknown, RootFS: ocispec.RootFS{Type: "layers"}}
	about := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	for _, s := range p.Statements {
		l, err := draft.Document(statementMedia, struct {
			Type          string    `json:"_type"`
			PredicateType string    `json:"predicateType"`
			Subject       []subject `json:"subject"`
			Predicate     any       `json:"predicate"`
		}{statementType, s.Type, of, s.Predicate})
		if err != nil {
			return desc, fmt.Errorf("keep what is attested: %w", err)
		}
		l.Annotations = map[string]string{"in-toto.io/predicate-type": s.Type}
		about.Layers = append(about.Layers, l)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, l.Digest)
	}
	if about.Config, err = draft.Document(ocispec.MediaTypeImageConfig, config); err != nil {
		return desc, fmt.Errorf("keep what is attested: %w", err)
	}
	desc, err = draft.Document(about.MediaType, about)
	desc.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": m.Digest.String()}
	desc.Platform = &unknown
	return desc, err
}

// PackageURL is an image's name as a package URL (purl specification, type docker).
func PackageURL(name string, platform *ocispec.Platform) (string, error) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", err
	}
	q := url.Values{}
	if d, ok := named.(reference.Digested); ok {
		q.Set("digest", d.Digest().String())
	} else {
		named = reference.TagNameOnly(named)
	}
	if platform != nil {
		q.Set("platform", image.FormatPlatform(*platform))
	}
	var path []string
	for part := range strings.SplitSeq(reference.FamiliarName(named), "/") {
		path = append(path, url.PathEscape(part))
	}
	text := "pkg:docker/" + strings.Join(path, "/")
	if t, ok := named.(reference.Tagged); ok {
		text += "@" + url.PathEscape(t.Tag())
	}
	if len(q) > 0 {
		text += "?" + q.Encode()
	}
	return text, nil
}

// Origin is how an image came to be, as far as it is told (SLSA provenance, version 1, as BuildKit fills it in).
type Origin struct {
	Path         string            // of the Dockerfile
	Args         map[string]string // of the request; nil: they are nobody's business
	Bases        []Base
	Builder      ocispec.Platform
	ID           string // of the build
	Begun, Ended string // in the form of RFC 3339; "": not told
}

// Base is an image that a build began with or copied from.
type Base struct {
	Name     string
	Platform ocispec.Platform
	Digest   digest.Digest
}

// Provenance states an image's origin.
func Provenance(o Origin) (Statement, error) {
	type dependency struct {
		URI    string            `json:"uri"`
		Digest map[string]string `json:"digest,omitempty"`
	}
	needed := []dependency{}
	for _, b := range o.Bases {
		purl, err := PackageURL(b.Name, &b.Platform)
		if err != nil {
			return Statement{}, err
		}
		needed = append(needed, dependency{purl, map[string]string{b.Digest.Algorithm().String(): b.Digest.Encoded()}})
	}
	request := map[string]any{"frontend": "dockerfile.v0", "locals": []map[string]string{{"name": "context"}, {"name": "dockerfile"}}}
	if o.Args != nil {
		request["args"] = o.Args
	}
	metadata := map[string]any{
		"invocationId": o.ID, "buildkit_metadata": struct{}{},
		"buildkit_completeness": map[string]bool{"request": o.Args != nil, "resolvedDependencies": false},
	}
	if o.Begun != "" {
		metadata["startedOn"], metadata["finishedOn"] = o.Begun, o.Ended
	}
	return Statement{"https://slsa.dev/provenance/v1", map[string]any{
		"buildDefinition": map[string]any{
			"buildType":            "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md",
			"externalParameters":   map[string]any{"configSource": map[string]string{"path": o.Path}, "request": request},
			"internalParameters":   map[string]string{"builderPlatform": image.FormatPlatform(o.Builder)},
			"resolvedDependencies": needed,
		},
		"runDetails": map[string]any{"builder": map[string]string{"id": ""}, "metadata": metadata},
	}}, nil
}
