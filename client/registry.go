package client

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net/url"
	"strconv"

	"berth/fault"

	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
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

// Registries asks registries for what is not here, each with the user's credentials for it.
type Registries struct {
	c        *Client
	Auth     string // X-Registry-Auth; "" is none
	Insecure bool   // plain HTTP and any certificate will do; only our own daemon knows this
}

// Registries asks with auth, which is X-Registry-Auth or "".
func (s Images) Registries(auth string, insecure bool) Registries {
	return Registries{s.c, auth, insecure}
}

func (s Registries) query() url.Values {
	q := url.Values{}
	setBool(q, "insecure", s.Insecure)
	return q
}

// Distribution is what a registry says a name means: a descriptor, and the platforms there are.
func (s Registries) Distribution(ctx context.Context, ref string) (registry.DistributionInspect, error) {
	var out registry.DistributionInspect
	err := s.c.Call(ctx, Request{Method: "GET", Path: path("distribution", ref, "json"), Query: s.query(), Header: authorized(s.Auth)}, &out)
	return out, err
}

// Manifest fetches a manifest or an index, as it is, from its registry. Only our own daemon answers it.
func (s Registries) Manifest(ctx context.Context, ref string) (desc ocispec.Descriptor, data []byte, err error) {
	r, err := s.c.Do(ctx, Request{Method: "GET", Path: path("distribution", ref, "manifest"), Query: s.query(), Header: authorized(s.Auth)})
	if err != nil {
		return desc, nil, err
	}
	defer fault.Close(r, &err)
	if data, err = io.ReadAll(r); err != nil {
		return desc, nil, err
	}
	desc = ocispec.Descriptor{MediaType: r.Header["content-type"], Digest: digest.Digest(r.Header["docker-content-digest"]), Size: int64(len(data))}
	return desc, data, nil
}

// PutManifest puts a manifest or an index into its registry under ref's name and gives its descriptor. from are manifests it
// names, as REPOSITORY@DIGEST, that are in other repositories: they come along. Only our own daemon answers it.
func (s Registries) PutManifest(ctx context.Context, ref, mediaType string, data []byte, from []string) (ocispec.Descriptor, error) {
	q := s.query()
	if len(from) > 0 {
		q["from"] = from
	}
	header := map[string]string{"Content-Type": mediaType}
	maps.Copy(header, authorized(s.Auth))
	var out ocispec.Descriptor
	err := s.c.Call(ctx, Request{Method: "PUT", Path: path("distribution", ref, "manifest"), Query: q, Header: header, Body: bytes.NewReader(data)}, &out)
	return out, err
}
