package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"berth/container"
	"berth/engine/request"
	"berth/fault"
	"berth/oci/shim"

	"github.com/moby/moby/api/types/events"
)

// Stop ends it gently, then by KILL, and its restart policy lets it rest. fault.NotModified: it does not run.
func (c *Containers) Stop(ctx context.Context, ref string, o StopOptions) error {
	i, err := c.index.Get(ref)
	if err != nil {
		return err
	}
	live, err := c.rest(i)
	if err != nil {
		return fmt.Errorf("cannot stop container: %s: %w", ref, err)
	}
	for _, name := range c.needs().Of(i.record()) {
		o.note("%s needs %s, and goes on running", name, i.record().Name)
	}
	if live != nil {
		// What was begun is finished, whether the client stays or not.
		if err := c.stop(context.WithoutCancel(ctx), i, live, o); err != nil {
			return fmt.Errorf("cannot stop container: %s: %w", ref, err)
		}
	}
	c.announce(i.record(), events.ActionStop)
	return nil
}

// youth is how long a program may take to install its handlers before it is taken for one that has none.
const youth = 200 * time.Millisecond

// stop sends the stop signal, waits, and kills what is left; never, where the user's patience has no limit.
func (c *Containers) stop(ctx context.Context, i *instance, live *run, o StopOptions) error {
	r := i.record()
	name := o.Signal
	if name == "" {
		name = r.Config.StopSignal
	}
	signal := sigTerm
	if name != "" {
		n, err := request.Signal(name)
		if err != nil {
			return err
		}
		signal = n
	}
	seconds := c.defaults.StopSeconds()
	switch {
	case o.Timeout != nil:
		seconds = *o.Timeout
	case r.Config.StopTimeout != nil:
		seconds = *r.Config.StopTimeout
	}
	limit := time.Duration(seconds) * time.Second
	if seconds < 0 {
		limit = -1
	}
	deaf := discards(r, live.shim.Pid(), signal)
	if err := c.signal(ctx, i, live, signal); err != nil && !errors.Is(err, fault.Conflict) {
		return err
	}
	for deaf && limit > 0 && time.Since(r.State.StartedAt) < youth {
		if live.awaitEnd(ctx, youth/20) {
			return nil
		}
		if deaf = discards(r, live.shim.Pid(), signal); !deaf { // it hears now; what it was sent before is lost
			if err := live.shim.Signal(ctx, signal); err != nil && !errors.Is(err, fault.Conflict) {
				return err
			}
		}
	}
	if deaf && limit >= 0 && discards(r, live.shim.Pid(), signal) {
		// The kernel threw the signal away: to wait for its effect would be for nothing.
		o.note("%s: process 1 has no handler for the stop signal (%d), so the kernel drops it; it was killed at once. With --init, or a handler, it ends in order", r.Name, signal)
		c.log.Info("process 1 has no handler for the stop signal, so it is killed at once", "container", r.Name, "signal", signal)
		limit = 0
	}
	if live.awaitEnd(ctx, limit) {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := c.signal(ctx, i, live, sigKill); err != nil && !errors.Is(err, fault.Conflict) {
		return err
	}
	if !live.awaitEnd(ctx, killPatience) {
		return fault.New(fault.Unavailable, "container %s does not end after KILL: a process of it is stuck in the kernel", r.Name)
	}
	return nil
}

// discards tells whether the kernel throws signal n away for the first process of a pid namespace, which is
// so when it neither handles nor blocks it (pid_namespaces(7)).
func discards(r *container.Record, pid, n int) bool {
	if n == sigKill || !r.HostConfig.PidMode.IsPrivate() {
		return false
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	return !maskHas(string(status), "SigCgt:", n) && !maskHas(string(status), "SigBlk:", n)
}

// maskHas reads a mask of /proc/PID/status (proc_pid_status(5)); what can't be read counts as set.
func maskHas(status, field string, n int) bool {
	_, rest, ok := strings.Cut(status, "\n"+field)
	if !ok {
		return true
	}
	line, _, _ := strings.Cut(rest, "\n")
	mask, err := strconv.ParseUint(strings.TrimSpace(line), 16, 64)
	return err != nil || mask&(1<<(n-1)) != 0
}

// signal sends n, notes that a user wanted it, and thaws a frozen container so that it can die.
func (c *Containers) signal(ctx context.Context, i *instance, live *run, n int) error {
	live.telling.RLock()
	err := live.shim.Signal(ctx, n)
	if err == nil {
		c.announce(i.record(), events.ActionKill, "signal", strconv.Itoa(n))
	}
	live.telling.RUnlock()
	if err == nil && i.record().State.Status == container.Paused {
		if err = c.setPaused(ctx, i, false); errors.Is(err, fault.Conflict) {
			err = nil
		}
	}
	return err
}

// Restart stops it if it runs, and starts it.
func (c *Containers) Restart(ctx context.Context, ref string, o StopOptions) error {
	i, err := c.index.Get(ref)
	if err != nil {
		return err
	}
	if err := c.restart(ctx, i, o, byUser); err != nil {
		return fmt.Errorf("cannot restart container: %s: %w", ref, err)
	}
	return nil
}

func (c *Containers) restart(ctx context.Context, i *instance, o StopOptions, by starting) error {
	if by == byUser {
		if err := c.needs().Bring(ctx, i.record()); err != nil {
			return err
		}
	}
	if live, err := i.current(); err == nil {
		i.mu.Lock()
		i.keep = i.run == live
		i.mu.Unlock()
		if err := c.stop(context.WithoutCancel(ctx), i, live, o); err != nil {
			i.mu.Lock()
			i.keep = false
			i.mu.Unlock()
			return err
		}
		c.announce(i.record(), events.ActionStop)
	}
	i.op.Lock()
	defer i.op.Unlock()
	if err := c.start(context.WithoutCancel(ctx), i, by); err != nil && !errors.Is(err, fault.NotModified) {
		return err
	}
	c.announce(i.record(), events.ActionRestart)
	return nil
}

// Kill sends a signal, "" being KILL, after which it waits for the end. fault.Conflict: it does not run.
func (c *Containers) Kill(ctx context.Context, ref, signal string) error {
	n := sigKill
	if signal != "" {
		var err error
		if n, err = request.Signal(signal); err != nil {
			return err
		}
	}
	i, err := c.index.Get(ref)
	if err != nil {
		return err
	}
	if err := c.kill(ctx, i, n); err != nil {
		return fmt.Errorf("cannot kill container: %s: %w", ref, err)
	}
	return nil
}

func (c *Containers) kill(ctx context.Context, i *instance, n int) error {
	live, err := i.current()
	if ends(i.record(), n) {
		live, err = c.rest(i)
		if live == nil && err == nil {
			return nil // it waited for a restart, and does no more
		}
		if errors.Is(err, fault.NotModified) {
			err = fault.New(fault.Conflict, "container %s is not running", i.id)
		}
	}
	if err != nil {
		return err
	}
	err = c.signal(ctx, i, live, n)
	if n != sigKill {
		if errors.Is(err, fault.Conflict) {
			return fault.New(fault.Conflict, "container %s is not running", i.id)
		}
		return err
	}
	// A supervisor that can't be asked may be at its end already.
	if !live.awaitEnd(ctx, killPatience) {
		return errors.Join(err, ctx.Err(), fault.New(fault.Unavailable, "container %s does not end after KILL", i.record().Name))
	}
	return nil
}

// Pause freezes it.
func (c *Containers) Pause(ctx context.Context, ref string) error {
	i, err := c.index.Get(ref)
	if err != nil {
		return err
	}
	return c.setPaused(ctx, i, true)
}

// Unpause thaws it.
func (c *Containers) Unpause(ctx context.Context, ref string) error {
	i, err := c.index.Get(ref)
	if err != nil {
		return err
	}
	return c.setPaused(ctx, i, false)
}

func (c *Containers) setPaused(ctx context.Context, i *instance, paused bool) error {
	i.op.Lock()
	defer i.op.Unlock()
	r := i.record()
	event, action := container.Unpause, events.ActionUnPause
	if paused {
		event, action = container.Pause, events.ActionPause
	}
	live, err := i.current()
	switch {
	case r.State.Status == container.Restarting:
		return i.restarting()
	case err != nil:
		return err
	case paused && r.State.Status == container.Paused:
		return fault.New(fault.Conflict, "Container %s is already paused", i.id)
	case !paused && r.State.Status != container.Paused:
		return fault.New(fault.Conflict, "Container %s is not paused", i.id)
	}
	next := r.Clone()
	if next.State.Status, err = container.Next(r.State.Status, event); err != nil {
		return err
	}
	if paused {
		err = live.shim.Pause(ctx)
	} else {
		err = live.shim.Resume(ctx)
	}
	if err != nil {
		return fmt.Errorf("cannot %s container %s: %w", event, r.Name, err)
	}
	if err := c.saveState(i, next); err != nil {
		return err
	}
	c.announce(next, action)
	return nil
}

// Rename gives it another name.
func (c *maker) Rename(_ context.Context, ref, name string) error {
	if name == "" {
		return invalid("Neither old nor new names may be empty")
	}
	i, err := c.index.Get(ref)
	if err != nil {
		return err
	}
	name, err = container.CheckName(name)
	if err != nil {
		return err
	}
	i.op.Lock()
	defer i.op.Unlock()
	r := i.record()
	if s := r.State.Status; s == container.Removing || s == container.Dead {
		return fault.New(fault.Conflict, "container %s is marked for removal and cannot be renamed", r.Name)
	}
	if r.Name == name {
		return invalid("Renaming a container with the same name as its current name")
	}
	if err := c.index.Reserve(name, i.id); err != nil {
		return err
	}
	next := r.Clone()
	next.Name = name
	if err := c.store.Save(next); err != nil {
		c.index.Release(name, i.id)
		return err
	}
	i.snap.Store(next)
	c.index.Release(r.Name, i.id)
	if live, err := i.current(); err == nil {
		c.logged("rename", c.names.Follow(next, live.attachment, live.shim.Pid()))
	}
	c.announce(next, events.ActionRename, "oldName", "/"+r.Name)
	return nil
}

// Resize sets its terminal's size in characters.
func (c *streams) Resize(ctx context.Context, ref string, height, width uint) error {
	i, err := c.index.Get(ref)
	if err != nil {
		return err
	}
	live, err := i.current()
	if err != nil {
		return err
	}
	if err := live.shim.Resize(ctx, shim.ConsoleSize{Height: uint16(height), Width: uint16(width)}); err != nil {
		return err
	}
	c.announce(i.record(), events.ActionResize, "height", strconv.Itoa(int(height)), "width", strconv.Itoa(int(width)))
	return nil
}
