package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"berth/container"
	"berth/engine/journal"
	"berth/fault"

	api "github.com/moby/moby/api/types/container"
)

// dependents is what containers have to do with each other's starts.
type dependents struct{ *Containers }

// lookAgain is how long a wait for others trusts in being told of what changes; a start that fails is not told.
const lookAgain = time.Second

// neededBy lists what a container is started after, by the names of today, as ID and name would be two; told: only by --depends-on.
func (c *shared) neededBy(name string, told bool) (all []string) {
	i, err := c.index.Get(name)
	if err != nil {
		return nil
	}
	for _, n := range container.Needs(i.record()) {
		if other, err := c.index.Get(n.Ref); err == nil && (n.Told || !told) {
			all = append(all, other.record().Name)
		}
	}
	return all
}

// checkDependencies refuses those of a new container that are not there, or lead back to it.
func (c *shared) checkDependencies(name string, s container.Settings) error {
	var first []string
	for _, d := range s.DependsOn {
		n, err := container.ParseDependency(d)
		if err != nil {
			return err
		}
		other, err := c.index.Get(n.Ref)
		if err != nil { // not NotFound: clients would pull an image
			return invalid("dependency %s: %w", d, err)
		}
		first = append(first, other.record().Name)
	}
	way := container.Cycle(name, func(at string) []string {
		if at == name {
			return first
		}
		if i, err := c.index.Get(at); err == nil && slices.ContainsFunc(container.Needs(i.record()), func(n container.Need) bool { return n.Ref == name }) {
			return append(c.neededBy(at, false), name) // it names one that does not exist yet
		}
		return c.neededBy(at, false)
	})
	if way != nil {
		return invalid("the container would depend on itself: %s", strings.Join(way, " needs "))
	}
	return nil
}

// await waits, before a start by policy, until what the container needs is there; false when the start is given up. What nobody is
// going to bring is told and not waited for, nor what waits for this container itself.
func (c dependents) await(i *instance, again <-chan struct{}) bool {
	needs := container.Needs(i.record())
	if len(needs) == 0 {
		return true
	}
	for told := (map[string]bool{}); ; {
		_, changes, err := c.events.Subscribe(journal.Request{Filters: Filters{"type": {"container"}, "event": {"start", "die", "destroy", "health_status"}}})
		if err != nil {
			c.logged("wait for other containers", err)
			return true
		}
		open := slices.ContainsFunc(needs, func(n container.Need) bool { return c.waitsFor(i, n, told) })
		gone := false
		if open {
			timer := time.NewTimer(lookAgain)
			select {
			case <-changes.C:
			case <-timer.C:
			case <-again:
				gone = true
			case <-c.life.Done():
				gone = true
			}
			timer.Stop()
		}
		changes.Close()
		if gone || !open {
			return !gone
		}
	}
}

// waitsFor tells whether a need is still open, and says once, in told, when it is hopeless.
func (c dependents) waitsFor(i *instance, n container.Need, told map[string]bool) bool {
	name := i.record().Name
	hopeless := func(why string) bool {
		if !told[n.Ref] {
			told[n.Ref] = true
			c.log.Warn("a container is started without one that it needs", "container", name, "needs", n.Ref, "cause", why)
		}
		return false
	}
	other, err := c.index.Get(n.Ref)
	if err != nil {
		return hopeless(err.Error())
	}
	met, coming := n.Meets(other.record())
	switch {
	case met:
		return false
	case !coming && n.Until == container.Ready && other.record().State.Status.Alive():
		return hopeless("it has no health check")
	case !coming:
		return hopeless(fmt.Sprintf("it is %s, and nothing starts it", other.record().State.Status))
	}
	if way := container.Cycle(name, func(at string) []string { return c.neededBy(at, false) }); slices.Contains(way, other.record().Name) {
		return hopeless("they need each other: " + strings.Join(way, " needs "))
	}
	return true
}

// bring starts, before a user's start, what --depends-on names and does not run, and waits until it is as wanted.
// fault.Conflict: it does not come to be so, or they depend on each other.
func (c dependents) bring(ctx context.Context, i *instance) error {
	if len(i.record().Settings.DependsOn) == 0 {
		return nil
	}
	name := i.record().Name
	if way := container.Cycle(name, func(at string) []string { return c.neededBy(at, true) }); way != nil {
		return fault.New(fault.Conflict, "cannot start container %s: they need each other: %s", name, strings.Join(way, " needs "))
	}
	for _, n := range container.Needs(i.record()) {
		if !n.Told {
			continue
		}
		other, err := c.index.Get(n.Ref)
		if err == nil && !other.record().State.Status.Alive() {
			if err = c.Start(ctx, other.id); errors.Is(err, fault.NotModified) {
				err = nil
			}
		}
		if err == nil && n.Until == container.Ready {
			err = c.becomesReady(ctx, other)
		}
		if err != nil {
			return fault.Wrap(fault.Conflict, fmt.Errorf("cannot start container %s: what it depends on is not there: %w", name, err))
		}
	}
	return nil
}

// becomesReady waits until a container that was started is healthy.
func (c dependents) becomesReady(ctx context.Context, other *instance) error {
	n := container.Need{Until: container.Ready}
	for {
		_, changes, err := c.events.Subscribe(journal.Request{Filters: Filters{"container": {other.id}, "event": {"die", "destroy", "health_status"}}})
		if err != nil {
			return err
		}
		r := other.record()
		met, coming := n.Meets(r)
		ill := healthOf(r) == api.Unhealthy
		if met || !coming || ill {
			changes.Close()
		}
		switch {
		case met:
			return nil
		case r.State.Status.Alive() && r.State.Health == nil:
			return fault.New(fault.Conflict, "container %s has no health check, so it is never healthy", r.Name)
		case !coming || ill:
			return fault.New(fault.Conflict, "container %s is %s, %s", r.Name, r.State.Status, healthOf(r))
		}
		select {
		case <-changes.C:
		case <-ctx.Done():
			err = ctx.Err()
		case <-c.life.Done():
			err = fault.New(fault.Unavailable, "the engine ends")
		}
		changes.Close()
		if err != nil {
			return err
		}
	}
}

// rejoin restarts the running containers that live in namespaces of one that was started anew: theirs are those of the run before, cut off
// from the network and gone with its processes.
func (c dependents) rejoin(owner *instance) {
	began := owner.record().State.StartedAt
	for _, i := range c.index.All() {
		r := i.record()
		if r.State.Status != container.Running || !r.State.StartedAt.Before(began) {
			continue
		}
		for _, n := range container.Needs(r) {
			if other, err := c.index.Get(n.Ref); n.Joins && err == nil && other == owner {
				c.log.Info("a container is restarted, as the one whose namespaces it joined was", "container", r.Name, "joined", owner.record().Name)
				if err := c.restart(c.life, i, StopOptions{}, byUser); err != nil {
					c.log.Warn("restart a container with the one it joined", "container", r.Name, "error", err)
				}
				break
			}
		}
	}
}

// of lists the running containers that need i, by name.
func (c dependents) of(i *instance) (names []string) {
	for _, other := range c.index.All() {
		r := other.record()
		if !r.State.Status.Alive() || other == i {
			continue
		}
		for _, n := range container.Needs(r) {
			if needed, err := c.index.Get(n.Ref); err == nil && needed == i && n.Until != container.InOrder {
				names = append(names, r.Name)
				break
			}
		}
	}
	return names
}
