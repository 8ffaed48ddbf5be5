package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"berth/container"
	"berth/fault"
	"berth/network"
	"berth/oci"
	"berth/oci/shim"
)

// supervision is what there is of a container's supervisor.
type supervision int

const (
	noShim    supervision = iota // no run state: never started, cleared away, or before a reboot
	deadShim                     // run state, but nobody serves it
	aliveShim                    // it answers
)

// observed is one container as it was found when the engine opened.
type observed struct {
	record *container.Record // nil: none, so whatever else there is was left by a crash
	broken error             // the record is there but can't be used
	root   bool
	shim   supervision
	exit   *oci.Exit // as the supervisor recorded it
}

// repair is what has to be done with it.
type repair struct {
	action   action
	state    container.State // to record, with finish
	volumes  bool            // with remove
	stopShim bool            // a run that nobody was told of
	ended    bool            // its end is announced now
}

type action string

const (
	leave  action = "leave"  // touch nothing, show nothing
	sweep  action = "sweep"  // delete every trace
	keep   action = "keep"   // as recorded; one that waits for its restart goes on waiting
	adopt  action = "adopt"  // it runs
	finish action = "finish" // it ended while nobody looked, or its policy wants it now
	remove action = "remove" // it ended, or was about to go, and goes now
)

// lostCode is the exit code of a container that a reboot ended.
const lostCode = 255

// plan decides what to do with a container. It is pure: crash recovery is tested as a table.
func plan(o observed, now time.Time) repair {
	switch {
	case o.broken != nil:
		return repair{action: leave}
	case o.record == nil || !o.root:
		// Records come after roots and go before them.
		return repair{action: sweep, stopShim: o.shim == aliveShim}
	}
	s := o.record.State
	auto := o.record.HostConfig.AutoRemove
	switch {
	case s.Status == container.Removing || s.Status == container.Dead:
		return repair{action: remove, volumes: s.RemoveVolumes, stopShim: o.shim == aliveShim}
	case s.Status.Alive() && o.shim == aliveShim:
		return repair{action: adopt}
	case s.Status.Alive():
		s = endUnseen(o, now)
		if auto {
			return repair{action: remove, volumes: true, state: s, ended: true}
		}
		return repair{action: finish, state: s, ended: true}
	case auto:
		return repair{action: remove, volumes: true, stopShim: o.shim == aliveShim}
	case s.Status == container.Exited && container.AtStart(o.record.HostConfig.RestartPolicy, s):
		s.RestartCount, s.RestartDelay = 0, 0
		if s.Again(now, 0) == nil {
			return repair{action: finish, state: s, stopShim: o.shim == aliveShim}
		}
	}
	// A supervisor of a container that is not recorded as running: its start was never announced.
	return repair{action: keep, stopShim: o.shim == aliveShim}
}

// endUnseen is the state of a container that ended while there was no engine. One whose code was recorded is judged by
// its policy as if it had just ended; of one that went down with the machine, the policy says whether it starts with the engine.
func endUnseen(o observed, now time.Time) container.State {
	policy, s := o.record.HostConfig.RestartPolicy, o.record.State
	ended := s
	ended.Status, ended.Pid, ended.Endpoints, ended.Health = container.Exited, 0, nil, container.HealthAtEnd(s.Health)
	switch {
	case o.exit != nil:
		ended.ExitCode, ended.OOMKilled, ended.FinishedAt = o.exit.Code, o.exit.OOMKilled, o.exit.At.UTC()
	case o.shim == deadShim:
		ended.ExitCode, ended.FinishedAt = 128+sigKill, now
	default:
		ended.ExitCode, ended.FinishedAt = lostCode, now
	}
	if o.shim == noShim {
		ended.RestartCount, ended.RestartDelay = 0, 0
		if container.AtStart(policy, ended) && ended.Again(now, 0) != nil {
			ended.Status = container.Exited
		}
		return ended
	}
	if again, delay := container.AfterExit(policy, s, ended.ExitCode, ended.FinishedAt.Sub(s.StartedAt)); again && ended.Again(ended.FinishedAt, delay) == nil {
		ended.RestartCount++
	} else if container.AtStart(policy, ended) && ended.Again(now, 0) == nil {
		ended.RestartCount, ended.RestartDelay = 0, 0
	}
	return ended
}

