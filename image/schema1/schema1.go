// Package schema1 reads Docker's oldest manifests, in which the layers' histories are images' configs in a form of their own.
//
// It fetches nothing and writes no such manifest. Invariant: what Parse returned names layers by valid digests, and has a history line for each.
package schema1

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/fault"
)

// Media types of Docker's oldest manifests. They are read and converted; nothing writes them.
const (
	SignedType = "application/vnd.docker.distribution.manifest.v1+prettyjws"
	PlainType  = "application/vnd.docker.distribution.manifest.v1+json"
)

// emptyLayer is the digest of a tar without members, compressed as the tools of that time did; a layer of it is none.
const emptyLayer = digest.Digest("sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4")

// maxLayers bounds the layers of a manifest.
const maxLayers = 1024

// Manifest is a manifest of that form; in both lists the newest comes first.
type Manifest struct {
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

// Signed returns the bytes over which a signed manifest has its digest: a prefix of the document and a tail that stands
// in each signature (the format of "JSON Web Signature" that registries called pretty). An unsigned one is returned as it is.
func Signed(data []byte) ([]byte, error) {
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

// Parse reads a manifest, of which Signed gave the bytes. fault.Corrupt: it is none.
func Parse(data []byte) (*Manifest, error) {
	var m Manifest
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
		if err := l.BlobSum.Validate(); err != nil || l.BlobSum.Algorithm() != digest.SHA256 {
			return nil, fault.New(fault.Corrupt, "the manifest of schema 1 names a layer %q: only sha256 is supported", l.BlobSum)
		}
	}
	return &m, nil
}

// Steps translates what the manifest tells, the oldest first, and lists the layers that are some.
func (m *Manifest) Steps() (list []ocispec.History, layers []digest.Digest, err error) {
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

// Config makes an image's config of the newest history entry, which was one in its time.
func (m *Manifest) Config(history []ocispec.History, diffIDs []digest.Digest) (map[string]any, error) {
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
