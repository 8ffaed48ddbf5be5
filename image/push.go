package image

import (
	"context"
	"slices"
	"strings"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/fault"
)

// Pushed tells what Push left at its target.
type Pushed struct {
	Image  *Image             // as it is known here
	Target ocispec.Descriptor // what the tag means there
	// Index is the image's index when Target is the one platform's manifest that was sent instead, as
	// content of other platforms is not here; else nil.
	Index *ocispec.Descriptor
}

// Tags returns all tagged names of repo's repository, sorted: what a push without a tag means.
func (s *Store) Tags(repo reference.Named) []reference.NamedTagged {
	var list []reference.NamedTagged
	for _, img := range s.now.Load().list {
		for _, n := range img.Names {
			tagged, ok := n.(reference.NamedTagged)
			if _, digested := n.(reference.Digested); ok && !digested && n.Name() == repo.Name() {
				list = append(list, tagged)
			}
		}
	}
	slices.SortFunc(list, func(a, b reference.NamedTagged) int { return strings.Compare(a.Tag(), b.Tag()) })
	return list
}

// Push copies the image that has name to dst, children before parents, and gives it name's tag there, if it
// has one. What dst has is not sent. platform nil sends all of the image, or this machine's platform where not all of it is here. Then
// the image has the digest reference of name's repository here, too.
//
// fault.NotFound: "tag does not exist: busybox:latest", or no content for the platform.
func (s *Store) Push(ctx context.Context, dst Target, name reference.Named, platform *ocispec.Platform, p Progress) (Pushed, error) {
	return Pushed{}, fault.New(fault.Unsupported, "push %s: not supported yet", reference.FamiliarString(name))
}
