package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/archive/compress"
	"berth/fault"
)

// Bounds on foreign archives.
const (
	maxMembers = 100_000
	maxImages  = 10_000
	maxLinks   = 8 // symlinks in a row
)

// Loaded is one image that Load brought; Name is nil when the archive had none for it.
type Loaded struct {
	Name reference.Named
	ID   digest.Digest
}

// Load reads a docker-archive or an OCI layout as a tar of any compression, in one pass: layers are unpacked while they
// are read. A docker-archive without manifests gets canonical ones, the same for the same content. On failure no
// name has changed. platforms selects some of what the archive has; none means all of it, of which one is unpacked.
// fault.Invalid, fault.Corrupt: not such an archive, or a broken one; fault.NotFound: it lacks a platform.
func (s *Store) Load(ctx context.Context, r io.Reader, platforms []ocispec.Platform, p Progress) ([]Loaded, error) {
	c := s.newCopy(nowhere("the archive"), p)
	c.loading = true
	for _, p := range platforms {
		c.platforms = append(c.platforms, normalPlatform(p))
	}
	list, err := c.load(ctx, r)
	c.end()
	// Nobody comes back for the rest of a broken archive, nor for what a good one has beside its images.
	if _, sweepErr := s.Sweep(context.WithoutCancel(ctx)); err != nil || sweepErr != nil {
		return nil, errors.Join(err, sweepErr)
	}
	return list, nil
}

func (c *graphCopy) load(ctx context.Context, r io.Reader) ([]Loaded, error) {
	sp := &spool{c: c, files: map[string]digest.Digest{}, links: map[string]string{}, others: map[digest.Digest]bool{}}
	c.early = map[digest.Digest]*early{}
	defer func() {
		for _, e := range c.early {
			e.drop()
		}
	}()
	if err := sp.read(ctx, r); err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	roots, err := sp.roots()
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	var keep []named
	var list []Loaded
	var skipped error
	for _, root := range roots {
		target, err := c.loaded(ctx, root)
		if errors.Is(err, fault.Unsupported) {
			skipped = errors.Join(skipped, err) // something else among images
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("load: %w", err)
		}
		keep = append(keep, named{target: target, names: root.names})
		for _, n := range root.names {
			list = append(list, Loaded{n, target.Digest})
		}
		if len(root.names) == 0 {
			list = append(list, Loaded{nil, target.Digest})
		}
	}
	if len(keep) == 0 {
		return nil, errors.Join(fault.New(fault.Invalid, "load: the archive has no image"), skipped)
	}
	if len(c.platforms) > 0 {
		if err := c.leaveOut(ctx, keep); err != nil {
			return nil, fmt.Errorf("load: %w", err)
		}
	}
	return list, c.keep(keep)
}

// loaded unpacks what is wanted of one image of the archive.
func (c *graphCopy) loaded(ctx context.Context, root named) (target ocispec.Descriptor, err error) {
	if len(c.platforms) == 0 {
		target, _, err = c.graph(ctx, root.target)
		return target, err
	}
	for _, p := range c.platforms {
		c.want, c.exact = p, true
		target, _, err = c.graph(ctx, root.target)
		if errors.Is(err, fault.NotFound) {
			ref := root.target.Digest.String()
			if len(root.names) > 0 {
				ref = reference.FamiliarString(root.names[0])
			}
			err = fault.New(fault.NotFound, "image %s was read, but doesn't provide the requested platform (%s)", ref, FormatPlatform(p))
		}
		if err != nil {
			return target, err
		}
	}
	return target, nil
}

// leaveOut takes the content of platforms that are not wanted out of the store, if nobody else needs it, before the images are named.
func (c *graphCopy) leaveOut(ctx context.Context, list []named) error {
	for _, n := range list {
		g, err := c.s.walk(n.target)
		if err != nil {
			return err
		}
		wanted := map[digest.Digest]bool{}
		var others []*graph
		for _, v := range g.variants {
			part, err := c.s.walk(v.manifest)
			if err != nil {
				return err
			}
			if v.artifact == "" && !c.wants(v.platform) {
				others = append(others, part)
				continue
			}
			for d := range part.blobs {
				wanted[d] = true
			}
		}
		for _, part := range others {
			for d := range part.blobs {
				if !wanted[d] {
					c.lease.drop(d)
				}
			}
		}
	}
	_, err := c.s.Sweep(ctx)
	return err
}

