package images

import (
	"slices"

	"berth/image"

	wire "github.com/moby/moby/api/types/image"
)

// manifests describes the manifests of an image for `manifests=1` of the list and of inspect.
func (i *Service) manifests(img *image.Image) ([]wire.ManifestSummary, error) {
	list, err := image.Manifests(i.Store, img)
	if err != nil {
		return nil, err
	}
	running, stopped := i.UsedBy(img.ID.String())
	users := slices.Concat(running, stopped)
	all := make([]wire.ManifestSummary, len(list))
	for k, m := range list {
		s := wire.ManifestSummary{ID: m.Descriptor.Digest.String(), Descriptor: m.Descriptor, Available: m.Available, Kind: wire.ManifestKindUnknown}
		s.Size.Content, s.Size.Total = m.Content, m.Content+m.Unpacked
		switch m.Kind {
		case image.Attestation:
			s.Kind, s.AttestationData = wire.ManifestKindAttestation, &wire.AttestationProperties{For: m.Attests}
		case image.ImageManifest:
			s.Kind, s.ImageData = wire.ManifestKindImage, &wire.ImageProperties{Containers: []string{}}
			if m.Platform != nil {
				s.ImageData.Platform = *m.Platform
			}
			s.ImageData.Size.Unpacked = m.Unpacked
			for _, id := range users {
				if i.ManifestOf(id) == m.Descriptor.Digest {
					s.ImageData.Containers = append(s.ImageData.Containers, id)
				}
			}
		}
		all[k] = s
	}
	return all, nil
}
