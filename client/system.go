package client

import (
	"context"
	"encoding/json"
	"net/url"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/system"
)

// System tells about the daemon and its machine.
type System struct{ c *Client }

// Ping asks the daemon for a sign of life, and agrees with it on an API version.
func (s System) Ping(ctx context.Context) error {
	return s.c.Call(ctx, Request{Method: "GET", Path: "/_ping"}, nil)
}

// Version gives the daemon's version and those of its parts.
func (s System) Version(ctx context.Context) (system.VersionResponse, error) {
	var out system.VersionResponse
	err := s.c.Call(ctx, Request{Method: "GET", Path: "/version"}, &out)
	return out, err
}

// Info gives what the daemon has and can do.
func (s System) Info(ctx context.Context) (system.Info, error) {
	var out system.Info
	err := s.c.Call(ctx, Request{Method: "GET", Path: "/info"}, &out)
	return out, err
}

// Events is a stream of what happens. Close it.
type Events struct {
	r *Response
	d *json.Decoder
}

// Events opens the stream of events; q is the API's query.
func (s System) Events(ctx context.Context, q url.Values) (*Events, error) {
	r, err := s.c.Do(ctx, Request{Method: "GET", Path: "/events", Query: q})
	if err != nil {
		return nil, err
	}
	return &Events{r, json.NewDecoder(r)}, nil
}

// Next blocks until something happens; io.EOF when the stream has ended.
func (e *Events) Next() (events.Message, error) {
	var m events.Message
	err := e.d.Decode(&m)
	return m, err
}

// Close ends the stream.
func (e *Events) Close() error { return e.r.Close() }
