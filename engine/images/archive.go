package images

import (
	"context"
	"io"

	"berth/image"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/jsonstream"
)

// Save writes the images as one archive that is both a docker-archive and an OCI layout. Unknown names fail
// before the first byte.
func (i *Service) Save(ctx context.Context, w io.Writer, refs []string) error {
	for _, ref := range refs {
		img, err := i.Store.Get(ref)
		if err != nil {
			return err
		}
		i.Announce(events.ActionSave, img.ID, ref)
	}
	return i.Store.Save(ctx, w, refs, nil)
}

// Load reads a docker-archive or OCI layout.
func (i *Service) Load(ctx context.Context, r io.Reader, quiet bool, out func(jsonstream.Message)) error {
	progress := image.Progress(nil)
	if !quiet {
		progress = showProgress(out)
	}
	loaded, err := i.Store.Load(ctx, r, nil, progress)
	if err != nil {
		return err
	}
	for _, l := range loaded {
		if l.Name == nil {
			out(jsonstream.Message{Stream: "Loaded image ID: " + l.ID.String() + "\n"})
		} else {
			out(jsonstream.Message{Stream: "Loaded image: " + reference.FamiliarString(l.Name) + "\n"})
		}
		i.Announce(events.ActionLoad, l.ID, l.ID.String())
	}
	return nil
}
