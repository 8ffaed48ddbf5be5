package daemon

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"berth/container"
	"berth/engine"
	"berth/fault"
)

// attach hands the client's connection to the container's supervisor:
// from then on the stream does not pass through this process.
func (s containers) attach(w http.ResponseWriter, r *http.Request) error {
	id, q := r.PathValue("id"), r.URL.Query()
	tty, err := s.engine.CheckAttach(id, q.Get("detachKeys"))
	if err != nil {
		return err
	}
	h, err := hijack(w, r, tty)
	if err != nil {
		return err
	}
	defer h.own.Close()
	return s.engine.Attach(r.Context(), id, engine.AttachRequest{
		Conn: h.conn, Greeting: h.answer, Buffered: h.buffered,
		Stdin: flag(q, "stdin"), Stdout: flag(q, "stdout"), Stderr: flag(q, "stderr"),
		Logs: flag(q, "logs"), Stream: flag(q, "stream"),
		Frames: !tty, DetachKeys: q.Get("detachKeys"),
	})
}

func (s containers) logs(w http.ResponseWriter, r *http.Request) error {
	request, err := logsRequest(r)
	if err != nil {
		return err
	}
	log, tty, err := s.engine.Logs(r.PathValue("id"), request)
	if err != nil {
		return err
	}
	defer log.Close()
	if err := begin(w, streamType(r, tty)); err != nil {
		return err
	}
	out := lineWriter{out: flushing{w}, frames: !tty, timestamps: flag(r.URL.Query(), "timestamps"), details: flag(r.URL.Query(), "details")}
	for {
		line, err := log.Next(r.Context())
		if errors.Is(err, io.EOF) || r.Context().Err() != nil {
			out.flush() // a client that has gone doesn't mind
			return nil
		}
		if err != nil {
			return out.fail(err)
		}
		out.write(line)
		if log.Pending() && len(out.buf) < logChunk {
			continue
		}
		if err := out.flush(); err != nil {
			return nil // the client has gone
		}
	}
}

// logChunk is how much of a log is collected for one write to a client, as long as there is more of it.
const logChunk = 64 << 10

// clearLogs drops what a container has written so far: berth's own call.
func (s containers) clearLogs(w http.ResponseWriter, r *http.Request) error {
	if err := s.engine.ClearLogs(r.Context(), r.PathValue("id")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func logsRequest(r *http.Request) (engine.LogsRequest, error) {
	q := r.URL.Query()
	request := engine.LogsRequest{Stdout: flag(q, "stdout"), Stderr: flag(q, "stderr"), Follow: flag(q, "follow"), Tail: -1}
	if !request.Stdout && !request.Stderr {
		return request, fault.New(fault.Invalid, "Bad parameters: you must choose at least one stream")
	}
	if n, err := strconv.Atoi(q.Get("tail")); err == nil && n >= 0 {
		request.Tail = n // anything else, "all" first of all, means everything
	}
	var err error
	if request.Since, err = parseTime("since", q.Get("since")); err != nil {
		return request, err
	}
	request.Until, err = parseTime("until", q.Get("until"))
	return request, err
}

// lineWriter collects log lines in the form of the API's stream.
type lineWriter struct {
	out        io.Writer
	frames     bool
	timestamps bool
	details    bool
	buf        []byte
	at         int             // where the frame at hand begins
	within     map[string]bool // by stream: the last part did not end its line
}

// Streams in the first byte of a frame.
const (
	frameStdout      = 1
	frameStderr      = 2
	frameSystemError = 3
)

// write adds a line. A line in parts gets its time and details once.
func (l *lineWriter) write(line *container.Line) {
	stream := byte(frameStdout)
	if line.Stream == "stderr" {
		stream = frameStderr
	}
	l.start(stream)
	if !l.within[line.Stream] {
		if l.timestamps {
			l.buf = line.Time.UTC().AppendFormat(l.buf, "2006-01-02T15:04:05.000000000Z07:00")
			l.buf = append(l.buf, ' ')
		}
		if l.details {
			l.buf = append(l.buf, details(line.Attrs)...)
			l.buf = append(l.buf, ' ')
		}
	}
	if l.within == nil {
		l.within = map[string]bool{}
	}
	l.within[line.Stream] = !bytes.HasSuffix(line.Text, []byte{'\n'})
	l.buf = append(l.buf, line.Text...)
	l.end()
}

// fail tells the client of an error in the middle of a stream; without frames there is no way to.
func (l *lineWriter) fail(err error) error {
	if l.frames {
		l.message(frameSystemError, "Error grabbing logs: "+err.Error()+"\n")
	}
	return errors.Join(err, l.flush())
}

// message adds a line of our own.
func (l *lineWriter) message(stream byte, text string) {
	l.start(stream)
	l.buf = append(l.buf, text...)
	l.end()
}

func (l *lineWriter) start(stream byte) {
	l.at = len(l.buf)
	if l.frames {
		l.buf = append(l.buf, stream, 0, 0, 0, 0, 0, 0, 0)
	}
}

func (l *lineWriter) end() {
	if l.frames {
		binary.BigEndian.PutUint32(l.buf[l.at+4:], uint32(len(l.buf)-l.at-8))
	}
}

// flush writes what was collected.
func (l *lineWriter) flush() error {
	if len(l.buf) == 0 {
		return nil
	}
	_, err := l.out.Write(l.buf)
	l.buf = l.buf[:0]
	return err
}

// details prints what a log driver's options added to a line: key=value pairs, sorted.
func details(attrs map[string]string) string {
	pairs := make([]string, 0, len(attrs))
	for _, k := range slices.Sorted(maps.Keys(attrs)) {
		pairs = append(pairs, url.QueryEscape(k)+"="+url.QueryEscape(attrs[k]))
	}
	return strings.Join(pairs, ",")
}
