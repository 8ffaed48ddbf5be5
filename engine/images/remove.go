package images

import (
	"context"

	"berth/image"

	"github.com/moby/moby/api/types/events"
	wire "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
)

// Remove untags, and deletes what nothing names any more.
func (i *Service) Remove(_ context.Context, ref string, force, noPrune bool) ([]wire.DeleteResponse, error) {
	i.Settle()
	removed, err := i.Store.Remove(ref, image.RemoveOptions{Force: force, NoPrune: noPrune, InUse: func(id digest.Digest) ([]string, []string) {
		return i.UsedBy(id.String())
	}})
	all := make([]wire.DeleteResponse, 0, len(removed))
	for _, r := range removed {
		all = append(all, wire.DeleteResponse{Untagged: r.Untagged, Deleted: r.Deleted})
		if r.Untagged != "" {
			i.Announce(events.ActionUnTag, digest.Digest(r.Untagged), r.Untagged)
		} else {
			i.Announce(events.ActionDelete, digest.Digest(r.Deleted), r.Deleted)
		}
	}
	return all, err
}
