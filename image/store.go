package image

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/blob"
	"berth/fault"
	"berth/internal/record"
	"berth/union"
)

// Store is the images of one data root. Its methods may be called concurrently; readers never wait for writers.
type Store struct {
	Limits  Limits // set before the store is used
	path    string // of the record of names
	blobs   *blob.Store
	layers  union.Driver
	write   sync.Mutex // held by the one who changes the names
	now     atomic.Pointer[state]
	content content
	flights flights
	slots   chan struct{} // taken by layers that download or unpack
	loaders chan struct{} // taken by layers that are unpacked while their archive is read: it may come slowly
	uploads chan struct{} // taken by blobs that are sent
}

// names is the record on disk: all images and their names in one file, so that
// one rename changes any number of names together.
type names struct {
	Version int     `json:"version"`
	Images  []entry `json:"images"`
}

// entry is one image that is kept; without names it is dangling.
type entry struct {
	Target ocispec.Descriptor `json:"target"`
	Names  []string           `json:"names,omitempty"` // in full, sorted
	Tagged time.Time          `json:"tagged,omitzero"` // when the newest name was given
	// Sources are digest references of the repositories that have it, the newest last. They are no names: they stay when names go.
	Sources []string `json:"sources,omitempty"`
}

// maxSources bounds what is kept of them.
const maxSources = 8

// know keeps in mind that a registry has the image under a digest reference.
func (e *entry) know(source reference.Canonical) {
	e.Sources = slices.DeleteFunc(slices.Clone(e.Sources), func(s string) bool { return s == source.String() })
	e.Sources = append(e.Sources, source.String())
	e.Sources = e.Sources[max(0, len(e.Sources)-maxSources):]
}

const namesVersion = 1

// state is a snapshot: what the names mean, ready to be handed out.
type state struct {
	record  names
	list    []*Image // the newest first
	byID    map[digest.Digest]*Image
	byName  map[string]*Image
	graphs  map[digest.Digest]*graph
	damaged []entry // not shown
	broken  []error // why, one for each of them
}

// workers bounds the layers that download or unpack at a time: enough to hide a
// registry's latency, few enough that their windows and buffers stay below 20 MB.
const workers = 8

// Open reads the names kept in dir, which it creates when missing. The store uses blobs
// and layers from now on, as their only user for adding and removing; it closes neither.
func Open(dir string, blobs *blob.Store, layers union.Driver) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	if err := record.Sweep(dir); err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	s := &Store{path: filepath.Join(dir, "images.json"), blobs: blobs, layers: layers, slots: make(chan struct{}, workers), loaders: make(chan struct{}, workers), uploads: make(chan struct{}, maxUploads)}
	n := names{Version: namesVersion}
	if err := record.Load(s.path, &n); err != nil && !errors.Is(err, fault.NotFound) {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	if n.Version != namesVersion {
		return nil, fault.New(fault.Unsupported, "open image store: %s has format %d, this program reads %d", s.path, n.Version, namesVersion)
	}
	sizes, err := s.layerSizes()
	if err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	s.now.Store(s.build(n, nil, sizes, nil))
	return s, nil
}

// Broken returns an error for each recorded image that is not shown because content of it is missing
// or damaged. Pulling or loading it again repairs it, and so may Repair.
func (s *Store) Broken() []error { return s.now.Load().broken }

func (s *Store) layerSizes() (map[digest.Digest]int64, error) {
	layers, err := s.layers.Layers()
	if err != nil {
		return nil, err
	}
	sizes := make(map[digest.Digest]int64, len(layers))
	for _, l := range layers {
		sizes[l.Chain] = l.Size
	}
	return sizes, nil
}

// build makes the snapshot of a record. What old knows of a target is taken from there, except for
// the targets whose content changed; sizes names the unpacked layers.
func (s *Store) build(n names, old *state, sizes map[digest.Digest]int64, changed []digest.Digest) *state {
	st := &state{
		record: n,
		byID:   make(map[digest.Digest]*Image, len(n.Images)),
		byName: make(map[string]*Image),
		graphs: make(map[digest.Digest]*graph, len(n.Images)),
	}
	for _, e := range n.Images {
		if err := st.add(s, e, old, sizes, changed); err != nil {
			st.damaged = append(st.damaged, e)
			st.broken = append(st.broken, fmt.Errorf("image %s (%s) is damaged: %w", e.Target.Digest, strings.Join(e.Names, ", "), err))
		}
	}
	slices.SortStableFunc(st.list, func(a, b *Image) int {
		return cmp.Or(b.Created().Compare(a.Created()), cmp.Compare(a.ID, b.ID))
	})
	return st
}

