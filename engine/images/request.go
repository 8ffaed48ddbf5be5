package images

import (
	"berth/engine/journal"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ImportRequest makes an image from a tar archive.
type ImportRequest struct {
	Source          string // URL, or "-": Body
	Repository, Tag string // the image's name; without a tag latest, "": none
	Message         string
	Changes         []string // Dockerfile lines
	Platform        *ocispec.Platform
}

// ListRequest selects images.
type ListRequest struct {
	SharedSize bool
	Manifests  bool
	Filters    journal.Filters
}
