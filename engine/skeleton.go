package engine

import (
	"context"
	"io"

	"berth/container"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/system"
)

// Containers creates, runs and removes containers.
type Containers struct{}

// Create makes a container; name "" draws a random one. fault.NotFound: no such image ("No such image: x:latest").
func (c *Containers) Create(ctx context.Context, name string, r CreateRequest) (id string, warnings []string, err error) {
	return "", nil, errNotYet
}

// Start runs it. fault.NotModified: it runs already.
func (c *Containers) Start(ctx context.Context, ref string) error { return errNotYet }

// Stop ends it gently, then by KILL. fault.NotModified: it does not run.
func (c *Containers) Stop(ctx context.Context, ref string, o StopOptions) error { return errNotYet }

// Restart stops it if it runs, and starts it.
func (c *Containers) Restart(ctx context.Context, ref string, o StopOptions) error { return errNotYet }

// Kill sends a signal, "" being KILL. fault.Conflict: it does not run.
func (c *Containers) Kill(ctx context.Context, ref, signal string) error { return errNotYet }

// Remove deletes it. fault.Conflict: it runs and o.Force is not set.
func (c *Containers) Remove(ctx context.Context, ref string, o RemoveOptions) error { return errNotYet }

// Pause freezes it.
func (c *Containers) Pause(ctx context.Context, ref string) error { return errNotYet }

// Unpause thaws it.
func (c *Containers) Unpause(ctx context.Context, ref string) error { return errNotYet }

// Rename gives it another name.
func (c *Containers) Rename(ctx context.Context, ref, name string) error { return errNotYet }

// Resize sets its terminal's size in characters.
func (c *Containers) Resize(ctx context.Context, ref string, height, width uint) error {
	return errNotYet
}

// Inspect describes it in full; size computes SizeRw and SizeRootFs.
func (c *Containers) Inspect(ctx context.Context, ref string, size bool) (api.InspectResponse, error) {
	return api.InspectResponse{}, errNotYet
}

// List describes those that fit, newest first.
func (c *Containers) List(ctx context.Context, r ListRequest) ([]api.Summary, error) {
	return nil, errNotYet
}

// Top lists its processes as the host's ps prints them; args "" is -ef.
func (c *Containers) Top(ctx context.Context, ref, args string) (api.TopResponse, error) {
	return api.TopResponse{}, errNotYet
}

// Wait registers a waiter at once, so that headers can be sent before the end comes. The caller closes it.
func (c *Containers) Wait(ref string, until api.WaitCondition) (*Waiter, error) {
	return nil, errNotYet
}

// Waiter gets one answer. C is never closed.
type Waiter struct {
	C <-chan api.WaitResponse
}

// Close gives the waiter up.
func (w *Waiter) Close() {}

// CheckAttach tells, before the connection is hijacked, whether ref can be attached to, and whether it has a terminal.
func (c *Containers) CheckAttach(ref string) (tty bool, err error) { return false, errNotYet }

// Attach hands r.Conn to the container's supervisor and returns; the stream goes on without the
// engine. Before a start the connection waits for it.
func (c *Containers) Attach(ctx context.Context, ref string, r AttachRequest) error { return errNotYet }

// Logs opens the log. tty tells whether stdout and stderr are one raw stream. The caller closes the reader.
func (c *Containers) Logs(ref string, r LogsRequest) (log *container.LogReader, tty bool, err error) {
	return nil, false, errNotYet
}

// ExecCreate prepares a further process in a running container.
func (c *Containers) ExecCreate(ctx context.Context, ref string, r api.ExecCreateRequest) (id string, err error) {
	return "", errNotYet
}

// CheckExec tells, before the connection is hijacked, whether the exec can be started, and whether it has a terminal.
func (c *Containers) CheckExec(id string) (tty bool, err error) { return false, errNotYet }

// ExecStart runs it. With r.Attach a failure is also written to the connection, as Docker does, since
// the 101 was sent already.
func (c *Containers) ExecStart(ctx context.Context, id string, r ExecStartRequest) error {
	return errNotYet
}

// ExecInspect describes it.
func (c *Containers) ExecInspect(id string) (api.ExecInspectResponse, error) {
	return api.ExecInspectResponse{}, errNotYet
}

// ExecResize sets its terminal's size in characters.
func (c *Containers) ExecResize(ctx context.Context, id string, height, width uint) error {
	return errNotYet
}

// Images pulls, keeps and removes images.
type Images struct{}

// Pull fetches an image. An error before the first call of out is an answer of its own; one after it belongs into the stream.
func (i *Images) Pull(ctx context.Context, r PullRequest, out func(jsonstream.Message)) error {
	return errNotYet
}

// Load reads a docker-archive or OCI layout.
func (i *Images) Load(ctx context.Context, r io.Reader, quiet bool, out func(jsonstream.Message)) error {
	return errNotYet
}

// Save writes the images as one archive that is both a docker-archive and an OCI layout. Unknown names fail before the first byte.
func (i *Images) Save(ctx context.Context, w io.Writer, refs []string) error { return errNotYet }

// Import makes an image of one layer; the last message's status is its ID.
func (i *Images) Import(ctx context.Context, r ImportRequest, body io.Reader, out func(jsonstream.Message)) error {
	return errNotYet
}

// Tag gives an image a further name.
func (i *Images) Tag(ref, repo, tag string) error { return errNotYet }

// Remove untags, and deletes what nothing names any more.
func (i *Images) Remove(ctx context.Context, ref string, force, noPrune bool) ([]image.DeleteResponse, error) {
	return nil, errNotYet
}

// Inspect describes an image.
func (i *Images) Inspect(ref string) (image.InspectResponse, error) {
	return image.InspectResponse{}, errNotYet
}

// History lists what an image was made by, newest first.
func (i *Images) History(ref string) ([]image.HistoryResponseItem, error) { return nil, errNotYet }

// List describes the images that fit, newest first.
func (i *Images) List(r ImageListRequest) ([]image.Summary, error) { return nil, errNotYet }

// Networks describes the networks.
type Networks struct{}

// List describes the networks that fit.
func (n *Networks) List(f Filters) ([]network.Inspect, error) { return nil, errNotYet }

// Inspect describes one, by name, ID or unique prefix.
func (n *Networks) Inspect(ref string) (network.Inspect, error) {
	return network.Inspect{}, errNotYet
}

// System describes the engine and its machine.
type System struct{}

// Info is the engine's whole self-description.
func (s *System) Info() (system.Info, error) { return system.Info{}, errNotYet }

// Version is the engine's version; the API versions are the daemon's to fill in.
func (s *System) Version() system.VersionResponse { return system.VersionResponse{} }

// Events tells what happens.
type Events struct{}

// Subscribe returns the past events that fit and a subscription to the coming ones, with none lost or doubled between.
func (e *Events) Subscribe(r EventsRequest) (past []events.Message, s *Subscription, err error) {
	return nil, nil, errNotYet
}

// Subscription delivers events until it is closed. A reader that falls too far behind finds C closed.
type Subscription struct {
	C <-chan events.Message
}

// Close ends it.
func (s *Subscription) Close() {}
