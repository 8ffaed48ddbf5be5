package image

import (
	"context"
	"errors"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/archive"
	"berth/fault"
	"berth/union"
)

// Adopt is as Layer, for files that lie where claim can make a layer of them when pack has read them: they are not written a second time.
// Where claim can't (fault.Unsupported), they are: what was to be claimed still packs to the same.
func (d *Draft) Adopt(ctx context.Context, below []Layer, pack func(context.Context, io.Writer) error, claim func(context.Context) (*union.Stage, archive.Unpacked, error)) (l Layer, err error) {
	w, err := d.c.s.blobs.Create()
	if err != nil {
		return l, err
	}
	defer w.Close()
	err = reading(ctx, pack, func(r io.Reader) error { return copyChunks(ctx, r, w, -1, func(int) {}) })
	if err != nil || w.Size() == emptyTar {
		return l, err
	}
	l = Layer{Desc: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: w.Digest(), Size: w.Size()}, DiffID: w.Digest()}
	ids, parent := Chains(append(slices.Clone(below), l)), digest.Digest("")
	if n := len(below); n > 0 {
		parent = ids[n-1]
	}
	chain := ids[len(below)]
	d.c.lease.hold(chain, l.Desc.Digest)
	stage, u, err := claim(ctx)
	if errors.Is(err, fault.Unsupported) {
		return d.Layer(ctx, below, pack)
	}
	if err != nil {
		return Layer{}, err
	}
	defer stage.Abort()
	if err := stage.Commit(chain, parent, u); err != nil {
		return Layer{}, err
	}
	if _, err := w.Commit("", -1); err != nil {
		return Layer{}, err
	}
	d.c.s.blobs.Flush()
	return l, nil
}
