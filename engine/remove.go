package engine

import (
	"berth/engine/mounts"
	"context"
	"errors"
	"time"

	"berth/container"
	"berth/fault"

	"github.com/moby/moby/api/types/events"
)

// killPatience is how long the end of a killed container is waited for; only a process stuck in the kernel takes longer.
const killPatience = 10 * time.Second

// Remove deletes it. fault.Conflict: it runs and o.Force is not set.
func (c *Containers) Remove(ctx context.Context, ref string, o RemoveOptions) error {
	i, err := c.index.Get(ref)
	if err != nil {
		return err
	}
	for {
		i.op.Lock()
		r := i.record()
		status := r.State.Status
		if o.Force && status == container.Restarting {
			err := c.giveUpRestart(i)
			if err != nil {
				i.op.Unlock()
				return err
			}
			status = container.Exited
		}
		if !status.Alive() || !o.Force {
			defer i.op.Unlock()
			break
		}
		i.op.Unlock()
		if err := c.kill(ctx, i, sigKill); err != nil && !errors.Is(err, fault.Conflict) {
			return err
		}
	}
	r := i.record()
	switch s := r.State.Status; {
	case s.Alive() || s == container.Restarting:
		advice := "stop the container before removing or force remove"
		if s == container.Paused {
			advice = "unpause and then stop the container before removing or force remove"
		}
		return fault.New(fault.Conflict, "cannot remove container %q: container is %s: %s", "/"+r.Name, s, advice)
	case s == container.Removing:
		if o.Force {
			return nil // it went by itself at its end
		}
		return fault.New(fault.Conflict, "removal of container %s is already in progress", r.Name)
	}
	i.dropPending()
	return c.erase(i, o.Volumes)
}

// erase takes a container that does not run out of sight at once, and deletes what it had in the
// background. The caller holds op.
func (c *Containers) erase(i *instance, volumes bool) error {
	r := i.record().Clone()
	status, err := container.Next(r.State.Status, container.Remove)
	if err != nil {
		return err
	}
	r.State.Status = status
	var gone []string
	if volumes {
		for _, m := range r.Mounts {
			if m.Anonymous {
				gone = append(gone, m.Name)
			}
		}
	}
	if len(gone) > 0 {
		// A crash from here on must not leave volumes without an owner.
		r.State.RemoveVolumes = true
		if err := c.store.SaveState(r); err != nil {
			return err
		}
	}
	i.snap.Store(r)
	for _, name := range gone {
		if c.volumeShared(name, i) {
			continue
		}
		if err := c.volumes.Drop(c.life, name); err != nil {
			return c.eraseFailed(i, r, err)
		}
	}
	c.forwards.Leave(r)
	if err := c.store.Forget(i.id); err != nil { // from here on it is gone for good
		return c.eraseFailed(i, r, err)
	}
	c.jobs.add(func() { // while it is still known, so that a check takes nothing for a leftover
		c.logged("forget run state", c.shims.Forget(i.id))
		c.logged("remove root", c.layers.Delete(i.id))
		for _, root := range mounts.Roots(r) {
			c.logged("let an image go", c.layers.Delete(root))
		}
		if r.Settings.Debug != nil {
			c.logged("let tools go", c.lender().LetGo(i.id))
		}
		c.logged("remove directory", c.store.Delete(i.id))
	})
	c.index.Remove(i.id, r.Name)
	c.announce(r, events.ActionDestroy)
	c.dropExecs(i)
	i.tell(true)
	return nil
}

// eraseFailed records that a removal must be tried again.
func (c *Containers) eraseFailed(i *instance, r *container.Record, cause error) error {
	r = r.Clone()
	r.State.Status, _ = container.Next(r.State.Status, container.RemoveFailed)
	r.State.Error = cause.Error()
	return errors.Join(cause, c.saveState(i, r))
}

// volumeShared tells whether another container has the volume too, by --volumes-from.
func (c *shared) volumeShared(name string, except *instance) bool {
	for _, other := range c.index.All() {
		if other == except {
			continue
		}
		for _, m := range other.record().Mounts {
			if m.Name == name {
				return true
			}
		}
	}
	return false
}
