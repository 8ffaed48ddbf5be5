package engine

import (
	"berth/engine/mounts"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"berth/container"
	"berth/engine/device"
	"berth/engine/request"
	"berth/fault"
	"berth/volume"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
)

// UpdateRequest says what changes of a container.
type UpdateRequest = request.Update

// Changes are our own part of it.
type Changes = request.Changes

// Way is how a change reached a container.
type Way string

// The ways. One that does not run gets it at its next start.
const (
	Unchanged   Way = "unchanged"
	Recorded    Way = "recorded"
	ChangedLive Way = "changed live"
	Recreated   Way = "recreated" // ended and started again, with its name, ID, writable layer and volumes
)

// UpdateResult is how an update went.
type UpdateResult struct {
	Warnings []string
	Way      Way
}

// errNotLive says that a change can't be made while the container runs.
var errNotLive = errors.New("it can't be changed while the container runs")

// updater changes containers after they were made.
type updater struct{ *Containers }

// Update changes a container: while it runs where the kernel allows that, else by ending it and starting it again. After an
// error everything is as it was: the record, the limits, the ports, the mounts, and a container that ran runs.
func (c *Containers) Update(ctx context.Context, ref string, r UpdateRequest) (UpdateResult, error) {
	i, err := c.index.Get(ref)
	if err != nil {
		return UpdateResult{}, err
	}
	ctx = context.WithoutCancel(ctx) // what was begun is finished, whether the client stays or not
	i.updating.Lock()
	defer i.updating.Unlock()
	u := updater{c}
	result, err := u.updateInPlace(ctx, i, r)
	if errors.Is(err, errNotLive) {
		result, err = u.recreate(ctx, i, r)
	}
	if err != nil {
		return result, fmt.Errorf("Cannot update container %s: %w", i.id, err) //lint:ignore ST1005 the field's words
	}
	return result, nil
}

// updateInPlace changes the record and, of a container that runs, what the record stands for. errNotLive: it runs,
// and can't be changed so.
func (c updater) updateInPlace(ctx context.Context, i *instance, r UpdateRequest) (result UpdateResult, err error) {
	i.op.Lock()
	defer i.op.Unlock()
	old := i.record()
	next, warnings, err := c.draftUpdate(old, r)
	result.Warnings = warnings
	if err != nil {
		return result, err
	}
	if result.Way = Unchanged; sameRecord(old, next) {
		c.announce(old, events.ActionUpdate)
		return result, nil
	}
	result.Way = Recorded
	alive := old.State.Status.Alive()
	if alive {
		if result.Way = ChangedLive; needsStart(old, next) {
			return result, errNotLive
		}
	}
	if err := c.store.BeginUpdate(&container.Update{Before: old, After: next}); err != nil {
		return result, err
	}
	defer func() { c.logged("end an update", c.store.EndUpdate(i.id)) }()
	var u undo
	if alive {
		warnings, err = c.changeLive(ctx, i, old, next, &u)
		result.Warnings = append(result.Warnings, warnings...)
	} else {
		err = c.makeNewVolumes(ctx, old, next, &u)
	}
	if err == nil {
		err = c.store.Save(next)
	}
	if err != nil {
		u.run()
		return result, err
	}
	i.snap.Store(next)
	if live, err := i.current(); err == nil && newHealth(old, next) {
		c.watchHealth(i, live)
	}
	return result, c.updated(i, old)
}

// newHealth tells whether the two differ in their health checks.
func newHealth(a, b *container.Record) bool {
	return !reflect.DeepEqual(a.Config.Healthcheck, b.Config.Healthcheck)
}

// updated does what follows a change that is recorded. The caller holds op.
func (c updater) updated(i *instance, old *container.Record) error {
	r := i.record()
	c.announce(r, events.ActionUpdate)
	if old.HostConfig.RestartPolicy != r.HostConfig.RestartPolicy {
		return c.policyChanged(i)
	}
	return nil
}

// draftUpdate decides everything about a change; nothing is touched yet.
func (c updater) draftUpdate(old *container.Record, r UpdateRequest) (next *container.Record, warnings []string, err error) {
	if s := old.State.Status; s == container.Removing || s == container.Dead {
		return nil, nil, fault.New(fault.Conflict, `container is marked for removal and cannot be "update"`)
	}
	if r.RestartPolicy.Name != "" {
		if err := checkRestartPolicy(old.HostConfig, r.RestartPolicy); err != nil {
			return nil, nil, err
		}
	}
	if next, warnings, err = request.Changed(old, r, c.machine()); err != nil {
		return nil, warnings, err
	}
	for k := range next.Mounts {
		m := &next.Mounts[k]
		if slices.ContainsFunc(old.Mounts, func(o container.Mount) bool { return reflect.DeepEqual(o, *m) }) {
			continue
		}
		if m.Type == mount.TypeVolume && m.Name == "" {
			m.Name = container.NewID()
		}
		if m.Type == mount.TypeVolume {
			err = volume.CheckName(m.Name)
		}
		if err = errors.Join(err, mounts.CheckBindSource(*m)); err != nil {
			return nil, warnings, err
		}
	}
	_, err = device.Block(next)
	return next, warnings, err
}

// needsStart tells whether the change is of what a program is given only at its start.
func needsStart(old, next *container.Record) bool {
	return !slices.Equal(old.Config.Env, next.Config.Env)
}

// sameRecord compares two records as they stand on disk.
func sameRecord(a, b *container.Record) bool {
	one, err := json.Marshal(a)
	other, otherErr := json.Marshal(b)
	return err == nil && otherErr == nil && bytes.Equal(one, other)
}

// newMounts lists those of next that old has not.
func newMounts(old, next *container.Record) (all []container.Mount) {
	for _, m := range next.Mounts {
		if !slices.ContainsFunc(old.Mounts, func(o container.Mount) bool { return reflect.DeepEqual(o, m) }) {
			all = append(all, m)
		}
	}
	return all
}

// makeNewVolumes makes the volumes of a container that does not run, with what its root has in their place.
func (c updater) makeNewVolumes(ctx context.Context, old, next *container.Record, u *undo) error {
	added := next.Clone()
	if added.Mounts = newMounts(old, next); len(added.Mounts) == 0 {
		return nil
	}
	root, err := c.openRoot(next)
	if err != nil {
		return err
	}
	return c.makeVolumes(ctx, added, root, u)
}
