package client

import (
	"context"
	"encoding/json"
	"io"
	"net/url"

	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/jsonstream"
)

// Images pulls, keeps and shows images. A ref is a name with or without a tag, an ID or a unique prefix of one.
type Images struct{ c *Client }

func (s Images) get(ctx context.Context, p string, q url.Values, out any) error {
	return s.c.Call(ctx, Request{Method: "GET", Path: p, Query: q}, out)
}

// ImageListing says which images are listed.
type ImageListing struct {
	All       bool
	Digests   bool
	Manifests bool // with what is known of each platform
	Filters   Filters
}

// List lists images.
func (s Images) List(ctx context.Context, o ImageListing) ([]image.Summary, error) {
	q := url.Values{}
	setBool(q, "all", o.All)
	setBool(q, "digests", o.Digests)
	setBool(q, "manifests", o.Manifests)
	set(q, "filters", o.Filters.String())
	var out []image.Summary
	err := s.get(ctx, "/images/json", q, &out)
	return out, err
}

// Inspect gives all about an image, as the daemon's own JSON. platform is JSON of an OCI platform, or "".
func (s Images) Inspect(ctx context.Context, ref, platform string) (json.RawMessage, error) {
	q := url.Values{}
	set(q, "platform", platform)
	var out json.RawMessage
	err := s.get(ctx, path("images", ref, "json"), q, &out)
	return out, err
}

// History gives an image's layers, newest first.
func (s Images) History(ctx context.Context, ref, platform string) ([]image.HistoryResponseItem, error) {
	q := url.Values{}
	set(q, "platform", platform)
	var out []image.HistoryResponseItem
	err := s.get(ctx, path("images", ref, "history"), q, &out)
	return out, err
}

// Tag gives an image a further name.
func (s Images) Tag(ctx context.Context, ref, repo, tag string) error {
	q := url.Values{"repo": {repo}}
	set(q, "tag", tag)
	return s.c.Call(ctx, Request{Method: "POST", Path: path("images", ref, "tag"), Query: q}, nil)
}

// Remove removes a name of an image, and the image with its last name.
// platforms are OCI platforms in JSON; none removes all of them.
func (s Images) Remove(ctx context.Context, ref string, force, keepParents bool, platforms []string) ([]image.DeleteResponse, error) {
	q := url.Values{}
	setBool(q, "force", force)
	setBool(q, "noprune", keepParents)
	if len(platforms) > 0 {
		q["platforms"] = platforms
	}
	var out []image.DeleteResponse
	err := s.c.Call(ctx, Request{Method: "DELETE", Path: path("images", ref, ""), Query: q}, &out)
	return out, err
}

// Create pulls (q has fromImage) or imports (fromSrc; "-" takes body) an image and gives the daemon's progress. auth is for X-Registry-Auth, or "".
func (s Images) Create(ctx context.Context, q url.Values, auth string, body io.Reader) (*Progress, error) {
	r := Request{Method: "POST", Path: "/images/create", Query: q, Header: authorized(auth)}
	if body != nil {
		r.Body = body
	}
	return s.progress(ctx, r)
}

// Load adds the images of an archive. platforms are OCI platforms in JSON.
func (s Images) Load(ctx context.Context, archive io.Reader, quiet bool, platforms []string) (*Progress, error) {
	q := url.Values{"quiet": {"0"}}
	setBool(q, "quiet", quiet)
	if len(platforms) > 0 {
		q["platform"] = platforms
	}
	return s.progress(ctx, Request{Method: "POST", Path: "/images/load", Query: q, Body: archive})
}

// Save opens an archive of images. The caller reads it to its end and closes it.
func (s Images) Save(ctx context.Context, refs, platforms []string) (*Response, error) {
	q := url.Values{"names": refs}
	if len(platforms) > 0 {
		q["platform"] = platforms
	}
	return s.c.Do(ctx, Request{Method: "GET", Path: "/images/get", Query: q})
}

func (s Images) progress(ctx context.Context, q Request) (*Progress, error) {
	ctx, cancel := context.WithCancel(ctx)
	r, err := s.c.Do(ctx, q)
	if err != nil {
		cancel()
		return nil, err
	}
	return &Progress{r: r, d: json.NewDecoder(r), cancel: cancel}, nil
}

// Progress is a stream of messages about work that the daemon does. Close it.
type Progress struct {
	r      *Response
	d      *json.Decoder
	cancel context.CancelFunc
}

// Next gives the next message; io.EOF after the last one. A message that
// reports a failure comes back with that failure as the error.
func (p *Progress) Next() (jsonstream.Message, error) {
	var m struct {
		jsonstream.Message
		Failure string `json:"error"`
	}
	if err := p.d.Decode(&m); err != nil {
		return m.Message, err
	}
	if m.Error != nil {
		return m.Message, m.Error
	}
	if m.Failure != "" {
		return m.Message, &jsonstream.Error{Message: m.Failure}
	}
	return m.Message, nil
}

// Close ends the stream. The daemon gives up work that isn't finished.
func (p *Progress) Close() error {
	err := p.r.Close()
	p.cancel()
	return err
}

// Stop makes the daemon give up; Next, which may be waiting in another goroutine, fails then.
func (p *Progress) Stop() { p.cancel() }
