package builds

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path"
	"slices"

	"berth/archive"
	"berth/build"
	"berth/engine/images"
	"berth/fault"
	"berth/image"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// inlineCache is the field of an image's config that has its cache.
const inlineCache = "moby.buildkit.cache.v0"

// Bounds on foreign documents, in bytes.
const (
	maxCacheManifest = 4 << 20
	maxCacheConfig   = 64 << 20
)

// imports opens the caches that a build may use. One that can't be had is told of, and does not fail the build.
// d reads what is here.
func (s *Service) imports(ctx context.Context, d *image.Draft, list []CacheSpec, client Client, t Teller) (all []build.Import) {
	for _, c := range list {
		end := t.Begin(Importing + c.String())
		one, err := s.openCache(ctx, d, c, client)
		end(err)
		if err == nil {
			one.Name = c.String()
			all = append(all, one)
		}
	}
	return all
}

func (s *Service) openCache(ctx context.Context, d *image.Draft, c CacheSpec, client Client) (build.Import, error) {
	if c.Type == "local" {
		files, err := client.Files(ctx, c.Name, nil)
		if err != nil {
			return build.Import{}, err
		}
		return openLayout(ctx, files.Top, c)
	}
	ref, err := c.ref()
	if err != nil {
		return build.Import{}, err
	}
	img, err := s.Images.Store.Get(ref.String())
	if err != nil {
		return s.farCache(ctx, ref, client)
	}
	one, err := readCache(ctx, held{d}, img.Manifest) // as Docker has it, an image that is here is looked at first
	if err == nil {
		return one, nil
	}
	if far, farErr := s.farCache(ctx, ref, client); farErr == nil {
		return far, nil
	}
	return build.Import{}, err
}

// farCache opens a cache in a registry.
func (s *Service) farCache(ctx context.Context, ref reference.Named, client Client) (build.Import, error) {
	auth, err := client.Credentials(ctx, ref)
	if err != nil {
		return build.Import{}, err
	}
	repository := s.Images.Registry.Repository(ref, images.Credentials(auth))
	root, err := repository.Resolve(ctx, ref)
	if err != nil {
		return build.Import{}, err
	}
	return readCache(ctx, repository, root)
}

// held is a Source of what is here.
type held struct{ *image.Draft }

