package client

import (
	"context"
	"encoding/json"
	"net/netip"
	"net/url"
	"time"
)

// Lookup is how a name was looked up; doc/api.md says what the fields are.
type Lookup struct {
	Name   string
	Owners []struct {
		Network, Container, Name, As string
		Addresses                    []netip.Addr
		Sees                         bool
	}
	Trace *struct {
		Name, Type, Container, Status string
		Answer                        []string
		Took                          time.Duration
		Steps                         []struct {
			Network, Server, Over, Asked, Result string
			Found                                []string
			Took                                 time.Duration
		}
	}
}

// Lookup looks a name up as a container would, "" for none, and gives the daemon's own JSON, too. kind is the type of records, "" for addresses.
func (s Networks) Lookup(ctx context.Context, name, container, kind string) (out Lookup, raw json.RawMessage, err error) {
	q := url.Values{}
	set(q, "container", container)
	set(q, "type", kind)
	if err = s.c.Call(ctx, Request{Method: "GET", Path: path("networks", "dns", url.PathEscape(name)), Query: q}, &raw); err == nil {
		err = json.Unmarshal(raw, &out)
	}
	return out, raw, err
}
