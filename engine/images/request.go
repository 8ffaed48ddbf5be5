package images

import (
	"berth/engine/journal"

	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// PullRequest names an image to fetch.
type PullRequest struct {
	Ref      string // as a user writes it; a name without tag is ":latest"
	All      bool   // every tag
	Platform *ocispec.Platform
	Auth     registry.AuthConfig // zero: anonymous
}

// ImportRequest makes an image from a tar archive.
type ImportRequest struct {
	Source   string // URL, or "-": Body
	Ref      string // repository or repository:tag; "": untagged
	Message  string
	Changes  []string // Dockerfile lines
	Platform *ocispec.Platform
}

// ListRequest selects images.
type ListRequest struct {
	All        bool
	SharedSize bool
	Manifests  bool
	Filters    journal.Filters
}
