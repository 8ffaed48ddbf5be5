package images

import (
	"slices"
	"time"

	"berth/image"

	"github.com/distribution/reference"
	wire "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
)

// List describes the images that fit, newest first.
func (i *Service) List(r ListRequest) ([]wire.Summary, error) {
	list, err := i.Store.List()
	if err != nil {
		return nil, err
	}
	selected, err := image.Select(list, image.Filter(r.Filters), time.Now(), i.Store.Get)
	if err != nil {
		return nil, err
	}
	var shared map[digest.Digest]int64
	if r.SharedSize {
		if shared, err = i.shared(list); err != nil {
			return nil, err
		}
	}
	all := make([]wire.Summary, 0, len(selected))
	for _, img := range selected {
		s := wire.Summary{
			ID: img.ID.String(), RepoTags: nonNil(img.Tags()), RepoDigests: digests(img), Size: img.Size, SharedSize: -1,
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
		if r.SharedSize {
			s.SharedSize = shared[img.ID]
		}
		if r.Manifests {
			if s.Manifests, err = i.manifests(img); err != nil {
				return nil, err
			}
		}
		all = append(all, s)
	}
	return all, nil
}

// digests are the references by which an image is found whatever becomes of its tags: those that it was pulled and pushed by, and, as its ID
// is that digest, one for each repository that it has a tag in.
func digests(img *image.Image) []string {
	list := nonNil(img.Digests())
	for _, n := range img.Names {
		if d, err := reference.WithDigest(reference.TrimNamed(n), img.ID); err == nil {
			list = append(list, reference.FamiliarString(d))
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// shared tells for each image how many of its bytes, of blobs and of unpacked layers, other images have too.
func (i *Service) shared(list []*image.Image) (map[digest.Digest]int64, error) {
	type part struct {
		digest   digest.Digest
		unpacked bool
	}
	users, sizes := map[part]int{}, map[part]int64{}
	parts := map[digest.Digest]map[part]bool{}
	for _, img := range list {
		manifests, err := image.Manifests(i.Store, img)
		if err != nil {
			return nil, err
		}
		own := map[part]bool{}
		for _, m := range manifests {
			for d, size := range m.Blobs {
				own[part{d, false}], sizes[part{d, false}] = true, size
			}
			for d, size := range m.Layers {
				own[part{d, true}], sizes[part{d, true}] = true, size
			}
		}
		for p := range own {
			users[p]++
		}
		parts[img.ID] = own
	}
	shared := map[digest.Digest]int64{}
	for id, own := range parts {
		for p := range own {
			if users[p] > 1 {
				shared[id] += sizes[p]
			}
		}
	}
	return shared, nil
}
