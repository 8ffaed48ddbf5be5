package image

import (
	"archive/tar"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/blob"
	"berth/fault"
)

// annotationName carries an image's full name in an OCI layout; containerd and Docker read and write it.
const annotationName = "io.containerd.image.name"

// archived is one image in the manifest.json of a docker-archive.
type archived struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// saving is one image on its way into an archive.
type saving struct {
	img  *Image
	g    *graph
	tags []reference.NamedTagged
}

// Save writes images as a tar that is both an OCI layout and a docker-archive. A name in refs goes
// into the archive with the image; an ID or a digest goes in without names. platforms selects some of what is here; none means all of it.
// Unknown names and platforms fail before the first byte.
func (s *Store) Save(ctx context.Context, w io.Writer, refs []string, platforms []ocispec.Platform) error {
	if len(platforms) > 0 {
		return fault.New(fault.Unsupported, "save: selecting platforms is not supported yet")
	}
	l := s.lease()
	defer l.release()
	list, err := s.selectForSave(l, refs)
	if err != nil {
		return err
	}
	index, manifests := describe(list)
	t := &tarball{ctx: ctx, w: tar.NewWriter(w)}
	t.dir("blobs/")
	t.dir("blobs/sha256/")
	t.document("index.json", index)
	t.document("manifest.json", manifests)
	t.document(ocispec.ImageLayoutFile, ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	for _, d := range blobsOf(list) {
		t.blob(s.blobs, d)
	}
	if t.err == nil {
		t.err = t.w.Close()
	}
	if t.err != nil {
		return fmt.Errorf("save: %w", t.err)
	}
	return nil
}

// selectForSave finds the images, each once, and claims their content.
func (s *Store) selectForSave(l *lease, refs []string) ([]*saving, error) {
	if len(refs) == 0 {
		return nil, fault.New(fault.Invalid, "save: no image is named")
	}
	st := s.now.Load()
	var list []*saving
	for _, ref := range refs {
		img, name, err := st.get(ref)
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(list, func(have *saving) bool { return have.img.ID == img.ID })
		if i < 0 {
			i = len(list)
			list = append(list, &saving{img: img, g: st.graphs[img.ID]})
		}
		tagged, ok := name.(reference.NamedTagged)
		if _, digested := name.(reference.Digested); ok && !digested && !slices.Contains(list[i].tags, tagged) {
			list[i].tags = append(list[i].tags, tagged)
		}
	}
	for _, have := range list {
		for d := range have.g.blobs {
			l.hold(d)
		}
	}
	return list, nil
}

// describe makes the two tables of contents.
func describe(list []*saving) (ocispec.Index, []archived) {
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
	var manifests []archived
	for _, have := range list {
		a := archived{Config: blobPath(have.img.ConfigID), Layers: []string{}}
		for _, layer := range have.img.Layers {
			a.Layers = append(a.Layers, blobPath(layer.Digest))
		}
		for _, tag := range have.tags {
			a.RepoTags = append(a.RepoTags, reference.FamiliarString(tag))
			desc := have.img.Target
			desc.Annotations = map[string]string{annotationName: tag.String(), ocispec.AnnotationRefName: tag.Tag()}
			index.Manifests = append(index.Manifests, desc)
		}
		if len(have.tags) == 0 {
			index.Manifests = append(index.Manifests, have.img.Target)
		}
		manifests = append(manifests, a)
	}
	return index, manifests
}

// blobsOf orders the blobs so that a reader who streams meets descriptions before layers.
func blobsOf(list []*saving) []digest.Digest {
	layers := map[digest.Digest]bool{}
	for _, have := range list {
		for _, v := range have.g.variants {
			for _, layer := range v.layers {
				layers[layer.Digest] = true
			}
		}
	}
	all := map[digest.Digest]bool{}
	for _, have := range list {
		for d := range have.g.blobs {
			all[d] = true
		}
	}
	var order []digest.Digest
	for d := range all {
		order = append(order, d)
	}
	slices.SortFunc(order, func(a, b digest.Digest) int {
		if layers[a] != layers[b] {
			if layers[b] {
				return -1
			}
			return 1
		}
		return slices.Compare([]byte(a), []byte(b))
	})
	return order
}

func blobPath(d digest.Digest) string { return "blobs/sha256/" + d.Encoded() }

func (t *tarball) blob(s *blob.Store, d digest.Digest) {
	if t.err != nil {
		return
	}
	f, err := s.Open(d)
	if err != nil {
		t.err = err
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.err = err
		return
	}
	t.file(blobPath(d), info.Size(), f)
}

// tarball writes members whose headers depend on nothing but their content; the first error stays.
type tarball struct {
	ctx context.Context
	w   *tar.Writer
	err error
}

func (t *tarball) header(h *tar.Header) {
	h.ModTime = time.Unix(0, 0)
	if t.err == nil {
		t.err = context.Cause(t.ctx)
	}
	if t.err == nil {
		t.err = t.w.WriteHeader(h)
	}
}

func (t *tarball) dir(name string) {
	t.header(&tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755})
}

func (t *tarball) file(name string, size int64, r io.Reader) {
	t.header(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o444, Size: size})
	if t.err != nil {
		return
	}
	for size > 0 && t.err == nil {
		c, err := fill(r)
		_, werr := t.w.Write(c.data[:c.n])
		size -= int64(c.n)
		chunks.Put(c.data)
		switch {
		case werr != nil:
			t.err = werr
		case err == io.EOF && size > 0:
			t.err = fault.New(fault.Corrupt, "%s is %d bytes short", name, size)
		case err != nil && err != io.EOF:
			t.err = err
		case t.ctx.Err() != nil:
			t.err = context.Cause(t.ctx)
		}
	}
}

func (t *tarball) document(name string, v any) {
	data, err := json.Marshal(v)
	if err != nil && t.err == nil {
		t.err = err
	}
	t.header(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o444, Size: int64(len(data))})
	if t.err == nil {
		_, t.err = t.w.Write(data)
	}
}
