package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"
)

// errSlow ends a request whose answer doesn't come.
var errSlow = errors.New("no answer in time")

const (
	answerTime = 60 * time.Second // within which an answer begins
	mirrorTime = 15 * time.Second // the same for a mirror, as there is another place to ask
	maxStall   = 90 * time.Second // within which more of it comes
	commitTime = 5 * time.Minute  // and after a body was sent: the registry reads all of it once more
)

// request is one question to an endpoint.
type request struct {
	method  string
	what    string   // the path below the repository
	at      *url.URL // or the whole address, such as a Location
	accept  []string
	header  http.Header
	offset  int64 // of the first byte wanted
	scopes  []string
	patient bool // a host that can't be reached may come back: it answered before
	body    func() (io.ReadCloser, error)
	size    int64 // of the body
	once    bool  // a connection that fails is not tried again
	hasty   bool  // nothing is waited for
}

// address is where q goes.
func (e *endpoint) address(ctx context.Context, q request) (string, error) {
	if q.at != nil {
		return q.at.String(), nil
	}
	scheme, err := e.lane.speaks(ctx)
	if err != nil {
		return "", err
	}
	address := scheme + "://" + e.lane.host + e.base + "/" + e.path + "/" + q.what
	if e.namespace != "" {
		address += "?ns=" + url.QueryEscape(e.namespace)
	}
	return address, nil
}

// try sends q once. Any answer but success is a *problem. The response's body must be closed.
func (e *endpoint) try(ctx context.Context, q request) (*http.Response, error) {
	limit := answerTime
	if e.mirror {
		limit = mirrorTime
	}
	ctx, cancel := context.WithCancelCause(ctx)
	patience := time.AfterFunc(limit, func() { cancel(errSlow) })
	resp, err := e.send(ctx, q, patience)
	if err == nil {
		resp.Body = &answer{resp.Body, patience, cancel}
		patience.Stop()
		if resp.StatusCode >= 200 && resp.StatusCode < 300 && context.Cause(ctx) == nil {
			return resp, nil
		}
		err = readProblem(resp)
		discard(resp)
	}
	if patience.Stop(); context.Cause(ctx) == errSlow {
		err = fmt.Errorf("%s %s: %w", q.method, e.lane.host, errSlow)
	}
	cancel(nil)
	return nil, err
}

func (e *endpoint) send(ctx context.Context, q request, patience *time.Timer) (*http.Response, error) {
	address, err := e.address(ctx, q)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, q.method, address, nil)
	if err != nil {
		return nil, err
	}
	for name, values := range q.header {
		req.Header[name] = values
	}
	if q.accept != nil {
		req.Header["Accept"] = q.accept
	}
	if q.offset > 0 {
		req.Header.Set("Range", "bytes="+strconv.FormatInt(q.offset, 10)+"-")
	}
	if q.body != nil {
		req.ContentLength = q.size
		req.GetBody = func() (io.ReadCloser, error) {
			body, err := q.body()
			if err != nil {
				return nil, &localError{err}
			}
			return &sending{ReadCloser: body, patience: patience}, nil
		}
		if req.Body, err = req.GetBody(); err != nil {
			return nil, err
		}
		if q.size == 0 {
			req.Body.Close()
			req.Body, req.GetBody = http.NoBody, nil
		}
	}
	if q.at != nil {
		if home, err := e.address(ctx, request{}); err != nil || !originOf(home, q.at) {
			return e.lane.send(req) // another host gets no credentials
		}
	}
	resp, err := e.lane.session(e.auth).do(req, q.scopes)
	if err != nil && retryable(err, true) {
		e.lane.forget()
	}
	return resp, err
}

func originOf(address string, u *url.URL) bool {
	home, err := url.Parse(address)
	return err == nil && sameOrigin(home, u)
}

// ask sends q, and sends it again with growing pauses while that makes sense.
func (c *Client) ask(ctx context.Context, e *endpoint, q request) (*http.Response, error) {
	var waited time.Duration
	attempts := c.current().Attempts
	for try := 0; ; try++ {
		resp, err := e.try(ctx, q)
		if err == nil || ctx.Err() != nil || try+1 >= attempts || q.hasty || !retryable(err, q.patient) {
			return resp, err
		}
		var p *problem
		if q.once && !errors.As(err, &p) {
			return nil, err
		}
		pause, sensible := c.pause(try, err)
		if waited += pause; !sensible || waited > maxPatience {
			return nil, err
		}
		if err := c.wait(ctx, e.lane.host, err.Error(), pause); err != nil {
			return nil, err
		}
	}
}

// answer is a response's body, which is given up when nothing of it comes for a while.
type answer struct {
	io.ReadCloser
	patience *time.Timer
	cancel   context.CancelCauseFunc
}

// Read reads. A reader that is slow itself is no reason to give up.
func (a *answer) Read(p []byte) (int, error) {
	a.patience.Reset(maxStall)
	n, err := a.ReadCloser.Read(p)
	a.patience.Stop()
	return n, err
}

// Close ends the request.
func (a *answer) Close() error {
	err := a.ReadCloser.Close()
	a.patience.Stop()
	a.cancel(nil)
	return err
}

// sending is a body on its way: as long as it moves, an answer isn't late.
type sending struct {
	io.ReadCloser
	patience *time.Timer
	failed   atomic.Bool
}

// Read reads what is to be sent. Errors are this side's.
func (s *sending) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	limit := answerTime
	if err == io.EOF {
		limit = commitTime
	}
	if !s.failed.Load() {
		s.patience.Reset(limit)
	}
	if err != nil && err != io.EOF {
		return n, &localError{err}
	}
	return n, err
}

// Close closes what is sent.
func (s *sending) Close() error {
	s.failed.Store(true)
	return s.ReadCloser.Close()
}

// localError is a failure to read what is to be sent, which another try would meet again.
type localError struct{ err error }

func (e *localError) Error() string { return e.err.Error() }
func (e *localError) Unwrap() error { return e.err }
