package client

import (
	"context"
	"net/url"

	"github.com/moby/moby/api/types/container"
)

// Stats gives what a container has used until now: one sample, to be compared with another. All is zero of one that doesn't run.
func (s Containers) Stats(ctx context.Context, id string) (container.StatsResponse, error) {
	var out container.StatsResponse
	q := url.Values{"stream": {"0"}, "one-shot": {"1"}}
	err := s.c.Call(ctx, Request{Method: "GET", Path: path("containers", id, "stats"), Query: q}, &out)
	return out, err
}
