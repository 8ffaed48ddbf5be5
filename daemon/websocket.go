package daemon

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"

	"berth/engine"
	"berth/fault"

	"github.com/coder/websocket"
)

// attachSocket joins a web socket to a container: what is written there is the container's input, and its outputs come raw, both
// alike. Unlike a connection that was upgraded it passes through this process, and ends with it.
func (s containers) attachSocket(w http.ResponseWriter, r *http.Request) error {
	id, q := r.PathValue("id"), r.URL.Query()
	if _, err := s.engine.CheckAttach(id, q.Get("detachKeys")); err != nil {
		return err
	}
	// Below 1.42 the three were not looked at.
	wanted := func(name string) bool { return versionOf(r) < 42 || flag(q, name) }
	request := engine.AttachRequest{
		Stdin: wanted("stdin"), Stdout: wanted("stdout"), Stderr: wanted("stderr"), Logs: flag(q, "logs"), Stream: flag(q, "stream"),
		DetachKeys: q.Get("detachKeys"),
	}
	kind := websocket.MessageBinary
	if versionOf(r) < 28 {
		kind = websocket.MessageText
	}
	// On a unix socket there is no browser; elsewhere only the daemon's own pages may come.
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: local != nil && local.Network() == "unix"})
	if err != nil {
		return fault.Wrap(fault.Invalid, err) // it has been answered
	}
	defer c.CloseNow()
	c.SetReadLimit(-1) // a message is passed on as it comes
	pipe, err := s.engine.AttachPipe(r.Context(), id, request)
	if err != nil {
		c.Close(websocket.StatusInternalError, shorten(err.Error()))
		return err
	}
	defer pipe.Close()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	go func() {
		defer pipe.Close() // and so the container hears that the client has gone
		for {
			_, message, err := c.Reader(ctx)
			if err == nil {
				_, err = io.Copy(pipe, message)
			}
			if err != nil {
				return
			}
		}
	}()
	buf := make([]byte, 32<<10)
	for {
		n, err := pipe.Read(buf)
		if n > 0 {
			err = errors.Join(err, c.Write(ctx, kind, buf[:n]))
		}
		if err != nil {
			c.Close(websocket.StatusNormalClosure, "")
			return nil
		}
	}
}

// shorten makes a reason fit into a closing frame (RFC 6455, 5.5).
func shorten(s string) string { return s[:min(len(s), 120)] }
