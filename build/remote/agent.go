package remote

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"

	"berth/fault"
)

// agentID is the ssh agent that git uses, as BuildKit has it.
const agentID = "default"

// maxSocket is how long the path of a unix socket may be (unix(7)).
const maxSocket = 100

// serveAgent lets programs reach the client's ssh agent by a socket in dir, until ctx ends.
func (s *Store) serveAgent(ctx context.Context, dir string, c Client) (socket string, err error) {
	probe, err := c.Agent(ctx, agentID)
	if errors.Is(err, fault.NotFound) {
		return "", fault.New(fault.NotFound, "no SSH key %q forwarded from the client: repositories by ssh want --ssh default", agentID)
	}
	if err != nil {
		return "", err
	}
	if err := probe.Close(); err != nil {
		return "", err
	}
	if socket = filepath.Join(dir, "agent"); len(socket) > maxSocket {
		short, err := os.MkdirTemp("", "berth-agent-")
		if err != nil {
			return "", err
		}
		context.AfterFunc(ctx, func() {
			if err := os.RemoveAll(short); err != nil {
				s.log.Warn("an agent's socket stays", "directory", short, "error", err)
			}
		})
		if err := s.give(short); err != nil {
			return "", err
		}
		socket = filepath.Join(short, "agent")
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return "", err
	}
	context.AfterFunc(ctx, func() { l.Close() })
	if err := s.give(socket); err != nil {
		l.Close()
		return "", err
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // it was closed
			}
			go s.forward(ctx, conn, c)
		}
	}()
	return socket, nil
}

// forward connects a program with the client's agent.
func (s *Store) forward(ctx context.Context, conn net.Conn, c Client) {
	agent, err := c.Agent(ctx, agentID)
	if err != nil {
		s.log.Warn("the client's ssh agent does not answer", "error", err)
		conn.Close()
		return
	}
	end := func() { conn.Close(); agent.Close() }
	stop := context.AfterFunc(ctx, end)
	defer stop()
	done := make(chan struct{})
	go func() {
		_, _ = io.Copy(agent, conn) // either side may just end
		end()
		close(done)
	}()
	_, _ = io.Copy(conn, agent)
	end()
	<-done
}
