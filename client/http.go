package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// Bounds on what an answer's head may take.
const (
	maxHeaderLine  = 64 << 10
	maxHeaderLines = 256
)

// maxRest is how much may follow an answer's value before its connection is thrown away.
const maxRest = 4 << 10

// ping is the path that has no version before it.
const ping = "/_ping"

// Request is one call of the API.
type Request struct {
	Method string
	Path   string // without the version's prefix, as "/containers/json"
	Query  url.Values
	Header map[string]string
	Body   any // nil, an io.Reader to stream, or a value that is sent as JSON
}

// Response is the answer's head; the body is read from it. Close it.
type Response struct {
	Status int
	Header map[string]string // names in lower case; a repeated header keeps its last value
	body   io.Reader         // nil: none
	conn   *conn
	client *Client
	stop   func() bool // ends the watch on the context
	ctx    context.Context
	reuse  bool // the connection can serve further requests when the body was read
	ended  bool // the body was read to its end
}

// conn is a connection with its reader's buffer.
type conn struct {
	net.Conn
	r *bufio.Reader
}

func newConn(c net.Conn) *conn { return &conn{c, bufio.NewReaderSize(c, 8<<10)} }

// Do sends one request and reads the answer's head. An answer with a status of
// 400 and above is returned as *Error. The caller closes the response.
func (c *Client) Do(ctx context.Context, q Request) (*Response, error) {
	stream, isStream := q.Body.(io.Reader)
	if isStream {
		// A streamed body can't be sent twice: agree on the version first.
		if err := c.negotiate(ctx); err != nil {
			return nil, err
		}
	}
	var body []byte
	if !isStream && q.Body != nil {
		var err error
		if body, err = encode(q.Body); err != nil {
			return nil, fmt.Errorf("encode request %s: %w", q.Path, err)
		}
	}
	for {
		version := c.Version()
		r, err := c.send(ctx, q, body, stream)
		if err != nil {
			return nil, err
		}
		if q.Path == ping {
			c.learn(r)
		} else if c.settle(r, version) {
			r.Close()
			continue
		}
		if r.Status >= 400 {
			return nil, r.failure()
		}
		return r, nil
	}
}

// negotiate asks the daemon for its newest version, once.
func (c *Client) negotiate(ctx context.Context) error {
	c.mu.Lock()
	settled := c.settled
	c.mu.Unlock()
	if settled {
		return nil
	}
	r, err := c.send(ctx, Request{Method: "GET", Path: ping}, nil, nil)
	if err != nil {
		return err
	}
	c.learn(r)
	return r.Close()
}

// learn takes the daemon's newest version from its answer to a ping, which goes out without one.
func (c *Client) learn(r *Response) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.settled || r.Status >= 400 {
		return
	}
	if theirs, err := minorOf(r.Header["api-version"]); err == nil {
		if ours, _ := minorOf(c.version); theirs < ours {
			c.version = r.Header["api-version"]
		}
	}
	c.settled = true
}

// Call sends a request, decodes the JSON answer into out (nil: thrown away) and closes it.
// A status of 304 is fault.NotModified.
func (c *Client) Call(ctx context.Context, q Request, out any) error {
	r, err := c.Do(ctx, q)
	if err != nil {
		return err
	}
	if r.Status == 304 {
		r.Close()
		return &Error{Status: 304, Message: "not modified"}
	}
	if out != nil {
		if err := json.NewDecoder(r).Decode(out); err != nil {
			r.Close()
			return fmt.Errorf("decode answer to %s %s: %w", q.Method, q.Path, err)
		}
	}
	// The decoder stops at the value's end, before the body's.
	if _, err := io.CopyN(io.Discard, r, maxRest); err != nil && err != io.EOF {
		r.Close()
		return fmt.Errorf("read answer to %s %s: %w", q.Method, q.Path, err)
	}
	return r.Close()
}

