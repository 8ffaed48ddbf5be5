// Package depend holds what containers have to do with each other's starts: it waits for what one needs, brings it, and restarts
// what was cut off.
//
// It starts nothing by itself but through the engine, and holds no lock while it waits. Invariant: no wait is for what nobody is going to
// bring, nor for what waits for the container itself.
package depend

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"berth/container"
	"berth/engine/journal"
	"berth/fault"

	api "github.com/moby/moby/api/types/container"
)

// Containers are all that there are, as the engine gives them. Records are shared: nobody changes them.
type Containers interface {
	Record(ref string) (*container.Record, error) // by ID, its beginning, or name
	Records() []*container.Record
	Start(ctx context.Context, ref string) error
	Again(id string) error // restarts it
}

// Graph is the containers with their needs.
type Graph struct {
	Containers
	Events *journal.Journal
	Log    *slog.Logger
	Life   context.Context // ends with the engine
}

// lookAgain is how long a wait for others trusts in being told of what changes; a start that fails is not told.
const lookAgain = time.Second

// neededBy lists what a container is started after, by the names of today, as ID and name would be two; told: only by --depends-on.
func (g Graph) neededBy(name string, told bool) (all []string) {
	i, err := g.Record(name)
	if err != nil {
		return nil
	}
	for _, n := range container.Needs(i) {
		if other, err := g.Record(n.Ref); err == nil && (n.Told || !told) {
			all = append(all, other.Name)
		}
	}
	return all
}

// Check refuses those of a new container that are not there, or lead back to it.
func (g Graph) Check(name string, s container.Settings) error {
	var first []string
	for _, d := range s.DependsOn {
		n, err := container.ParseDependency(d)
		if err != nil {
			return err
		}
		other, err := g.Record(n.Ref)
		if err != nil { // not NotFound: clients would pull an image
			return fault.New(fault.Invalid, "dependency %s: %w", d, err)
		}
		first = append(first, other.Name)
	}
	way := container.Cycle(name, func(at string) []string {
		if at == name {
			return first
		}
		if i, err := g.Record(at); err == nil && slices.ContainsFunc(container.Needs(i), func(n container.Need) bool { return n.Ref == name }) {
			return append(g.neededBy(at, false), name) // it names one that does not exist yet
		}
		return g.neededBy(at, false)
	})
	if way != nil {
		return fault.New(fault.Invalid, "the container would depend on itself: %s", strings.Join(way, " needs "))
	}
	return nil
}

