package images

import (
	"strings"
	"time"

	"berth/image"

	wire "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/storage"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Inspect describes an image, as this machine would run it; or with a platform, that of the image, under its own manifest's digest.
// manifests adds what is below the image.
func (i *Service) Inspect(ref string, platform *ocispec.Platform, manifests bool) (wire.InspectResponse, error) {
	img, err := i.variant(ref, platform)
	if err != nil {
		return wire.InspectResponse{}, err
	}
	target, size := img.Target, img.Size
	if platform != nil {
		if target, size, err = i.part(img); err != nil {
			return wire.InspectResponse{}, err
		}
	}
	p := img.Platform()
	d := wire.InspectResponse{
		ID: target.Digest.String(), RepoTags: nonNil(img.Tags()), RepoDigests: digests(img), Author: img.Config.Author, Config: &img.Config.Config,
		Architecture: p.Architecture, Variant: p.Variant, Os: p.OS, OsVersion: p.OSVersion, Size: size,
		GraphDriver: &storage.DriverData{Name: i.Driver, Data: i.directories(img.Chain)}, RootFS: wire.RootFS{Type: "layers"},
		Metadata: wire.Metadata{LastTagTime: img.Tagged}, Descriptor: &target,
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
	if manifests {
		d.Manifests, err = i.manifests(img)
	}
	return d, err
}

// part is the manifest of an image's platform, and how many bytes that platform takes by itself.
func (i *Service) part(img *image.Image) (ocispec.Descriptor, int64, error) {
	list, err := image.Manifests(i.Store, img)
	for _, m := range list {
		if m.Descriptor.Digest == img.Manifest.Digest {
			return m.Descriptor, m.Content + m.Unpacked, err
		}
	}
	return img.Manifest, img.Size, err
}

// directories are the places of an image's layers, in the words that tools look for.
func (i *Service) directories(chain digest.Digest) map[string]string {
	data := map[string]string{}
	if dirs := i.LayerDirs(chain); len(dirs) > 0 {
		data["UpperDir"] = dirs[0]
		if len(dirs) > 1 {
			data["LowerDir"] = strings.Join(dirs[1:], ":")
		}
	}
	return data
}

// variant finds an image; nil is the platform that suits this machine best.
func (i *Service) variant(ref string, platform *ocispec.Platform) (*image.Image, error) {
	if platform == nil {
		return i.Store.Get(ref)
	}
	return i.Store.GetPlatform(ref, *platform)
}

// History lists what an image was made by, newest first.
func (i *Service) History(ref string, platform *ocispec.Platform) ([]wire.HistoryResponseItem, error) {
	img, err := i.variant(ref, platform)
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

// Attestations lists the in-toto statements about an image, of some types or of all; whole: with their content.
func (i *Service) Attestations(ref string, platform *ocispec.Platform, types []string, whole bool) ([]wire.AttestationStatement, error) {
	img, err := i.variant(ref, platform)
	if err != nil {
		return nil, err
	}
	statements, err := image.Statements(i.Store, img, types)
	if err != nil {
		return nil, err
	}
	all := make([]wire.AttestationStatement, len(statements))
	for n, s := range statements {
		all[n] = wire.AttestationStatement{Descriptor: s.Descriptor, PredicateType: s.Predicate}
		if whole {
			all[n].Statement = &s.Content
		}
	}
	return all, nil
}