func (c *Client) send(ctx context.Context, q Request, body []byte, stream io.Reader) (*Response, error) {
	for {
		k, reused, err := c.connect(ctx)
		if err != nil {
			return nil, err
		}
		stop := context.AfterFunc(ctx, func() { k.Close() })
		r, err := c.exchange(k, q, body, stream)
		if err == nil {
			r.stop, r.ctx = stop, ctx
			return r, nil
		}
		stop()
		k.Close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		// The daemon may have closed an idle connection while we began to write: that request was never read.
		if reused && stream == nil && errors.Is(err, errNoAnswer) {
			continue
		}
		return nil, fmt.Errorf("ask the daemon at %s: %w", c.host, err)
	}
}

var errNoAnswer = errors.New("the connection ended without an answer")

// exchange writes one request and reads the head of its answer.
func (c *Client) exchange(k *conn, q Request, body []byte, stream io.Reader) (*Response, error) {
	head := c.head(q, len(body), stream != nil)
	var sent chan error
	if stream == nil {
		if _, err := k.Write(append(head, body...)); err != nil {
			return nil, fmt.Errorf("%w: %w", errNoAnswer, err)
		}
	} else {
		if _, err := k.Write(head); err != nil {
			return nil, err
		}
		sent = make(chan error, 1)
		// The answer may begin, or refuse, before the body is through.
		go func() { sent <- writeChunks(k, stream) }()
	}
	r := &Response{client: c, conn: k}
	if err := r.readHead(q.Method); err != nil {
		if sent != nil {
			select {
			case werr := <-sent:
				if werr != nil {
					return nil, werr
				}
			default:
			}
		}
		return nil, err
	}
	r.reuse = r.reuse && stream == nil
	return r, nil
}

func (c *Client) head(q Request, length int, chunked bool) []byte {
	b := bytes.NewBuffer(make([]byte, 0, 512+length))
	b.WriteString(q.Method + " ")
	if q.Path != ping {
		b.WriteString("/v" + c.Version())
	}
	b.WriteString(q.Path)
	if len(q.Query) > 0 {
		b.WriteString("?" + q.Query.Encode())
	}
	host := "berth"
	if c.network == "tcp" {
		host = c.address
	}
	b.WriteString(" HTTP/1.1\r\nHost: " + host + "\r\n")
	if c.agent != "" {
		b.WriteString("User-Agent: " + c.agent + "\r\n")
	}
	for _, h := range []map[string]string{c.header, q.Header} {
		for name, value := range h {
			b.WriteString(name + ": " + value + "\r\n")
		}
	}
	switch {
	case chunked:
		if q.Header["Content-Type"] == "" {
			b.WriteString("Content-Type: application/x-tar\r\n")
		}
		b.WriteString("Transfer-Encoding: chunked\r\n")
	case length > 0:
		b.WriteString("Content-Type: application/json\r\nContent-Length: " + strconv.Itoa(length) + "\r\n")
	case q.Method != "GET" && q.Method != "HEAD":
		b.WriteString("Content-Length: 0\r\n")
	}
	b.WriteString("\r\n")
	return b.Bytes()
}