func (st *state) add(s *Store, e entry, old *state, sizes map[digest.Digest]int64, changed []digest.Digest) error {
	var img *Image
	if old != nil && !slices.Contains(changed, e.Target.Digest) && old.byID[e.Target.Digest] != nil {
		known := *old.byID[e.Target.Digest]
		img, st.graphs[e.Target.Digest] = &known, old.graphs[e.Target.Digest]
	} else {
		g, err := s.walk(e.Target)
		if err != nil {
			return err
		}
		st.graphs[e.Target.Digest] = g
		v := g.best(Host(), true)
		if v == nil {
			return fault.New(fault.Corrupt, "no platform of it is here completely")
		}
		img = newImage(e.Target, g, v, sizes)
	}
	img.Names, img.Tagged = nil, e.Tagged
	for _, n := range e.Names {
		named, err := reference.ParseNormalizedNamed(n)
		if err != nil {
			return fault.New(fault.Corrupt, "name %q: %w", n, err)
		}
		img.Names = append(img.Names, named)
		st.byName[n] = img
	}
	img.Sources = nil
	for _, s := range e.Sources {
		if source, err := reference.ParseNormalizedNamed(s); err == nil {
			if canonical, ok := source.(reference.Canonical); ok {
				img.Sources = append(img.Sources, canonical)
			}
		}
	}
	st.byID[img.ID] = img
	st.list = append(st.list, img)
	return nil
}

func newImage(target ocispec.Descriptor, g *graph, v *variant, sizes map[digest.Digest]int64) *Image {
	img := &Image{
		ID: target.Digest, Target: target, Manifest: v.manifest, Config: v.config, ConfigID: v.configID,
		Artifact: v.artifact, Layers: v.layers, DiffIDs: v.config.RootFS.DiffIDs, Chain: v.chain(),
	}
	img.Config.Platform = v.platform
	for _, size := range g.blobs {
		img.Content += size
	}
	for _, c := range v.chains {
		img.Unpacked += sizes[c]
	}
	img.Size = img.Content
	counted := map[digest.Digest]bool{}
	for _, each := range g.variants {
		for _, c := range each.chains {
			if !counted[c] {
				counted[c] = true
				img.Size += sizes[c]
			}
		}
	}
	return img
}

// change applies fn to a copy of the record, saves it and shows it. touched are
// the targets whose content changed too.
func (s *Store) change(touched []digest.Digest, fn func(*names) error) error {
	s.write.Lock()
	defer s.write.Unlock()
	old := s.now.Load()
	n := names{Version: namesVersion, Images: slices.Clone(old.record.Images)}
	for i := range n.Images {
		n.Images[i].Names = slices.Clone(n.Images[i].Names)
	}
	if err := fn(&n); err != nil {
		return err
	}
	var sizes map[digest.Digest]int64
	if len(touched) > 0 {
		var err error
		if sizes, err = s.layerSizes(); err != nil {
			return err
		}
	}
	if err := n.save(s.path, &old.record); err != nil {
		return fmt.Errorf("save image names: %w", err)
	}
	s.now.Store(s.build(n, old, sizes, touched))
	return nil
}

// assign gives the image of target, new or known, the names, taking them from whoever has them.
func (n *names) assign(target ocispec.Descriptor, list []reference.Named, sources []reference.Canonical) {
	for i := range n.Images {
		n.Images[i].Names = slices.DeleteFunc(n.Images[i].Names, func(have string) bool {
			return slices.ContainsFunc(list, func(w reference.Named) bool { return w.String() == have })
		})
	}
	e := n.find(target.Digest)
	if e == nil {
		n.Images = append(n.Images, entry{})
		e = &n.Images[len(n.Images)-1]
	}
	// Annotations and platform belong to the place where the descriptor was found, not to the image.
	e.Target = ocispec.Descriptor{MediaType: target.MediaType, Digest: target.Digest, Size: target.Size}
	for _, w := range list {
		e.Names = append(e.Names, w.String())
	}
	for _, s := range sources {
		e.know(s)
	}
	slices.Sort(e.Names)
	e.Names = slices.Compact(e.Names)
	if len(list) > 0 {
		e.Tagged = time.Now().UTC()
	}
}

