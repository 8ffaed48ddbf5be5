package images

import (
	"context"

	"berth/image"

	"github.com/moby/moby/api/types/events"
	wire "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// RemoveRequest names what to remove.
type RemoveRequest struct {
	Ref       string
	Force     bool
	NoPrune   bool
	Platforms []ocispec.Platform // these of it alone; none: all
}

// Remove untags, and deletes what nothing names any more.
func (i *Service) Remove(_ context.Context, r RemoveRequest) ([]wire.DeleteResponse, error) {
	i.Settle()
	subject := ""
	if img, err := i.Store.Get(r.Ref); err == nil {
		subject = img.ID.String()
	}
	removed, err := i.Store.Remove(r.Ref, image.RemoveOptions{Force: r.Force, NoPrune: r.NoPrune, Platforms: r.Platforms, InUse: func(id digest.Digest) ([]string, []string) {
		return i.UsedBy(id.String())
	}})
	all := make([]wire.DeleteResponse, 0, len(removed))
	for _, step := range removed {
		all = append(all, wire.DeleteResponse{Untagged: step.Untagged, Deleted: step.Deleted})
		if step.Untagged != "" {
			i.Gone(events.ActionUnTag, subject, step.Untagged)
		} else {
			i.Gone(events.ActionDelete, step.Deleted, step.Deleted)
		}
	}
	return all, err
}

// Gone tells of a name or an image that is not here any more.
func (i *Service) Gone(action events.Action, subject, name string) {
	i.Events.Publish(events.ImageEventType, action, subject, map[string]string{"name": name})
}
