package images

import (
	"context"
	"io"

	"berth/image"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/jsonstream"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Save writes the images as one archive that is both a docker-archive and an OCI layout. Unknown names fail
// before the first byte.
// A name without a tag means all tags of its repository. Some of each image's platforms can be asked for.
func (i *Service) Save(ctx context.Context, w io.Writer, refs []string, platforms []ocispec.Platform) error {
	var all []string
	for _, ref := range refs {
		all = append(all, i.tagged(ref)...)
	}
	for _, ref := range all {
		if _, err := i.Store.Get(ref); err != nil {
			return err
		}
	}
	if err := i.Store.Save(ctx, w, all, platforms); err != nil {
		return err
	}
	for _, ref := range all {
		if img, err := i.Store.Get(ref); err == nil {
			i.Announce(events.ActionSave, img.ID.String(), img.ID.String())
		}
	}
	return nil
}

// tagged returns what ref means with every tag that its repository has here; ref itself, if it says more than a repository, or has none.
func (i *Service) tagged(ref string) []string {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil || !reference.IsNameOnly(named) {
		return []string{ref}
	}
	var all []string
	for _, n := range i.Store.Tags(named) {
		all = append(all, n.String())
	}
	if all == nil {
		return []string{ref}
	}
	return all
}

// Load reads a docker-archive or OCI layout.
func (i *Service) Load(ctx context.Context, r io.Reader, platforms []ocispec.Platform, quiet bool, out func(jsonstream.Message)) error {
	progress := image.Progress(nil)
	if !quiet {
		progress = showProgress(out)
	}
	loaded, err := i.Store.Load(ctx, r, platforms, progress)
	if err != nil {
		return err
	}
	for _, l := range loaded {
		if l.Name == nil {
			out(jsonstream.Message{Stream: "Loaded image ID: " + l.ID.String() + "\n"})
		} else {
			out(jsonstream.Message{Stream: "Loaded image: " + reference.FamiliarString(l.Name) + "\n"})
		}
		i.Announce(events.ActionLoad, l.ID.String(), l.ID.String())
	}
	return nil
}
