package images

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"

	"berth/engine/journal"
	"berth/fault"
	"berth/image"
	"berth/registry"

	"github.com/distribution/reference"
	wire "github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Login checks credentials with their registry.
func (i *Service) Login(ctx context.Context, auth wire.AuthConfig) (wire.AuthResponse, error) {
	status, token, err := i.Registry.Login(ctx, auth.ServerAddress, Credentials(auth))
	return wire.AuthResponse{Status: status, IdentityToken: token}, err
}

// SearchRequest asks an index.
type SearchRequest struct {
	Term    string // with the index's host before it, or the default index's
	Limit   int    // 0: the default
	Filters journal.Filters
	Auth    wire.AuthConfig
}

// Search lists the repositories that an index finds.
func (i *Service) Search(ctx context.Context, r SearchRequest) ([]wire.SearchResult, error) {
	filter, err := searchFilter(r.Filters)
	if err != nil {
		return nil, err
	}
	if strings.Contains(r.Term, "://") {
		return nil, invalid("invalid repository name: repository name (%s) should not have a scheme", r.Term)
	}
	if r.Limit < 0 || r.Limit > 100 {
		return nil, invalid("Limit %d is outside the range of [1, 100]", r.Limit)
	}
	filter.Limit = r.Limit
	found := []wire.SearchResult{}
	if filter.Automated != nil && *filter.Automated {
		return found, nil // indexes do not tell that any more
	}
	filter.Automated = nil
	results, err := i.Registry.Search(ctx, r.Term, filter, Credentials(r.Auth))
	for _, s := range results {
		found = append(found, wire.SearchResult{Name: s.Name, Description: s.Description, StarCount: s.Stars, IsOfficial: s.Official})
	}
	return found, err
}

func searchFilter(filters journal.Filters) (f registry.SearchFilter, err error) {
	for key, values := range filters {
		switch key {
		case "stars":
			for _, v := range values {
				stars, err := strconv.Atoi(v)
				if err != nil {
					return f, invalid("invalid filter 'stars=%s'", v)
				}
				f.Stars = max(f.Stars, stars)
			}
		case "is-official":
			f.Official, err = one(key, values)
		case "is-automated":
			f.Automated, err = one(key, values)
		default:
			return f, invalid("invalid filter '%s'", key)
		}
		if err != nil {
			return f, err
		}
	}
	return f, nil
}

// one reads a filter that is true or false.
func one(key string, values []string) (*bool, error) {
	yes, no := slices.Contains(values, "true") || slices.Contains(values, "1"), slices.Contains(values, "false") || slices.Contains(values, "0")
	if yes == no {
		return nil, invalid("invalid filter '%s=%v'", key, values)
	}
	return &yes, nil
}

// Distribution asks a registry what a name means there, and for which platforms.
func (i *Service) Distribution(ctx context.Context, ref string, auth wire.AuthConfig) (wire.DistributionInspect, error) {
	var d wire.DistributionInspect
	named, err := remoteName(ref)
	if err != nil {
		return d, err
	}
	desc, data, err := i.Registry.Manifest(ctx, named, Credentials(auth))
	if err != nil {
		return d, err
	}
	d.Descriptor = desc
	var doc struct {
		SchemaVersion int
		Config        *ocispec.Descriptor
		Manifests     []ocispec.Descriptor
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return d, fault.New(fault.Corrupt, "parse manifest %s: %w", desc.Digest, err)
	}
	for _, m := range doc.Manifests {
		if m.Platform != nil {
			d.Platforms = append(d.Platforms, *m.Platform)
		}
	}
	if doc.Config == nil || doc.Config.Digest.Validate() != nil {
		return d, nil
	}
	platform, err := i.platformOf(ctx, i.Registry.Repository(named, Credentials(auth)), *doc.Config)
	if err == nil && (platform.OS != "" || platform.Architecture != "") {
		d.Platforms = append(d.Platforms, platform)
	}
	return d, ctx.Err()
}

// maxConfig bounds the config of an image that is looked at in its registry, in bytes.
const maxConfig = 8 << 20

// platformOf reads an image's config in its registry.
func (i *Service) platformOf(ctx context.Context, repository *registry.Repository, config ocispec.Descriptor) (p ocispec.Platform, err error) {
	r, err := repository.Fetch(ctx, config, 0)
	if err != nil {
		return p, err
	}
	defer fault.Close(r, &err)
	data, err := io.ReadAll(io.LimitReader(r, maxConfig))
	if err != nil {
		return p, err
	}
	if digest.FromBytes(data) != config.Digest {
		return p, fault.New(fault.Corrupt, "the registry sends other content for %s", config.Digest)
	}
	return p, json.Unmarshal(data, &p)
}

