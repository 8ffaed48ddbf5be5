// Package registry speaks the distribution protocol, so far as a client that pulls.
//
// It is not a store: content streams through it unverified, and its reader checks
// size and digest. Invariant: plain HTTP is spoken with this machine's own loopback
// addresses only, and credentials go to no host but the one they were given for
// and the token server which that host names.
package registry

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote/auth"
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
	wire     *wire
	mu       sync.Mutex
	schemes  map[string]string // of loopback hosts
	users    map[user]*auth.Client
	settings *settings
}

// user is who asks whom: tokens of one are never used for another.
type user struct {
	host string
	auth Auth
}

// maxUsers bounds the tokens kept; when there are more, all are forgotten.
const maxUsers = 256

// NewClient returns a client. Close it when done.
func NewClient(o Options) *Client {
	if o.UserAgent == "" {
		o.UserAgent = "berth"
	}
	if o.Backoff == 0 {
		o.Backoff = 250 * time.Millisecond
	}
	return &Client{&shared{options: o, wire: newWire(), schemes: map[string]string{}, users: map[user]*auth.Client{}}, o.Waiting}
}

// Telling returns a client that shares all with c, but tells f why a request to host waits and for how long before it is
// tried again; while a wait lasts, f is called each second with what is left.
func (c *Client) Telling(f func(host, reason string, pause time.Duration)) *Client {
	return &Client{c.shared, func(_ context.Context, host, reason string, pause time.Duration) { f(host, reason, pause) }}
}

// Close drops idle connections.
func (c *Client) Close() { c.wire.close() }

// Resolve asks the registry what ref means now: HEAD of the manifest, and GET where HEAD tells too little.
// Errors are in Docker's words. fault.NotFound: no such repository or tag, or no right to know;
// fault.Unauthorized: wrong credentials; fault.Unavailable: the registry does not answer.
func (c *Client) Resolve(ctx context.Context, ref reference.Named, auth Auth) (ocispec.Descriptor, error) {
	return c.Repository(ref, auth).Resolve(ctx, ref)
}

// Repository returns the repository of ref on its registry, as seen by a user.
func (c *Client) Repository(ref reference.Named, auth Auth) *Repository {
	host := reference.Domain(ref)
	if host == "docker.io" {
		host = "registry-1.docker.io"
	}
	return &Repository{client: c, name: reference.TrimNamed(ref), host: host, path: reference.Path(ref), auth: auth}
}

// authorized returns the client that speaks for a user.
func (c *Client) authorized(host string, a Auth) *auth.Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := user{host, a}
	if known := c.users[key]; known != nil {
		return known
	}
	if len(c.users) >= maxUsers {
		clear(c.users)
	}
	credential := auth.Credential{Username: a.Username, Password: a.Password, RefreshToken: a.IdentityToken, AccessToken: a.RegistryToken}
	ac := &auth.Client{
		Client:   &http.Client{Transport: c.wire},
		Header:   http.Header{"User-Agent": {c.options.UserAgent}},
		ClientID: "berth",
		Cache:    auth.NewCache(),
		Credential: func(_ context.Context, asked string) (auth.Credential, error) {
			if asked != host {
				return auth.EmptyCredential, nil
			}
			return credential, nil
		},
	}
	c.users[key] = ac
	return ac
}
