package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/distribution/reference"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"berth/archive"
	"berth/fault"
)

// Pull copies the graph below root from src: the manifest of the given platform (nil: this
// machine's), its config and its layers, which are unpacked while they download. Layers already here are
// not fetched. Then the image gets the names, and for each also the digest reference of its
// repository. A failure leaves names as they were; what arrived serves the next try, unless
// this machine is at fault, such as by a full disk: then it is freed.
//
// fault.NotFound: no content for the platform; fault.Corrupt: content that does not fit its digest.
func (s *Store) Pull(ctx context.Context, src Source, root ocispec.Descriptor, names []reference.Named, platform *ocispec.Platform, p Progress) (*Image, error) {
	var list []reference.Named
	for _, n := range names {
		canonical, err := withDigest(n, root.Digest)
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, err)
		}
		list = append(list, canonical)
		if _, digested := n.(reference.Digested); !digested { // a tag beside a digest says nothing
			list = append(list, n)
		}
	}
	c := s.newCopy(src, p)
	defer c.end()
	if platform != nil {
		c.want, c.exact = normalPlatform(*platform), true
	}
	target, found, err := c.graph(ctx, root)
	if err == nil {
		err = c.keep([]named{{target: target, names: list}})
	}
	if err != nil && !resumable(err) {
		c.end()
		_, sweepErr := s.Sweep(context.WithoutCancel(ctx))
		err = errors.Join(err, sweepErr)
	}
	if err != nil {
		return nil, err
	}
	return s.pulled(target.Digest, found)
}

// pulled returns the image as the platform whose manifest was copied.
func (s *Store) pulled(id, manifest digest.Digest) (*Image, error) {
	st := s.now.Load()
	img := st.byID[id]
	if img == nil {
		return nil, notFound(string(id)) // removed meanwhile
	}
	if img.Manifest.Digest == manifest {
		return img, nil
	}
	for _, v := range st.graphs[id].variants {
		if v.manifest.Digest == manifest && v.whole {
			return s.GetPlatform(string(id), v.platform)
		}
	}
	return img, nil
}

// graphCopy is one copy of images from a place of content into the store.
type graphCopy struct {
	s       *Store
	src     Source
	lease   *lease
	report  *reporter
	want    ocispec.Platform
	exact   bool            // nothing but want will do
	budget  *archive.Budget // of Import
	loading bool            // src is the blob store itself, filled from an archive: what it lacks is not wanted
}

func (s *Store) newCopy(src Source, p Progress) *graphCopy {
	return &graphCopy{s: s, src: src, lease: s.lease(), report: &reporter{to: p}, want: Host()}
}

func (c *graphCopy) end() {
	c.lease.release()
	c.report.close()
}

// graph brings one platform of the image at root, and returns root as it turned out to be and the manifest's digest.
func (c *graphCopy) graph(ctx context.Context, root ocispec.Descriptor) (target ocispec.Descriptor, manifest digest.Digest, err error) {
	if err := checkDescriptor(root); err != nil {
		return target, "", err
	}
	target, doc, err := c.document(ctx, root)
	if err != nil {
		return target, "", err
	}
	leaf := target
	for level := 0; doc.Manifests != nil; level++ {
		if level > maxDepth {
			return target, "", fault.New(fault.Unsupported, "index %s: more than %d levels of indexes", root.Digest, maxDepth)
		}
		if leaf, err = c.choose(doc.Manifests); err != nil {
			return target, "", err
		}
		if leaf, doc, err = c.document(ctx, leaf); err != nil {
			return target, "", err
		}
	}
	config, err := c.config(ctx, doc)
	if err != nil {
		return target, "", err
	}
	if target.Digest == leaf.Digest && c.exact && rank(c.want, config.Platform, true) < 0 {
		return target, "", fault.New(fault.NotFound, "image %s is for %s and does not provide the specified platform (%s)",
			root.Digest, FormatPlatform(config.Platform), FormatPlatform(c.want))
	}
	return target, leaf.Digest, c.layers(ctx, doc, config.RootFS.DiffIDs)
}

// choose takes the best manifest of an index for the wanted platform.
func (c *graphCopy) choose(list []ocispec.Descriptor) (ocispec.Descriptor, error) {
	best, at := -1, -1
	for i, d := range list {
		if c.loading && !c.s.blobs.Has(d.Digest) {
			continue
		}
		var have ocispec.Platform
		if d.Platform != nil {
			have = *d.Platform
		}
		r := rank(c.want, have, c.exact)
		if r < 0 && c.loading && have.OS != "unknown" {
			r = 1000 // better than none
		}
		if r >= 0 && (at < 0 || r < at) {
			best, at = i, r
		}
	}
	if best < 0 {
		return ocispec.Descriptor{}, fault.New(fault.NotFound, "no matching manifest for %s in the manifest list entries", FormatPlatform(c.want))
	}
	return list[best], nil
}

