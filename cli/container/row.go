package container

import (
	"time"

	"berth/cli/format"

	"github.com/moby/moby/api/types/container"
)

// NewRow makes a row, with the size of what the container wrote alone. cut shortens what is long.
func NewRow(c container.Summary, cut bool, now time.Time) Row {
	c.SizeRootFs = 0
	r := newContainerRow(&c, cut, now)
	r.CreatedAt = time.Unix(c.Created, 0).Local().Format(format.DateLayout)
	return r
}