func writeChunks(w io.Writer, body io.Reader) error {
	buf := make([]byte, 64<<10)
	for {
		n, err := body.Read(buf)
		if n > 0 {
			if _, err := fmt.Fprintf(w, "%x\r\n%s\r\n", n, buf[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			_, err := io.WriteString(w, "0\r\n\r\n")
			return err
		}
		if err != nil {
			// The daemon must not take half a body for a whole one.
			if c, ok := w.(io.Closer); ok {
				c.Close()
			}
			return err
		}
	}
}

// readHead reads the status line and the headers, and decides how the body ends (RFC 9112, section 6.3).
func (r *Response) readHead(method string) error {
	for {
		line, err := readLine(r.conn.r)
		if err != nil {
			return fmt.Errorf("%w: %w", errNoAnswer, err)
		}
		proto, rest, _ := strings.Cut(line, " ")
		code, _, _ := strings.Cut(rest, " ")
		if r.Status, err = strconv.Atoi(code); err != nil || !strings.HasPrefix(proto, "HTTP/1.") || r.Status < 100 || r.Status > 999 {
			return fmt.Errorf("not an HTTP answer: %.60q", line)
		}
		if r.Header, err = readHeader(r.conn.r); err != nil {
			return err
		}
		if r.Status >= 200 || r.Status == 101 {
			r.reuse = proto == "HTTP/1.1" && !strings.EqualFold(r.Header["connection"], "close")
			return r.frame(method)
		}
	}
}

func (r *Response) frame(method string) error {
	switch length := r.Header["content-length"]; {
	case r.Status == 101:
		r.reuse = false
	case method == "HEAD", r.Status == 204, r.Status == 304:
	case strings.EqualFold(r.Header["transfer-encoding"], "chunked"):
		r.body = &chunks{r: r.conn.r}
	case length != "":
		n, err := strconv.ParseInt(length, 10, 64)
		if err != nil || n < 0 {
			return fmt.Errorf("the answer's length is %.40q", length)
		}
		if n > 0 {
			r.body = &counted{r: r.conn.r, left: n}
		}
	default:
		r.body, r.reuse = r.conn.r, false
	}
	return nil
}

func readHeader(r *bufio.Reader) (map[string]string, error) {
	h := map[string]string{}
	for range maxHeaderLines {
		line, err := readLine(r)
		if err != nil {
			return nil, err
		}
		if line == "" {
			return h, nil
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return nil, fmt.Errorf("not a header: %.60q", line)
		}
		h[strings.ToLower(name)] = strings.TrimSpace(value)
	}
	return nil, errors.New("the answer has too many headers")
}

// readLine reads one line of a head, without its end, at most maxHeaderLine bytes.
func readLine(r *bufio.Reader) (string, error) {
	var long []byte
	for {
		part, err := r.ReadSlice('\n')
		if err == nil {
			return strings.TrimRight(string(append(long, part...)), "\r\n"), nil
		}
		if err != bufio.ErrBufferFull {
			if err == io.EOF && len(long)+len(part) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return "", err
		}
		if long = append(long, part...); len(long) > maxHeaderLine {
			return "", errors.New("the answer has too long a header")
		}
	}
}

// Read reads the body. When the context of the request ended, its error is returned.
func (r *Response) Read(p []byte) (int, error) {
	if r.body == nil {
		return 0, io.EOF
	}
	n, err := r.body.Read(p)
	r.ended = r.ended || err == io.EOF
	if err != nil && err != io.EOF && r.ctx != nil && r.ctx.Err() != nil {
		err = r.ctx.Err()
	}
	return n, err
}

// Close ends the response, without waiting for the rest of the body. A connection whose answer was read to its end serves further requests.
func (r *Response) Close() error {
	if r.conn == nil {
		return nil
	}
	k := r.conn
	r.conn = nil
	r.reuse = r.reuse && (r.body == nil || r.ended)
	if r.stop != nil && !r.stop() {
		r.reuse = false // the context has ended: it closes the connection
	}
	if r.reuse {
		r.client.release(k)
		return nil
	}
	return k.Close()
}

// counted is a body of known length.
type counted struct {
	r    *bufio.Reader
	left int64
}

func (c *counted) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > c.left {
		p = p[:c.left]
	}
	n, err := c.r.Read(p)
	c.left -= int64(n)
	if err == io.EOF && c.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// chunks is a body in chunks (RFC 9112, section 7.1).
type chunks struct {
	r    *bufio.Reader
	left uint64
	err  error
	any  bool
}

func (c *chunks) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if c.left == 0 && c.err == nil {
		c.err = c.next()
	}
	if c.err != nil {
		return 0, c.err
	}
	if uint64(len(p)) > c.left {
		p = p[:c.left]
	}
	n, err := c.r.Read(p)
	c.left -= uint64(n)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	c.err = err
	return n, err
}

// next reads a chunk's size; io.EOF after the last one and the trailer.
func (c *chunks) next() error {
	if c.any {
		if line, err := readLine(c.r); err != nil || line != "" {
			return errors.Join(errors.New("a chunk of the answer has no end"), err)
		}
	}
	c.any = true
	line, err := readLine(c.r)
	if err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	size, _, _ := strings.Cut(line, ";")
	if c.left, err = strconv.ParseUint(strings.TrimSpace(size), 16, 62); err != nil {
		return fmt.Errorf("a chunk of the answer has the size %.20q", line)
	}
	if c.left > 0 {
		return nil
	}
	if _, err := readHeader(c.r); err != nil {
		return err
	}
	return io.EOF
}
