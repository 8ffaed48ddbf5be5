package daemon

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"berth/build/progress"
	"berth/build/protocol"
	"berth/engine/builds"
	"berth/fault"
)

// answers are the questions that builds wait for.
type answers struct {
	mu      sync.Mutex
	waiting map[string]chan answer
}

type answer struct {
	conn builds.Conn
	err  error
}

// maxAsked is how long a request may be whose client can be asked back, in bytes: it has a Dockerfile.
const maxAsked = 64 << 20

// asking takes a build whose client is asked for what is needed.
func (b builder) asking(w http.ResponseWriter, r *http.Request, q url.Values) (err error) {
	o, err := buildOptions(q, versionOf(r))
	if err != nil {
		return err
	}
	var req protocol.Request
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxAsked)).Decode(&req); err != nil {
		return fault.New(fault.Invalid, "read the request: %w", err)
	}
	if _, err := io.Copy(io.Discard, r.Body); err != nil { // the end is seen, and from then on that the client goes away
		return fault.New(fault.Invalid, "read the request: %w", err)
	}
	o.Named, o.Attest = req.Named, req.Attest
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	out := &messages{lines: newLines(w), gone: cancel}
	status := &builds.Status{Out: func(s *progress.Status) { out.status(s) }}
	client := b.engine.Asked(req, credentials(r), status.Teller(), func(ctx context.Context, a protocol.Ask) (builds.Conn, error) { return b.answers.ask(ctx, out, a) })
	defer func() { err = errors.Join(err, client.Close()) }()
	result, err := b.solve(ctx, o, req, client, status.Teller(), q.Get("call"))
	if closeErr := client.Close(); err == nil { // before the client hears of the end: its next build finds what it has sent
		err = closeErr
	}
	if err != nil {
		return out.fail(builds.Told(err))
	}
	out.write(protocol.Message{Result: result})
	return nil
}

// solve builds and puts out, or answers a question about the Dockerfile.
func (b builder) solve(ctx context.Context, o builds.Options, req protocol.Request, client *builds.Asked, t builds.Teller, call string) (map[string]string, error) {
	list := []builds.Output{{Name: "image", Type: "image", Attrs: map[string]string{"name": strings.Join(o.Tags, ",")}}}
	if len(req.Outputs) > 0 {
		list = nil
	}
	for n, one := range req.Outputs {
		list = append(list, builds.Output{Name: strconv.Itoa(n), Type: one.Type, Attrs: one.Attributes})
	}
	if err := builds.CheckOutputs(list); err != nil {
		return nil, err
	}
	if err := client.Read(ctx, &o); err != nil {
		return nil, err
	}
	if call != "" {
		if err := b.engine.ReadRemote(ctx, &o, client, t); err != nil {
			return nil, err
		}
		return b.engine.Call(ctx, call, o)
	}
	solved, err := b.engine.Solve(ctx, o, client, t)
	if err != nil {
		return nil, err
	}
	defer solved.Release()
	return b.engine.Export(ctx, solved, list, client, t)
}

// messages are the lines of an answer, written by whoever has something to say.
type messages struct {
	mu    sync.Mutex
	lines *lines
	gone  func() // the client does not read any more
}

func (m *messages) write(v protocol.Message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.lines.write(v); err != nil {
		m.gone()
	}
}

func (m *messages) status(s *progress.Status) {
	text, err := json.Marshal(s)
	if err != nil {
		return // plain data
	}
	m.write(protocol.Message{Status: text})
}

func (m *messages) fail(err error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lines.fail(err)
}

// ask sends a question and waits for who answers it.
func (a *answers) ask(ctx context.Context, out *messages, q protocol.Ask) (builds.Conn, error) {
	q.ID = rand.Text()
	ch := make(chan answer, 1)
	a.mu.Lock()
	if a.waiting == nil {
		a.waiting = map[string]chan answer{}
	}
	a.waiting[q.ID] = ch
	a.mu.Unlock()
	out.write(protocol.Message{Ask: &q})
	select {
	case got := <-ch:
		return got.conn, got.err
	case <-ctx.Done():
	}
	if a.take(q.ID) == nil { // it was answered at this moment
		if got := <-ch; got.conn != nil {
			_ = got.conn.Close() // nobody asks any more
		}
	}
	return nil, fault.Wrap(fault.Canceled, ctx.Err())
}

// take gives who waits for an answer, once.
func (a *answers) take(id string) chan answer {
	a.mu.Lock()
	defer a.mu.Unlock()
	ch := a.waiting[id]
	delete(a.waiting, id)
	return ch
}

// answer takes a client's answer to a question: the connection itself, or why there is none.
func (b builder) answer(w http.ResponseWriter, r *http.Request) error {
	ch := b.answers.take(r.PathValue("id"))
	if ch == nil {
		return fault.New(fault.NotFound, "no build waits for the answer %s", r.PathValue("id"))
	}
	q := r.URL.Query()
	if text := q.Get("error"); text != "" {
		kind := fault.Invalid
		if flag(q, "missing") {
			kind = fault.NotFound
		}
		ch <- answer{err: fault.New(kind, "%s", text)}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	conn, err := takeOver(w)
	ch <- answer{conn: conn, err: err}
	return err
}

// takenOver is a connection that is no HTTP any more.
type takenOver struct {
	net.Conn
	r *bufio.Reader
}

// Read implements io.Reader.
func (t *takenOver) Read(p []byte) (int, error) { return t.r.Read(p) }

// CloseWrite implements builds.Conn.
func (t *takenOver) CloseWrite() error {
	if h, ok := t.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return errors.ErrUnsupported
}

// takeOver turns a request's connection into a raw one.
func takeOver(w http.ResponseWriter) (builds.Conn, error) {
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, fmt.Errorf("take over the connection: %w", err)
	}
	if t, ok := w.(*tracked); ok {
		t.started = true
	}
	err = c.SetDeadline(time.Time{})
	if err == nil {
		_, err = io.WriteString(c, "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &takenOver{c, rw.Reader}, nil
}
