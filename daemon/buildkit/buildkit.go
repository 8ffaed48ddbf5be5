// Package buildkit speaks BuildKit's protocol: sessions, in which a client is asked back for files and secrets, and the service that solves.
//
// It is no BuildKit: it takes a Dockerfile to be built and refuses graphs and frontends of others. What builds is engine/builds. Invariant:
// nothing of a session or a build outlives the connection of the client that it belongs to, but for the record of the build.
package buildkit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"berth/engine/builds"
	"berth/engine/disk"
	"berth/fault"

	control "github.com/moby/buildkit/api/services/control"
	gateway "github.com/moby/buildkit/frontend/gateway/pb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// maxMessage is how long a message may be, in bytes: what clients send.
const maxMessage = 16 << 20

// Server serves the protocol. The fields are set once, before it is used.
type Server struct {
	Builds  *builds.Service
	Disk    *disk.Service
	Version string
	Log     *slog.Logger

	start    sync.Once
	incoming *connections
	sessions sessions
	jobs     jobs
	uploads  uploads
	cancels  sync.Map // of direct builds, by the clients' names for them: context.CancelFunc
}

// Control takes over the connection of a request for the service that solves, and serves it.
func (s *Server) Control(w http.ResponseWriter, r *http.Request) error {
	conn, err := takeOver(w, r)
	if err != nil {
		return err
	}
	s.start.Do(s.serve)
	return s.incoming.put(conn)
}

// serve begins with the first client: who never builds doesn't pay for it.
func (s *Server) serve() {
	s.incoming = &connections{next: make(chan net.Conn), closed: make(chan struct{})}
	g := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage), grpc.WaitForHandlers(true),
		grpc.UnaryInterceptor(s.unary), grpc.StreamInterceptor(s.stream))
	control.RegisterControlServer(g, &controller{Server: s})
	gateway.RegisterLLBBridgeServer(g, &bridge{Server: s})
	grpc_health_v1.RegisterHealthServer(g, health.NewServer())
	go func() {
		if err := g.Serve(s.incoming); err != nil && !errors.Is(err, net.ErrClosed) {
			s.Log.Error("BuildKit's protocol is not served any more", "error", err)
		}
	}()
}

// unary and stream give errors the form in which clients of BuildKit read them, and take the panic of a call for its failure.
func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (answer any, err error) {
	defer func() { err = s.outcome(ctx, info.FullMethod, err, recover()) }()
	return handle(ctx, req)
}

func (s *Server) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) (err error) {
	defer func() { err = s.outcome(stream.Context(), info.FullMethod, err, recover()) }()
	return handle(srv, stream)
}

func (s *Server) outcome(ctx context.Context, method string, err error, panicked any) error {
	if panicked != nil {
		s.Log.Error("request panicked", "method", method, "cause", panicked, "stack", string(debug.Stack()))
		err = errors.New("the daemon failed at this request: its log tells where")
	}
	if err != nil {
		s.Log.Debug("request failed", "method", method, "error", err)
	}
	return statusOf(ctx, err)
}

// takeOver takes a request's connection over for HTTP/2 without encryption, as the request has to ask for.
func takeOver(w http.ResponseWriter, r *http.Request) (net.Conn, error) {
	if p := r.Header.Get("Upgrade"); p != "h2c" {
		return nil, fault.New(fault.Invalid, "protocol %q is not supported here: the request has to upgrade to h2c", p)
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, fmt.Errorf("take over the connection: %w", err)
	}
	err = conn.SetDeadline(time.Time{})
	if err == nil {
		_, err = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &upgraded{Conn: conn, r: rw.Reader}, nil
}

// upgraded is a connection of which something may have been read ahead.
type upgraded struct {
	net.Conn
	r io.Reader
}

func (u *upgraded) Read(p []byte) (int, error) { return u.r.Read(p) }

// connections is a listener that is given its connections.
type connections struct {
	next   chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (c *connections) put(conn net.Conn) error {
	select {
	case c.next <- conn:
		return nil
	case <-c.closed:
		return conn.Close()
	}
}

// Accept implements net.Listener.
func (c *connections) Accept() (net.Conn, error) {
	select {
	case conn := <-c.next:
		return conn, nil
	case <-c.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (c *connections) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

// Addr implements net.Listener.
func (c *connections) Addr() net.Addr { return &net.UnixAddr{Name: "h2c", Net: "unix"} }
