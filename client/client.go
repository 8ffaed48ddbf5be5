// Package client speaks the Docker Engine API to a daemon, over a unix socket or TCP.
//
// It is thin: one method for one request, the wire types of the API's own
// module, and an HTTP/1.1 of its own that starts in microseconds, as most of
// its users are commands that live for milliseconds. It is not a general HTTP
// client: no redirects, no proxies, no TLS.
// Invariant: an error is either an *Error, which the daemon sent, or says why the daemon couldn't be asked.
package client

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"berth/fault"
)

// DefaultHost is where the daemon listens when nobody says otherwise.
const DefaultHost = "unix:///run/berth/berth.sock"

// NewestVersion is the newest API version that this client speaks: that of the wire types' module.
const NewestVersion = "1.56"

// oldestVersion is the oldest API that a client can fall back to.
const oldestMinor = 24

// Options says which daemon to speak to and how. The zero value is DefaultHost.
type Options struct {
	Host    string            // unix:///path or tcp://host:port; "" is DefaultHost
	Version string            // API version to insist on, such as "1.41"; "" agrees on one with the daemon
	Agent   string            // User-Agent
	Header  map[string]string // further headers for each request
	Launch  *Launch           // how to start the daemon when nobody listens on the socket; nil: never
}

// Client sends requests to one daemon. It is safe for use by several
// goroutines; each request has a connection for itself while it runs.
type Client struct {
	Containers Containers
	Images     Images
	Networks   Networks
	System     System
	Volumes    Volumes

	host, network, address string
	agent                  string
	header                 map[string]string
	launch                 *Launch

	mu      sync.Mutex
	version string
	settled bool // the daemon has accepted version
	idle    []*conn
}

// New returns a client of the daemon at o.Host; it does not connect yet.
// A host that can't be understood is fault.Invalid, a scheme that this client doesn't speak fault.Unsupported.
func New(o Options) (*Client, error) {
	if o.Host == "" {
		o.Host = DefaultHost
	}
	network, address, err := parseHost(o.Host)
	if err != nil {
		return nil, err
	}
	c := &Client{host: o.Host, network: network, address: address, agent: o.Agent, header: o.Header, launch: o.Launch, version: NewestVersion}
	if o.Version != "" {
		minor, err := minorOf(o.Version)
		if err != nil {
			return nil, fault.New(fault.Invalid, "API version %q: not of the form 1.N", o.Version)
		}
		c.version, c.settled = "1."+strconv.Itoa(minor), true
	}
	c.Containers, c.Images, c.Networks, c.System, c.Volumes = Containers{c}, Images{c}, Networks{c}, System{c}, Volumes{c}
	return c, nil
}

// parseHost splits a daemon's address into what net.Dial takes.
func parseHost(host string) (network, address string, err error) {
	scheme, rest, ok := strings.Cut(host, "://")
	if !ok && strings.HasPrefix(host, "/") {
		scheme, rest, ok = "unix", host, true
	} else if !ok && strings.Contains(host, ":") {
		scheme, rest, ok = "tcp", host, true
	}
	if !ok {
		return "", "", fault.New(fault.Invalid, "daemon host %q: it has no scheme; use unix:///path/to/socket or tcp://host:port", host)
	}
	switch scheme {
	case "unix":
		if rest == "" {
			return "", "", fault.New(fault.Invalid, "daemon host %q: the path of the socket is missing", host)
		}
		return "unix", rest, nil
	case "tcp", "http":
		u, err := url.Parse("tcp://" + rest)
		if err != nil || u.Hostname() == "" {
			return "", "", fault.New(fault.Invalid, "daemon host %q: use tcp://host:port", host)
		}
		if u.Path != "" && u.Path != "/" {
			return "", "", fault.New(fault.Unsupported, "daemon host %q: a path after the port is not supported", host)
		}
		port := u.Port()
		if port == "" {
			port = "2375"
		}
		return "tcp", net.JoinHostPort(u.Hostname(), port), nil
	case "ssh", "npipe", "fd", "https":
		return "", "", fault.New(fault.Unsupported, "daemon host %q: %s:// is not supported by this client; use unix:// or tcp://", host, scheme)
	}
	return "", "", fault.New(fault.Invalid, "daemon host %q: protocol %q is not known; use unix:// or tcp://", host, scheme)
}

// Host is the daemon's address as it was given.
func (c *Client) Host() string { return c.host }

// Version is the API version that requests are sent with: the newest that both sides speak once a request was answered.
func (c *Client) Version() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.version
}

// AtLeast tells whether requests are sent with API version 1.minor or newer.
func (c *Client) AtLeast(minor int) bool {
	m, err := minorOf(c.Version())
	return err == nil && m >= minor
}

// Close ends the idle connections.
func (c *Client) Close() {
	c.mu.Lock()
	idle := c.idle
	c.idle = nil
	c.mu.Unlock()
	for _, k := range idle {
		k.Close()
	}
}

func minorOf(version string) (int, error) {
	major, minor, ok := strings.Cut(version, ".")
	n, err := strconv.Atoi(minor)
	if !ok || err != nil || major != "1" || n < 0 {
		return 0, fault.New(fault.Invalid, "API version %q", version)
	}
	return n, nil
}

// settle takes a lower version from an answer that refused ours, and tells whether to try again. sent is the version of the
// request: another one may have settled a lower one meanwhile.
func (c *Client) settle(r *Response, sent string) (again bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.settled {
		return r.Status == 400 && sent != c.version
	}
	if r.Status != 400 || r.Header["api-version"] == "" {
		c.settled = true
		return false
	}
	theirs, err := minorOf(r.Header["api-version"])
	ours, _ := minorOf(c.version)
	if err != nil || theirs >= ours || theirs < oldestMinor {
		return false
	}
	c.version, c.settled = r.Header["api-version"], true
	return true
}

// connect gives an idle or a new connection. reused tells which.
func (c *Client) connect(ctx context.Context) (k *conn, reused bool, err error) {
	c.mu.Lock()
	if n := len(c.idle); n > 0 {
		k := c.idle[n-1]
		c.idle = c.idle[:n-1]
		c.mu.Unlock()
		return k, true, nil
	}
	c.mu.Unlock()
	raw, err := c.dial(ctx)
	if err != nil && c.launch != nil && nobodyListens(err) {
		if err := c.launch.run(ctx, c.dial); err != nil {
			return nil, false, err
		}
		raw, err = c.dial(ctx)
	}
	if err != nil {
		return nil, false, c.unreachable(err)
	}
	return newConn(raw), false, nil
}

func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, c.network, c.address)
}

// nobodyListens tells whether a socket is absent, or left over from a daemon that is gone.
func nobodyListens(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

func (c *Client) unreachable(err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, fs.ErrPermission):
		return fault.New(fault.Denied, "permission denied while trying to connect to the berth daemon at %s: run as root, or join the group that owns the socket", c.host)
	case nobodyListens(err):
		return fault.New(fault.Unavailable, "Cannot connect to the berth daemon at %s. Is the daemon running? Start it as root with 'berthd', or point -H or DOCKER_HOST to another one", c.host)
	}
	return fault.New(fault.Unavailable, "Cannot connect to the berth daemon at %s: %w", c.host, err)
}

// release takes a connection back whose last answer was read to its end.
func (c *Client) release(k *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle = append(c.idle, k)
}