// remoteName reads the name of something in a registry; an image ID is none.
func remoteName(ref string) (reference.Named, error) {
	if _, err := digest.Parse(ref); err == nil || len(ref) == 64 && digest.NewDigestFromEncoded(digest.SHA256, ref).Validate() == nil {
		return nil, invalid("no manifest found for full image ID")
	}
	return image.ParseName(ref)
}

// Insecurely returns a service that speaks with the registry of ref even where that can't prove who it is, as the user
// wants it for one request. done ends its connections.
func (i *Service) Insecurely(ref string) (s *Service, done func(), err error) {
	named, err := remoteName(ref)
	if err != nil {
		return nil, nil, err
	}
	client, err := i.Registry.Insecurely(reference.Domain(named))
	if err != nil {
		return nil, nil, err
	}
	other := *i
	other.Registry = client
	return &other, client.Close, nil
}

// Manifest fetches the document that a name means in its registry, as it is.
func (i *Service) Manifest(ctx context.Context, ref string, auth wire.AuthConfig) (ocispec.Descriptor, []byte, error) {
	named, err := remoteName(ref)
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	return i.Registry.Manifest(ctx, named, Credentials(auth))
}

// PutRequest is a manifest or an index for a registry.
type PutRequest struct {
	Ref       string // with a tag, or the document's digest
	MediaType string // "": as the document says
	Data      []byte
	// From are digest references of the manifests below an index, in this registry or another one. Those of
	// other repositories are copied to this one first.
	From []string
	Auth wire.AuthConfig
}

// PutManifest stores a document in a registry. What it refers to has to be there, or to come from From.
func (i *Service) PutManifest(ctx context.Context, r PutRequest) (ocispec.Descriptor, error) {
	var desc ocispec.Descriptor
	named, err := remoteName(r.Ref)
	if err != nil {
		return desc, err
	}
	var doc struct{ MediaType string }
	if err := json.Unmarshal(r.Data, &doc); err != nil {
		return desc, invalid("parse manifest: %w", err)
	}
	if r.MediaType == "" {
		r.MediaType = doc.MediaType
	}
	if r.MediaType == "" || doc.MediaType != "" && doc.MediaType != r.MediaType {
		return desc, invalid("the manifest says it is %q, and was sent as %q", doc.MediaType, r.MediaType)
	}
	desc = ocispec.Descriptor{MediaType: r.MediaType, Digest: digest.FromBytes(r.Data), Size: int64(len(r.Data))}
	tag := ""
	if digested, ok := named.(reference.Digested); ok {
		if digested.Digest() != desc.Digest {
			return desc, invalid("the manifest has digest %s, and was named %s", desc.Digest, digested.Digest())
		}
	} else if tagged, ok := named.(reference.Tagged); ok {
		tag = tagged.Tag()
	}
	target := i.Registry.Repository(named, Credentials(r.Auth))
	for _, from := range r.From {
		if err := i.bring(ctx, target, named, from, r.Auth); err != nil {
			return desc, err
		}
	}
	return desc, target.PutManifest(ctx, desc, r.Data, tag)
}

// bring copies one manifest with its blobs to target, whose name is to. From another repository of the same registry they are mounted.
func (i *Service) bring(ctx context.Context, target *registry.Repository, to reference.Named, from string, auth wire.AuthConfig) error {
	source, err := remoteName(from)
	if err != nil {
		return err
	}
	if source.Name() == to.Name() {
		return nil
	}
	user := Credentials(auth)
	if reference.Domain(source) != reference.Domain(to) {
		user = registry.Auth{} // they were given for the target's registry
	}
	desc, data, err := i.Registry.Manifest(ctx, source, user)
	if err != nil {
		return err
	}
	var doc struct {
		Config    *ocispec.Descriptor
		Layers    []ocispec.Descriptor
		Manifests []ocispec.Descriptor
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return fault.New(fault.Corrupt, "parse manifest %s: %w", desc.Digest, err)
	}
	if doc.Manifests != nil {
		return invalid("%s is an index: an index of indexes is not made here, name the images in it", from)
	}
	blobs := doc.Layers
	if doc.Config != nil {
		blobs = append(blobs, *doc.Config)
	}
	repository := i.Registry.Repository(source, user)
	for _, b := range blobs {
		if err := copyBlob(ctx, target, repository, reference.Domain(source) == reference.Domain(to), source, b); err != nil {
			return err
		}
	}
	return target.PutManifest(ctx, desc, data, "")
}

func copyBlob(ctx context.Context, target, source *registry.Repository, mountable bool, from reference.Named, b ocispec.Descriptor) error {
	there, err := target.Has(ctx, b)
	if err != nil || there {
		return err
	}
	if mountable {
		if mounted, err := target.Mount(ctx, b, from); err != nil || mounted {
			return err
		}
	}
	err = target.Put(ctx, b, func() (io.ReadCloser, error) { return source.Fetch(ctx, b, 0) })
	if errors.Is(err, fault.NotFound) && len(b.URLs) > 0 {
		return nil // a foreign layer, that neither registry has
	}
	return err
}