// Await waits, before a start by policy, until what the container needs is there; false when the start is given up. What nobody is
// going to bring is told and not waited for, nor what waits for this container itself.
func (g Graph) Await(r *container.Record, again <-chan struct{}) bool {
	needs := container.Needs(r)
	if len(needs) == 0 {
		return true
	}
	for told := (map[string]bool{}); ; {
		_, changes, err := g.Events.Subscribe(journal.Request{Filters: journal.Filters{"type": {"container"}, "event": {"start", "die", "destroy", "health_status"}}})
		if err != nil {
			g.Log.Error("wait for other containers", "error", err)
			return true
		}
		open := slices.ContainsFunc(needs, func(n container.Need) bool { return g.waitsFor(r, n, told) })
		gone := false
		if open {
			timer := time.NewTimer(lookAgain)
			select {
			case <-changes.C:
			case <-timer.C:
			case <-again:
				gone = true
			case <-g.Life.Done():
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
func (g Graph) waitsFor(r *container.Record, n container.Need, told map[string]bool) bool {
	name := r.Name
	hopeless := func(why string) bool {
		if !told[n.Ref] {
			told[n.Ref] = true
			g.Log.Warn("a container is started without one that it needs", "container", name, "needs", n.Ref, "cause", why)
		}
		return false
	}
	other, err := g.Record(n.Ref)
	if err != nil {
		return hopeless(err.Error())
	}
	met, coming := n.Meets(other)
	switch {
	case met:
		return false
	case !coming && n.Until == container.Ready && other.State.Status.Alive():
		return hopeless("it has no health check")
	case !coming:
		return hopeless(fmt.Sprintf("it is %s, and nothing starts it", other.State.Status))
	}
	if way := container.Cycle(name, func(at string) []string { return g.neededBy(at, false) }); slices.Contains(way, other.Name) {
		return hopeless("they need each other: " + strings.Join(way, " needs "))
	}
	return true
}

// Bring starts, before a user's start, what --depends-on names and does not run, and waits until it is as wanted.
// fault.Conflict: it does not come to be so, or they depend on each other.
func (g Graph) Bring(ctx context.Context, r *container.Record) error {
	if len(r.Settings.DependsOn) == 0 {
		return nil
	}
	name := r.Name
	if way := container.Cycle(name, func(at string) []string { return g.neededBy(at, true) }); way != nil {
		return fault.New(fault.Conflict, "cannot start container %s: they need each other: %s", name, strings.Join(way, " needs "))
	}
	for _, n := range container.Needs(r) {
		if !n.Told {
			continue
		}
		other, err := g.Record(n.Ref)
		if err == nil && !other.State.Status.Alive() {
			if err = g.Start(ctx, other.ID); errors.Is(err, fault.NotModified) {
				err = nil
			}
		}
		if err == nil && n.Until == container.Ready {
			err = g.becomesReady(ctx, other)
		}
		if err != nil {
			return fault.Wrap(fault.Conflict, fmt.Errorf("cannot start container %s: what it depends on is not there: %w", name, err))
		}
	}
	return nil
}

// becomesReady waits until a container that was started is healthy.
func (g Graph) becomesReady(ctx context.Context, other *container.Record) error {
	n := container.Need{Until: container.Ready}
	for {
		_, changes, err := g.Events.Subscribe(journal.Request{Filters: journal.Filters{"container": {other.ID}, "event": {"die", "destroy", "health_status"}}})
		if err != nil {
			return err
		}
		r, err := g.Record(other.ID)
		if err != nil {
			changes.Close()
			return err
		}
		met, coming := n.Meets(r)
		health := api.NoHealthcheck
		if r.State.Health != nil {
			health = r.State.Health.Status
		}
		ill := health == api.Unhealthy
		if met || !coming || ill {
			changes.Close()
		}
		switch {
		case met:
			return nil
		case r.State.Status.Alive() && r.State.Health == nil:
			return fault.New(fault.Conflict, "container %s has no health check, so it is never healthy", r.Name)
		case !coming || ill:
			return fault.New(fault.Conflict, "container %s is %s, %s", r.Name, r.State.Status, health)
		}
		select {
		case <-changes.C:
		case <-ctx.Done():
			err = ctx.Err()
		case <-g.Life.Done():
			err = fault.New(fault.Unavailable, "the engine ends")
		}
		changes.Close()
		if err != nil {
			return err
		}
	}
}

// Rejoin restarts the running containers that live in namespaces of one that was started anew: theirs are those of the run before, cut off
// from the network and gone with its processes.
func (g Graph) Rejoin(owner *container.Record) {
	began := owner.State.StartedAt
	for _, r := range g.Records() {
		if r.State.Status != container.Running || !r.State.StartedAt.Before(began) {
			continue
		}
		for _, n := range container.Needs(r) {
			if other, err := g.Record(n.Ref); n.Joins && err == nil && other.ID == owner.ID {
				g.Log.Info("a container is restarted, as the one whose namespaces it joined was", "container", r.Name, "joined", owner.Name)
				if err := g.Again(r.ID); err != nil {
					g.Log.Warn("restart a container with the one it joined", "container", r.Name, "error", err)
				}
				break
			}
		}
	}
}

// Of lists the running containers that need another one, by name.
func (g Graph) Of(needed *container.Record) (names []string) {
	for _, r := range g.Records() {
		if !r.State.Status.Alive() || r.ID == needed.ID {
			continue
		}
		for _, n := range container.Needs(r) {
			if other, err := g.Record(n.Ref); err == nil && other.ID == needed.ID && n.Until != container.InOrder {
				names = append(names, r.Name)
				break
			}
		}
	}
	return names
}
