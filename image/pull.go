package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

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
	var sources []reference.Canonical
	for _, n := range names {
		canonical, err := withDigest(n, root.Digest)
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, err)
		}
		sources = append(sources, canonical)
		if _, digested := n.(reference.Digested); digested { // a tag beside a digest says nothing
			n = canonical
		}
		list = append(list, n)
	}
	c := s.newCopy(src, p)
	defer c.end()
	if platform != nil {
		c.want, c.exact = normalPlatform(*platform), true
	}
	target, found, err := c.pull(ctx, root, sources)
	if err == nil {
		err = c.keep([]named{{target: target, names: list, sources: sources}})
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

// pull is graph for what a registry has: it may be a manifest that has to be converted.
func (c *graphCopy) pull(ctx context.Context, root ocispec.Descriptor, sources []reference.Canonical) (target ocispec.Descriptor, manifest digest.Digest, err error) {
	if !isSchema1(root.MediaType) {
		return c.graph(ctx, root)
	}
	if img := c.converted(sources); img != nil {
		return img.Target, img.Manifest.Digest, nil
	}
	target, err = c.convert(ctx, root)
	return target, target.Digest, err
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

	// Of Load.
	platforms []ocispec.Platform // none: whatever there is
	early     map[digest.Digest]*early
}

func (s *Store) newCopy(src Source, p Progress) *graphCopy {
	return &graphCopy{s: s, src: inline{src}, lease: s.lease(), report: &reporter{to: p}, want: Host()}
}

// inline is a Source that first looks for content in the descriptor itself (OCI image specification, "Embedded Content").
type inline struct{ Source }

// Fetch opens what desc carries or names.
func (s inline) Fetch(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	if len(desc.Data) > 0 && int64(len(desc.Data)) == desc.Size && offset <= desc.Size {
		return io.NopCloser(bytes.NewReader(desc.Data[offset:])), nil
	}
	return s.Source.Fetch(ctx, desc, offset)
}

func (c *graphCopy) end() {
	c.lease.release()
	c.report.close()
}

// graph brings what is wanted of the image at root: one platform and what describes it, or an artifact. It returns root as
// it turned out to be and the digest of the manifest that was chosen.
func (c *graphCopy) graph(ctx context.Context, root ocispec.Descriptor) (target ocispec.Descriptor, manifest digest.Digest, err error) {
	if err := checkDescriptor(root); err != nil {
		return target, "", err
	}
	target, doc, err := c.document(ctx, root)
	if err != nil {
		return target, "", err
	}
	at := leaf{desc: target, doc: doc}
	if doc.Manifests != nil {
		if at, err = c.descend(ctx, doc.Manifests, 1); err != nil {
			return target, "", err
		}
	}
	group, all := errgroup.WithContext(ctx)
	for _, desc := range at.beside {
		group.Go(func() error { return c.describes(all, desc) })
	}
	group.Go(func() error { return c.manifest(all, at) })
	return target, at.desc.Digest, group.Wait()
}

// leaf is a manifest, and what its index has to say about it in other manifests, such as attestations.
type leaf struct {
	desc   ocispec.Descriptor
	doc    *document
	beside []ocispec.Descriptor
}

// describedBy is the annotation of a manifest beside the one whose digest is its value.
const describedBy = "vnd.docker.reference.digest"

// descend finds the manifest for the wanted platform below an index.
func (c *graphCopy) descend(ctx context.Context, list []ocispec.Descriptor, depth int) (leaf, error) {
	if depth > maxDepth {
		return leaf{}, fault.New(fault.Unsupported, "more than %d levels of indexes", maxDepth)
	}
	for _, desc := range c.candidates(list) {
		desc, doc, err := c.document(ctx, desc)
		if err != nil {
			return leaf{}, err
		}
		if doc.Manifests != nil {
			at, err := c.descend(ctx, doc.Manifests, depth+1)
			if errors.Is(err, fault.NotFound) {
				continue // a further index may have it
			}
			return at, err
		}
		at := leaf{desc: desc, doc: doc}
		artifact := doc.artifact() != ""
		for _, other := range list {
			if !c.loading && other.Digest != desc.Digest && (artifact || other.Annotations[describedBy] == desc.Digest.String()) {
				at.beside = append(at.beside, other)
			}
		}
		return at, nil
	}
	return leaf{}, fault.New(fault.NotFound, "no matching manifest for %s in the manifest list entries", FormatPlatform(c.want))
}

// candidates are the manifests of an index that may serve the wanted platform, the best first.
func (c *graphCopy) candidates(list []ocispec.Descriptor) []ocispec.Descriptor {
	ranks := map[digest.Digest]int{}
	var found []ocispec.Descriptor
	for _, d := range list {
		if c.loading && !c.s.blobs.Has(d.Digest) || !isDocument(d.MediaType) {
			continue
		}
		var have ocispec.Platform
		if d.Platform != nil {
			have = *d.Platform
		}
		r := rank(c.want, have, c.exact)
		if r < 0 && c.loading && !c.exact && have.OS != "unknown" {
			r = 1000 // better than none
		}
		if _, known := ranks[d.Digest]; r >= 0 && !known {
			ranks[d.Digest] = r
			found = append(found, d)
		}
	}
	slices.SortStableFunc(found, func(a, b ocispec.Descriptor) int { return ranks[a.Digest] - ranks[b.Digest] })
	return found
}

// wants tells whether content for a platform is to be unpacked.
func (c *graphCopy) wants(have ocispec.Platform) bool {
	if len(c.platforms) == 0 {
		return rank(c.want, have, c.exact) >= 0
	}
	return slices.ContainsFunc(c.platforms, func(p ocispec.Platform) bool { return rank(p, have, true) >= 0 })
}

// manifest brings what a manifest names: a config and layers, which are unpacked, or an artifact's blobs.
func (c *graphCopy) manifest(ctx context.Context, at leaf) error {
	if at.doc.artifact() != "" {
		return c.bring(ctx, c.artifactJobs(at.doc))
	}
	config, err := c.config(ctx, at.doc)
	if err != nil {
		return err
	}
	if c.exact && rank(c.want, config.Platform, true) < 0 && at.desc.Platform == nil {
		return fault.New(fault.NotFound, "image %s is for %s and does not provide the specified platform (%s)",
			at.desc.Digest, FormatPlatform(config.Platform), FormatPlatform(c.want))
	}
	return c.bring(ctx, c.layerJobs(at.doc, config.RootFS.DiffIDs))
}

// describes brings a manifest that lies beside an image's in the index, and its blobs; one that is not there was not meant for everybody.
func (c *graphCopy) describes(ctx context.Context, desc ocispec.Descriptor) error {
	if !isDocument(desc.MediaType) || isIndex(desc.MediaType) {
		return nil
	}
	_, doc, err := c.document(ctx, desc)
	if err == nil && doc.Manifests == nil {
		err = c.bring(ctx, c.artifactJobs(doc))
	}
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	return err
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
		if err == nil && desc.Size > 0 {
			err = sameSize(desc, len(data))
		}
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

// sameSize compares a document that is here with what is said of it.
func sameSize(desc ocispec.Descriptor, size int) error {
	if int64(size) != desc.Size {
		return fault.New(fault.Corrupt, "%s is announced with %d bytes and has %d", desc.Digest, desc.Size, size)
	}
	return nil
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

// layerJobs lists the work for all layers of an image.
func (c *graphCopy) layerJobs(m *document, diffIDs []digest.Digest) []*job {
	list := make([]*job, len(m.Layers))
	for i, chain := range chains(diffIDs) {
		list[i] = &job{desc: m.Layers[i], diffID: diffIDs[i], chain: chain}
		if i > 0 {
			list[i].below = list[i-1]
		}
	}
	return list
}

// artifactJobs lists the work for all that an artifact consists of: nobody unpacks it.
func (c *graphCopy) artifactJobs(m *document) []*job {
	var list []*job
	for _, desc := range m.children() {
		list = append(list, &job{desc: desc, kept: true})
	}
	return list
}

// bring does all jobs of an image at the same time. The first failure stops the others.
func (c *graphCopy) bring(ctx context.Context, list []*job) error {
	budget := c.s.Limits.budget()
	first := map[digest.Digest]*job{}
	for _, j := range list {
		j.done, j.loading, j.early, j.budget = make(chan struct{}), c.loading, c.early[j.desc.Digest], budget
		if j.same = first[j.desc.Digest]; j.same == nil {
			first[j.desc.Digest] = j
		}
	}
	if err := c.s.Limits.afford(budget, list, c.s.layerSizes); err != nil {
		return err
	}
	for _, j := range list {
		c.lease.hold(j.desc.Digest)
		if !j.kept {
			c.lease.hold(j.chain)
		}
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
	if c.s.blobs.Has(j.desc.Digest) && (j.kept || c.s.layers.Has(j.chain)) {
		if !c.loading {
			c.report.tell(j.event(StatusExists))
		}
		return nil
	}
	if !c.loading {
		c.report.tell(j.event(StatusPulling))
	}
	if j.early != nil { // most of it is done, and nobody else's source is waited for
		return c.s.place(ctx, c.src, j, c.report.tell)
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
	// sources are where it comes from: registries' digest references.
	sources []reference.Canonical
	kept    bool // it keeps the names that it has, and is not made anew if it was removed meanwhile
}

// keep makes the copied images visible, all at once, after their content is safe on disk.
func (c *graphCopy) keep(list []named) error {
	var both errgroup.Group // on one file system they wait for the same writes
	both.Go(c.s.blobs.Sync)
	both.Go(c.s.layers.Sync)
	if err := both.Wait(); err != nil {
		return err
	}
	var touched []digest.Digest
	for _, n := range list {
		touched = append(touched, n.target.Digest)
	}
	return c.s.change(touched, func(all *names) error {
		for _, n := range list {
			if !n.kept {
				all.assign(n.target, n.names, n.sources)
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
