package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"

	"berth/fault"
	"github.com/moby/moby/api/types"
	"github.com/moby/moby/api/types/jsonstream"
)

// begin sends the header of a stream at once, before there is any data.
func begin(w http.ResponseWriter, contentType string) error {
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(http.StatusOK)
	return http.NewResponseController(w).Flush()
}

// flushing is a writer whose every write reaches the client.
type flushing struct{ w http.ResponseWriter }

func (f flushing) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	if err == nil {
		err = http.NewResponseController(f.w).Flush()
	}
	return n, err
}

// lines writes JSON documents, one a line, each flushed. The header is sent
// with the first document, so that a failure before it still has a status code of its own.
type lines struct {
	w     http.ResponseWriter
	enc   *json.Encoder
	begun bool
}

func newLines(w http.ResponseWriter) *lines {
	enc := json.NewEncoder(flushing{w})
	enc.SetEscapeHTML(false)
	return &lines{w: w, enc: enc}
}

func (l *lines) write(v any) error {
	if !l.begun {
		l.begun = true
		l.w.Header().Set("Content-Type", "application/json")
	}
	return l.enc.Encode(v)
}

// fail ends the stream with err: as the answer when nothing was sent, as a last line otherwise.
func (l *lines) fail(err error) error {
	if err == nil || !l.begun {
		return err
	}
	detail := jsonstream.Error{Message: err.Error()}
	var program interface{ StepExit() int }
	if errors.As(err, &program) {
		detail.Code = program.StepExit()
	}
	return l.write(map[string]any{"errorDetail": detail, "error": err.Error()})
}

// hijacked is a client's connection that was taken over for a two-way stream.
type hijacked struct {
	conn     *os.File // to be handed over
	own      net.Conn // the same connection, for what this process has to say on it; the caller closes it
	buffered []byte   // what the client sent already
	answer   []byte   // the response's head, not written yet
}

// hijack takes the connection of a request for a two-way stream: by protocol
// upgrade when the client asks for it, by a bare 200 as old clients do.
func hijack(w http.ResponseWriter, r *http.Request, tty bool) (h hijacked, err error) {
	if r.ContentLength > 0 { // dockerode repeats its options in a body; that is not the container's input
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return h, fault.New(fault.Invalid, "read the request: %w", err)
		}
	}
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return h, fmt.Errorf("take over the connection: %w", err)
	}
	if t, ok := w.(*tracked); ok {
		t.started = true
	}
	head := "HTTP/1.1 200 OK\r\nContent-Type: " + types.MediaTypeRawStream + "\r\n\r\n"
	if r.Header.Get("Upgrade") != "" {
		head = "HTTP/1.1 101 UPGRADED\r\nContent-Type: " + streamType(r, tty) +
			"\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
	}
	h.answer = []byte(head)
	if n := rw.Reader.Buffered(); n > 0 {
		h.buffered = make([]byte, n)
		io.ReadFull(rw.Reader, h.buffered)
	}
	filer, ok := c.(interface{ File() (*os.File, error) })
	if !ok {
		return h, errors.Join(fmt.Errorf("a %T can't be handed over", c), c.Close())
	}
	if h.conn, err = filer.File(); err != nil {
		return h, errors.Join(err, c.Close())
	}
	h.own = c
	return h, nil
}

// streamType is the media type of a container's output: multiplexed since API 1.42, when there is no terminal.
func streamType(r *http.Request, tty bool) string {
	if !tty && versionOf(r) >= 42 {
		return types.MediaTypeMultiplexedStream
	}
	return types.MediaTypeRawStream
}

// isLocal tells whether the peer is on this machine, which decides about warnings for plain TCP.
func isLocal(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
