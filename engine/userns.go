package engine

import (
	"context"
	"errors"
	"fmt"
	"os"

	"berth/archive"
	"berth/container"
	"berth/engine/files"
	"berth/engine/request"
	"berth/fault"
	"berth/union"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// claimIDs decides the ids of a new container; c.ids.Settle follows.
func (c *maker) claimIDs(rec *container.Record) error {
	var joined []*container.Record
	for _, ref := range rec.Joins() {
		other, err := c.index.Get(ref)
		if err != nil {
			return fault.Wrap(fault.Invalid, err) // 404 would make clients pull the image
		}
		joined = append(joined, other.record())
	}
	return c.ids.Claim(rec, joined, func() (taken []container.IDs) {
		for _, i := range c.index.All() {
			taken = append(taken, i.record().IDs)
		}
		return taken
	})
}

// noMapping is why something is not id-mapped.
const noMapping = "this kernel (before Linux 5.19) or the data root's file system has no id-mapped mounts for it"

// createRoot makes a container's root: over the image's layers, or over a copy with other owners where they can't be id-mapped.
func (c *maker) createRoot(ctx context.Context, rec *container.Record) (root union.Root, err error) {
	size, err := request.Size(rec.HostConfig)
	if err != nil {
		return union.Root{}, err
	}
	if root, err = c.overLayers(ctx, rec.ID, rec.Chain, rec.IDs, files.Prepare); err == nil && size > 0 {
		if err = union.Limit(c.layers, rec.ID, size); err != nil {
			err = errors.Join(err, c.layers.Delete(rec.ID))
		}
	}
	return root, err
}

func (c *shared) overLayers(ctx context.Context, id string, chain digest.Digest, ids container.IDs, init func(top *os.File) error) (union.Root, error) {
	if ids.IsZero() || c.mapsLayers() {
		return c.layers.Create(id, chain, init)
	}
	root, _, err := union.CreateShifted(ctx, c.layers, id, chain, idMap(ids), init)
	return root, err
}

func idMap(ids container.IDs) archive.IDMap {
	ranges := func(list []specs.LinuxIDMapping) (all []archive.IDRange) {
		for _, m := range list {
			all = append(all, archive.IDRange{Container: m.ContainerID, Host: m.HostID, Size: m.Size})
		}
		return all
	}
	return archive.IDMap{UIDs: ranges(ids.UIDs), GIDs: ranges(ids.GIDs)}
}

// own gives a new volume to the root of a container whose mounts can't be id-mapped, as ids has it; otherwise it stays the host's root's.
func own(dir string, ids archive.IDMap) error {
	uid, gid, err := ids.ToHost(0, 0)
	if err != nil || ids.Empty() {
		return err
	}
	return os.Chown(dir, int(uid), int(gid))
}

// joinUserns makes a container that shares namespaces with others share their user namespace, without which it had no
// rights in them.
func (c *starter) joinUserns(r *container.Record, join map[specs.LinuxNamespaceType]string) error {
	joined := r.Joins()
	if r.IDs.IsZero() || len(joined) == 0 {
		return nil
	}
	pid, err := c.pidOf(joined[0], "user")
	join[specs.UserNamespace] = fmt.Sprintf("/proc/%d/ns/user", pid)
	return err
}
