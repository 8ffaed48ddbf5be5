// Package registry speaks the distribution protocol as a client: it pulls, pushes, lists, logs in and searches.
//
// It is not a store: content streams through it unverified, and its reader checks
// size and digest. Invariant: plain HTTP is spoken only with this machine's own loopback
// addresses and with hosts that the user named for it, and credentials go to no host but the
// one they were given for and the token server which that host names.
package registry

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Auth is what a user has for one registry; the zero value is an anonymous user.
type Auth struct {
	Username, Password string
	IdentityToken      string // an OAuth2 refresh token
	RegistryToken      string // a ready bearer token
}

// Options of a client.
type Options struct {
	UserAgent string        // such as "berth/1.0"; "" = "berth"
	Backoff   time.Duration // the first pause before a request is tried again, each further one doubles it; 0 = 250 ms
	// Waiting is told why a request to host waits and for how long before it is tried again; nil: nobody is.
	// While a wait lasts, it is told each second what is left.
	Waiting func(ctx context.Context, host, reason string, pause time.Duration)
}

// Client talks to any number of registries. It keeps connections and tokens, and may be used from several goroutines.
type Client struct {
	*shared
	waiting func(ctx context.Context, host, reason string, pause time.Duration)
}

// shared is what all views of a client have in common.
type shared struct {
	options  Options
	mu       sync.Mutex
	settings *settings
	lanes    map[laneKey]*lane
}

// NewClient returns a client with the zero settings (see Configure). Close it when done.
func NewClient(o Options) *Client {
	if o.UserAgent == "" {
		o.UserAgent = "berth"
	}
	if o.Backoff == 0 {
		o.Backoff = 250 * time.Millisecond
	}
	s, err := newSettings(Hosts{})
	if err != nil { // the environment's proxies can't be read
		s = &settings{proxyFor: noProxy, Hosts: Hosts{Attempts: maxTries}}
	}
	return &Client{&shared{options: o, settings: s, lanes: map[laneKey]*lane{}}, o.Waiting}
}

// Telling returns a client that shares all with c, but tells f why a request to host waits and for how long before it is
// tried again; while a wait lasts, f is called each second with what is left.
func (c *Client) Telling(f func(host, reason string, pause time.Duration)) *Client {
	return &Client{c.shared, func(_ context.Context, host, reason string, pause time.Duration) { f(host, reason, pause) }}
}

// HTTP returns a client for what isn't a registry, such as an archive to import, through the proxies in effect.
func (c *Client) HTTP() *http.Client {
	s := c.current()
	return &http.Client{Transport: &http.Transport{Proxy: s.proxy, TLSHandshakeTimeout: dialTimeout, ResponseHeaderTimeout: answerTime, DisableKeepAlives: true,
		DialContext: (&net.Dialer{Timeout: dialTimeout}).DialContext}}
}

// Close drops idle connections.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.lanes {
		l.close()
	}
}

// Resolve asks what ref means now, as Repository.Resolve does.
func (c *Client) Resolve(ctx context.Context, ref reference.Named, auth Auth) (ocispec.Descriptor, error) {
	return c.Repository(ref, auth).Resolve(ctx, ref)
}

// Repository returns the repository of ref, as seen by a user. Use one for all of a pull: it remembers which
// mirrors lack the image.
func (c *Client) Repository(ref reference.Named, auth Auth) *Repository {
	r := &Repository{client: c, name: reference.TrimNamed(ref), auth: auth, missed: map[*endpoint]bool{}, begun: map[string]string{}}
	r.endpoints, r.broken = c.endpoints(r.name, auth)
	return r
}
