package union

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"

	"berth/archive"
	"berth/fault"
	"berth/kernel"
)

// CreateShifted is d.Create for a container in a user namespace, where layers can't be id-mapped: the root stands on a copy of the
// chain, with what init made, in which every file belongs on disk to whom the container is to see. There is one
// copy for each map of ids; it is a layer like others, and goes when nobody uses it. copied: it had to be made.
func CreateShifted(ctx context.Context, d Driver, id string, chain digest.Digest, ids archive.IDMap, init func(root *os.File) error) (r Root, copied bool, err error) {
	text, err := json.Marshal(ids)
	if err != nil {
		return Root{}, false, err
	}
	shifted := digest.FromString("copied for other ids\n" + chain.String() + "\n" + string(text))
	for range 3 { // an image that is removed meanwhile takes unused copies with it
		if !d.Has(shifted) {
			if err := copyShifted(ctx, d, id+"-from", shifted, chain, ids, init); err != nil {
				return Root{}, false, fmt.Errorf("copy the layers of root %s for its ids: %w", id, err)
			}
			copied = true
		}
		if r, err = d.Create(id, shifted, nil); !errors.Is(err, fault.NotFound) {
			break
		}
	}
	return r, copied, err
}

// copyShifted makes the layer to from what a root over the chain from shows. The root is called scratch, and goes again.
func copyShifted(ctx context.Context, d Driver, scratch string, to, from digest.Digest, ids archive.IDMap, init func(root *os.File) error) (err error) {
	r, err := d.Create(scratch, from, init)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Delete(scratch)) }()
	stage, err := d.Stage()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stage.Abort()) }()
	stage.ids = ids
	uid, gid, err := ids.ToHost(0, 0)
	if err == nil {
		err = kernel.Chown(stage.Root(), uid, gid)
	}
	if err != nil {
		return err
	}
	var u archive.Unpacked
	err = View(r, func(dir *os.File) error {
		out, in := io.Pipe()
		packed := make(chan error, 1)
		go func() {
			err := archive.Pack(ctx, in, dir, archive.PackOptions{})
			in.CloseWithError(err)
			packed <- err
		}()
		u, err = archive.Unpack(ctx, out, stage.Root(), archive.UnpackOptions{IDs: ids, Holes: true})
		out.CloseWithError(errors.Join(err, io.ErrClosedPipe))
		return errors.Join(err, <-packed)
	})
	if err != nil {
		return err
	}
	u.Implied = nil // all of it was there
	return errors.Join(stage.Commit(to, "", u), d.Sync())
}
