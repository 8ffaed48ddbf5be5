package client

import (
	"context"
	"encoding/json"
	"io"
	"net/url"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
)

// Containers makes, runs and shows containers. Every id may be a full ID, a unique prefix of one, or a name.
type Containers struct{ c *Client }

func path(kind, id, verb string) string {
	p := "/" + kind + "/" + url.PathEscape(id)
	if verb != "" {
		p += "/" + verb
	}
	return p
}

// post sends an action on a container that answers with a status alone.
func (s Containers) post(ctx context.Context, id, verb string, q url.Values) error {
	return s.c.Call(ctx, Request{Method: "POST", Path: path("containers", id, verb), Query: q}, nil)
}

// Create makes a container; name "" lets the daemon choose one.
func (s Containers) Create(ctx context.Context, name, platform string, req CreateRequest) (container.CreateResponse, error) {
	q := url.Values{}
	set(q, "name", name)
	set(q, "platform", platform)
	var out container.CreateResponse
	err := s.c.Call(ctx, Request{Method: "POST", Path: "/containers/create", Query: q, Body: req}, &out)
	return out, err
}

func set(q url.Values, key, value string) {
	if value != "" {
		q.Set(key, value)
	}
}

func setBool(q url.Values, key string, value bool) {
	if value {
		q.Set(key, "1")
	}
}

// Start starts a created or stopped container. One that runs already is no error.
func (s Containers) Start(ctx context.Context, id string, q url.Values) error {
	return ignoreNotModified(s.post(ctx, id, "start", q))
}

// Halt says how a container is stopped.
type Halt struct {
	Signal  string         // "" is the container's own
	Timeout *int           // seconds before it is killed; -1 is never, nil the container's own
	Warn    func([]string) // hears what the daemon has to say of it, by lines; may be nil
}

func (h Halt) query() url.Values {
	q := url.Values{}
	set(q, "signal", h.Signal)
	if h.Timeout != nil {
		q.Set("t", strconv.Itoa(*h.Timeout))
	}
	return q
}

// Stop stops a container. One that doesn't run is no error.
func (s Containers) Stop(ctx context.Context, id string, h Halt) error {
	return ignoreNotModified(s.halt(ctx, id, "stop", h))
}

// halt is post that passes warnings on.
func (s Containers) halt(ctx context.Context, id, verb string, h Halt) error {
	r, err := s.c.Do(ctx, Request{Method: "POST", Path: path("containers", id, verb), Query: h.query()})
	if err != nil {
		return err
	}
	if lines := warnings(r.Header["warning"]); h.Warn != nil && len(lines) > 0 {
		h.Warn(lines)
	}
	if r.Status == 304 {
		r.Close()
		return &Error{Status: 304, Message: "not modified"}
	}
	return r.Close()
}

// warnings reads a Warning header of our daemon: code, agent, and lines in one quoted text.
func warnings(header string) []string {
	_, text, ok := strings.Cut(header, ` "`)
	text, err := strconv.Unquote(`"` + text)
	if !ok || err != nil {
		return nil
	}
	return strings.Split(text, "\n")
}

// Restart stops and starts a container.
func (s Containers) Restart(ctx context.Context, id string, h Halt) error {
	return s.halt(ctx, id, "restart", h)
}

// Kill sends a signal to the container's first process.
func (s Containers) Kill(ctx context.Context, id, signal string) error {
	q := url.Values{}
	set(q, "signal", signal)
	return s.post(ctx, id, "kill", q)
}

// Pause freezes a container's processes.
func (s Containers) Pause(ctx context.Context, id string) error { return s.post(ctx, id, "pause", nil) }

// ClearLogs drops what a container has written so far; those who follow go on.
func (s Containers) ClearLogs(ctx context.Context, id string) error {
	return s.post(ctx, id, "logs/clear", nil)
}

// Unpause lets them run on.
func (s Containers) Unpause(ctx context.Context, id string) error {
	return s.post(ctx, id, "unpause", nil)
}

// Rename gives a container another name.
func (s Containers) Rename(ctx context.Context, id, name string) error {
	return s.post(ctx, id, "rename", url.Values{"name": {name}})
}

// Resize sets the size of a container's terminal, in characters.
func (s Containers) Resize(ctx context.Context, id string, height, width int) error {
	return s.post(ctx, id, "resize", sizeQuery(height, width))
}

func sizeQuery(height, width int) url.Values {
	return url.Values{"h": {strconv.Itoa(height)}, "w": {strconv.Itoa(width)}}
}

// Removal says what goes with a container.
type Removal struct{ Force, Volumes, Link bool }

// Remove removes a container.
func (s Containers) Remove(ctx context.Context, id string, o Removal) error {
	q := url.Values{}
	setBool(q, "force", o.Force)
	setBool(q, "v", o.Volumes)
	setBool(q, "link", o.Link)
	return s.c.Call(ctx, Request{Method: "DELETE", Path: path("containers", id, ""), Query: q}, nil)
}

// Filters selects objects: a key such as "label" and its accepted values.
type Filters map[string][]string

