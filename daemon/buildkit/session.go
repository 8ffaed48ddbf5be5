package buildkit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"berth/fault"

	control "github.com/moby/buildkit/api/services/control"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// The headers by which a client tells about its session.
const (
	headerID      = "X-Docker-Expose-Session-Uuid"
	headerShared  = "X-Docker-Expose-Session-Sharedkey"
	headerMethods = "X-Docker-Expose-Session-Grpc-Method"
)

// sessionPatience is how long a build waits for the session that it names: it is opened beside the build.
const sessionPatience = 30 * time.Second

// session is a client that can be asked back. The messages of its services are so plain that those of protobuf's own well-known types have
// the same form: a StringValue is any message whose first field is a text, a BytesValue one whose first field is bytes.
type session struct {
	id      string
	key     string // what its build context has in common with that of the client's other builds; "": it doesn't say
	methods map[string]bool
	conn    *grpc.ClientConn
	gone    context.Context // ends when the client leaves
}

// sessions are those that are open.
type sessions struct {
	mu      sync.Mutex
	byID    map[string]*session
	changed chan struct{} // closed and replaced when a session was added
}

// Session takes over the connection of a request that opens a session. It returns when the client has left.
func (s *Server) Session(w http.ResponseWriter, r *http.Request) error {
	id := r.Header.Get(headerID)
	if id == "" {
		return fault.New(fault.Invalid, "the request names no session: header %s is missing", headerID)
	}
	conn, err := takeOver(w, r)
	if err != nil {
		return err
	}
	if err := s.sessions.run(id, r.Header.Get(headerShared), r.Header[http.CanonicalHeaderKey(headerMethods)], conn); err != nil {
		s.Log.Debug("session ended", "id", id, "error", err)
	}
	return nil
}

// run keeps a session until its connection ends.
func (all *sessions) run(id, key string, methods []string, conn net.Conn) error {
	gone, leave := context.WithCancel(context.Background())
	defer leave()
	c := &session{id: id, key: key, methods: map[string]bool{}, gone: gone}
	for _, m := range methods {
		c.methods[strings.ToLower(m)] = true
	}
	first := make(chan net.Conn, 1)
	first <- &watched{Conn: conn, end: leave}
	dial := func(context.Context, string) (net.Conn, error) {
		select {
		case conn := <-first:
			return conn, nil
		default:
			leave()
			return nil, errors.New("the client has closed its session")
		}
	}
	cc, err := grpc.NewClient("passthrough:///session", grpc.WithContextDialer(dial), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithIdleTimeout(0), grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: time.Minute, Timeout: 30 * time.Second, PermitWithoutStream: true}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)))
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	c.conn = cc
	cc.Connect()
	if !all.add(c) {
		return errors.Join(fmt.Errorf("session %s already exists", id), cc.Close(), conn.Close())
	}
	<-gone.Done()
	all.remove(c)
	return errors.Join(cc.Close(), conn.Close())
}

// watched is a connection that says when it ends.
type watched struct {
	net.Conn
	end func()
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if err != nil {
		w.end()
	}
	return n, err
}

func (w *watched) Close() error {
	w.end()
	return w.Conn.Close()
}

func (all *sessions) add(c *session) bool {
	all.mu.Lock()
	defer all.mu.Unlock()
	if all.byID == nil {
		all.byID = map[string]*session{}
	}
	if all.byID[c.id] != nil {
		return false
	}
	all.byID[c.id] = c
	if all.changed != nil {
		close(all.changed)
		all.changed = nil
	}
	return true
}

func (all *sessions) remove(c *session) {
	all.mu.Lock()
	defer all.mu.Unlock()
	delete(all.byID, c.id)
}

// get gives a session, which may be about to be opened.
func (all *sessions) get(ctx context.Context, id string) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, sessionPatience)
	defer cancel()
	for {
		all.mu.Lock()
		c := all.byID[id]
		if all.changed == nil {
			all.changed = make(chan struct{})
		}
		changed := all.changed
		all.mu.Unlock()
		if c != nil {
			return c, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fault.New(fault.Unavailable, "no active session for %s: the client has to keep it open while it builds", id)
		}
	}
}

// call asks for one message with another.
func (c *session) call(ctx context.Context, method string, ask, answer any) error {
	if !c.methods[strings.ToLower(method)] {
		return fault.New(fault.NotFound, "the client does not serve %s", method)
	}
	err := c.conn.Invoke(ctx, method, ask, answer)
	if code := status.Code(err); code == codes.NotFound || code == codes.Unimplemented {
		return fault.Wrap(fault.NotFound, errors.New(status.Convert(err).Message()))
	}
	return plain(err)
}

