// Package registry speaks the distribution protocol, so far as a client that pulls.
//
// It is not a store: content streams through it unverified, and its reader checks
// size and digest. Invariant: plain HTTP is spoken with this machine's own loopback
// addresses only, and credentials go to no host but the one they were given for
// and the token server which that host names.
package registry

import (
	"context"
	"io"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/fault"
)

var errUnfinished = fault.New(fault.Unsupported, "registry: not written yet")

// Auth is what a user has for one registry; the zero value is an anonymous user.
type Auth struct {
	Username, Password string
	IdentityToken      string // an OAuth2 refresh token
	RegistryToken      string // a ready bearer token
}

// Options of a client.
type Options struct {
	UserAgent string // such as "berth/1.0"; "" = "berth"
	// Waiting is told why and how long a request waits before it is tried again; nil: nobody is.
	Waiting func(ctx context.Context, host string, reason string, seconds float64)
}

// Client talks to any number of registries. It keeps connections and tokens, and may be used from several goroutines.
type Client struct{}

// NewClient returns a client. Close it when done.
func NewClient(o Options) *Client { return &Client{} }

// Close drops idle connections.
func (c *Client) Close() {}

// Resolve asks the registry what ref means now: HEAD of the manifest, and GET where HEAD tells too little.
// Errors are in Docker's words. fault.NotFound: no such repository or tag, or no right to know;
// fault.Unauthorized: wrong credentials; fault.Unavailable: the registry does not answer.
func (c *Client) Resolve(ctx context.Context, ref reference.Named, auth Auth) (ocispec.Descriptor, error) {
	return c.Repository(ref, auth).Resolve(ctx, ref)
}

// Repository returns the repository of ref on its registry, as seen by a user.
func (c *Client) Repository(ref reference.Named, auth Auth) *Repository { return &Repository{} }

// Repository is one repository, seen by one user. It fits image.Source.
type Repository struct{}

// Resolve is Client.Resolve in this repository.
func (r *Repository) Resolve(ctx context.Context, ref reference.Named) (ocispec.Descriptor, error) {
	return ocispec.Descriptor{}, errUnfinished
}

// Fetch opens the manifest or blob that desc names, from byte offset on. The stream takes up
// again where it broke, a few times with growing pauses. The caller closes it.
func (r *Repository) Fetch(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	return nil, errUnfinished
}
