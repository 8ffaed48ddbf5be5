package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"
)

const (
	dialTimeout  = 30 * time.Second
	maxRedirects = 10
	maxSessions  = 64               // of one host; when there are more users, all are forgotten
	downTime     = 30 * time.Second // for which a mirror that couldn't be reached is not asked
)

// lane is the way to one registry: what is trusted there, the connections, and what its users got. The token servers
// and stores that the registry sends to are reached over it as well, and trusted as the registry is.
type lane struct {
	host      string
	agent     string // who we are: the User-Agent's first word
	userAgent string
	insecure  bool // TLS is not verified, and plain HTTP is spoken where there is no TLS
	given     bool // the user said which of the two
	plainTo   func(host string) bool
	http      *http.Client
	transport *http.Transport

	mu        sync.Mutex
	scheme    string
	challenge *challenge
	sessions  map[Auth]*session
	down      time.Time // not asked before
}

// newLane makes the way to host. scheme is "" where it has to be found out.
func (c *Client) newLane(s *settings, host, scheme string, t trust) (*lane, error) {
	config, err := t.config()
	if err != nil {
		return nil, err
	}
	l := &lane{
		host: host, scheme: scheme, insecure: t.insecure || s.insecure(host), given: scheme != "", sessions: map[Auth]*session{},
		userAgent: c.options.UserAgent,
	}
	l.agent, _, _ = strings.Cut(c.options.UserAgent, "/")
	l.plainTo = func(to string) bool {
		return isLoopback(to) && isLoopback(host) || to == host && scheme == "http" || s.allowed(to)
	}
	config.InsecureSkipVerify = l.insecure
	l.transport = &http.Transport{
		Proxy:               s.proxy,
		DialContext:         (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:     config,
		ForceAttemptHTTP2:   true,
		MaxIdleConnsPerHost: 16,
		IdleConnTimeout:     60 * time.Second,
		TLSHandshakeTimeout: 20 * time.Second,
		DisableCompression:  true, // digests are those of the bytes sent
		ReadBufferSize:      64 << 10,
		WriteBufferSize:     64 << 10,
	}
	l.http = &http.Client{Transport: l, CheckRedirect: checkRedirect}
	return l, nil
}

// ruled is a request that our own rules forbid: another try would meet them again.
type ruled string

// Error says which.
func (r ruled) Error() string { return string(r) }

// checkRedirect keeps what was shown to one origin from all others: the library minds the host's name only.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirects {
		return ruled(fmt.Sprintf("stopped after %d redirects", maxRedirects))
	}
	for _, r := range append(via[1:len(via):len(via)], req) {
		if sameOrigin(via[0].URL, r.URL) {
			continue
		}
		req.Header.Del("Authorization")
		if req.Method == http.MethodPost && req.Body != nil && req.Body != http.NoBody {
			return ruled("sent on to another host with what is secret")
		}
	}
	return nil
}

// RoundTrip keeps the rule on plain HTTP, also for redirects and token servers: every request passes here.
func (l *lane) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && !l.plainTo(r.URL.Host) {
		return nil, ruled(r.URL.Host + " asks for plain HTTP, which is spoken with insecure-registries only, and with loopback addresses by what is on them itself")
	}
	return l.transport.RoundTrip(r)
}

// send sends one request. Its errors name no address's query, which may be a secret.
func (l *lane) send(req *http.Request) (*http.Response, error) {
	req.Header.Set("User-Agent", l.userAgent)
	resp, err := l.http.Do(req)
	var failed *url.Error
	if errors.As(err, &failed) {
		if u, parseErr := url.Parse(failed.URL); parseErr == nil {
			failed.URL = public(u)
		}
	}
	var unknown *tls.CertificateVerificationError
	if errors.As(err, &unknown) {
		err = fmt.Errorf("%w (if its certificate is right, put the one that signed it into /etc/docker/certs.d/%s/ca.crt)", err, l.host)
	}
	return resp, err
}

// public is an address without what may be secret in it.
func public(u *url.URL) string {
	p := *u
	p.User, p.RawQuery, p.Fragment = nil, "", ""
	return p.String()
}

// session returns what a user has at the host.
func (l *lane) session(a Auth) *session {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.sessions[a]
	if s == nil {
		if len(l.sessions) >= maxSessions {
			clear(l.sessions)
		}
		s = newSession(l, a)
		l.sessions[a] = s
	}
	return s
}

// wanted returns what the host asked for last; nil: nothing so far.
func (l *lane) wanted() *challenge {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.challenge
}

func (l *lane) learn(c challenge) {
	c.scope, c.refused = nil, false // they belong to one request
	l.mu.Lock()
	defer l.mu.Unlock()
	l.challenge = &c
}

// rest keeps a mirror that can't be reached from being asked for a while.
func (l *lane) rest() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = time.Now().Add(downTime)
}

func (l *lane) resting() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Now().Before(l.down)
}

// speaks finds out how the host is spoken to: HTTPS, or HTTP for insecure hosts where HTTPS does not work.
func (l *lane) speaks(ctx context.Context) (string, error) {
	l.mu.Lock()
	known := l.scheme
	l.mu.Unlock()
	if known != "" {
		return known, nil
	}
	if !l.insecure {
		return "https", nil
	}
	var last error
	for _, scheme := range []string{"https", "http"} {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+l.host+"/v2/", nil)
		if err != nil {
			return "", err
		}
		resp, err := l.send(r)
		if err != nil {
			last = err
			continue
		}
		if wanted, ok := parseChallenges(resp.Header.Values("Www-Authenticate")); ok && resp.StatusCode == http.StatusUnauthorized {
			l.learn(wanted)
		}
		discard(resp)
		l.mu.Lock()
		l.scheme = scheme
		l.mu.Unlock()
		return scheme, nil
	}
	return "", last
}

// forget makes the next request find out anew how the host is spoken to: this one failed.
func (l *lane) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.given {
		l.scheme = ""
	}
}

func (l *lane) close() { l.transport.CloseIdleConnections() }

// isLoopback tells whether host, with or without port, is this machine by its loopback address.
func isLoopback(host string) bool {
	host = hostname(host)
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// hostname is a host without its port and brackets.
func hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
}
