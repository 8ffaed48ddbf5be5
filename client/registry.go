package client

import (
	"context"
	"net/url"
	"strconv"

	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// noAuth is the empty object in base64: some daemons want a header in any case.
const noAuth = "e30="

// authorized is the header that carries credentials; "" is none.
func authorized(auth string) map[string]string {
	if auth == "" {
		return nil
	}
	return map[string]string{registry.AuthHeader: auth}
}

// Push sends an image's tag to its registry, all its tags if tag is "", and gives the daemon's progress. platform is JSON of an OCI platform, or "".
func (s Images) Push(ctx context.Context, name, tag, platform, auth string) (*Progress, error) {
	q := url.Values{}
	set(q, "tag", tag)
	set(q, "platform", platform)
	if auth == "" {
		auth = noAuth
	}
	return s.progress(ctx, Request{Method: "POST", Path: path("images", name, "push"), Query: q, Header: authorized(auth)})
}

// Search asks a registry for images. A limit of 0 is the daemon's.
func (s Images) Search(ctx context.Context, term string, limit int, filters Filters, auth string) ([]registry.SearchResult, error) {
	q := url.Values{"term": {term}}
	if limit != 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	set(q, "filters", filters.String())
	var out []registry.SearchResult
	err := s.c.Call(ctx, Request{Method: "GET", Path: "/images/search", Query: q, Header: authorized(auth)}, &out)
	return out, err
}

// Login asks a registry whether it knows the credentials.
func (s System) Login(ctx context.Context, a registry.AuthConfig) (registry.AuthResponse, error) {
	var out registry.AuthResponse
	err := s.c.Call(ctx, Request{Method: "POST", Path: "/auth", Body: a}, &out)
	return out, err
}

// Manifest is a manifest or an index as a registry has it. The descriptor of an image's manifest tells the platform that its config has.
type Manifest struct {
	Descriptor ocispec.Descriptor
	Raw        []byte
}

// Manifest fetches a manifest or an index from its registry; insecure allows one without, or with any, TLS certificate.
// Only our own daemon answers it.
func (s Images) Manifest(ctx context.Context, ref, auth string, insecure bool) (Manifest, error) {
	q := url.Values{}
	setBool(q, "insecure", insecure)
	var out Manifest
	err := s.c.Call(ctx, Request{Method: "GET", Path: path("distribution", ref, "manifest"), Query: q, Header: authorized(auth)}, &out)
	return out, err
}

// ManifestUpload is an index to put into a registry.
type ManifestUpload struct {
	MediaType string
	Raw       []byte
	From      []string // manifests it names, as REPOSITORY@DIGEST: those of another repository come along
}

// PutManifest puts an index under ref's name into its registry and gives its digest. Only our own daemon answers it.
func (s Images) PutManifest(ctx context.Context, ref string, m ManifestUpload, auth string, insecure bool) (digest string, err error) {
	q := url.Values{}
	setBool(q, "insecure", insecure)
	var out struct{ Digest string }
	err = s.c.Call(ctx, Request{Method: "POST", Path: path("distribution", ref, "manifest"), Query: q, Header: authorized(auth), Body: m}, &out)
	return out.Digest, err
}
