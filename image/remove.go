package image

import (
	"context"
	"fmt"
	"slices"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/fault"
)

// RemoveOptions say what Remove may do.
type RemoveOptions struct {
	Force   bool // remove all names, and do not mind stopped containers
	NoPrune bool // leave the content for a later Sweep
	// Platforms, if there are any, are removed from the image, which stays with the others.
	Platforms []ocispec.Platform
	// InUse returns the full ids of containers made from the image; nil means none.
	InUse func(id digest.Digest) (running, stopped []string)
}

// Removed is one step of a removal; one of the fields is set.
type Removed struct {
	Untagged string // a familiar name
	Deleted  string // an image ID
}

// Remove takes away a name, or the image when that was its last name or ref is an ID, and frees content that nothing else refers
// to. A digest reference means all names in its repository. Refusals are fault.Conflict in Docker's words.
// A forced removal by name of an image that a container is made from takes the names and keeps the image, dangling.
func (s *Store) Remove(ref string, o RemoveOptions) ([]Removed, error) {
	if o.InUse == nil {
		o.InUse = func(digest.Digest) (running, stopped []string) { return nil, nil }
	}
	if len(o.Platforms) > 0 {
		return s.newCopy(nowhere("the blob store"), nil).removePlatforms(context.Background(), ref, o)
	}
	var steps []Removed
	err := s.change(nil, func(n *names) error {
		img, name, err := s.now.Load().get(ref)
		if err != nil {
			return err
		}
		e := n.find(img.ID)
		if name != nil {
			steps, err = removeName(n, e, img, name, o)
		} else {
			steps, err = removeImage(n, e, img, o)
		}
		return err
	})
	if err != nil || o.NoPrune || !slices.ContainsFunc(steps, func(r Removed) bool { return r.Deleted != "" }) {
		return steps, err
	}
	_, err = s.Sweep(context.Background())
	return steps, err
}

// removeName takes one name away, and the image with its last name.
func removeName(n *names, e *entry, img *Image, name reference.Named, o RemoveOptions) ([]Removed, error) {
	gone := meant(img, name)
	if len(gone) == 0 { // its digest is here, under other tags
		return nil, notFound(name.String())
	}
	last := len(gone) == len(img.Names)
	running, stopped := o.InUse(img.ID)
	users := slices.Concat(running, stopped)
	if last && !o.Force && len(users) > 0 {
		return nil, fault.New(fault.Conflict, "conflict: unable to delete %s (must be forced) - container %s is using its referenced image %s",
			reference.FamiliarString(name), short(users[0]), shortID(img.ID))
	}
	steps := untagged(gone)
	e.Names = slices.DeleteFunc(e.Names, func(have string) bool {
		return slices.ContainsFunc(gone, func(g reference.Named) bool { return g.String() == have })
	})
	if !last || len(users) > 0 {
		return steps, nil
	}
	n.drop(img.ID)
	return append(steps, Removed{Deleted: string(img.ID)}), nil
}

// meant lists the names of img that go with name: a repository's last tag takes its digest references along, and a digest all of its repository's names.
func meant(img *Image, name reference.Named) []reference.Named {
	tag, byTag := name.(reference.Tagged)
	var gone, digests []reference.Named
	others := false
	for _, have := range img.Names {
		if have.Name() != name.Name() {
			continue
		}
		tagged, ok := have.(reference.Tagged)
		switch {
		case !byTag || ok && tagged.Tag() == tag.Tag():
			gone = append(gone, have)
		case ok:
			others = true
		default:
			digests = append(digests, have)
		}
	}
	if len(gone) == 0 || !others {
		gone = append(gone, digests...)
	}
	return gone
}

// untagged tells of names that go. Digest references are told of only where their repository has no tag that goes as well.
func untagged(gone []reference.Named) (steps []Removed) {
	tags := map[string]bool{}
	for _, n := range gone {
		if _, digested := n.(reference.Digested); !digested {
			tags[n.Name()] = true
		}
	}
	for _, n := range gone {
		if _, digested := n.(reference.Digested); !digested || !tags[n.Name()] {
			steps = append(steps, Removed{Untagged: reference.FamiliarString(n)})
		}
	}
	return steps
}

