package client

import (
	"context"
	"encoding/json"
	"io"
	"net/url"
	"time"

	"github.com/moby/moby/api/types/volume"
)

// Volumes makes, shows, changes and removes volumes.
type Volumes struct{ c *Client }

// List lists volumes, and tells what could not be asked.
func (s Volumes) List(ctx context.Context, f Filters) (out volume.ListResponse, err error) {
	q := url.Values{}
	set(q, "filters", f.String())
	return out, s.c.Call(ctx, Request{Method: "GET", Path: "/volumes", Query: q}, &out)
}

// Inspect gives all about a volume, as the daemon's own JSON.
func (s Volumes) Inspect(ctx context.Context, name string) (out json.RawMessage, err error) {
	return out, s.c.Call(ctx, Request{Method: "GET", Path: path("volumes", name, "")}, &out)
}

// Create makes a volume, or gives the one of that name.
func (s Volumes) Create(ctx context.Context, r volume.CreateRequest) (out volume.Volume, err error) {
	return out, s.c.Call(ctx, Request{Method: "POST", Path: "/volumes/create", Body: r}, &out)
}

// Remove removes a volume that no container has; with force, one that is gone already is no error.
func (s Volumes) Remove(ctx context.Context, name string, force bool) error {
	q := url.Values{}
	setBool(q, "force", force)
	return s.c.Call(ctx, Request{Method: "DELETE", Path: path("volumes", name, ""), Query: q}, nil)
}

// Rename gives a volume another name; the containers that have it go with it.
func (s Volumes) Rename(ctx context.Context, name, to string) error {
	return s.c.Call(ctx, Request{Method: "POST", Path: path("volumes", name, "rename"), Query: url.Values{"name": {to}}}, nil)
}

// Clone makes a volume of another one's content. pause stops who has it meanwhile.
func (s Volumes) Clone(ctx context.Context, name, to string, pause bool) (out VolumeCopy, err error) {
	q := url.Values{"name": {to}}
	setBool(q, "pause", pause)
	return out, s.c.Call(ctx, Request{Method: "POST", Path: path("volumes", name, "clone"), Query: q}, &out)
}

// VolumeCopy is what was made of a volume.
type VolumeCopy struct {
	Name     string
	Warnings []string
}

// Export opens an archive of a volume's content. The caller reads it to its end and closes it.
func (s Volumes) Export(ctx context.Context, name string, pause bool) (*Response, error) {
	q := url.Values{}
	setBool(q, "pause", pause)
	return s.c.Do(ctx, Request{Method: "GET", Path: path("volumes", name, "export"), Query: q})
}

// Import fills a volume, which is made when it is missing, with an archive's content. replace: with nothing else.
func (s Volumes) Import(ctx context.Context, name string, archive io.Reader, replace bool) error {
	q := url.Values{}
	setBool(q, "replace", replace)
	return s.c.Call(ctx, Request{Method: "POST", Path: path("volumes", name, "import"), Query: q, Body: archive}, nil)
}

// Snapshot is a volume's content as it was.
type Snapshot struct {
	Name    string
	Volume  string
	Created time.Time
	Size    int64 // bytes of its files, shared blocks counted as well
	Shared  bool  // its blocks were shared with the volume's when it was made
}

// Snapshot keeps a volume's content as it is now; a name "" is drawn.
func (s Volumes) Snapshot(ctx context.Context, volume, name string, pause bool) (out VolumeCopy, err error) {
	q := url.Values{}
	set(q, "name", name)
	setBool(q, "pause", pause)
	return out, s.c.Call(ctx, Request{Method: "POST", Path: path("volumes", volume, "snapshots"), Query: q}, &out)
}

// Snapshots lists those of a volume, the oldest first.
func (s Volumes) Snapshots(ctx context.Context, volume string) (out []Snapshot, err error) {
	return out, s.c.Call(ctx, Request{Method: "GET", Path: path("volumes", volume, "snapshots")}, &out)
}

// RemoveSnapshot removes one.
func (s Volumes) RemoveSnapshot(ctx context.Context, volume, name string) error {
	return s.c.Call(ctx, Request{Method: "DELETE", Path: path("volumes", volume, "snapshots"), Query: url.Values{"name": {name}}}, nil)
}

// Rollback makes a volume's content what it was; a snapshot "" is the newest one. It gives its name.
func (s Volumes) Rollback(ctx context.Context, volume, snapshot string) (out VolumeCopy, err error) {
	q := url.Values{}
	set(q, "snapshot", snapshot)
	return out, s.c.Call(ctx, Request{Method: "POST", Path: path("volumes", volume, "rollback"), Query: q}, &out)
}
