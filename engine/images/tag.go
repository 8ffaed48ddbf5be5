package images

import (
	"berth/fault"
	"berth/image"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
)

// Tag gives an image a further name.
func (i *Service) Tag(ref, repo, tag string) error {
	target, err := TargetName(repo, tag)
	if err != nil {
		return err
	}
	if err := i.Store.Tag(ref, target); err != nil {
		return err
	}
	if img, err := i.Store.Get(target.String()); err == nil {
		i.Announce(events.ActionTag, img.ID.String(), reference.FamiliarString(target))
	}
	return nil
}

// TargetName reads the name that an image shall get; without tag it is latest.
func TargetName(repo, tag string) (reference.NamedTagged, error) {
	named, err := image.ParseName(repo)
	if err != nil {
		return nil, err
	}
	if _, ok := named.(reference.Digested); ok {
		return nil, invalid("refusing to create a tag with a digest reference")
	}
	if reference.FamiliarName(named) == string(digest.Canonical) {
		return nil, invalid("refusing to create an ambiguous tag using digest algorithm as name")
	}
	if tag != "" {
		tagged, err := reference.WithTag(reference.TrimNamed(named), tag)
		return tagged, fault.Wrap(fault.Invalid, err)
	}
	tagged, ok := named.(reference.NamedTagged)
	if !ok {
		return nil, invalid("invalid reference format: %q has no tag", repo)
	}
	return tagged, nil
}