// removeImage takes the image away with all its names.
func removeImage(n *names, e *entry, img *Image, o RemoveOptions) ([]Removed, error) {
	conflict := func(force, why string, args ...any) error {
		return fault.New(fault.Conflict, "conflict: unable to delete %s (%s) - "+why, append([]any{shortID(img.ID), force}, args...)...)
	}
	running, stopped := o.InUse(img.ID)
	switch {
	case len(running) > 0:
		return nil, conflict("cannot be forced", "image is being used by running container %s", short(running[0]))
	case !o.Force && len(stopped) > 0:
		return nil, conflict("must be forced", "image is being used by stopped container %s", short(stopped[0]))
	case !o.Force && len(img.Names) > 0 && !single(img.Names):
		return nil, conflict("must be forced", "image is referenced in multiple repositories")
	}
	n.drop(e.Target.Digest)
	return append(untagged(img.Names), Removed{Deleted: string(img.ID)}), nil
}

func (n *names) drop(id digest.Digest) {
	n.Images = slices.DeleteFunc(n.Images, func(e entry) bool { return e.Target.Digest == id })
}

// single tells whether names are of one repository with one tag at most: then the ID stands for them all.
func single(list []reference.Named) bool {
	tags := 0
	for _, n := range list {
		if _, digested := n.(reference.Digested); !digested {
			tags++
		}
		if n.Name() != list[0].Name() {
			return false
		}
	}
	return tags <= 1
}

// short is the form of a container's id that people read.
func short(id string) string { return id[:min(12, len(id))] }

// removePlatforms frees the content of some platforms of an image, which keeps its names and its ID. It is gone from all
// images that share it, which is why it has to be forced. With its last platform goes the image.
func (c *graphCopy) removePlatforms(ctx context.Context, ref string, o RemoveOptions) ([]Removed, error) {
	defer c.end()
	s := c.s
	if !o.Force {
		return nil, fault.New(fault.Invalid, "Content will be removed from all images referencing this variant. Use --force to force delete.")
	}
	st := s.now.Load()
	img, _, err := st.get(ref)
	if err != nil {
		return nil, err
	}
	g := st.graphs[img.ID]
	var steps []Removed
	gone := map[digest.Digest]bool{}
	for _, p := range o.Platforms {
		v, err := g.single(ref, &p)
		if err != nil {
			return nil, err
		}
		if !gone[v.manifest.Digest] {
			gone[v.manifest.Digest] = true
			steps = append(steps, Removed{Deleted: string(v.manifest.Digest)})
		}
	}
	left := g.besides(gone)
	if left == nil {
		o.Platforms = nil
		return s.Remove(string(img.ID), o)
	}
	c.loading, c.want, c.exact = true, normalPlatform(left.platform), true
	if !left.whole { // an image that is shown can be run
		if _, _, err := c.graph(ctx, left.manifest); err != nil {
			return nil, fmt.Errorf("remove platforms of %s: %w", ref, err)
		}
	}
	touched, err := st.without(gone)
	if err == nil {
		err = s.content.remove(s.blobs, gone)
	}
	if err != nil {
		return nil, err
	}
	if err := s.change(touched, func(*names) error { return nil }); err != nil || o.NoPrune {
		return steps, err
	}
	c.end()
	_, err = s.Sweep(ctx)
	return steps, err
}

// besides returns an image for a platform whose manifest is not among gone, an unpacked one if there is one; nil: none.
func (g *graph) besides(gone map[digest.Digest]bool) (left *variant) {
	for _, v := range g.variants {
		if !gone[v.manifest.Digest] && v.here && v.artifact == "" && (left == nil || v.whole && !left.whole) {
			left = v
		}
	}
	return left
}

// without lists the images that lose something when manifests go. None may lose all that it can be run by.
func (st *state) without(gone map[digest.Digest]bool) (touched []digest.Digest, err error) {
	for _, img := range st.list {
		g := st.graphs[img.ID]
		if !slices.ContainsFunc(g.documents, func(desc ocispec.Descriptor) bool { return gone[desc.Digest] }) {
			continue
		}
		if left := g.besides(gone); gone[img.ID] || left == nil {
			return nil, fault.New(fault.Conflict, "conflict: unable to delete the platform - image %s has no other: remove that image first", shortID(img.ID))
		}
		touched = append(touched, img.ID)
	}
	return touched, nil
}
