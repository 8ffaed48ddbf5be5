package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// wire is the connections to all hosts. It keeps the rule on plain HTTP, also
// for redirects and token servers: every request passes here.
type wire struct {
	strict, loopback *http.Transport
}

func newWire() *wire {
	strict := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   16,
		IdleConnTimeout:       60 * time.Second,
		TLSHandshakeTimeout:   20 * time.Second,
		ResponseHeaderTimeout: 60 * time.Second,
		DisableCompression:    true, // digests are those of the bytes sent
		ReadBufferSize:        64 << 10,
	}
	// What comes over loopback never left this machine: a certificate made for a test is as good as none.
	loopback := strict.Clone()
	loopback.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
	return &wire{strict, loopback}
}

func (w *wire) close() {
	w.strict.CloseIdleConnections()
	w.loopback.CloseIdleConnections()
}

// RoundTrip sends one request over the transport that its host deserves.
func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	switch {
	case isLoopback(r.URL.Host):
		return w.loopback.RoundTrip(r)
	case r.URL.Scheme != "https":
		return nil, fmt.Errorf("%s asks for plain HTTP, which is spoken with loopback addresses only", r.URL.Host)
	}
	return w.strict.RoundTrip(r)
}

// isLoopback tells whether host, with or without port, is this machine by its loopback address.
func isLoopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// scheme finds out how a host is spoken to: HTTPS, or HTTP for loopback hosts where HTTPS does not work.
func (c *Client) scheme(ctx context.Context, host string) (string, error) {
	if !isLoopback(host) {
		return "https", nil
	}
	c.mu.Lock()
	known := c.schemes[host]
	c.mu.Unlock()
	if known != "" {
		return known, nil
	}
	var last error
	for _, scheme := range []string{"https", "http"} {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+host+"/v2/", nil)
		if err != nil {
			return "", err
		}
		r.Header.Set("User-Agent", c.options.UserAgent)
		resp, err := c.wire.RoundTrip(r)
		if err != nil {
			last = err
			continue
		}
		discard(resp)
		c.mu.Lock()
		c.schemes[host] = scheme
		c.mu.Unlock()
		return scheme, nil
	}
	return "", last
}

// discard ends a response whose body is of no interest.
func discard(resp *http.Response) {
	io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection can be used again
	resp.Body.Close()
}

const (
	maxTries = 6
	maxPause = 20 * time.Second
	maxAsked = 2 * time.Minute // the longest Retry-After that is waited for
)

// retryable tells whether a request may succeed when it is sent again.
func retryable(resp *http.Response, err error, dialed bool) bool {
	if err != nil {
		var tlsErr *tls.CertificateVerificationError
		var op *net.OpError
		switch {
		case errors.As(err, &tlsErr), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
			return false
		case errors.As(err, &op) && op.Op == "dial":
			return dialed
		}
		return errors.As(err, &op) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
	}
	switch resp.StatusCode {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// pause returns how long to wait before try number n+1 (n from 0), and false if the server asks for more than is sensible.
func (c *Client) pause(n int, resp *http.Response) (time.Duration, bool) {
	d := min(c.options.Backoff<<n, maxPause)
	d += rand.N(d/4 + 1) // many clients shall not come back at the same moment
	if resp == nil {
		return d, true
	}
	if asked := retryAfter(resp.Header.Get("Retry-After"), time.Now()); asked > d {
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

// wait lets the time pass, unless ctx ends before.
func (c *Client) wait(ctx context.Context, host, reason string, d time.Duration) error {
	if c.waiting != nil {
		c.waiting(ctx, host, reason, d)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
