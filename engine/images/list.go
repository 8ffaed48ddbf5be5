package images

import (
	"time"

	"berth/image"

	wire "github.com/moby/moby/api/types/image"
)

// List describes the images that fit, newest first.
func (i *Service) List(r ListRequest) ([]wire.Summary, error) {
	list, err := i.Store.List()
	if err != nil {
		return nil, err
	}
	list, err = image.Select(list, image.Filter(r.Filters), time.Now(), i.Store.Get)
	if err != nil {
		return nil, err
	}
	all := make([]wire.Summary, 0, len(list))
	for _, img := range list {
		s := wire.Summary{
			ID: img.ID.String(), RepoTags: nonNil(img.Tags()), RepoDigests: nonNil(img.Digests()), Size: img.Size, SharedSize: -1,
			Labels: img.Config.Config.Labels, Descriptor: &img.Target,
		}
		if s.Labels == nil {
			s.Labels = map[string]string{}
		}
		if created := img.Created(); !created.IsZero() {
			s.Created = created.Unix()
		}
		running, stopped := i.UsedBy(s.ID)
		s.Containers = int64(len(running) + len(stopped))
		all = append(all, s)
	}
	return all, nil
}