// nowhere is a Source that has nothing: all there is was put into the store before. It says who lacks the rest.
type nowhere string

// Fetch is asked for what should have been there.
func (n nowhere) Fetch(_ context.Context, desc ocispec.Descriptor, _ int64) (io.ReadCloser, error) {
	return nil, fault.New(fault.Corrupt, "%s lacks %s", string(n), desc.Digest)
}

// spool takes an archive apart: every file goes into the blob store, whatever the order.
type spool struct {
	c      *graphCopy
	files  map[string]digest.Digest // by clean path
	links  map[string]string        // clean path → clean path
	others map[digest.Digest]bool   // manifests and layers of platforms that are not unpacked
}

func (sp *spool) read(ctx context.Context, r io.Reader) (err error) {
	plain, _, err := compress.Open(r)
	if err != nil {
		return err
	}
	defer fault.Close(plain, &err)
	t := tar.NewReader(plain)
	for n := 0; ; n++ {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return damaged(err)
		}
		if n == maxMembers {
			return fault.New(fault.Invalid, "the archive has more than %d members", maxMembers)
		}
		if err := sp.member(ctx, h, t); err != nil {
			return fmt.Errorf("archive member %q: %w", h.Name, err)
		}
	}
}

// damaged gives errors of the tar format a kind, and leaves those of the stream below it alone.
func damaged(err error) error {
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, tar.ErrFieldTooLong) {
		return fault.New(fault.Corrupt, "the archive is damaged or cut off: %w", err)
	}
	return err
}

func (sp *spool) member(ctx context.Context, h *tar.Header, r io.Reader) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	name := clean(h.Name)
	switch h.Typeflag {
	case tar.TypeReg:
		d, err := sp.file(ctx, name, h.Size, r)
		if err != nil {
			return err
		}
		sp.files[name] = d
		delete(sp.links, name)
	case tar.TypeSymlink:
		sp.links[name] = clean(path.Join(path.Dir(name), h.Linkname))
		delete(sp.files, name)
	case tar.TypeLink:
		sp.links[name] = clean(h.Linkname)
		delete(sp.files, name)
	case tar.TypeGNUSparse:
		return fault.New(fault.Invalid, "sparse files have no place in an image archive")
	}
	return nil
}

// clean brings a member's name to the one form that is compared. Names only ever are keys of a map here.
func clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

// file stores one member, and unpacks it meanwhile if it looks like a layer. If its name is a digest, its content must have it.
func (sp *spool) file(ctx context.Context, name string, size int64, r io.Reader) (digest.Digest, error) {
	var want digest.Digest
	if hex, ok := strings.CutPrefix(name, "blobs/sha256/"); ok {
		want = digest.NewDigestFromEncoded(digest.SHA256, hex)
		if err := want.Validate(); err != nil {
			return "", fault.Wrap(fault.Invalid, err)
		}
		sp.c.lease.hold(want)
		if have, err := sp.c.s.blobs.Size(want); err == nil && have == size {
			return want, nil
		}
	}
	w, err := sp.c.s.blobs.Create()
	if err != nil {
		return "", err
	}
	defer w.Close()
	in := bufio.NewReaderSize(r, 512)
	head, err := in.Peek(263)
	if err != nil && err != io.EOF {
		return "", damaged(err)
	}
	var e *early
	var from *follower
	if layerLike(head) && !sp.others[want] {
		e, from = sp.startEarly(ctx, w, sp.meter(name, size))
	}
	err = copyChunks(ctx, in, w, -1, from.advance)
	from.finish(errOrEOF(err))
	d := w.Digest()
	if e != nil {
		if before := sp.c.early[d]; before != nil {
			defer before.drop()
		}
		sp.c.early[d] = e
	}
	if err != nil {
		return "", damaged(err)
	}
	sp.c.lease.hold(d)
	if _, err := w.Commit(want, size); err != nil {
		return "", err
	}
	if want != "" && len(head) > 0 && head[0] == '{' && size <= maxDocument {
		data, err := sp.c.s.readBlob(d, maxDocument)
		if err != nil {
			return "", err
		}
		sp.learn(d, data)
	}
	return d, nil
}

