package engine

import (
	"context"
	"errors"
	"strconv"
	"time"

	"berth/container"
	"berth/oci"
	"berth/union"

	"github.com/moby/moby/api/types/events"
)

// watch waits for the end of a run. It ends with the run or with the engine.
func (c *Containers) watch(i *instance, live *run) {
	defer c.watchers.Done()
	exit, err := live.shim.Wait(c.life)
	if c.life.Err() != nil {
		return // the engine closes; the container goes on
	}
	if err != nil {
		exit = c.lost(i.id, err)
	}
	c.ended(i, live, exit)
}

// lost clears up after a supervisor that died, and tells what is known of the exit.
func (c *Containers) lost(id string, cause error) oci.Exit {
	err := c.shims.Reap(id)
	exit, exitErr := c.shims.Exit(id)
	if exitErr != nil {
		exit = oci.Exit{Code: 128 + sigKill, Signal: sigKill, At: time.Now().UTC(), Error: cause.Error()}
	}
	c.log.Warn("supervisor lost", "container", container.ShortID(id), "cause", cause, "error", errors.Join(err, exitErr), "code", exit.Code)
	return exit
}

// ended records an exit, tells everyone who waits, and leaves the clearing away to the queue.
func (c *Containers) ended(i *instance, live *run, exit oci.Exit) {
	i.op.Lock()
	defer i.op.Unlock()
	r := i.record().Clone()
	status, err := container.Next(r.State.Status, container.Exit)
	if err != nil {
		c.logged("end of a run", err)
		return
	}
	duration := exit.At.Sub(r.State.StartedAt)
	r.State.Pid, r.State.Health = 0, container.HealthAtEnd(r.State.Health)
	r.State.ExitCode, r.State.OOMKilled, r.State.FinishedAt = exit.Code, exit.OOMKilled, exit.At.UTC()
	if exit.Error != "" {
		r.State.Error = exit.Error
	}
	i.mu.Lock()
	keep := i.keep
	remove := r.HostConfig.AutoRemove && !keep
	i.keep = false
	i.run = nil
	settled := i.settled
	i.mu.Unlock()
	again := false
	if !keep { // else the one who ended it starts it
		again, err = wantedAgain(r, exit.Code, duration)
		c.logged("restart by policy", err)
	}
	if !again {
		r.State.Status = status
	}
	// The supervisor has the exit on disk already, so a container that goes now needs no second copy; and where
	// ours finds no room, its is kept.
	recorded := true
	if remove {
		i.snap.Store(r)
	} else if err := errors.Join(setAttachment(r, nil), c.saveState(i, r)); err != nil {
		c.logged("record an exit", err)
		i.snap.Store(r)
		recorded = false
	}
	if live.attachment != nil {
		c.logged("forget names", c.names.Names.Drop(r.ID))
		// Address and ports are free for the next one when the end is announced.
		c.logged("release network", c.nets.Host.Release(live.attachment))
	}
	live.telling.Lock() // signals under way are told of first
	c.announceEnd(r)
	live.telling.Unlock()
	c.nets.TellMember(r.ID, events.ActionDisconnect, live.attachment, "")
	c.volumes.Leave(r.ID)
	c.volumes.TellUse(r, events.ActionUnmount)
	if !again && !remove {
		c.logged("let go of the root", union.Idle(c.layers, i.id))
	}
	close(live.ended)
	c.endExecs(i)
	if remove {
		c.gone.put(i.id, exit.Code)
		i.tell(false)
		c.logged("remove at its end", c.erase(i, true))
	} else {
		i.tell(false)
	}
	c.jobs.add(func() {
		live.shim.Close()
		c.logged("give volumes back", c.volumes.Unmount(c.life, i.id))
		if recorded {
			c.logged("forget run state", c.shims.Forget(i.id))
		}
		close(settled)
	})
	if again {
		restarts{c}.schedule(i)
	}
}

// announceEnd tells of the end that r records.
func (c *Containers) announceEnd(r *container.Record) {
	if r.State.OOMKilled {
		c.announce(r, events.ActionOOM)
	}
	ran := max(0, r.State.FinishedAt.Sub(r.State.StartedAt))
	c.announce(r, events.ActionDie, "exitCode", strconv.Itoa(r.State.ExitCode), "execDuration", strconv.Itoa(int(ran.Seconds())))
}

// awaitEnd waits until live has ended; false when ctx or the time is over.
func (live *run) awaitEnd(ctx context.Context, limit time.Duration) bool {
	var over <-chan time.Time
	if limit >= 0 {
		timer := time.NewTimer(limit)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-live.ended:
		return true
	case <-over:
	case <-ctx.Done():
	}
	return false
}
