package engine

import (
	"context"
	"errors"
	"fmt"
	"os"

	"berth/container"
	"berth/engine/stream"
	"berth/fault"
	"berth/oci/shim"

	"github.com/moby/moby/api/types/events"
)

// CheckAttach tells, before the connection is hijacked, whether ref can be attached to, and whether it has a terminal.
func (c *streams) CheckAttach(ref, keys string) (tty bool, err error) {
	if _, err := stream.ParseKeys(keys); err != nil {
		return false, err
	}
	i, err := c.index.Get(ref)
	if err != nil {
		return false, err
	}
	r := i.record()
	switch r.State.Status {
	case container.Paused:
		return false, fault.New(fault.Conflict, "container %s is paused, unpause the container before attach", ref)
	case container.Restarting:
		return false, fault.New(fault.Conflict, "container %s is restarting, wait until the container is running", ref)
	}
	return r.Config.Tty, nil
}

// Attach hands r.Conn to the container's supervisor and returns; the stream goes on without the
// engine. Before a start the connection waits for it.
func (c *streams) Attach(ctx context.Context, ref string, r AttachRequest) error {
	i, err := c.index.Get(ref)
	if err != nil {
		r.Conn.Close()
		return err
	}
	a, err := attachment(r)
	if err != nil {
		r.Conn.Close()
		return err
	}
	rec := i.record()
	if !rec.Config.OpenStdin {
		a.Stdin = false
	}
	if !rec.Config.Tty {
		a.DetachKeys = nil // see attachment
	}
	a.HangUp = rec.Settings.Debug != nil
	c.announce(rec, events.ActionAttach)
	i.mu.Lock()
	live := i.run
	if live == nil {
		if r.Logs || !r.Stream {
			i.mu.Unlock()
			return c.replay(ctx, i, r)
		}
		// The answer makes the client start the container, and the start takes what
		// is pending: so it goes out in the same critical section.
		if _, err := r.Conn.Write(r.Greeting); err != nil {
			r.Conn.Close()
			i.mu.Unlock()
			return err
		}
		i.pending = append(stream.WithoutGone(i.pending), a)
		i.mu.Unlock()
		return nil
	}
	i.mu.Unlock()
	if err := greet(r); err != nil {
		return err
	}
	return live.shim.Attach(ctx, a)
}

// greet answers the client, and closes its connection when that fails.
func greet(r AttachRequest) error {
	if err := shim.Greet(r.Conn, r.Greeting); err != nil {
		return errors.Join(fmt.Errorf("attach: %w", err), r.Conn.Close())
	}
	return nil
}

func attachment(r AttachRequest) (shim.Attachment, error) {
	keys, err := stream.ParseKeys(r.DetachKeys)
	if r.Frames {
		keys = nil // without a terminal the input may be anything, these bytes too
	}
	return shim.Attachment{
		Conn: r.Conn, Stdin: r.Stdin && r.Stream, Stdout: r.Stdout, Stderr: r.Stderr, Frames: r.Frames, DetachKeys: keys,
		Buffered: r.Buffered, Logs: r.Logs, NoStream: !r.Stream,
	}, err
}

// replay writes the log of a container that does not run to the connection, and closes it or leaves it to the next start.
func (c *streams) replay(ctx context.Context, i *instance, r AttachRequest) error {
	if err := greet(r); err != nil {
		return err
	}
	r.Greeting = nil
	var err error
	if path := i.record().LogPath; r.Logs && path != "" {
		err = stream.Replay(ctx, path, r.Conn, r.Stdout, r.Stderr, r.Frames)
	}
	if err != nil || !r.Stream {
		return errors.Join(err, r.Conn.Close())
	}
	r.Logs = false
	return c.Attach(ctx, i.id, r)
}

// AttachPipe attaches a client that has no socket of its own to hand over, such as a web socket's. The caller closes the result.
func (c *streams) AttachPipe(ctx context.Context, ref string, r AttachRequest) (*os.File, error) {
	conn, client, err := shim.Pipe()
	if err != nil {
		return nil, err
	}
	r.Conn = conn
	if err := c.Attach(ctx, ref, r); err != nil {
		return nil, errors.Join(err, client.Close())
	}
	return client, nil
}
