package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"berth/fault"
)

const (
	maxTries    = 6
	maxPause    = 20 * time.Second
	maxAsked    = 2 * time.Minute  // the longest Retry-After that is waited for
	maxPatience = 10 * time.Minute // all waits for one request together
)

// noProxy is the way without one.
func noProxy(*url.URL) (*url.URL, error) { return nil, nil }

// retryable tells whether a request that failed may succeed when it is sent again. reached: the host has answered before.
func retryable(err error, reached bool) bool {
	var p *problem
	var op *net.OpError
	var untrusted *tls.CertificateVerificationError
	var rule ruled
	var local *localError
	var sent *url.Error
	switch {
	case errors.As(err, &p):
		return p.passing()
	case errors.As(err, &untrusted), errors.As(err, &rule), errors.As(err, &local), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), fault.Of(err) != "":
		return false
	case reached && errors.As(err, &sent):
		return true // whatever the connection died of
	case errors.As(err, &op) && op.Op == "dial":
		return false
	}
	// The library keeps some errors to itself, but for their words.
	for _, words := range []string{"stream error:", "http2: ", "use of closed network connection"} {
		if strings.Contains(err.Error(), words) {
			return true
		}
	}
	return errors.As(err, &op) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, errSlow)
}

// passing tells whether the registry's refusal may be over soon.
func (p *problem) passing() bool {
	switch p.status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// pause returns how long to wait before try number n+1 (n from 0), and false if the server asks for more than is sensible.
func (c *Client) pause(n int, err error) (time.Duration, bool) {
	d := min(c.options.Backoff<<n, maxPause)
	d += rand.N(d/4 + 1) // many clients shall not come back at the same moment
	var p *problem
	if !errors.As(err, &p) {
		return d, true
	}
	if asked := retryAfter(p.after, time.Now()); asked > d {
		return asked, asked <= maxAsked
	}
	return d, true
}

// retryAfter reads the header of that name: seconds or a date (RFC 9110, section 10.2.3).
func retryAfter(s string, now time.Time) time.Duration {
	if seconds, err := strconv.Atoi(s); err == nil && seconds > 0 {
		return time.Duration(min(seconds, 1<<20)) * time.Second
	}
	if at, err := http.ParseTime(s); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

// wait lets the time pass and tells of it, unless ctx ends before.
func (c *Client) wait(ctx context.Context, host, reason string, d time.Duration) error {
	for left := d; left > 0; left -= time.Second {
		if c.waiting != nil {
			c.waiting(ctx, host, reason, left)
		}
		t := time.NewTimer(min(left, time.Second))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		}
	}
	return nil
}

// discard ends a response whose body is of no interest.
func discard(resp *http.Response) {
	io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection can be used again
	resp.Body.Close()
}
