package client

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Stream is a connection that the daemon has taken over from HTTP: what is
// written goes to the process's input, what is read comes from its outputs. Close it.
type Stream struct {
	*conn
	Frames bool // outputs come in frames (see Demux); else raw, as from a terminal
	stop   func() bool
}

// Upgrade sends a request that turns its connection into a stream.
// Ending the context closes the stream.
func (c *Client) Upgrade(ctx context.Context, q Request) (*Stream, error) {
	q.Header = map[string]string{"Connection": "Upgrade", "Upgrade": "tcp"}
	r, err := c.Do(ctx, q)
	if err != nil {
		return nil, err
	}
	return &Stream{
		conn:   r.conn,
		Frames: strings.HasPrefix(r.Header["content-type"], "application/vnd.docker.multiplexed-stream"),
		stop:   r.stop,
	}, nil
}

// Read reads what the process wrote.
func (s *Stream) Read(p []byte) (int, error) { return s.r.Read(p) }

// CloseWrite ends the process's input; its outputs stay readable.
func (s *Stream) CloseWrite() error {
	if h, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Close ends the stream.
func (s *Stream) Close() error {
	s.stop()
	return s.Conn.Close()
}

// Streams of a frame's first byte.
const (
	frameIn = iota
	frameOut
	frameErr
	frameFailure
)

// Demux copies framed output to stdout and stderr until src ends. A frame is
// its stream's number, three zero bytes, the length as four bytes, big endian,
// and the bytes (Docker Engine API, "Attach to a container"). A frame that reports a
// failure of the daemon ends the copy with that message. A frame cut short is io.ErrUnexpectedEOF.
func Demux(stdout, stderr io.Writer, src io.Reader) error {
	var head [8]byte
	buf := make([]byte, 32<<10)
	for {
		if _, err := io.ReadFull(src, head[:]); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		left := int64(binary.BigEndian.Uint32(head[4:]))
		var dst io.Writer
		var failure strings.Builder
		switch head[0] {
		case frameIn, frameOut:
			dst = stdout
		case frameErr:
			dst = stderr
		case frameFailure:
			dst = &limited{&failure, 64 << 10}
		default:
			return fmt.Errorf("the daemon's stream has a frame of the unknown kind %d", head[0])
		}
		for left > 0 {
			n, err := src.Read(buf[:min(left, int64(len(buf)))])
			if n > 0 {
				if _, err := dst.Write(buf[:n]); err != nil {
					return err
				}
				left -= int64(n)
			}
			if err != nil && left > 0 {
				if err == io.EOF {
					err = io.ErrUnexpectedEOF
				}
				return err
			}
		}
		if head[0] == frameFailure {
			return fmt.Errorf("error from daemon in stream: %s", failure.String())
		}
	}
}

// limited keeps the first n bytes and drops the rest.
type limited struct {
	w io.Writer
	n int
}

func (l *limited) Write(p []byte) (int, error) {
	keep := p[:min(len(p), l.n)]
	l.n -= len(keep)
	if _, err := l.w.Write(keep); err != nil {
		return 0, err
	}
	return len(p), nil
}
