package engine

import (
	"context"
	"errors"
	"slices"
	"time"

	"berth/container"
	"berth/engine/depend"
	"berth/engine/request"
	"berth/fault"

	api "github.com/moby/moby/api/types/container"
)

// wantedAgain asks the policy about a run that has ended with code, or a start that failed, and puts r, which nobody
// else sees yet, into the wait for the next start if it is wanted.
func wantedAgain(r *container.Record, code int, ran time.Duration) (bool, error) {
	again, delay := container.AfterExit(r.HostConfig.RestartPolicy, r.State, code, ran)
	if !again || r.HostConfig.AutoRemove {
		return false, nil
	}
	if err := r.State.Again(time.Now(), delay); err != nil {
		return false, err
	}
	r.State.RestartCount++
	return true, nil
}

// restarts makes the restarts that policies want.
type restarts struct{ *Containers }

// schedule begins the wait for a restart that is recorded. The caller holds op. The wait ends with the restart, with
// whoever gives it up, or with the engine, whose successor goes on with it.
func (c restarts) schedule(i *instance) {
	i.forgetRestart()
	again := make(chan struct{})
	i.again = again
	c.watchers.Go(func() {
		if !c.await(i, again) {
			return
		}
		defer func() { <-c.starts }()
		i.op.Lock()
		defer i.op.Unlock()
		if i.again != again { // it was given up while we came here
			return
		}
		if err := c.start(context.WithoutCancel(c.life), i, byPolicy); err != nil {
			c.log.Warn("restart by policy", "container", i.record().Name, "error", err, "next", i.record().State.RestartAt)
		}
	})
}

// await waits until it is time, what the container needs is there, and there is room among the starts, which is taken then;
// false when the restart is given up.
func (c restarts) await(i *instance, again <-chan struct{}) bool {
	timer := time.NewTimer(i.record().State.Wait(time.Now()))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-again:
		return false
	case <-c.life.Done():
		return false
	}
	if !c.needs().Await(i.record(), again) {
		return false
	}
	select {
	case c.starts <- struct{}{}:
		return true
	case <-again:
	case <-c.life.Done():
	}
	return false
}

// forgetRestart ends the wait, if there is one. The caller holds op.
func (i *instance) forgetRestart() {
	if i.again != nil {
		close(i.again)
		i.again = nil
	}
}

// giveUpRestart ends the wait for a restart because a user wants it. The caller holds op, and the state is restarting.
func (c *Containers) giveUpRestart(i *instance) error {
	r := i.record().Clone()
	status, err := container.Next(r.State.Status, container.Exit)
	if err != nil {
		return err
	}
	r.State.Status, r.State.ManualStop, r.State.RestartAt = status, true, time.Time{}
	if err := c.saveState(i, r); err != nil {
		return err
	}
	i.forgetRestart()
	i.tell(false)
	return nil
}

// rest notes that a user ends the container, on disk before it is ended, so that no policy starts it again, whoever
// sees its end. It gives the run to end; nil when the container only waited for its restart, which is given up now.
// fault.NotModified: it does not run.
func (c *Containers) rest(i *instance) (*run, error) {
	i.op.Lock()
	defer i.op.Unlock()
	if i.record().State.Status == container.Restarting {
		return nil, c.giveUpRestart(i)
	}
	live, err := i.current()
	if err != nil {
		return nil, fault.New(fault.NotModified, "container %s is not running", i.record().Name)
	}
	if i.record().State.ManualStop {
		return live, nil
	}
	r := i.record().Clone()
	r.State.ManualStop = true
	if r.HostConfig.RestartPolicy.IsNone() { // nobody asks before the end is recorded
		i.snap.Store(r)
		return live, nil
	}
	return live, c.saveState(i, r)
}

// ends tells whether a user who sends signal n wants the container to end.
func ends(r *container.Record, n int) bool {
	if name := r.Config.StopSignal; name != "" {
		if stop, err := request.Signal(name); err == nil && stop == n {
			return true
		}
	}
	const sigInt, sigQuit = 2, 3
	return slices.Contains([]int{sigKill, sigTerm, sigInt, sigQuit}, n)
}

// restarting refuses what needs a container's processes.
func (i *instance) restarting() error {
	return fault.New(fault.Conflict, "Container %s is restarting, wait until the container is running", i.id)
}

// checkRestartPolicy refuses a policy that the container can't have.
func checkRestartPolicy(h *api.HostConfig, p api.RestartPolicy) error {
	if err := api.ValidateRestartPolicy(p); err != nil {
		return fault.Wrap(fault.Invalid, err)
	}
	if h.AutoRemove && !p.IsNone() {
		return fault.New(fault.Conflict, "Restart policy cannot be updated because AutoRemove is enabled for the container")
	}
	return nil
}

// policyChanged gives up the wait for a restart that the policy, which is new, does not want. The caller holds op.
func (c *Containers) policyChanged(i *instance) error {
	r := i.record()
	if r.State.Status != container.Restarting {
		return nil
	}
	before := r.State
	before.RestartCount = max(0, before.RestartCount-1) // as when it was decided
	if again, _ := container.AfterExit(r.HostConfig.RestartPolicy, before, before.ExitCode, 0); again {
		return nil
	}
	next := r.Clone()
	status, err := container.Next(r.State.Status, container.Exit)
	next.State.Status, next.State.RestartAt = status, time.Time{}
	if err := errors.Join(err, c.saveState(i, next)); err != nil {
		return err
	}
	i.forgetRestart()
	i.tell(false)
	return nil
}

// others are the containers as package depend sees them.
type others struct {
	*shared
	all *Containers // nil: to look at only
}

// needs is what containers have to do with each other's starts.
func (c *Containers) needs() depend.Graph {
	return depend.Graph{Containers: others{c.shared, c}, Events: c.events, Log: c.log, Life: c.life}
}

func (o others) Record(ref string) (*container.Record, error) {
	i, err := o.index.Get(ref)
	if err != nil {
		return nil, err
	}
	return i.record(), nil
}

func (o others) Records() []*container.Record {
	var all []*container.Record
	for _, i := range o.index.All() {
		all = append(all, i.record())
	}
	return all
}

func (o others) Start(ctx context.Context, ref string) error { return o.all.Start(ctx, ref) }

func (o others) Again(id string) error {
	i, err := o.index.Get(id)
	if err != nil {
		return err
	}
	return o.all.restart(o.life, i, StopOptions{}, byUser)
}
