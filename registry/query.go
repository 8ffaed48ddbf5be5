package registry

import (
	"context"
	"errors"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Tags lists a repository's tags, in the registry's order.
func (c *Client) Tags(ctx context.Context, ref reference.Named, auth Auth) ([]string, error) {
	return nil, errors.ErrUnsupported
}

// Manifest fetches the manifest or index that ref means now. Its digest is checked; a schema 1 manifest's is that of its signed payload.
func (c *Client) Manifest(ctx context.Context, ref reference.Named, auth Auth) (ocispec.Descriptor, []byte, error) {
	return ocispec.Descriptor{}, nil, errors.ErrUnsupported
}

// Login checks a user's credentials with a registry: a host, or a URL such as https://index.docker.io/v1/, which "" means.
// The identity token, if the registry gives one, is to be kept in the password's place.
// fault.Unauthorized: the registry refuses them.
func (c *Client) Login(ctx context.Context, host string, auth Auth) (status, identityToken string, err error) {
	return "", "", errors.ErrUnsupported
}

// Search asks an index for repositories. The term may begin with the index's host, as in "registry.example:5000/term";
// otherwise it is the default registry's.
func (c *Client) Search(ctx context.Context, term string, f SearchFilter, auth Auth) ([]SearchResult, error) {
	return nil, errors.ErrUnsupported
}

// SearchFilter says which results of a search count.
type SearchFilter struct {
	Limit     int   // at most so many, 1 to 100; 0 = 25
	Stars     int   // with at least so many stars
	Official  *bool // nil = both
	Automated *bool
}

// SearchResult is one repository that an index found.
type SearchResult struct {
	Name, Description   string
	Stars               int
	Official, Automated bool
}
