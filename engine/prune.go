package engine

import (
	"context"
	"errors"
	"strconv"
	"time"

	"berth/container"
	"berth/engine/files"
	"berth/engine/request"
	"berth/fault"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
)

// Prune removes the containers that do not run and that the filters (until, label, label!) leave, with all but their volumes. dry
// only tells which, and what they take. fault.Conflict: another one is at work.
func (c *insides) Prune(ctx context.Context, f Filters, dry bool) (report api.PruneReport, err error) {
	if !c.pruning.TryLock() {
		return report, fault.New(fault.Conflict, "a prune operation is already running")
	}
	defer c.pruning.Unlock()
	chosen, err := request.PruneFilter(f, time.Now())
	if err != nil {
		return report, err
	}
	for _, i := range c.index.All() {
		r := i.record()
		if s := r.State.Status; s.Alive() || s == container.Restarting || s == container.Removing || !chosen(r) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return report, fault.Wrap(fault.Canceled, err)
		}
		bytes := files.Usage(c.store.Dir(i.id))
		if root, err := c.layers.Open(i.id); err == nil {
			if kept, err := root.Kept(); err == nil {
				bytes += kept
			}
		}
		if !dry {
			err := c.remove(ctx, i.id, RemoveOptions{})
			if errors.Is(err, fault.NotFound) || errors.Is(err, fault.Conflict) { // it went, or runs again
				continue
			}
			if err != nil {
				c.log.Warn("prune", "container", r.Name, "error", err)
				continue
			}
		}
		report.ContainersDeleted = append(report.ContainersDeleted, i.id)
		report.SpaceReclaimed += uint64(bytes)
	}
	if !dry {
		if len(report.ContainersDeleted) > 0 {
			c.settle() // what is told to be free is free
		}
		c.events.Publish(events.ContainerEventType, events.ActionPrune, "", map[string]string{"reclaimed": strconv.FormatUint(report.SpaceReclaimed, 10)})
	}
	return report, nil
}
