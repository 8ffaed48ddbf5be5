package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/archive"
	"berth/fault"
	"berth/internal/record"
	"berth/union"
)

// Holding is what one recorded image keeps from being freed. Content that several images need is in the holdings of all of them.
type Holding struct {
	ID     digest.Digest
	Names  []string // in full
	Shown  bool     // it is in List; the others are damaged
	Blobs  map[digest.Digest]bool
	Chains map[digest.Digest]bool
}

// Holdings lists what all recorded images keep, and what running operations rely on beside that. Nobody frees or adds
// names meanwhile: the two fit each other.
func Holdings(s *Store) (all []Holding, claimed map[digest.Digest]bool) {
	s.content.mu.Lock()
	defer s.content.mu.Unlock()
	claimed = map[digest.Digest]bool{}
	for d := range s.content.users {
		claimed[d] = true
	}
	st := s.now.Load()
	for _, e := range st.record.Images {
		h := Holding{ID: e.Target.Digest, Names: e.Names, Blobs: map[digest.Digest]bool{e.Target.Digest: true}, Chains: map[digest.Digest]bool{}}
		g := st.graphs[e.Target.Digest]
		h.Shown = st.byID[e.Target.Digest] != nil
		if g == nil {
			g, _ = s.walk(e.Target) // damaged: what can be read
		}
		if g != nil {
			for d := range g.blobs {
				h.Blobs[d] = true
			}
			for _, v := range g.variants {
				for _, c := range v.chains {
					h.Chains[c] = true
				}
			}
		}
		all = append(all, h)
	}
	return all, claimed
}

// Part is a piece of content that a recorded image needs.
type Part struct {
	Image  digest.Digest
	Names  []string // of the image, in full
	From   []string // digest references of repositories that had the image, the newest last
	Desc   ocispec.Descriptor
	DiffID digest.Digest // of a layer
	Chain  digest.Digest // of a layer, unpacked
	Parent digest.Digest // chain below it
	Needed bool          // without it the image, as it is shown, is broken; else it is of a platform that is here in part
}

// Parts lists the content of all recorded images, as the manifests on disk tell it now, children after those that name them. What can't
// be read is left out with all below it.
func Parts(s *Store) (all []Part) {
	st := s.now.Load()
	for _, e := range st.record.Images {
		p := parts{s: s, image: Part{Image: e.Target.Digest, Names: e.Names, From: e.Sources}, whole: map[digest.Digest]bool{}}
		if g := st.graphs[e.Target.Digest]; g != nil {
			for _, v := range g.variants {
				p.whole[v.manifest.Digest] = v.whole
			}
			p.shown = st.byID[e.Target.Digest] != nil
		}
		p.document(e.Target, 0, true)
		all = append(all, p.list...)
	}
	return all
}

type parts struct {
	s     *Store
	image Part
	whole map[digest.Digest]bool // manifests whose content was complete
	shown bool
	list  []Part
}

func (p *parts) add(desc ocispec.Descriptor, needed bool) *Part {
	one := p.image
	one.Desc, one.Needed = desc, needed
	p.list = append(p.list, one)
	return &p.list[len(p.list)-1]
}

func (p *parts) document(desc ocispec.Descriptor, depth int, needed bool) {
	p.add(desc, needed)
	data, err := p.s.readBlob(desc.Digest, maxDocument)
	if err != nil || depth > maxDepth {
		return
	}
	doc, err := parseDocument(desc, data)
	if err != nil {
		return
	}
	for _, child := range doc.Manifests {
		if p.whole[child.Digest] || p.s.blobs.Has(child.Digest) {
			p.document(child, depth+1, needed && (p.whole[child.Digest] || isIndex(child.MediaType)))
		}
	}
	if doc.Config == nil {
		return
	}
	// A damaged image's only manifest is what its owner wants whole.
	needed = needed && (p.whole[desc.Digest] || !p.shown)
	p.add(*doc.Config, needed)
	var diffIDs []digest.Digest
	if data, err := p.s.readBlob(doc.Config.Digest, maxConfig); err == nil {
		if config, err := parseConfig(doc, data); err == nil {
			diffIDs = config.RootFS.DiffIDs
		}
	}
	ids := chains(diffIDs)
	for i, l := range doc.Layers {
		one := p.add(l, needed)
		if i < len(ids) {
			one.DiffID, one.Chain = diffIDs[i], ids[i]
			if i > 0 {
				one.Parent = ids[i-1]
			}
		}
	}
}

// Restage unpacks a layer's blob once more, for a comparison with what is there. The caller ends the stage.
func Restage(ctx context.Context, s *Store, p Part) (*union.Stage, archive.Unpacked, error) {
	f, err := s.blobs.Open(p.Desc.Digest)
	if err != nil {
		return nil, archive.Unpacked{}, err
	}
	defer f.Close()
	st, err := s.unpack(ctx, f, nil)
	if err != nil {
		return nil, archive.Unpacked{}, fmt.Errorf("layer %s: %w", p.Desc.Digest, err)
	}
	if st, err = st.checked(&job{desc: p.Desc, diffID: p.DiffID}); err != nil {
		return nil, archive.Unpacked{}, err
	}
	return st.stage, st.unpacked, nil
}