func (n *names) find(id digest.Digest) *entry {
	for i := range n.Images {
		if n.Images[i].Target.Digest == id {
			return &n.Images[i]
		}
	}
	return nil
}

// Get finds an image by name (without tag: latest), digest reference (name@sha256:…), full
// ID or unique beginning of an ID, with or without "sha256:". A name wins over the beginning of an ID.
// fault.NotFound: "No such image: busybox:latest"; fault.Invalid: a bad reference or an ambiguous ID.
func (s *Store) Get(ref string) (*Image, error) {
	img, _, err := s.now.Load().get(ref)
	return img, err
}

// get also tells the name by which ref was understood; nil: by ID.
func (st *state) get(ref string) (*Image, reference.Named, error) {
	digits, isID := idDigits(ref)
	if isID && len(digits) == 64 {
		if img := st.byID[digest.NewDigestFromEncoded(digest.SHA256, digits)]; img != nil {
			return img, nil, nil
		}
		return nil, nil, notFound(ref)
	}
	if !strings.HasPrefix(ref, "sha256:") {
		named, err := ParseName(ref)
		if err != nil {
			return nil, nil, err
		}
		if img := st.named(named); img != nil {
			return img, named, nil
		}
	}
	if !isID {
		return nil, nil, notFound(ref)
	}
	var found *Image
	for _, img := range st.list {
		if !strings.HasPrefix(img.ID.Encoded(), digits) {
			continue
		}
		if found != nil {
			return nil, nil, fault.New(fault.Invalid, "image ID %s is ambiguous: %s and %s begin with it, give more digits", ref, shortID(found.ID), shortID(img.ID))
		}
		found = img
	}
	if found == nil {
		return nil, nil, notFound(ref)
	}
	return found, nil, nil
}

// named looks a full name up. A digest counts more than a tag beside it, and fits every image
// that has a name in the same repository: its own, or that of a manifest which became the image.
func (st *state) named(n reference.Named) *Image {
	if img := st.byName[n.String()]; img != nil {
		return img
	}
	digested, ok := n.(reference.Digested)
	if !ok {
		return nil
	}
	for _, img := range st.list {
		if img.ID != digested.Digest() && !slices.ContainsFunc(img.Sources, func(s reference.Canonical) bool { return s.Digest() == digested.Digest() && s.Name() == n.Name() }) {
			continue
		}
		if slices.ContainsFunc(img.Names, func(have reference.Named) bool { return have.Name() == n.Name() }) {
			return img
		}
	}
	return nil
}

// GetPlatform is Get for the content of a platform other than the preferred one, which may have to be unpacked before it is run (see Unpack).
// fault.NotFound when the image's content for p is not here.
func (s *Store) GetPlatform(ref string, p ocispec.Platform) (*Image, error) {
	st := s.now.Load()
	img, _, err := st.get(ref)
	if err != nil {
		return nil, err
	}
	v := st.graphs[img.ID].best(p, false)
	if v == nil {
		v = st.graphs[img.ID].packed(p)
	}
	if v == nil {
		return nil, fault.New(fault.NotFound, "image with reference %s was found but does not provide the specified platform (%s)", ref, FormatPlatform(p))
	}
	if v.manifest.Digest == img.Manifest.Digest {
		return img, nil
	}
	sizes, err := s.layerSizes()
	if err != nil {
		return nil, err
	}
	other := newImage(img.Target, st.graphs[img.ID], v, sizes)
	other.Names, other.Tagged, other.Sources = img.Names, img.Tagged, img.Sources
	return other, nil
}

// List returns all images, the newest first, those without names included.
func (s *Store) List() ([]*Image, error) { return slices.Clone(s.now.Load().list), nil }

// Tag gives the image that src means a further name; whichever image had that name loses it.
func (s *Store) Tag(src string, target reference.NamedTagged) error {
	return s.change(nil, func(n *names) error {
		img, _, err := s.now.Load().get(src)
		if err != nil {
			return err
		}
		n.assign(img.Target, []reference.Named{target}, nil)
		return nil
	})
}