// meter tells of a member that is unpacked, if its name says what it is called elsewhere.
func (sp *spool) meter(name string, size int64) *meter {
	m := &meter{event: Event{Status: StatusLoading, Total: size}, to: func(Event) {}}
	for part := range strings.SplitSeq(name, "/") {
		hex, _, _ := strings.Cut(part, ".")
		if d := digest.NewDigestFromEncoded(digest.SHA256, hex); d.Validate() == nil {
			m.event.ID, m.to = shortID(d), sp.c.report.tell
		}
	}
	return m
}

// find returns the blob of a path, links followed.
func (sp *spool) find(name string) (digest.Digest, error) {
	at := clean(name)
	for range maxLinks {
		if d, ok := sp.files[at]; ok {
			return d, nil
		}
		to, ok := sp.links[at]
		if !ok {
			break
		}
		at = to
	}
	return "", fault.New(fault.Corrupt, "the archive lacks %q", name)
}

// roots reads the archive's table of contents.
func (sp *spool) roots() ([]named, error) {
	_, layoutErr := sp.find(ocispec.ImageLayoutFile)
	index, indexErr := sp.find(ocispec.ImageIndexFile)
	table, tableErr := sp.find("manifest.json")
	switch {
	case indexErr == nil && (layoutErr == nil || tableErr != nil): // some tools forget the file that says it is a layout
		data, err := sp.c.s.readBlob(index, maxDocument)
		if err != nil {
			return nil, err
		}
		return parseLayout(data)
	case tableErr == nil:
		data, err := sp.c.s.readBlob(table, maxDocument)
		if err != nil {
			return nil, err
		}
		return sp.dockerArchive(data)
	}
	if _, err := sp.find("repositories"); err == nil {
		return nil, fault.New(fault.Unsupported, "the archive was saved by a Docker before 1.10 and has no manifest.json: save it again with a newer one")
	}
	return nil, fault.New(fault.Invalid, "unrecognized image format: the archive has neither manifest.json nor an OCI layout; a root file system is read by import")
}

// parseLayout reads an OCI layout's index.json. The same image under several names is one entry with those names.
func parseLayout(data []byte) ([]named, error) {
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, fault.New(fault.Corrupt, "parse index.json: %w", err)
	}
	if len(index.Manifests) > maxImages {
		return nil, fault.New(fault.Unsupported, "index.json names %d images, more than %d are not supported", len(index.Manifests), maxImages)
	}
	var list []named
	at := map[digest.Digest]int{}
	for _, desc := range index.Manifests {
		if err := checkDescriptor(desc); err != nil {
			return nil, fmt.Errorf("index.json: %w", err)
		}
		i, ok := at[desc.Digest]
		if !ok {
			i = len(list)
			at[desc.Digest] = i
			list = append(list, named{target: desc})
		}
		name, err := layoutName(desc.Annotations)
		if err != nil {
			return nil, err
		}
		if name != nil {
			list[i].names = append(list[i].names, name)
		}
	}
	return list, nil
}

// layoutName returns the name that an entry of index.json has: containerd's annotation, or OCI's if it is
// more than a tag, of which nobody says what it belongs to.
func layoutName(annotations map[string]string) (reference.Named, error) {
	name := annotations[annotationName]
	if ref := annotations[ocispec.AnnotationRefName]; name == "" && strings.ContainsAny(ref, ":/") {
		name = ref
	}
	if name == "" {
		return nil, nil
	}
	named, err := ParseName(name)
	if err != nil {
		return nil, fmt.Errorf("index.json: image name %q: %w", name, err)
	}
	if _, digested := named.(reference.Digested); digested {
		return nil, nil // says no more than the descriptor
	}
	return named, nil
}

