package engine

import (
	"context"
	"errors"
	"fmt"

	"berth/container"
	"berth/engine/machine"
	"berth/fault"
	"berth/oci"
)

// recreate changes a running container in place: it is ended, the record is changed, and it is started from that, with the same name, ID,
// writable layer and volumes. When the new one does not start, the old record is put back and started.
func (c updater) recreate(ctx context.Context, i *instance, r UpdateRequest) (UpdateResult, error) {
	result := UpdateResult{Way: Recreated}
	live, err := c.beginRecreate(i, r)
	if err != nil {
		return result, err
	}
	defer func() { c.logged("end an update", c.store.EndUpdate(i.id)) }()
	i.mu.Lock()
	i.keep = i.run == live
	i.mu.Unlock()
	if err := c.stop(ctx, i, live, StopOptions{}); err != nil {
		i.mu.Lock()
		i.keep = false
		i.mu.Unlock()
		return result, err
	}
	i.op.Lock()
	defer i.op.Unlock()
	old := i.record() // a rename meanwhile is kept
	next, warnings, err := c.draftUpdate(old, r)
	result.Warnings = warnings
	if err == nil && old.State.Status.Alive() {
		err = fault.New(fault.Conflict, "somebody else started it meanwhile; nothing is changed")
	}
	var u undo
	if err == nil {
		err = c.makeNewVolumes(ctx, old, next, &u)
	}
	if err == nil {
		err = c.startChanged(ctx, i, old, next)
	}
	if err == nil {
		return result, c.updated(i, old)
	}
	u.run()
	if i.record().State.Status.Alive() {
		return result, err
	}
	if startErr := c.start(ctx, i, byUser); startErr != nil {
		return result, fmt.Errorf("%w; it is as it was, but does not start that way either: %w", err, startErr)
	}
	return result, fmt.Errorf("%w; it is as it was, and runs again", err)
}

// beginRecreate looks whether the change can be made at all, before anything is ended, and notes it.
func (c updater) beginRecreate(i *instance, r UpdateRequest) (*run, error) {
	i.op.Lock()
	defer i.op.Unlock()
	old := i.record()
	if old.State.Status == container.Paused {
		return nil, fault.New(fault.Conflict, "container %s is paused, and this change needs it to be started again; unpause the container before", old.Name)
	}
	next, _, err := c.draftUpdate(old, r)
	if err != nil {
		return nil, err
	}
	live, err := i.current()
	if err != nil {
		return nil, fault.New(fault.Conflict, "container %s ended meanwhile; nothing is changed, try again", old.Name)
	}
	return live, c.store.BeginUpdate(&container.Update{Before: old, After: next, Ran: true, Boot: machine.Boot()})
}

// startChanged records next and starts it; after an error old is recorded again. The caller holds op.
func (c updater) startChanged(ctx context.Context, i *instance, old, next *container.Record) error {
	if err := c.store.BeginUpdate(&container.Update{Before: old, After: next, Ran: true, Boot: machine.Boot()}); err != nil {
		return err
	}
	err := c.store.Save(next)
	if err == nil {
		i.snap.Store(next)
		err = c.start(ctx, i, byUpdate)
	}
	if err == nil {
		return nil
	}
	back := old.Clone()
	back.State = i.record().State
	if saveErr := c.store.Save(back); saveErr != nil {
		return errors.Join(err, saveErr)
	}
	i.snap.Store(back)
	return err
}

// stillMounted is what a container that runs has by the steps of an unfinished change from one record to another: of the mounts that were
// to go, some still stand.
func stillMounted(after, before *container.Record) (*container.Record, error) {
	now := after.Clone()
	for _, m := range newMounts(after, before) {
		there, err := oci.MountedIn(before.State.Pid, m.Destination)
		if err != nil {
			return nil, err
		}
		if there {
			now.Mounts = append(now.Mounts, m)
		}
	}
	return now, nil
}

// settleUpdates takes back, or finishes, the changes that a former engine was in the middle of. It runs
// when containers, layers and networks are restored, before any is started.
func (c updater) settleUpdates(ctx context.Context) error {
	for _, i := range c.index.All() {
		u, err := c.store.Updating(i.id)
		if err != nil {
			return err
		}
		if u == nil {
			continue
		}
		c.log.Warn("the engine ended in the middle of an update; the container is as it was before or after it", "container", i.record().Name)
		if u.Ran && i.record().State.Status.Alive() && !sameRecord(i.record(), u.After) {
			c.endAndStart(i)
			continue
		}
		i.op.Lock()
		c.settleUpdate(ctx, i, u)
		i.op.Unlock()
		if err := c.store.EndUpdate(i.id); err != nil {
			return err
		}
	}
	return nil
}

// endAndStart is for a container that was to be ended for a change: nobody knows whether it has its stop signal
// already, so it is ended and started as it was, beside everything else, as that may take its time.
func (c updater) endAndStart(i *instance) {
	i.mu.Lock()
	i.keep = i.run != nil
	i.mu.Unlock()
	c.watchers.Go(func() {
		err := c.Restart(c.life, i.id, StopOptions{})
		if c.life.Err() != nil {
			return // the note stays, and the next engine goes on
		}
		c.logged("start a container that an update ended", errors.Join(err, c.store.EndUpdate(i.id)))
	})
}

// settleUpdate is told of one change. What stands in the record counts: as soon as it is the new one, a container that
// runs is what the record says. The caller holds op.
func (c updater) settleUpdate(ctx context.Context, i *instance, u *container.Update) {
	r := i.record()
	alive := r.State.Status.Alive()
	done := sameRecord(r, u.After)
	switch {
	case done && (alive || !u.Ran):
	case alive && !u.Ran:
		// Steps of a change while it ran, some of which may have been made.
		back := r.Clone()
		from, err := stillMounted(u.After, back)
		if err == nil {
			_, err = c.changeLive(ctx, i, from, back, &undo{})
		}
		i.snap.Store(back)
		if live, liveErr := i.current(); liveErr == nil && newHealth(u.After, back) {
			c.watchHealth(i, live)
		}
		c.logged("take an unfinished update back", err)
	case u.Ran && !alive && u.Boot == machine.Boot():
		if done {
			back := u.Before
			back.Name, back.State = r.Name, r.State
			if err := c.store.Save(back); err != nil {
				c.logged("take an unfinished update back", err)
				return
			}
			i.snap.Store(back)
		}
		c.logged("start a container that an update ended", c.start(ctx, i, byUser))
	}
}
