package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/url"

	"berth/build/protocol"
)

// Build builds an image from a context, an archive of any compression, and gives the daemon's progress. registries has the user's
// credentials in X-Registry-Config, or is nil.
func (s Images) Build(ctx context.Context, q url.Values, registries map[string]string, body io.Reader) (*Progress, error) {
	header := map[string]string{"Content-Type": "application/x-tar"}
	maps.Copy(header, registries)
	return s.progress(ctx, Request{Method: "POST", Path: "/build", Query: q, Body: body, Header: header})
}

// Building is a build whose daemon asks for what it needs. Close it.
type Building struct {
	r      *Response
	d      *json.Decoder
	cancel context.CancelFunc
}

// Asks tells whether the daemon can ask back for what a build needs, as berth's does.
func (s Images) Asks(ctx context.Context) (bool, error) {
	r, err := s.c.Do(ctx, Request{Method: "HEAD", Path: "/_ping"})
	if refused := (*Error)(nil); errors.As(err, &refused) { // engines of old know GET only
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return r.Header["berth-build"] == "asks", r.Close()
}

// BuildAsked begins a build that asks back. registries has the user's credentials in X-Registry-Config, or is nil.
func (s Images) BuildAsked(ctx context.Context, q url.Values, registries map[string]string, body protocol.Request) (*Building, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	q = maps.Clone(q)
	q.Set("asks", "1")
	r, err := s.c.Do(ctx, Request{Method: "POST", Path: "/build", Query: q, Body: json.RawMessage(text), Header: registries})
	if err != nil {
		cancel()
		return nil, err
	}
	return &Building{r, json.NewDecoder(r), cancel}, nil
}

// Next gives the next message; io.EOF after the last one. That a build failed is a message too.
func (b *Building) Next() (m protocol.Message, err error) {
	err = b.d.Decode(&m)
	return m, err
}

// Close ends the stream. The daemon gives up a build that isn't finished.
func (b *Building) Close() error {
	err := b.r.Close()
	b.cancel()
	return err
}

// Answer answers a question: what is meant for it goes over the stream. The caller closes that.
func (s Images) Answer(ctx context.Context, q *protocol.Ask) (*Stream, error) {
	return s.c.Upgrade(ctx, Request{Method: "POST", Path: path("build", "answers", q.ID)})
}

// Refuse answers a question by why there is no answer; missing says that there is no such thing.
func (s Images) Refuse(ctx context.Context, q *protocol.Ask, why error, missing bool) error {
	v := url.Values{"error": {why.Error()}}
	if missing {
		v.Set("missing", "1")
	}
	return s.c.Call(ctx, Request{Method: "POST", Path: path("build", "answers", q.ID), Query: v}, nil)
}
