package images

import (
	"berth/image"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
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
	name := repo
	if tag != "" {
		name += ":" + tag
	}
	named, err := image.ParseName(name)
	if err != nil {
		return nil, err
	}
	if _, ok := named.(reference.Digested); ok {
		return nil, invalid("refusing to create a tag with a digest reference")
	}
	tagged, ok := named.(reference.NamedTagged)
	if !ok {
		return nil, invalid("invalid reference format: %q has no tag", name)
	}
	return tagged, nil
}
