package engine

import (
	"context"
	"strings"

	"berth/engine/usage"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
)

// Top lists its processes as the host's ps prints them; args "" is -ef.
func (c *views) Top(ctx context.Context, ref, args string) (api.TopResponse, error) {
	i, err := c.index.Get(ref)
	if err != nil {
		return api.TopResponse{}, err
	}
	live, err := i.current()
	if err != nil {
		return api.TopResponse{}, err
	}
	pids, err := live.shim.Pids(ctx)
	if err != nil {
		return api.TopResponse{}, err
	}
	top, err := usage.Processes(ctx, strings.Fields(args), pids)
	if err == nil {
		c.announce(i.record(), events.ActionTop)
	}
	return top, err
}
