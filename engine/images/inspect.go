package images

import (
	"time"

	wire "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/storage"
)

// Inspect describes an image.
func (i *Service) Inspect(ref string) (wire.InspectResponse, error) {
	img, err := i.Store.Get(ref)
	if err != nil {
		return wire.InspectResponse{}, err
	}
	p := img.Platform()
	d := wire.InspectResponse{
		ID: img.ID.String(), RepoTags: nonNil(img.Tags()), RepoDigests: nonNil(img.Digests()), Author: img.Config.Author, Config: &img.Config.Config,
		Architecture: p.Architecture, Variant: p.Variant, Os: p.OS, OsVersion: p.OSVersion, Size: img.Size,
		GraphDriver: &storage.DriverData{Name: i.Driver, Data: map[string]string{}}, RootFS: wire.RootFS{Type: "layers"},
		Metadata: wire.Metadata{LastTagTime: img.Tagged}, Descriptor: &img.Target,
	}
	if created := img.Created(); !created.IsZero() {
		d.Created = created.Format(time.RFC3339Nano)
	}
	for _, diff := range img.DiffIDs {
		d.RootFS.Layers = append(d.RootFS.Layers, diff.String())
	}
	if n := len(img.Config.History); n > 0 {
		d.Comment = img.Config.History[n-1].Comment
	}
	return d, nil
}

// History lists what an image was made by, newest first.
func (i *Service) History(ref string) ([]wire.HistoryResponseItem, error) {
	img, err := i.Store.Get(ref)
	if err != nil {
		return nil, err
	}
	items, err := i.Store.History(img)
	if err != nil {
		return nil, err
	}
	all := make([]wire.HistoryResponseItem, 0, len(items))
	for _, h := range items {
		all = append(all, wire.HistoryResponseItem{ID: h.ID, Created: h.Created, CreatedBy: h.CreatedBy, Comment: h.Comment, Tags: h.Tags, Size: h.Size})
	}
	return all, nil
}
