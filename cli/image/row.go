package image

import (
	"time"

	"github.com/moby/moby/api/types/image"
)

// Row is a name of an image as lists show it; the fields are what templates may use.
type Row = imageRow

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
