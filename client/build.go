package client

import (
	"context"
	"io"
	"maps"
	"net/url"
)

// Build builds an image from a context, an archive of any compression, and gives the daemon's progress. registries has the user's
// credentials in X-Registry-Config, or is nil.
func (s Images) Build(ctx context.Context, q url.Values, registries map[string]string, body io.Reader) (*Progress, error) {
	header := map[string]string{"Content-Type": "application/x-tar"}
	maps.Copy(header, registries)
	return s.progress(ctx, Request{Method: "POST", Path: "/build", Query: q, Body: body, Header: header})
}
