package image

import (
	"time"

	"github.com/moby/moby/api/types/image"
)

// NewRow makes the row of an image's first name. cut shortens what is long.
func NewRow(i image.Summary, cut bool, now time.Time) Row {
	if len(i.RepoTags) > 1 {
		i.RepoTags = i.RepoTags[:1]
	}
	if len(i.RepoTags) == 0 {
		i.RepoDigests = nil
	}
	return imageRows(&i, false, true, cut, now)[0]
}
