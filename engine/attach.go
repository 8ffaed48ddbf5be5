package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"berth/container"
	"berth/fault"
	"berth/oci/shim"

	"github.com/moby/moby/api/types/events"
)

// CheckAttach tells, before the connection is hijacked, whether ref can be attached to, and whether it has a terminal.
func (c *streams) CheckAttach(ref string) (tty bool, err error) {
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
		i.pending = append(withoutGone(i.pending), a)
		i.mu.Unlock()
		return nil
	}
	i.mu.Unlock()
	if err := greet(r); err != nil {
		return err
	}
	return live.shim.Attach(ctx, a)
}

// withoutGone closes and drops the clients that left before there was a start to wait for.
func withoutGone(pending []shim.Attachment) []shim.Attachment {
	return slices.DeleteFunc(pending, func(a shim.Attachment) bool {
		gone := a.Gone()
		if gone {
			a.Conn.Close()
		}
		return gone
	})
}

// greet answers the client, and closes its connection when that fails.
func greet(r AttachRequest) error {
	if err := shim.Greet(r.Conn, r.Greeting); err != nil {
		return errors.Join(fmt.Errorf("attach: %w", err), r.Conn.Close())
	}
	return nil
}

func attachment(r AttachRequest) (shim.Attachment, error) {
	keys, err := parseDetachKeys(r.DetachKeys)
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
	err := c.copyLog(ctx, i, r)
	if err != nil || !r.Stream {
		return errors.Join(err, r.Conn.Close())
	}
	r.Logs = false
	return c.Attach(ctx, i.id, r)
}

func (c *streams) copyLog(ctx context.Context, i *instance, r AttachRequest) (err error) {
	path := i.record().LogPath
	if !r.Logs || path == "" {
		return nil
	}
	l, err := container.OpenLog(path, container.LogOptions{Stdout: r.Stdout, Stderr: r.Stderr, Tail: -1})
	if err != nil {
		return err
	}
	defer fault.Close(l, &err)
	for {
		line, err := l.Next(ctx)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := writeOutput(r.Conn, line.Stream == "stderr", r.Frames, line.Text); err != nil {
			return err
		}
	}
}

// writeOutput writes text to a client, in a frame or raw.
func writeOutput(to *os.File, stderr, frames bool, text []byte) error {
	if frames {
		header := [8]byte{0: 1}
		if stderr {
			header[0] = 2
		}
		binary.BigEndian.PutUint32(header[4:], uint32(len(text)))
		text = append(header[:], text...)
	}
	_, err := to.Write(text)
	return err
}

// defaultDetachKeys are ctrl-p ctrl-q.
func defaultDetachKeys() []byte { return []byte{16, 17} }

// parseDetachKeys reads "ctrl-p,ctrl-q" or "a,ctrl-\\".
func parseDetachKeys(s string) ([]byte, error) {
	if s == "" {
		return defaultDetachKeys(), nil
	}
	var keys []byte
	for _, k := range strings.Split(s, ",") {
		c, isControl := strings.CutPrefix(k, "ctrl-")
		switch {
		case len(c) != 1:
			return nil, invalid("Unknown character: '%s'", k)
		case !isControl:
			keys = append(keys, c[0])
		case c[0] >= 'a' && c[0] <= 'z':
			keys = append(keys, c[0]-'a'+1)
		case c[0] >= '@' && c[0] <= '_':
			keys = append(keys, c[0]-'@')
		default:
			return nil, invalid("Unknown character: '%s'", k)
		}
	}
	return keys, nil
}

// Logs opens the log. tty tells whether stdout and stderr are one raw stream. The caller closes the reader.
func (c *streams) Logs(ref string, r LogsRequest) (log *container.LogReader, tty bool, err error) {
	i, err := c.index.Get(ref)
	if err != nil {
		return nil, false, err
	}
	if !r.Stdout && !r.Stderr {
		return nil, false, invalid("Bad parameters: you must choose at least one stream")
	}
	rec := i.record()
	if rec.LogPath == "" {
		return nil, false, fault.New(fault.Unsupported, "configured logging driver does not support reading")
	}
	o := container.LogOptions{Stdout: r.Stdout, Stderr: r.Stderr, Since: r.Since, Until: r.Until, Tail: r.Tail, Follow: r.Follow}
	if live, err := i.current(); err == nil {
		o.Ended = live.ended
	}
	log, err = container.OpenLog(rec.LogPath, o)
	return log, rec.Config.Tty, err
}
