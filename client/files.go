package client

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/url"

	"github.com/moby/moby/api/types/container"
)

// StatPath describes a path in a container. fault.NotFound when the path, or the container, is not there.
func (s Containers) StatPath(ctx context.Context, id, name string) (stat container.PathStat, err error) {
	r, err := s.c.Do(ctx, Request{Method: "HEAD", Path: path("containers", id, "archive"), Query: url.Values{"path": {name}}})
	if err != nil {
		return stat, err
	}
	data, err := base64.StdEncoding.DecodeString(r.Header["x-docker-container-path-stat"])
	if err == nil {
		err = json.Unmarshal(data, &stat)
	}
	if err != nil {
		r.Close()
		return stat, fmt.Errorf("decode the description of %s: %w", name, err)
	}
	return stat, r.Close()
}

// CopyFrom opens a tar archive of files in a container; q is the API's query. The caller closes it.
func (s Containers) CopyFrom(ctx context.Context, id string, q url.Values) (*Response, error) {
	return s.c.Do(ctx, Request{Method: "GET", Path: path("containers", id, "archive"), Query: q})
}

// CopyTo unpacks a tar archive in a container; q is the API's query.
func (s Containers) CopyTo(ctx context.Context, id string, q url.Values, archive io.Reader) error {
	return s.c.Call(ctx, Request{Method: "PUT", Path: path("containers", id, "archive"), Query: q, Body: archive}, nil)
}

// Export opens a tar archive of a container's root. The caller closes it.
func (s Containers) Export(ctx context.Context, id string) (*Response, error) {
	return s.c.Do(ctx, Request{Method: "GET", Path: path("containers", id, "export")})
}

// Changes lists what a container's files have beyond its image.
func (s Containers) Changes(ctx context.Context, id string) ([]container.FilesystemChange, error) {
	var out []container.FilesystemChange
	err := s.c.Call(ctx, Request{Method: "GET", Path: path("containers", id, "changes")}, &out)
	return out, err
}

// Commit makes an image of a container and gives its ID; q is the API's query.
func (s Containers) Commit(ctx context.Context, q url.Values) (string, error) {
	var out container.CommitResponse
	err := s.c.Call(ctx, Request{Method: "POST", Path: "/commit", Query: q, Body: struct{}{}}, &out)
	return out.ID, err
}

// Prune removes stopped containers. dry only tells.
func (s Containers) Prune(ctx context.Context, f Filters, dry bool) (out container.PruneReport, err error) {
	return out, s.c.prune(ctx, "containers", f, dry, nil, &out)
}