// String is the form that the API takes in a query; "" when there are none.
func (f Filters) String() string {
	if len(f) == 0 {
		return ""
	}
	sets := map[string]map[string]bool{}
	for key, values := range f {
		sets[key] = map[string]bool{}
		for _, v := range values {
			sets[key][v] = true
		}
	}
	b, err := json.Marshal(sets)
	if err != nil {
		panic(err) // a map of strings always encodes
	}
	return string(b)
}

// Listing says which containers are listed.
type Listing struct {
	All     bool // stopped ones too
	Size    bool // with the sizes of their files
	Limit   int  // the newest ones only; 0 is all
	Filters Filters
}

// List lists containers, newest first.
func (s Containers) List(ctx context.Context, o Listing) ([]container.Summary, error) {
	q := url.Values{}
	setBool(q, "all", o.All)
	setBool(q, "size", o.Size)
	if o.Limit > 0 {
		q.Set("limit", strconv.Itoa(o.Limit))
	}
	set(q, "filters", o.Filters.String())
	var out []container.Summary
	err := s.c.Call(ctx, Request{Method: "GET", Path: "/containers/json", Query: q}, &out)
	return out, err
}

// Inspect gives all about a container, as the daemon's own JSON.
func (s Containers) Inspect(ctx context.Context, id string, size bool) (json.RawMessage, error) {
	q := url.Values{}
	setBool(q, "size", size)
	var out json.RawMessage
	err := s.c.Call(ctx, Request{Method: "GET", Path: path("containers", id, "json"), Query: q}, &out)
	return out, err
}

// Get gives what is known about a container.
func (s Containers) Get(ctx context.Context, id string) (*Inspection, error) {
	var out Inspection
	err := s.c.Call(ctx, Request{Method: "GET", Path: path("containers", id, "json")}, &out)
	return &out, err
}

// Logs opens a container's log; q is the API's query. The content type tells whether it comes in frames, from API 1.42.
func (s Containers) Logs(ctx context.Context, id string, q url.Values) (*Response, error) {
	return s.c.Do(ctx, Request{Method: "GET", Path: path("containers", id, "logs"), Query: q})
}

// Attach joins a container's streams; q is the API's query.
func (s Containers) Attach(ctx context.Context, id string, q url.Values) (*Stream, error) {
	return s.c.Upgrade(ctx, Request{Method: "POST", Path: path("containers", id, "attach"), Query: q})
}

// Top lists a container's processes; args are those of ps(1).
func (s Containers) Top(ctx context.Context, id, args string) (container.TopResponse, error) {
	q := url.Values{}
	set(q, "ps_args", args)
	var out container.TopResponse
	err := s.c.Call(ctx, Request{Method: "GET", Path: path("containers", id, "top"), Query: q}, &out)
	return out, err
}

// Waiting is a wait that the daemon has begun: no exit after this moment is missed.
type Waiting struct{ r *Response }

// Wait begins to wait until the condition holds.
func (s Containers) Wait(ctx context.Context, id string, condition container.WaitCondition) (*Waiting, error) {
	q := url.Values{}
	set(q, "condition", string(condition))
	r, err := s.c.Do(ctx, Request{Method: "POST", Path: path("containers", id, "wait"), Query: q})
	if err != nil {
		return nil, err
	}
	return &Waiting{r}, nil
}

// Result blocks until the condition holds and ends the wait.
func (w *Waiting) Result() (container.WaitResponse, error) {
	var out container.WaitResponse
	if err := json.NewDecoder(w.r).Decode(&out); err != nil {
		w.r.Close()
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return out, err
	}
	return out, w.r.Close()
}

// Close gives the wait up.
func (w *Waiting) Close() error { return w.r.Close() }

// ExecCreate prepares a further process in a container and gives its ID.
func (s Containers) ExecCreate(ctx context.Context, id string, req container.ExecCreateRequest) (string, error) {
	var out container.ExecCreateResponse
	err := s.c.Call(ctx, Request{Method: "POST", Path: path("containers", id, "exec"), Body: req}, &out)
	return out.ID, err
}

// ExecStart starts a prepared process without its streams.
func (s Containers) ExecStart(ctx context.Context, exec string, req container.ExecStartRequest) error {
	return s.c.Call(ctx, Request{Method: "POST", Path: path("exec", exec, "start"), Body: req}, nil)
}

// ExecAttach starts a prepared process and joins its streams.
func (s Containers) ExecAttach(ctx context.Context, exec string, req container.ExecStartRequest) (*Stream, error) {
	return s.c.Upgrade(ctx, Request{Method: "POST", Path: path("exec", exec, "start"), Body: req})
}

// ExecInspect tells whether such a process runs, and its exit code.
func (s Containers) ExecInspect(ctx context.Context, exec string) (container.ExecInspectResponse, error) {
	var out container.ExecInspectResponse
	err := s.c.Call(ctx, Request{Method: "GET", Path: path("exec", exec, "json")}, &out)
	return out, err
}

// ExecResize sets the size of such a process's terminal, in characters.
func (s Containers) ExecResize(ctx context.Context, exec string, height, width int) error {
	return s.c.Call(ctx, Request{Method: "POST", Path: path("exec", exec, "resize"), Query: sizeQuery(height, width)}, nil)
}

func ignoreNotModified(err error) error {
	if e, ok := err.(*Error); ok && e.Status == 304 {
		return nil
	}
	return err
}