// Refetch brings the content of desc from src, whether it is here or not: what is here may be damaged, and stays in its place until the new
// content is complete. A size of 0 is unknown.
func Refetch(ctx context.Context, s *Store, src Source, desc ocispec.Descriptor) error {
	l := s.lease()
	defer l.release()
	l.hold(desc.Digest)
	r, err := src.Fetch(ctx, desc, 0)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := s.blobs.Create()
	if err != nil {
		return err
	}
	defer w.Close()
	limit := desc.Size + 1
	if desc.Size <= 0 {
		limit = maxDocument
	}
	if _, err := io.Copy(w, io.LimitReader(r, limit)); err != nil {
		return err
	}
	if _, err := w.Commit(desc.Digest, -1); err != nil {
		return err
	}
	return s.blobs.Sync()
}

// Refresh looks at the content of images again, which somebody repaired, and unpacks what is missing of those that were not shown. What
// stays broken is in the error.
func Refresh(ctx context.Context, s *Store, ids []digest.Digest) error {
	if err := s.Repair(ctx); err != nil {
		return err
	}
	return s.change(ids, func(*names) error { return nil })
}

// Repositories lists those that may have content of an image: where it came from or went to, and those that it has names of.
func Repositories(p Part) (list []reference.Named) {
	names := slices.Clone(p.From)
	slices.Reverse(names)
	names = append(names, p.Names...)
	seen := map[string]bool{}
	for _, digested := range []bool{true, false} {
		for _, n := range names {
			named, err := reference.ParseNormalizedNamed(n)
			if err != nil {
				continue
			}
			if _, ok := named.(reference.Digested); ok == digested && !seen[named.Name()] {
				seen[named.Name()] = true
				list = append(list, named)
			}
		}
	}
	return list
}

// Familiar are all names of the image as users write them.
func (i *Image) Familiar() []string {
	var list []string
	for _, n := range i.Names {
		list = append(list, reference.FamiliarString(n))
	}
	return list
}

// Choice is what Discard takes of an image: all of it, or only some of its names.
type Choice struct {
	Whole bool
	Names []reference.Named
}

func (c Choice) none() bool { return !c.Whole && len(c.Names) == 0 }

// Discarded is what Discard took away of an image.
type Discarded struct {
	ID    digest.Digest
	Names []string // familiar ones
	Whole bool     // the image itself
}

// Discard takes away what choose picks of all images at once: choose sees each as it is then. What a pull or the like
// is just bringing stays. The content is left for a Sweep.
func Discard(s *Store, choose func(*Image) Choice) (gone []Discarded, err error) {
	if !slices.ContainsFunc(s.now.Load().list, func(i *Image) bool { return !choose(i).none() }) {
		return nil, nil
	}
	err = s.change(nil, func(n *names) error {
		gone = nil
		for _, img := range s.now.Load().list {
			c := choose(img)
			if c.none() || s.content.claimed(img.ID) {
				continue
			}
			if c.Whole {
				n.drop(img.ID)
				gone = append(gone, Discarded{img.ID, img.Familiar(), true})
				continue
			}
			e, d := n.find(img.ID), Discarded{ID: img.ID}
			for _, name := range c.Names {
				e.Names = slices.DeleteFunc(e.Names, func(have string) bool { return have == name.String() })
				d.Names = append(d.Names, reference.FamiliarString(name))
			}
			gone = append(gone, d)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return gone, nil
}

// Familiar are full names as users write them; what can't be read stays as it is.
func Familiar(names []string) []string {
	list := make([]string, len(names))
	for k, n := range names {
		list[k] = n
		if named, err := reference.ParseNormalizedNamed(n); err == nil {
			list[k] = reference.FamiliarString(named)
		}
	}
	return list
}

// CheckNames reads the record of names from the disk: fault.Corrupt or fault.NotFound when it can't be used.
func CheckNames(s *Store) error {
	s.write.Lock()
	defer s.write.Unlock()
	n := names{Version: namesVersion}
	err := record.Load(s.path, &n)
	if errors.Is(err, fault.NotFound) && len(s.now.Load().record.Images) == 0 {
		return nil
	}
	if err == nil && len(n.Images) != len(s.now.Load().record.Images) {
		err = fault.New(fault.Corrupt, "%s has %d images instead of %d", s.path, len(n.Images), len(s.now.Load().record.Images))
	}
	return err
}

// claimed tells whether an operation under way relies on content.
func (c *content) claimed(d digest.Digest) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.users[d] > 0
}
