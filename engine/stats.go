package engine

import (
	"context"
	"time"

	"berth/container"
	"berth/engine/bundle"
	"berth/engine/machine"
	"berth/engine/usage"

	api "github.com/moby/moby/api/types/container"
)

// StatsRequest says how often to look at what a container uses.
type StatsRequest struct {
	Stream  bool // one sample a second; without it a single one
	OneShot bool // without Stream: at once, instead of a second after the sample that it is compared with
}

// statsInterval is the time between two samples, as the API promises.
const statsInterval = time.Second

// Stats calls begin once it is known that there will be samples, and then send for each. A stream ends when the
// container is removed, or with ctx; of a container that does not run all counters are zero.
func (c *views) Stats(ctx context.Context, ref string, o StatsRequest, begin func() error, send func(*api.StatsResponse) error) error {
	i, err := c.index.Get(ref)
	if err != nil {
		return err
	}
	removed, err := c.Wait(i.id, api.WaitConditionRemoved)
	if err != nil {
		return err
	}
	defer removed.Close()
	if err := begin(); err != nil {
		return err
	}
	tick := time.NewTicker(statsInterval)
	defer tick.Stop()
	var before *api.StatsResponse
	for {
		now := c.sample(i.record())
		if before != nil && before.CPUStats.CPUUsage.TotalUsage <= now.CPUStats.CPUUsage.TotalUsage { // else it was started anew
			now.PreRead, now.PreCPUStats = before.Read, before.CPUStats
		}
		if o.Stream || o.OneShot || before != nil || !i.record().State.Status.Alive() {
			if err := send(now); err != nil || !o.Stream {
				return err
			}
		}
		before = now
		select {
		case <-tick.C:
		case <-removed.C:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// sample reads a container's counters. What ends meanwhile reads as zero.
func (c *views) sample(r *container.Record) *api.StatsResponse {
	s := usage.None()
	if r.State.Status.Alive() {
		s = usage.Sample(bundle.CgroupsPath(c.cgroupParent, r), c.linksOf(r), uint64(machine.Memory()))
	}
	s.ID, s.Name = r.ID, "/"+r.Name
	return s
}

// linksOf is a process that sees the container's links; 0 where they are the host's.
func (c *views) linksOf(r *container.Record) int {
	switch mode := r.HostConfig.NetworkMode; {
	case mode.IsHost():
		return 0
	case mode.IsContainer():
		other, err := c.index.Get(mode.ConnectedContainer())
		if err != nil {
			return 0
		}
		return other.record().State.Pid
	}
	return r.State.Pid
}
