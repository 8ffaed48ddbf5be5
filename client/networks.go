package client

import (
	"context"
	"encoding/json"
	"net/netip"
	"net/url"

	"github.com/moby/moby/api/types/network"
)

// Networks makes, shows and removes networks. A ref is a name, an ID or a unique prefix of one.
type Networks struct{ c *Client }

// List lists networks, without their containers.
func (s Networks) List(ctx context.Context, f Filters) (out []network.Summary, err error) {
	q := url.Values{}
	set(q, "filters", f.String())
	return out, s.c.Call(ctx, Request{Method: "GET", Path: "/networks", Query: q}, &out)
}

// Inspect gives all about a network, as the daemon's own JSON.
func (s Networks) Inspect(ctx context.Context, ref, scope string, verbose bool) (out json.RawMessage, err error) {
	q := url.Values{}
	set(q, "scope", scope)
	setBool(q, "verbose", verbose)
	return out, s.c.Call(ctx, Request{Method: "GET", Path: path("networks", ref, ""), Query: q}, &out)
}

// Create makes a network and gives its ID, and what the user should know.
func (s Networks) Create(ctx context.Context, r network.CreateRequest) (out network.CreateResponse, err error) {
	return out, s.c.Call(ctx, Request{Method: "POST", Path: "/networks/create", Body: r}, &out)
}

// Remove removes a network that no container is on.
func (s Networks) Remove(ctx context.Context, ref string) error {
	return s.c.Call(ctx, Request{Method: "DELETE", Path: path("networks", ref, "")}, nil)
}

// Connect puts a container on a network.
func (s Networks) Connect(ctx context.Context, ref, container string, e *network.EndpointSettings) error {
	r := network.ConnectRequest{Container: container, EndpointConfig: e}
	return s.c.Call(ctx, Request{Method: "POST", Path: path("networks", ref, "connect"), Body: r}, nil)
}

// Disconnect takes a container off a network; with force, one that is gone already is no error.
func (s Networks) Disconnect(ctx context.Context, ref, container string, force bool) error {
	r := network.DisconnectRequest{Container: container, Force: force}
	return s.c.Call(ctx, Request{Method: "POST", Path: path("networks", ref, "disconnect"), Body: r}, nil)
}

// Audit is who can reach what.
type Audit struct {
	Ports []AuditPort
	Notes []string
}

// AuditPort is a port of a container; doc/api.md says what the fields are.
type AuditPort struct {
	Container, Name, Network, Port string
	HostIP                         netip.Addr
	HostPort                       uint16
	Addresses                      []netip.Addr
	Reach                          []string
	Stopped, Note                  string
}

// Audit tells who can reach which port of running containers.
func (s Networks) Audit(ctx context.Context) (out Audit, err error) {
	return out, s.c.Call(ctx, Request{Method: "GET", Path: "/ports"}, &out)
}
