package image

import (
	"context"
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

// Remove takes away a name, or the image when that was its last name or ref is an ID,
// and frees content that nothing else refers to. Refusals are fault.Conflict in Docker's words.
// A forced removal by name of an image that a container runs on takes the name and keeps the image.
func (s *Store) Remove(ref string, o RemoveOptions) ([]Removed, error) {
	if o.InUse == nil {
		o.InUse = func(digest.Digest) (running, stopped []string) { return nil, nil }
	}
	if len(o.Platforms) > 0 {
		return nil, fault.New(fault.Unsupported, "remove %s: selecting platforms is not supported yet", ref)
	}
	var steps []Removed
	err := s.change(nil, func(n *names) error {
		img, name, err := s.now.Load().get(ref)
		if err != nil {
			return err
		}
		e := n.find(img.ID)
		if name != nil {
			steps, err = removeName(n, e, img, name, ref, o)
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
func removeName(n *names, e *entry, img *Image, name reference.Named, ref string, o RemoveOptions) ([]Removed, error) {
	running, stopped := o.InUse(img.ID)
	if users := slices.Concat(running, stopped); !o.Force && single(img.Names) && len(users) > 0 {
		return nil, fault.New(fault.Conflict, "conflict: unable to remove repository reference %q (must force) - container %s is using its referenced image %s",
			ref, short(users[0]), shortID(img.ID))
	}
	full := name.String()
	if !slices.Contains(e.Names, full) { // a digest that was found by its repository's other names
		if canonical, err := withDigest(name, img.ID); err == nil {
			full = canonical.String()
		}
	}
	steps := []Removed{{Untagged: reference.FamiliarString(name)}}
	e.Names = slices.DeleteFunc(e.Names, func(have string) bool { return have == full })
	if _, ok := name.(reference.Digested); !ok {
		steps = append(steps, dropDigests(e, img, name)...)
	}
	if len(e.Names) > 0 || len(running) > 0 {
		return steps, nil
	}
	n.drop(img.ID)
	return append(steps, Removed{Deleted: string(img.ID)}), nil
}

// dropDigests takes away the digest references of a repository whose last tag on this image has gone.
func dropDigests(e *entry, img *Image, gone reference.Named) (steps []Removed) {
	for _, have := range img.Names {
		if _, digested := have.(reference.Digested); !digested && have.Name() == gone.Name() && have.String() != gone.String() {
			return nil
		}
	}
	for _, have := range img.Names {
		if _, digested := have.(reference.Digested); digested && have.Name() == gone.Name() {
			steps = append(steps, Removed{Untagged: reference.FamiliarString(have)})
			e.Names = slices.DeleteFunc(e.Names, func(s string) bool { return s == have.String() })
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
	var steps []Removed
	for _, name := range img.Names {
		steps = append(steps, Removed{Untagged: reference.FamiliarString(name)})
	}
	n.drop(e.Target.Digest)
	return append(steps, Removed{Deleted: string(img.ID)}), nil
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
