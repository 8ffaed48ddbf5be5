package image

import (
	"github.com/opencontainers/go-digest"

	"berth/archive"
	"berth/fault"
)

// Limits bound what one image may take on disk when it comes from elsewhere; 0 is no bound. Even then no image fills the file system to its end.
type Limits struct {
	Bytes int64 // of its unpacked layers, in allocated blocks
	Files int64 // of all kinds, in all layers
}

// maxStream bounds the plain tar stream of a layer and the sum of the sizes that its files claim, in bytes: holes take no room on disk, but time to read.
const maxStream = 1 << 40

// budget starts the account of one image.
func (l Limits) budget() *archive.Budget { return archive.NewBudget(l.Bytes, l.Files) }

// afford charges the budget of an image with those of its layers that are here already, and refuses layers whose compressed bytes alone
// are too many. A sixteenth more is let pass: what doesn't compress grows a little.
func (l Limits) afford(b *archive.Budget, list []*job, sizes func() (map[digest.Digest]int64, error)) error {
	if l.Bytes == 0 {
		return nil
	}
	here, err := sizes()
	if err != nil {
		return err
	}
	left := l.Bytes + l.Bytes/16
	for _, j := range list {
		if err := b.Take(here[j.chain], 0); err != nil {
			return err
		}
		if j.same != nil {
			continue
		}
		if left -= j.desc.Size; left < 0 || j.desc.Size < 0 {
			return fault.New(fault.Invalid, "the image's layers are announced with more than the %d bytes that one image may take on disk (max-image-size of the daemon)", l.Bytes)
		}
	}
	return nil
}