// open opens a stream of messages both ways, which ends with ctx.
func (c *session) open(ctx context.Context, method string, head metadata.MD) (grpc.ClientStream, error) {
	if !c.methods[strings.ToLower(method)] {
		return nil, fault.New(fault.NotFound, "the client does not serve %s", method)
	}
	stream, err := c.conn.NewStream(metadata.NewOutgoingContext(ctx, head), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
	return stream, plain(err)
}

// plain is a gRPC error as its sender wrote it.
func plain(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	st, ok := status.FromError(err)
	if !ok {
		return err
	}
	if st.Code() == codes.Canceled {
		return fault.New(fault.Canceled, "%s", st.Message())
	}
	return errors.New(st.Message())
}

// secret gives a secret's content.
func (c *session) secret(ctx context.Context, id string) ([]byte, error) {
	var answer wrapperspb.BytesValue
	err := c.call(ctx, "/moby.buildkit.secrets.v1.Secrets/GetSecret", wrapperspb.String(id), &answer)
	if errors.Is(err, fault.NotFound) {
		return nil, fault.New(fault.NotFound, "secret %s: not found", id)
	}
	return answer.Value, err
}

// credentials gives what the client has for a registry; empty when it has nothing. The answer has two texts, as Any has.
func (c *session) credentials(ctx context.Context, host string) (user, secret string, err error) {
	var answer anypb.Any
	err = c.call(ctx, "/moby.filesync.v1.Auth/Credentials", wrapperspb.String(host), &answer)
	if errors.Is(err, fault.NotFound) {
		return "", "", nil
	}
	return answer.TypeUrl, string(answer.Value), err
}

// agent opens a connection to an ssh agent of the client.
func (c *session) agent(ctx context.Context, id string) (io.ReadWriteCloser, error) {
	err := c.call(ctx, "/moby.sshforward.v1.SSH/CheckAgent", wrapperspb.String(id), &wrapperspb.StringValue{})
	if err != nil {
		if errors.Is(err, fault.NotFound) {
			return nil, fault.New(fault.NotFound, "unset ssh forward key %s", id)
		}
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	stream, err := c.open(ctx, "/moby.sshforward.v1.SSH/ForwardAgent", metadata.Pairs("buildkit.ssh.id", id))
	if err != nil {
		cancel()
		return nil, err
	}
	return &bytesStream{stream: stream, cancel: cancel}, nil
}

// bytesStream is a stream of messages with bytes, as a connection. Reads and writes may be concurrent.
type bytesStream struct {
	stream interface {
		SendMsg(any) error
		RecvMsg(any) error
	}
	cancel func()
	left   []byte
	wait   bool // Close waits until the other side has taken all
}

// chunk is how much of a stream goes into one message.
const chunk = 1 << 20

func (b *bytesStream) Read(p []byte) (int, error) {
	for len(b.left) == 0 {
		var m control.BytesMessage
		if err := b.stream.RecvMsg(&m); err != nil {
			return 0, plain(err)
		}
		b.left = m.Data
	}
	n := copy(p, b.left)
	b.left = b.left[n:]
	return n, nil
}

func (b *bytesStream) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		part := p[:min(len(p), chunk)]
		if err := b.stream.SendMsg(&control.BytesMessage{Data: part}); err != nil {
			if errors.Is(err, io.EOF) { // the reason is what the other side said
				err = b.stream.RecvMsg(&control.BytesMessage{})
			}
			return n, plain(err)
		}
		n, p = n+len(part), p[len(part):]
	}
	return n, nil
}

// CloseWrite tells the other side that nothing more comes.
func (b *bytesStream) CloseWrite() error {
	if s, ok := b.stream.(grpc.ClientStream); ok {
		return s.CloseSend()
	}
	return nil // a server's stream ends with its call
}

// CloseWithError breaks the stream off: the other side doesn't take what came for the whole.
func (b *bytesStream) CloseWithError(error) error {
	b.cancel()
	return nil
}

// Close ends the stream.
func (b *bytesStream) Close() error {
	defer b.cancel()
	if err := b.CloseWrite(); err != nil || !b.wait {
		return plain(err)
	}
	if err := b.stream.RecvMsg(&control.BytesMessage{}); !errors.Is(err, io.EOF) {
		return plain(err)
	}
	return nil
}

// within is a connection that is a stream of another: its deadlines are that one's.
type within struct{ bytesStream }

// LocalAddr implements net.Conn.
func (*within) LocalAddr() net.Addr { return &net.UnixAddr{Name: "stream", Net: "unix"} }

// RemoteAddr implements net.Conn.
func (*within) RemoteAddr() net.Addr { return &net.UnixAddr{Name: "stream", Net: "unix"} }

// SetDeadline implements net.Conn.
func (*within) SetDeadline(time.Time) error { return nil }

// SetReadDeadline implements net.Conn.
func (*within) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline implements net.Conn.
func (*within) SetWriteDeadline(time.Time) error { return nil }