// document brings and reads a manifest or index; the descriptor returned has the true type and size.
func (c *graphCopy) document(ctx context.Context, desc ocispec.Descriptor) (ocispec.Descriptor, *document, error) {
	data, err := c.small(ctx, desc, maxDocument)
	if err != nil {
		return desc, nil, fmt.Errorf("fetch manifest %s: %w", desc.Digest, err)
	}
	doc, err := parseDocument(desc, data)
	if err != nil {
		return desc, nil, err
	}
	desc.MediaType, desc.Size = doc.MediaType, int64(len(data))
	return desc, doc, nil
}

func (c *graphCopy) config(ctx context.Context, doc *document) (config dockerspec.DockerOCIImage, err error) {
	data, err := c.small(ctx, *doc.Config, maxConfig)
	if err != nil {
		return config, fmt.Errorf("fetch image config %s: %w", doc.Config.Digest, err)
	}
	return parseConfig(doc, data)
}

// small brings a blob that is read as a whole, from the store if it is there. A size of 0 in desc is unknown.
func (c *graphCopy) small(ctx context.Context, desc ocispec.Descriptor, limit int64) (data []byte, err error) {
	c.lease.hold(desc.Digest)
	if data, err = c.s.readBlob(desc.Digest, limit); !errors.Is(err, fault.NotFound) {
		return data, err
	}
	if desc.Size > limit {
		return nil, fault.New(fault.Unsupported, "%d bytes announced, more than %d are not supported", desc.Size, limit)
	}
	r, err := c.src.Fetch(ctx, desc, 0)
	if err != nil {
		return nil, remote{err}
	}
	defer r.Close()
	if data, err = io.ReadAll(io.LimitReader(r, limit+1)); err != nil {
		return nil, remote{err}
	}
	size := desc.Size
	if size == 0 {
		size = -1
	}
	_, err = c.s.putBlob(data, desc.Digest, size)
	return data, err
}

// putBlob stores data; want "" and size -1 accept any.
func (s *Store) putBlob(data []byte, want digest.Digest, size int64) (digest.Digest, error) {
	w, err := s.blobs.Create()
	if err != nil {
		return "", err
	}
	defer w.Close()
	if _, err := io.Copy(w, bytes.NewReader(data)); err != nil {
		return "", err
	}
	return w.Commit(want, size)
}

// layers brings all layers of a manifest at the same time. The first failure stops the others.
func (c *graphCopy) layers(ctx context.Context, doc *document, diffIDs []digest.Digest) error {
	list := jobs(doc, diffIDs, c.loading)
	budget := c.s.Limits.budget()
	if err := c.s.Limits.afford(budget, list, c.s.layerSizes); err != nil {
		return err
	}
	for _, j := range list {
		c.lease.hold(j.desc.Digest, j.chain)
		j.budget = budget
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, j := range list {
		group.Go(func() error {
			defer close(j.done)
			j.err = c.layer(ctx, j)
			return j.err
		})
	}
	return group.Wait()
}

// layer brings one layer, together with whoever else wants it.
func (c *graphCopy) layer(ctx context.Context, j *job) error {
	if err := j.same.wait(ctx); err != nil {
		return err
	}
	if c.s.blobs.Has(j.desc.Digest) && c.s.layers.Has(j.chain) {
		if !c.loading {
			c.report.tell(j.event(StatusExists))
		}
		return nil
	}
	if !c.loading {
		c.report.tell(j.event(StatusPulling))
	}
	key := string(j.chain) + " " + string(j.desc.Digest)
	for {
		shared, err := c.s.flights.do(ctx, key, c.report.tell, func(ctx context.Context, report func(Event)) error {
			return c.s.place(ctx, c.src, j, report)
		})
		// What failed another's source or was given up by him may work with ours.
		if err == nil || !shared || ctx.Err() != nil {
			return err
		}
	}
}

// named is an image and the names it shall get.
type named struct {
	target ocispec.Descriptor
	names  []reference.Named
	kept   bool // it keeps the names that it has, and is not made anew if it was removed meanwhile
}

// keep makes the copied images visible, all at once, after their content is safe on disk.
func (c *graphCopy) keep(list []named) error {
	if err := c.s.blobs.Sync(); err != nil {
		return err
	}
	if err := c.s.layers.Sync(); err != nil {
		return err
	}
	var touched []digest.Digest
	for _, n := range list {
		touched = append(touched, n.target.Digest)
	}
	return c.s.change(touched, func(all *names) error {
		for _, n := range list {
			if !n.kept {
				all.assign(n.target, n.names)
			}
		}
		return nil
	})
}

// Repair unpacks the layers again of recorded images that are not shown because their directories are gone, after a power
// cut or a change of the storage driver, while their blobs are here. It returns what stays broken.
func (s *Store) Repair(ctx context.Context) error {
	var left error
	for _, e := range s.now.Load().damaged {
		c := s.newCopy(nowhere("the blob store"), nil)
		c.loading = true
		target, _, err := c.graph(ctx, e.Target)
		if err == nil {
			err = c.keep([]named{{target: target, kept: true}})
		}
		c.end()
		if err != nil {
			left = errors.Join(left, fmt.Errorf("repair image %s: %w", e.Target.Digest, err))
		}
	}
	return left
}
