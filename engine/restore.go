package engine

import (
	"berth/engine/mounts"
	"context"
	"errors"
	"fmt"
	"time"

	"berth/container"
	"berth/engine/recovery"
	"berth/engine/volumes"
	"berth/fault"
	"berth/network"
	"berth/oci/shim"
)

// restore makes recorded and real state the same.
func (c *Containers) restore(ctx context.Context) error {
	found, shims, err := c.observe()
	if err != nil {
		return err
	}
	repairs := make(map[string]recovery.Repair, len(found))
	var attachments []*network.Attachment
	for id, o := range found {
		p := recovery.Plan(*o, time.Now().UTC())
		repairs[id] = p
		if p.Action == recovery.Adopt {
			if a := attachmentOf(o.Record); a != nil {
				attachments = append(attachments, a)
			}
		}
	}
	if err := c.nets.Host.Restore(attachments); err != nil {
		return err
	}
	for id, p := range repairs {
		if err := c.apply(ctx, id, found[id], p, shims[id]); err != nil {
			return fmt.Errorf("restore container %s: %w", container.ShortID(id), err)
		}
	}
	if err := (volumes.Contents{Service: c.volumes}).FinishRenames(); err != nil {
		return err
	}
	later, err := c.volumes.Restore(c.life, c.lives)
	if err != nil {
		return err
	}
	c.watchers.Go(later)
	c.logged("serve names", c.names.Restore())
	if err := (updater{c}).settleUpdates(ctx); err != nil {
		return err
	}
	for _, i := range c.index.All() {
		i.op.Lock()
		if i.record().State.Status == container.Restarting {
			restarts{c}.schedule(i)
		}
		i.op.Unlock()
	}
	return nil
}

// observe looks at records, roots and supervisors.
func (c *Containers) observe() (map[string]*recovery.Found, map[string]*shim.Shim, error) {
	found, shims := map[string]*recovery.Found{}, map[string]*shim.Shim{}
	at := func(id string) *recovery.Found {
		if found[id] == nil {
			found[id] = &recovery.Found{}
		}
		return found[id]
	}
	ids, err := c.store.List()
	if err != nil {
		return nil, nil, err
	}
	for _, id := range ids {
		r, err := c.store.Load(id)
		o := at(id)
		switch {
		case err == nil:
			o.Record = r
		case !errors.Is(err, fault.NotFound):
			o.Broken = err
			c.log.Error("a container's record can't be used; it is left as it is", "container", id, "error", err)
		}
	}
	roots, err := c.layers.Roots()
	if err != nil {
		return nil, nil, err
	}
	held := map[string]bool{}
	for _, o := range found {
		if o.Record != nil {
			for _, root := range mounts.Roots(o.Record) {
				held[root] = true
			}
		}
	}
	for _, id := range roots {
		if !held[id] {
			at(id).Root = true
		}
	}
	for _, o := range found {
		if o.Record != nil && o.Record.Driver != c.layers.Name() {
			o.Root, o.Apart = true, true
			c.log.Warn("a container lies with another storage driver and is left alone", "container", o.Record.Name, "driver", o.Record.Driver)
		}
	}
	running, err := c.shims.List()
	if err != nil {
		return nil, nil, err
	}
	for _, id := range running {
		o := at(id)
		o.Shim = recovery.DeadShim
		if sh, err := c.shims.Open(id); err == nil {
			o.Shim, shims[id] = recovery.AliveShim, sh
		} else if exit, err := c.shims.Exit(id); err == nil {
			o.Exit = &exit
		}
	}
	return found, shims, nil
}

// apply does what was planned for one container.
func (c *Containers) apply(ctx context.Context, id string, o *recovery.Found, p recovery.Repair, sh *shim.Shim) error {
	if p.Action == recovery.Leave {
		return nil
	}
	if p.StopShim {
		c.stopShim(ctx, id, sh)
	}
	if o.Shim != recovery.NoShim && p.Action != recovery.Adopt {
		err := c.shims.Reap(id)
		if p.Action != recovery.Finish { // what the supervisor wrote is all there is of the exit until that is recorded
			err = errors.Join(err, c.shims.Forget(id))
		}
		c.logged("clear up after a supervisor", err)
	}
	if p.Action == recovery.Sweep {
		return errors.Join(c.layers.Delete(id), c.store.Delete(id))
	}
	r := o.Record
	if err := c.index.Reserve(r.Name, id); err != nil {
		r.Name = c.index.ReserveRandom(id)
		c.log.Warn("two containers had one name", "container", id, "renamed", r.Name, "error", err)
		if err := c.store.Save(r); err != nil {
			return err
		}
	}
	if p.State.Status != "" {
		r.State = p.State
	}
	i := newInstance(r)
	c.index.Add(id, i)
	if p.Ended {
		c.announceEnd(r)
	}
	switch p.Action {
	case recovery.Adopt:
		return c.adopt(i, sh)
	case recovery.Keep:
		c.forwards.Begin(r, nil)
	case recovery.Finish:
		c.forwards.Begin(r, nil)
		if err := c.store.SaveState(r); err != nil {
			return err
		}
		return c.shims.Forget(id)
	case recovery.Remove:
		if r.State.Status == container.Removing { // as a removal that failed
			r.State.Status = container.Dead
		}
		i.op.Lock()
		defer i.op.Unlock()
		return c.erase(i, p.Volumes)
	}
	return nil
}

// adopt takes a running container over from the engine before.
func (c *Containers) adopt(i *instance, sh *shim.Shim) error {
	r := i.record()
	r.State.Pid, r.State.StartedAt = sh.Pid(), sh.StartedAt()
	if err := c.thaw(r, sh); err != nil {
		return err
	}
	live := &run{shim: sh, attachment: attachmentOf(r), ended: make(chan struct{}), recheck: make(chan struct{})}
	i.mu.Lock()
	i.run, i.settled = live, make(chan struct{})
	i.mu.Unlock()
	c.watchers.Add(1)
	go c.watch(i, live)
	c.logged("connect a container as it was asked for", connector{c}.follow(context.Background(), i))
	if !r.HostConfig.NetworkMode.IsContainer() { // else they are the other's
		c.logged("write a container's files", c.mendFiles(c.store.Dir(r.ID), i.record(), live.attachment))
	}
	c.forwards.Begin(r, live.ended)
	if probes, checked := container.ProbesOf(r.Config); checked && r.State.Health != nil {
		c.watchers.Go(func() { prober{c}.monitor(i, live, probes, live.recheck) })
	}
	return nil
}

// stopShim ends a run that nobody was told of.
func (c *Containers) stopShim(ctx context.Context, id string, sh *shim.Shim) {
	ctx, cancel := context.WithTimeout(ctx, killPatience)
	defer cancel()
	err := sh.Signal(ctx, sigKill)
	if err == nil {
		_, err = sh.Wait(ctx)
	}
	c.logged("end a container that nobody was told of", errors.Join(err, sh.Close()))
	c.log.Warn("ended a container whose start was never announced", "container", id)
}

// lives tells whether a container runs.
func (c *shared) lives(id string) bool {
	i, err := c.index.Get(id)
	return err == nil && i.id == id && i.record().State.Status.Alive()
}
