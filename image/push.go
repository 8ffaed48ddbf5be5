package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"berth/fault"
)

// maxUploads bounds the blobs that are sent at a time, over all pushes; Docker's default.
const maxUploads = 5

// maxMounts bounds the repositories that are asked for a blob before it is sent.
const maxMounts = 3

// Pushed tells what Push left at its target.
type Pushed struct {
	Image  *Image             // as it was here
	Target ocispec.Descriptor // what the name means there
	// Index is the image's index when Target is the one platform's manifest that was sent instead, as
	// content of other platforms is not here; else nil.
	Index *ocispec.Descriptor
}

// Tags returns all tagged names of repo's repository, sorted: what a push without a tag means.
func (s *Store) Tags(repo reference.Named) []reference.NamedTagged { return s.now.Load().tags(repo) }

func (st *state) tags(repo reference.Named) []reference.NamedTagged {
	var list []reference.NamedTagged
	for _, img := range st.list {
		for _, n := range img.Names {
			tagged, ok := n.(reference.NamedTagged)
			if _, digested := n.(reference.Digested); ok && !digested && n.Name() == repo.Name() {
				list = append(list, tagged)
			}
		}
	}
	slices.SortFunc(list, func(a, b reference.NamedTagged) int { return strings.Compare(a.Tag(), b.Tag()) })
	return list
}

// Push copies the image that has name to dst, children before parents, and gives it name's tag there, if it
// has one. What dst has is not sent, and what another repository of its registry is known to have is mounted from there.
// platform nil sends all of the image, byte for byte. Where not all of it is here nor there, one platform's manifest goes
// alone. Then name's repository is among the image's Sources.
//
// fault.NotFound: "tag does not exist: busybox:latest", or no content for the platform.
func (s *Store) Push(ctx context.Context, dst Target, name reference.Named, platform *ocispec.Platform, p Progress) (Pushed, error) {
	u := &upload{s: s, dst: dst, name: name, lease: s.lease(), report: &reporter{to: p}}
	defer u.report.close()
	defer u.lease.release()
	var img *Image
	st, err := u.lease.images(s, func(st *state) ([]*Image, error) {
		if img = st.named(name); img == nil {
			return nil, fault.New(fault.NotFound, "tag does not exist: %s", reference.FamiliarString(name))
		}
		return []*Image{img}, nil
	})
	if err != nil {
		return Pushed{}, err
	}
	u.mounts = st.mounts(name)
	g := st.graphs[img.ID]
	done := Pushed{Image: img, Target: img.Target}
	whole, err := u.complete(ctx, g)
	if err != nil {
		return Pushed{}, err
	}
	if platform != nil || !whole {
		v, err := g.single(reference.FamiliarString(name), platform)
		if err != nil {
			return Pushed{}, err
		}
		if v.manifest.Digest != img.ID {
			if platform == nil {
				done.Index = &done.Image.Target
			}
			done.Target = v.manifest
			if g, err = s.walk(v.manifest); err != nil {
				return Pushed{}, err
			}
		}
	}
	if err := u.send(ctx, g); err != nil {
		return Pushed{}, err
	}
	if done.Target.Digest != img.ID {
		return done, nil
	}
	return done, s.sent(img.ID, name)
}

// sent keeps in mind that the repository of name has the image.
func (s *Store) sent(id digest.Digest, name reference.Named) error {
	canonical, err := withDigest(name, id)
	if err != nil {
		return fault.Wrap(fault.Invalid, err)
	}
	return s.change(nil, func(n *names) error {
		if e := n.find(id); e != nil { // else it was removed meanwhile
			e.know(canonical)
		}
		return nil
	})
}

// mounts lists, by blob, the other repositories on the registry of name that are known to have it: those that images with
// it were pulled from or pushed to.
func (st *state) mounts(name reference.Named) map[digest.Digest][]reference.Named {
	known := map[digest.Digest][]reference.Named{}
	for _, img := range st.list {
		for _, n := range slices.Backward(img.Sources) {
			if reference.Domain(n) != reference.Domain(name) || n.Name() == name.Name() {
				continue
			}
			for _, desc := range st.graphs[img.ID].rest {
				if list := known[desc.Digest]; len(list) < maxMounts {
					known[desc.Digest] = append(list, reference.TrimNamed(n))
				}
			}
		}
	}
	return known
}