// dockerArchive reads manifest.json and makes the manifests that such an archive lacks.
func (sp *spool) dockerArchive(data []byte) ([]named, error) {
	table, err := parseArchiveTable(data)
	if err != nil {
		return nil, err
	}
	var list []named
	for _, a := range table {
		manifest, err := sp.canonical(a)
		if err != nil {
			return nil, err
		}
		n := named{target: ocispec.Descriptor{MediaType: dockerManifest, Size: int64(len(manifest))}}
		if n.target.Digest, err = sp.c.put(manifest); err != nil {
			return nil, err
		}
		for _, tag := range a.RepoTags {
			name, err := ParseName(tag)
			if err != nil {
				return nil, fmt.Errorf("manifest.json: image name %q: %w", tag, err)
			}
			n.names = append(n.names, name)
		}
		list = append(list, n)
	}
	return list, nil
}

func parseArchiveTable(data []byte) ([]archived, error) {
	var table []archived
	if err := json.Unmarshal(data, &table); err != nil {
		return nil, fault.New(fault.Corrupt, "parse manifest.json: %w", err)
	}
	if len(table) > maxImages {
		return nil, fault.New(fault.Unsupported, "manifest.json names %d images, more than %d are not supported", len(table), maxImages)
	}
	for _, a := range table {
		if len(a.Layers) > maxLayers {
			return nil, fault.New(fault.Unsupported, "manifest.json: an image has %d layers, more than %d are not supported", len(a.Layers), maxLayers)
		}
	}
	return table, nil
}

// canonical makes the manifest for an image of a docker-archive: schema 2, as containerd makes it, so that the image's
// ID is the same there.
func (sp *spool) canonical(a archived) ([]byte, error) {
	config, err := sp.descriptor(a.Config, dockerConfig)
	if err != nil {
		return nil, err
	}
	layers := make([]ocispec.Descriptor, 0, len(a.Layers))
	for _, path := range a.Layers {
		desc, err := sp.descriptor(path, dockerLayer)
		if err != nil {
			return nil, err
		}
		if desc.MediaType, err = sp.layerType(desc.Digest); err != nil {
			return nil, err
		}
		layers = append(layers, desc)
	}
	return json.Marshal(struct {
		SchemaVersion int                  `json:"schemaVersion"`
		MediaType     string               `json:"mediaType"`
		Config        ocispec.Descriptor   `json:"config"`
		Layers        []ocispec.Descriptor `json:"layers"`
	}{2, dockerManifest, config, layers})
}

func (sp *spool) descriptor(name, mediaType string) (ocispec.Descriptor, error) {
	d, err := sp.find(name)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	size, err := sp.c.s.blobs.Size(d)
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: size}, err
}

// layerType tells a layer's media type by its first bytes. bzip2 and xz have none; the unpacker knows them all the same.
func (sp *spool) layerType(d digest.Digest) (_ string, err error) {
	f, err := sp.c.s.blobs.Open(d)
	if err != nil {
		return "", err
	}
	defer fault.Close(f, &err)
	var head [4]byte
	if _, err := io.ReadFull(f, head[:]); err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return "", err
	}
	switch {
	case bytes.HasPrefix(head[:], []byte{0x1f, 0x8b}):
		return dockerLayerGz, nil
	case bytes.Equal(head[:], []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return dockerLayerZstd, nil
	}
	return dockerLayer, nil
}

// put stores data and claims it first.
func (c *graphCopy) put(data []byte) (digest.Digest, error) {
	d := digest.FromBytes(data)
	c.lease.hold(d)
	if c.s.blobs.Has(d) {
		return d, nil
	}
	return c.s.putBlob(data, d, int64(len(data)))
}
