package image

import (
	"archive/tar"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
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
	target ocispec.Descriptor
	g      *graph
	shown  *variant // of which manifest.json tells
	tags   []reference.NamedTagged
}

// Save writes images as a tar that is both an OCI layout and a docker-archive. A name in refs goes
// into the archive with the image, a repository's name with all its tags; an ID or a digest goes in without names. No platforms means all that
// is here. One gives its manifest in the index's place, several the index with no more than them.
// Unknown names and platforms fail before the first byte.
func (s *Store) Save(ctx context.Context, w io.Writer, refs []string, platforms []ocispec.Platform) error {
	l := s.lease()
	defer l.release()
	list, err := s.selectForSave(l, refs, platforms)
	if err != nil {
		return err
	}
	return s.pack(ctx, w, list, true)
}

// pack writes an archive of what is claimed; table is whether it has what makes a docker-archive of it.
func (s *Store) pack(ctx context.Context, w io.Writer, list []*saving, table bool) error {
	index, manifests := describe(list)
	t := &tarball{ctx: ctx, w: tar.NewWriter(w)}
	t.dir("blobs/")
	t.dir("blobs/sha256/")
	t.document("index.json", index)
	if table {
		t.document("manifest.json", manifests)
	}
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
func (s *Store) selectForSave(l *lease, refs []string, platforms []ocispec.Platform) ([]*saving, error) {
	if len(refs) == 0 {
		return nil, fault.New(fault.Invalid, "save: no image is named")
	}
	var found []wanted
	st, err := l.images(s, func(st *state) (list []*Image, err error) {
		found = nil
		for _, ref := range refs {
			more, err := st.refsForSave(ref)
			if err != nil {
				return nil, err
			}
			for _, f := range more {
				found, list = append(found, f), append(list, f.img)
			}
		}
		return list, nil
	})
	if err != nil {
		return nil, err
	}
	var list []*saving
	for _, f := range found {
		i := slices.IndexFunc(list, func(have *saving) bool { return have.target.Digest == f.img.ID })
		if i < 0 {
			i = len(list)
			list = append(list, &saving{target: f.img.Target, g: st.graphs[f.img.ID]})
			list[i].shown = list[i].g.best(Host(), true)
		}
		if f.tag != nil && !slices.Contains(list[i].tags, f.tag) {
			list[i].tags = append(list[i].tags, f.tag)
		}
	}
	for _, have := range list {
		if err := have.narrow(s, platforms); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// wanted is an image that goes into an archive, with a name that goes with it unless that is nil.
type wanted struct {
	img *Image
	tag reference.NamedTagged
}

func (st *state) refsForSave(ref string) ([]wanted, error) {
	img, name, err := st.get(ref)
	if named, parseErr := reference.ParseNormalizedNamed(ref); parseErr == nil && reference.IsNameOnly(named) && (img == nil || name != nil) {
		var list []wanted
		for _, tag := range st.tags(named) {
			if img := st.byName[tag.String()]; img != nil {
				list = append(list, wanted{img, tag})
			}
		}
		if len(list) > 0 {
			return list, nil
		}
	}
	if err != nil {
		return nil, err
	}
	tagged, ok := name.(reference.NamedTagged)
	if _, digested := name.(reference.Digested); !ok || digested {
		tagged = nil
	}
	return []wanted{{img, tagged}}, nil
}

// narrow leaves the content of the given platforms only; no platforms leave all.
func (have *saving) narrow(s *Store, platforms []ocispec.Platform) error {
	if len(platforms) == 0 {
		return nil
	}
	ref := have.target.Digest.String()
	if len(have.tags) > 0 {
		ref = reference.FamiliarString(have.tags[0])
	}
	kept := &graph{blobs: map[digest.Digest]int64{}}
	for i, p := range platforms {
		v, err := have.g.single(ref, &p)
		if err != nil {
			return fmt.Errorf("save: %w", err)
		}
		if i == 0 {
			have.shown = v
		}
		part, err := s.walk(v.manifest)
		if err != nil {
			return fmt.Errorf("save: %w", err)
		}
		if len(platforms) == 1 {
			have.target = ocispec.Descriptor{MediaType: v.manifest.MediaType, Digest: v.manifest.Digest, Size: v.manifest.Size}
		}
		kept.documents = append(kept.documents, part.documents...)
		kept.rest = append(kept.rest, part.rest...)
	}
	if len(platforms) > 1 {
		for _, desc := range have.g.documents {
			if isIndex(desc.MediaType) {
				kept.documents = append(kept.documents, desc)
			}
		}
	}
	have.g = kept
	return nil
}

// describe makes the two tables of contents.
func describe(list []*saving) (ocispec.Index, []archived) {
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
	manifests := []archived{}
	for _, have := range list {
		a := archived{Config: blobPath(have.shown.configID), Layers: []string{}}
		for _, layer := range have.shown.layers {
			a.Layers = append(a.Layers, blobPath(layer.Digest))
		}
		for _, tag := range have.tags {
			a.RepoTags = append(a.RepoTags, reference.FamiliarString(tag))
			desc := have.target
			desc.Annotations = map[string]string{annotationName: tag.String(), ocispec.AnnotationRefName: tag.Tag()}
			maps.Copy(desc.Annotations, have.target.Annotations)
			index.Manifests = append(index.Manifests, desc)
		}
		if len(have.tags) == 0 {
			index.Manifests = append(index.Manifests, have.target)
		}
		if have.shown.artifact == "" {
			manifests = append(manifests, a)
		}
	}
	return index, manifests
}

// blobsOf orders the blobs so that a reader who streams knows of what it meets: documents, parents before their children, then
// configs, then layers from the deepest up.
func blobsOf(list []*saving) []digest.Digest {
	var documents, small, large []digest.Digest
	for _, have := range list {
		for _, desc := range slices.Backward(have.g.documents) {
			documents = append(documents, desc.Digest)
		}
		for _, desc := range have.g.rest {
			if shown(desc) {
				large = append(large, desc.Digest)
			} else {
				small = append(small, desc.Digest)
			}
		}
	}
	seen := map[digest.Digest]bool{}
	return slices.DeleteFunc(slices.Concat(documents, small, large), func(d digest.Digest) bool {
		again := seen[d]
		seen[d] = true
		return again
	})
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
