package engine

import (
	"context"
	"errors"

	"berth/container"
	"berth/engine/stream"
	"berth/fault"
)

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
	if err := stream.Readable(rec); err != nil {
		return nil, false, err
	}
	o := container.LogOptions{Stdout: r.Stdout, Stderr: r.Stderr, Since: r.Since, Until: r.Until, Tail: r.Tail, Follow: r.Follow}
	if live, err := i.current(); err == nil {
		o.Ended = live.ended
	}
	log, err = container.OpenLog(rec.LogPath, o)
	return log, rec.Config.Tty, err
}

// ClearLogs drops what a container has written so far. Those who follow the log go on.
func (c *streams) ClearLogs(ctx context.Context, ref string) error {
	i, err := c.index.Get(ref)
	if err != nil {
		return err
	}
	i.op.Lock()
	defer i.op.Unlock()
	r := i.record()
	if r.LogPath == "" {
		return fault.New(fault.Unsupported, "container %s keeps no log: its log driver is %s", r.Name, r.HostConfig.LogConfig.Type)
	}
	live, err := i.current()
	if err == nil {
		err = live.shim.ClearLog(ctx)
		if !errors.Is(err, fault.Conflict) { // else it has just ended
			return err
		}
	}
	if err := i.awaitSettled(ctx); err != nil {
		return err
	}
	return c.forwards.Restart(r, func() error { return container.ClearLog(r.LogPath) })
}
