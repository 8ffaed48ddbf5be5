package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"berth/container"
	"berth/engine/images"
	"berth/engine/request"
	"berth/fault"
	"berth/image"
	"berth/image/instruction"
	"berth/oci/shim"
	"berth/union"

	"github.com/distribution/reference"
	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
)

// CommitRequest says what image is made of a container.
type CommitRequest struct {
	Ref     string // repository[:tag]; "": untagged
	Author  string
	Message string
	Changes []string    // Dockerfile lines
	Config  *api.Config // what differs from the container's; nil: nothing
	Pause   bool        // freeze its processes meanwhile
}

// Commit makes an image of what a container was made from and what it wrote since, and returns the image's ID. Volumes
// are no part of it.
func (c *insides) Commit(ctx context.Context, ref string, q CommitRequest) (id string, err error) {
	i, err := c.index.Get(ref)
	if err != nil {
		return "", err
	}
	r := i.record()
	o := image.CommitOptions{Author: q.Author, Message: q.Message, CreatedBy: strings.Join(r.Config.Cmd, " "), Origin: image.Origin{Container: r.ID}}
	if o.Origin.Config, err = json.Marshal(r.Config); err != nil {
		return "", err
	}
	if q.Ref != "" {
		if o.Ref, err = images.TargetName(q.Ref, ""); err != nil {
			return "", err
		}
	}
	if o.Config, err = request.ImageConfig(r.Config, q.Config); err != nil {
		return "", err
	}
	if err := instruction.Apply(&o.Config, q.Changes); err != nil {
		return "", err
	}
	if r.Image != "" {
		o.Parent, err = c.images.Store.Get(r.Image.String())
		if errors.Is(err, fault.NotFound) {
			return "", fault.New(fault.NotFound, "commit container %s: its image %s was removed: pull or load it again first", r.Name, r.ImageName)
		}
		if err != nil {
			return "", err
		}
	}
	root, err := c.openRoot(i.record())
	if err != nil {
		return "", err
	}
	if q.Pause {
		thaw, err := c.freeze(ctx, i)
		if err != nil {
			return "", err
		}
		defer thaw()
	}
	img, err := c.images.Store.Commit(ctx, func(ctx context.Context, w io.Writer) error { return union.Pack(ctx, w, root) }, o)
	if err != nil {
		return "", fmt.Errorf("commit container %s: %w", r.Name, err)
	}
	name := ""
	if o.Ref != nil {
		name = reference.FamiliarString(o.Ref)
		c.images.Announce(events.ActionTag, img.ID.String(), name)
	}
	c.announce(r, events.ActionCommit, "comment", q.Message, "imageID", img.ID.String(), "imageRef", name)
	return img.ID.String(), nil
}

// freeze pauses a container that runs; thaw lets it run on, and so does the next engine if this one dies before. One that
// does not run, or is paused already, stays as it is.
func (c *insides) freeze(ctx context.Context, i *instance) (thaw func(), err error) {
	if i.record().State.Status != container.Running {
		return func() {}, nil
	}
	if err := c.committing(i, true); err != nil {
		return nil, err
	}
	if err := c.pause(ctx, i, true); err != nil {
		markErr := c.committing(i, false)
		if errors.Is(err, fault.Conflict) {
			return func() {}, markErr // it has just ended, or was paused by somebody else
		}
		return nil, errors.Join(err, markErr)
	}
	return func() {
		err := c.pause(context.WithoutCancel(ctx), i, false)
		if errors.Is(err, fault.Conflict) { // it has ended, or somebody else was first
			err = nil
		}
		c.logged("resume container "+i.record().Name+" after a commit", errors.Join(err, c.committing(i, false)))
	}, nil
}

// committing notes on disk whether a commit has the container frozen.
func (c *insides) committing(i *instance, is bool) error {
	i.op.Lock()
	defer i.op.Unlock()
	if s := i.record().State; s.Status == container.Removing || s.Committing == is {
		return nil
	}
	r := i.record().Clone()
	r.State.Committing = is
	return c.saveState(i, r)
}

// thaw ends a freeze for a commit that died with the engine before.
func (c *insides) thaw(r *container.Record, sh *shim.Shim) error {
	if !r.State.Committing {
		return nil
	}
	if err := sh.Resume(c.life); err != nil && !errors.Is(err, fault.Conflict) {
		return fmt.Errorf("resume after a commit that was cut off: %w", err)
	}
	r.State.Committing, r.State.Status = false, container.Running
	return c.store.SaveState(r)
}