// single chooses the platform's content that is sent alone; ref is for errors.
func (g *graph) single(ref string, platform *ocispec.Platform) (*variant, error) {
	want, wanted := Host(), ""
	if platform != nil {
		want = normalPlatform(*platform)
		wanted = FormatPlatform(want)
	}
	var here []*variant
	var best *variant
	for _, v := range g.variants {
		if !v.here || v.artifact != "" || platform != nil && rank(want, v.platform, true) < 0 {
			continue
		}
		here = append(here, v)
		if r := rank(want, v.platform, true); r >= 0 && (best == nil || r < rank(want, best.platform, true)) {
			best = v
		}
	}
	switch {
	case len(here) == 0 && platform != nil:
		return nil, fault.New(fault.NotFound, "image with reference %s was found but does not provide the specified platform (%s)", ref, wanted)
	case len(here) == 0:
		return nil, fault.New(fault.NotFound, "image with reference %s is not here completely for any platform: pull it again", ref)
	case best != nil:
		return best, nil
	case len(here) == 1:
		return here[0], nil
	}
	return nil, fault.New(fault.Conflict, "multiple matching manifests found but no specific platform requested: name one with --platform")
}

// upload is one copy of an image out of the store.
type upload struct {
	s      *Store
	dst    Target
	name   reference.Named
	lease  *lease
	report *reporter
	mounts map[digest.Digest][]reference.Named
}

// complete tells whether the graph can be sent as it is: what is missing here is there already.
func (u *upload) complete(ctx context.Context, g *graph) (bool, error) {
	for _, desc := range g.missing {
		if isForeign(desc) {
			continue
		}
		if !isDocument(desc.MediaType) { // which a registry has only with all that it names
			return false, nil
		}
		if there, err := u.dst.Has(ctx, desc); err != nil || !there {
			return false, err
		}
	}
	return true, nil
}

// isForeign tells whether content is kept elsewhere than in registries, by its licence.
func isForeign(desc ocispec.Descriptor) bool {
	return len(desc.URLs) > 0 && (desc.MediaType == dockerForeign || desc.MediaType == dockerForeignGz || strings.HasPrefix(desc.MediaType, "application/vnd.oci.image.layer.nondistributable."))
}

// send brings all blobs, and then the documents, children before their parents.
func (u *upload) send(ctx context.Context, g *graph) error {
	var list []ocispec.Descriptor
	for _, desc := range g.rest {
		if isForeign(desc) {
			continue
		}
		if list = append(list, desc); shown(desc) {
			u.report.tell(Event{ID: shortID(desc.Digest), Status: StatusPreparing})
		}
	}
	group, all := errgroup.WithContext(ctx)
	for _, desc := range list {
		group.Go(func() error { return u.blob(all, desc) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for i, desc := range g.documents {
		tag := ""
		if tagged, ok := u.name.(reference.Tagged); ok && i == len(g.documents)-1 {
			tag = tagged.Tag()
		}
		if err := u.document(ctx, desc, tag); err != nil {
			return err
		}
	}
	return nil
}

// shown tells whether users see the way of a blob: not of a config, which is small.
func shown(desc ocispec.Descriptor) bool {
	return desc.MediaType != ocispec.MediaTypeImageConfig && desc.MediaType != dockerConfig
}

func (u *upload) tell(desc ocispec.Descriptor, e Event) {
	if shown(desc) {
		e.ID = shortID(desc.Digest)
		u.report.tell(e)
	}
}

func (u *upload) blob(ctx context.Context, desc ocispec.Descriptor) error {
	select {
	case u.s.uploads <- struct{}{}:
	default:
		u.tell(desc, Event{Status: StatusWaiting})
		select {
		case u.s.uploads <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	defer func() { <-u.s.uploads }()
	there, err := u.dst.Has(ctx, desc)
	if err != nil {
		return err
	}
	if there {
		u.tell(desc, Event{Status: StatusThere})
		return nil
	}
	for _, from := range u.mounts[desc.Digest] {
		mounted, err := u.dst.Mount(ctx, desc, from)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err == nil && mounted { // no right to read there is no reason to fail here
			u.tell(desc, Event{Status: StatusMounted + reference.Path(from)})
			return nil
		}
	}
	if err := u.dst.Put(ctx, desc, func() (io.ReadCloser, error) { return u.open(desc) }); err != nil {
		return err
	}
	u.tell(desc, Event{Status: StatusPushed})
	return nil
}

// open returns the blob's bytes, and tells how many of them were read.
func (u *upload) open(desc ocispec.Descriptor) (io.ReadCloser, error) {
	f, err := u.s.blobs.Open(desc.Digest)
	if err != nil {
		return nil, err
	}
	m := &meter{event: Event{Status: StatusPushing, Total: desc.Size}, to: func(e Event) { u.tell(desc, e) }}
	return struct {
		io.Reader
		io.Closer
	}{metered{f, m}, f}, nil
}

func (u *upload) document(ctx context.Context, desc ocispec.Descriptor, tag string) error {
	if tag == "" {
		there, err := u.dst.Has(ctx, desc)
		if there || err != nil {
			return err
		}
	}
	data, err := u.s.readBlob(desc.Digest, maxDocument)
	if errors.Is(err, fault.NotFound) {
		return fmt.Errorf("push: manifest %w: it was removed meanwhile", err)
	}
	if err != nil {
		return err
	}
	return u.dst.PutManifest(ctx, desc, data, tag)
}