// restore makes recorded and real state the same.
func (c *Containers) restore(ctx context.Context) error {
	found, shims, err := c.observe()
	if err != nil {
		return err
	}
	repairs := make(map[string]repair, len(found))
	var endpoints []*network.Endpoint
	for id, o := range found {
		p := plan(*o, time.Now().UTC())
		repairs[id] = p
		if p.action == adopt {
			if ep := endpointOf(o.record); ep != nil {
				endpoints = append(endpoints, ep)
			}
		}
	}
	if err := c.bridge.Restore(endpoints); err != nil {
		return err
	}
	for id, p := range repairs {
		if err := c.apply(ctx, id, found[id], p, shims[id]); err != nil {
			return fmt.Errorf("restore container %s: %w", container.ShortID(id), err)
		}
	}
	if err := (updater{c}).settleUpdates(ctx); err != nil {
		return err
	}
	for _, i := range c.index.All() {
		i.op.Lock()
		if i.record().State.Status == container.Restarting {
			c.schedule(i)
		}
		i.op.Unlock()
	}
	return nil
}

// observe looks at records, roots and supervisors.
func (c *Containers) observe() (map[string]*observed, map[string]*shim.Shim, error) {
	found, shims := map[string]*observed{}, map[string]*shim.Shim{}
	at := func(id string) *observed {
		if found[id] == nil {
			found[id] = &observed{}
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
			o.record = r
		case !errors.Is(err, fault.NotFound):
			o.broken = err
			c.log.Error("a container's record can't be used; it is left as it is", "container", id, "error", err)
		}
	}
	roots, err := c.layers.Roots()
	if err != nil {
		return nil, nil, err
	}
	for _, id := range roots {
		at(id).root = true
	}
	running, err := c.shims.List()
	if err != nil {
		return nil, nil, err
	}
	for _, id := range running {
		o := at(id)
		o.shim = deadShim
		if sh, err := c.shims.Open(id); err == nil {
			o.shim, shims[id] = aliveShim, sh
		} else if exit, err := c.shims.Exit(id); err == nil {
			o.exit = &exit
		}
	}
	return found, shims, nil
}

// apply does what was planned for one container.
func (c *Containers) apply(ctx context.Context, id string, o *observed, p repair, sh *shim.Shim) error {
	if p.action == leave {
		return nil
	}
	if p.stopShim {
		c.stopShim(ctx, id, sh)
	}
	if o.shim != noShim && p.action != adopt {
		c.logged("clear up after a supervisor", errors.Join(c.shims.Reap(id), c.shims.Forget(id)))
	}
	if p.action == sweep {
		return errors.Join(c.layers.Delete(id), c.store.Delete(id))
	}
	r := o.record
	if err := c.index.Reserve(r.Name, id); err != nil {
		r.Name = c.index.ReserveRandom(id)
		c.log.Warn("two containers had one name", "container", id, "renamed", r.Name, "error", err)
		if err := c.store.Save(r); err != nil {
			return err
		}
	}
	if p.state.Status != "" {
		r.State = p.state
	}
	i := newInstance(r)
	c.index.Add(id, i)
	if p.ended {
		c.announceEnd(r)
	}
	switch p.action {
	case adopt:
		return c.adopt(i, sh)
	case keep:
		c.forwards.Begin(r, nil)
	case finish:
		c.forwards.Begin(r, nil)
		return c.store.SaveState(r)
	case remove:
		if r.State.Status == container.Removing { // as a removal that failed
			r.State.Status = container.Dead
		}
		i.op.Lock()
		defer i.op.Unlock()
		return c.erase(i, p.volumes)
	}
	return nil
}

// adopt takes a running container over from the engine before.
func (c *Containers) adopt(i *instance, sh *shim.Shim) error {
	r := i.record()
	r.State.Pid, r.State.StartedAt = sh.Pid(), sh.StartedAt()
	live := &run{shim: sh, endpoint: endpointOf(r), ended: make(chan struct{}), recheck: make(chan struct{})}
	i.mu.Lock()
	i.run, i.settled = live, make(chan struct{})
	i.mu.Unlock()
	c.watchers.Add(1)
	go c.watch(i, live)
	c.forwards.Begin(r, live.ended)
	if probes, checked := container.ProbesOf(r.Config); checked && r.State.Health != nil {
		c.watchers.Go(func() { c.monitor(i, live, probes, live.recheck) })
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
