package build

import (
	"context"
	"os"

	"github.com/opencontainers/go-digest"

	"berth/archive"
	"berth/union"
)

// IDs are the ids of this machine that programs have. Layers have the owners that programs see, whoever those are on this machine.
type IDs struct {
	Map    archive.IDMap // the zero one: programs have those that they see
	Copied bool          // no mount can show owners through Map, so that what programs see is a copy with other owners
}

func (b *Builder) ids() IDs {
	if b.IDs == nil {
		return IDs{}
	}
	return b.IDs()
}

// shift is by what owners differ on disk, in what only programs see.
func (b *Builder) shift() archive.IDMap {
	if ids := b.ids(); ids.Copied {
		return ids.Map
	}
	return archive.IDMap{}
}

// rootFor makes a root that programs see.
func (b *Builder) rootFor(ctx context.Context, id string, over digest.Digest, prepare func(top *os.File) error) (root union.Root, err error) {
	by := b.shift()
	if by.Empty() {
		return b.Layers.Create(id, over, prepare)
	}
	root, _, err = union.CreateShifted(ctx, b.Layers, id, over, by, prepare)
	return root, err
}