// Fetch implements image.Source.
func (h held) Fetch(_ context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	r, err := h.Open(desc)
	if err != nil {
		return nil, err
	}
	if _, err := io.CopyN(io.Discard, r, offset); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// cacheDocument is a manifest or an index.
type cacheDocument struct {
	Config    *ocispec.Descriptor  `json:"config"`
	Layers    []ocispec.Descriptor `json:"layers"`
	Manifests []ocispec.Descriptor `json:"manifests"`
}

// readCache reads the cache that a manifest, an index or an image's config has.
func readCache(ctx context.Context, src image.Source, root ocispec.Descriptor) (one build.Import, err error) {
	one.Source = src
	var doc cacheDocument
	for range 3 { // an index has manifests, and no deeper index is written by anybody
		data, err := fetchDocument(ctx, src, root, maxCacheManifest)
		if err != nil {
			return one, err
		}
		if err := json.Unmarshal(data, &doc); err != nil {
			return one, fault.New(fault.Corrupt, "cache manifest %s: %w", root.Digest, err)
		}
		if doc.Config != nil || len(doc.Manifests) == 0 {
			break
		}
		if at := slices.IndexFunc(doc.Manifests, func(d ocispec.Descriptor) bool { return d.MediaType == build.CacheConfigType }); at >= 0 {
			doc.Config = &doc.Manifests[at] // as BuildKit writes it with image-manifest=false
			break
		}
		root = doc.Manifests[0]
		if at := slices.IndexFunc(doc.Manifests, ours); at >= 0 {
			root = doc.Manifests[at]
		}
		doc = cacheDocument{}
	}
	if doc.Config == nil {
		return one, fault.New(fault.NotFound, "%s is no cache, and no image that has one", root.Digest)
	}
	data, err := fetchDocument(ctx, src, *doc.Config, maxCacheConfig)
	if err != nil {
		return one, err
	}
	if doc.Config.MediaType == build.CacheConfigType {
		one.Outcomes, err = build.DecodeCache(data)
		return one, err
	}
	one.Outcomes, err = inlineOutcomes(data, doc.Layers)
	return one, err
}

func ours(d ocispec.Descriptor) bool {
	host := image.Host()
	return d.Platform != nil && d.Platform.OS == host.OS && d.Platform.Architecture == host.Architecture
}

// inlineOutcomes reads what an image's config says of its cache.
func inlineOutcomes(config []byte, layers []ocispec.Descriptor) (map[string]build.Outcome, error) {
	var c struct {
		RootFS ocispec.RootFS `json:"rootfs"`
		Cache  []byte         `json:"moby.buildkit.cache.v0"`
	}
	if err := json.Unmarshal(config, &c); err != nil {
		return nil, fault.New(fault.Corrupt, "the image's config: %w", err)
	}
	if len(c.Cache) == 0 {
		return nil, fault.New(fault.NotFound, "the image has no cache, and its history does not tell what its steps saw: build it with --cache-to type=inline")
	}
	if len(c.RootFS.DiffIDs) != len(layers) {
		return nil, fault.New(fault.Corrupt, "the image's config names %d layers, its manifest %d", len(c.RootFS.DiffIDs), len(layers))
	}
	var list []image.Layer
	for k, l := range layers {
		list = append(list, image.Layer{Desc: l, DiffID: c.RootFS.DiffIDs[k]})
	}
	return build.DecodeInlineCache(c.Cache, list)
}

// fetchDocument reads a document and compares its digest.
func fetchDocument(ctx context.Context, src image.Source, desc ocispec.Descriptor, most int64) (data []byte, err error) {
	if err := desc.Digest.Validate(); err != nil {
		return nil, fault.New(fault.Corrupt, "digest %q: %w", desc.Digest, err)
	}
	r, err := src.Fetch(ctx, desc, 0)
	if err != nil {
		return nil, err
	}
	defer fault.Close(r, &err)
	if data, err = io.ReadAll(io.LimitReader(r, most+1)); err != nil {
		return nil, err
	}
	if int64(len(data)) > most {
		return nil, fault.New(fault.Unsupported, "%s is larger than %d bytes", desc.Digest, most)
	}
	if got := desc.Digest.Algorithm().FromBytes(data); got != desc.Digest {
		return nil, fault.New(fault.Corrupt, "digest mismatch: the content of %s has %s", desc.Digest, got)
	}
	return data, nil
}

// ociLayout is a Source of an OCI image layout.
type ociLayout struct{ top *os.File }

// Fetch implements image.Source.
func (l ociLayout) Fetch(_ context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	f, err := archive.OpenFile(l.top, path.Join("blobs", desc.Digest.Algorithm().String(), desc.Digest.Encoded()))
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// openLayout reads a cache in an OCI image layout: that of a digest or of a tag, which is "latest" unless it is named.
func openLayout(ctx context.Context, top *os.File, c CacheSpec) (build.Import, error) {
	if d := c.Attrs["digest"]; d != "" {
		return readCache(ctx, ociLayout{top}, ocispec.Descriptor{Digest: digest.Digest(d)})
	}
	data, err := archive.ReadFile(top, ocispec.ImageIndexFile, maxCacheManifest)
	if err != nil {
		return build.Import{}, err
	}
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return build.Import{}, fault.New(fault.Corrupt, "%s: %w", ocispec.ImageIndexFile, err)
	}
	tag := c.tag()
	at := slices.IndexFunc(index.Manifests, func(d ocispec.Descriptor) bool { return d.Annotations[ocispec.AnnotationRefName] == tag })
	if at < 0 {
		return build.Import{}, fault.New(fault.NotFound, "the directory has no cache with the tag %s", tag)
	}
	return readCache(ctx, ociLayout{top}, index.Manifests[at])
}

// tag is how a cache is called in a directory.
func (c CacheSpec) tag() string {
	if t := c.Attrs["tag"]; t != "" {
		return t
	}
	return "latest"
}
