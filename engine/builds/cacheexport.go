package builds

import (
	"archive/tar"
	"context"
	"encoding/json"
	"fmt"
	"io"

	"berth/build"
	"berth/engine/images"
	"berth/fault"
	"berth/image"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// checkCaches refuses what can't be had, before anything is built.
func (o *Options) checkCaches() (to []exchange, err error) {
	for _, c := range o.CacheFrom {
		if err := c.check(false); err != nil {
			return nil, err
		}
	}
	for _, c := range o.CacheTo {
		e, err := c.exchange()
		if err != nil {
			return nil, err
		}
		to = append(to, e)
	}
	return to, nil
}

// inline tells whether images carry their cache.
func (s *Solved) inline() bool {
	for _, e := range s.caches {
		if e.Type == "inline" {
			return true
		}
	}
	return false
}

// inlineCacheOf is what an image's config has of its cache.
func inlineCacheOf(r *build.Result) (map[string]json.RawMessage, error) {
	records, err := build.EncodeInlineCache(r.Outcomes(true), r.Layers)
	if err != nil {
		return nil, err
	}
	field, err := json.Marshal(records) // as bytes, which JSON has in base64
	return map[string]json.RawMessage{inlineCache: field}, err
}

// exportCaches puts out what the steps came to.
func (s *Service) exportCaches(ctx context.Context, solved *Solved, client Client, t Teller) error {
	for _, e := range solved.caches {
		if e.Type == "inline" {
			continue
		}
		end := t.Begin("exporting cache to " + e.Type)
		err := s.exportCache(ctx, solved, e, client)
		if end(err); err != nil && !e.ignore {
			return fmt.Errorf("export the cache to %s: %w", e, err)
		}
	}
	return nil
}

// cacheImage is an exported cache: a manifest whose config is the cache's index.
type cacheImage struct {
	target, config ocispec.Descriptor
	manifest       []byte
	layers         []ocispec.Descriptor
}

// blobs are the cache's content but for the manifest, each once.
func (c *cacheImage) blobs() (all []ocispec.Descriptor) {
	seen := map[digest.Digest]bool{}
	for _, d := range append(c.layers[:len(c.layers):len(c.layers)], c.config) {
		if !seen[d.Digest] {
			seen[d.Digest] = true
			all = append(all, d)
		}
	}
	return all
}

func (s *Service) exportCache(ctx context.Context, solved *Solved, e exchange, client Client) error {
	draft := solved.Results[0].Draft()
	c, err := s.cacheImage(ctx, draft, solved, e)
	if err != nil {
		return err
	}
	if e.Type == "local" {
		w, err := client.Output(ctx, e.Name)
		if err != nil {
			return err
		}
		err = c.write(w, draft, e.tag())
		fault.Close(w, &err)
		return err
	}
	ref, err := e.ref()
	if err != nil {
		return err
	}
	auth, err := client.Credentials(ctx, ref)
	if err != nil {
		return err
	}
	repository := s.Images.Registry.Repository(ref, images.Credentials(auth))
	for _, d := range c.blobs() {
		has, err := repository.Has(ctx, d)
		if err == nil && !has {
			err = repository.Put(ctx, d, func() (io.ReadCloser, error) { return draft.Open(d) })
		}
		if err != nil {
			return err
		}
	}
	tag := ""
	if tagged, ok := ref.(reference.Tagged); ok {
		tag = tagged.Tag()
	}
	return repository.PutManifest(ctx, c.target, c.manifest, tag)
}

// cacheImage writes the cache down, its layers in the wanted compression.
func (s *Service) cacheImage(ctx context.Context, draft *image.Draft, solved *Solved, e exchange) (c cacheImage, err error) {
	var all []build.Outcome
	var plain []image.Layer
	at := map[digest.Digest]int{} // by diff ID
	for _, r := range solved.Results {
		for _, o := range r.Outcomes(e.all) {
			all = append(all, o)
			for _, l := range o.Layers {
				if _, ok := at[l.DiffID]; !ok {
					at[l.DiffID] = len(plain)
					plain = append(plain, l)
				}
			}
		}
	}
	packed, err := s.writer.Compress(ctx, draft, plain, e.form)
	if err != nil {
		return c, err
	}
	for k, o := range all {
		all[k].Layers = nil
		for _, l := range o.Layers {
			all[k].Layers = append(all[k].Layers, packed[at[l.DiffID]])
		}
	}
	config, layers, err := build.EncodeCache(all)
	if err != nil {
		return c, err
	}
	for _, l := range layers {
		c.layers = append(c.layers, l.Desc)
	}
	if c.config, err = draft.Document(build.CacheConfigType, json.RawMessage(config)); err != nil {
		return c, err
	}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: c.config, Layers: append([]ocispec.Descriptor{}, c.layers...)}
	if c.manifest, err = json.Marshal(m); err != nil {
		return c, err
	}
	c.target, err = draft.Document(m.MediaType, json.RawMessage(c.manifest))
	return c, err
}

// write writes the cache as an OCI image layout in a tar.
func (c *cacheImage) write(to io.Writer, draft *image.Draft, tag string) (err error) {
	w := tar.NewWriter(to)
	target := c.target
	target.Annotations = map[string]string{ocispec.AnnotationRefName: tag}
	for name, v := range map[string]any{
		ocispec.ImageLayoutFile: ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion},
		ocispec.ImageIndexFile:  ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{target}},
	} {
		data, err := json.Marshal(v)
		if err != nil {
			return err
		}
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data))}); err != nil {
			return err
		}
		if _, err := w.Write(data); err != nil {
			return err
		}
	}
	for _, d := range append(c.blobs(), c.target) {
		if err := writeBlob(w, draft, d); err != nil {
			return err
		}
	}
	return w.Close()
}

func writeBlob(w *tar.Writer, draft *image.Draft, d ocispec.Descriptor) (err error) {
	r, err := draft.Open(d)
	if err != nil {
		return err
	}
	defer fault.Close(r, &err)
	if err := w.WriteHeader(&tar.Header{Name: "blobs/sha256/" + d.Digest.Encoded(), Mode: 0o644, Size: d.Size}); err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return err
}
