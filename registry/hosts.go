package registry

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/distribution/reference"
	api "github.com/moby/moby/api/types/registry"
	"golang.org/x/net/http/httpproxy"

	"berth/fault"
)

const (
	defaultDomain = "docker.io"
	defaultHost   = "registry-1.docker.io" // where the default registry answers
	defaultIndex  = "index.docker.io"      // and its search
	lookupTimeout = 5 * time.Second
	maxLanes      = 256 // when there are more, all are made anew
)

// Hosts says how registries are reached. The zero value: directly, with verified TLS, plain HTTP with loopback addresses only.
type Hosts struct {
	Mirrors  []Mirror
	Insecure []string // host[:port], or CIDR: TLS is not verified there, and plain HTTP is spoken where there is no TLS
	CertDirs []string // in the manner of /etc/docker/certs.d; the first that knows a host counts
	// Proxies, as URLs; "" = what the environment says. NoProxy lists hosts that are reached directly.
	HTTPProxy, HTTPSProxy, NoProxy string
	Downloads, Uploads             int // blobs at a time, over all pulls or pushes; 0 = any number
	Attempts                       int // of a request, or of a transfer that gets no further, before it fails; 0 = 6
}

// Mirror is another place for the repositories of a registry or of a part of it. What begins with Prefix is pulled
// from URL in its stead, the rest of the name appended; what can't be had there comes from the registry itself.
type Mirror struct {
	Prefix string   // a registry's host, such as docker.io, or with a path below: quay.io/team
	URL    *url.URL // http or https, host, and a path that repositories have there
}

// ParseMirror reads what a user writes: URL for the default registry, or PREFIX=URL.
func ParseMirror(s string) (Mirror, error) {
	m := Mirror{Prefix: defaultDomain}
	address := s
	if prefix, rest, ok := strings.Cut(s, "="); ok && !strings.Contains(prefix, "://") {
		m.Prefix, address = strings.Trim(prefix, "/"), rest
	}
	if name, err := reference.ParseNormalizedNamed(m.Prefix + "/x"); err != nil || name.Name() != m.Prefix+"/x" && m.Prefix != defaultDomain {
		return Mirror{}, fault.New(fault.Invalid, "invalid mirror: %q is no registry: write its host, or host/path", m.Prefix)
	}
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return Mirror{}, fault.New(fault.Invalid, "invalid mirror: %q is not a valid URI", address)
	case u.User != nil:
		return Mirror{}, fault.New(fault.Invalid, "invalid mirror: username/password not allowed in URI %q", u.Redacted())
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return Mirror{}, fault.New(fault.Invalid, "invalid mirror: unsupported scheme %q in %q: write http://HOST or https://HOST", u.Scheme, address)
	case u.RawQuery != "" || u.Fragment != "":
		return Mirror{}, fault.New(fault.Invalid, "invalid mirror: query or fragment at end of the URI %q", address)
	}
	u.Path = strings.Trim(u.Path, "/")
	if u.Path != "" {
		if _, err := reference.ParseNormalizedNamed("x.example/" + u.Path); err != nil {
			return Mirror{}, fault.New(fault.Invalid, "invalid mirror: the path of %q can't begin a repository's name", address)
		}
	}
	m.URL = u
	return m, nil
}

// String is the mirror as a user writes it.
func (m Mirror) String() string {
	if m.Prefix == defaultDomain {
		return m.URL.String()
	}
	return m.Prefix + "=" + m.URL.String()
}

// place returns what a repository is called at the mirror; "" when it isn't its business.
func (m Mirror) place(name string) string {
	rest, ok := strings.CutPrefix(name, m.Prefix)
	if !ok || rest != "" && rest[0] != '/' {
		return ""
	}
	return strings.Trim(m.URL.Path+rest, "/")
}

// settings are checked Hosts.
type settings struct {
	Hosts
	networks []netip.Prefix
	hosts    map[string]bool
	proxyFor func(*url.URL) (*url.URL, error)
	down, up slots
}

// slots bounds what goes on at a time; nil = not at all.
type slots chan struct{}

func newSlots(n int) slots {
	if n == 0 {
		return nil
	}
	return make(slots, n)
}

// take waits for a slot. The caller gives it back, once or more.
func (s slots) take(ctx context.Context) (giveBack func(), err error) {
	if s == nil {
		return func() {}, nil
	}
	select {
	case s <- struct{}{}:
		return sync.OnceFunc(func() { <-s }), nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func newSettings(h Hosts) (*settings, error) {
	if h.Downloads < 0 || h.Uploads < 0 || h.Attempts < 0 {
		return nil, fault.New(fault.Invalid, "invalid number of downloads, uploads or attempts: none can be negative")
	}
	s := &settings{Hosts: h, hosts: map[string]bool{}, down: newSlots(h.Downloads), up: newSlots(h.Uploads)}
	s.Attempts = cmp.Or(h.Attempts, maxTries)
	for _, m := range h.Mirrors {
		if m.URL == nil || m.Prefix == "" {
			return nil, fault.New(fault.Invalid, "invalid mirror: a prefix and a URL are wanted")
		}
	}
	for _, text := range h.Insecure {
		network, err := netip.ParsePrefix(text)
		switch {
		case err == nil:
			s.networks = append(s.networks, network.Masked())
		case text == "" || strings.ContainsAny(text, "/ ") || strings.Contains(text, "://"):
			return nil, fault.New(fault.Invalid, "insecure registry %s is not valid: write HOST, HOST:PORT or a network such as 10.0.0.0/8", text)
		default:
			s.hosts[strings.ToLower(text)] = true
		}
	}
	p := httpproxy.FromEnvironment()
	p.HTTPProxy, p.HTTPSProxy, p.NoProxy = cmp.Or(h.HTTPProxy, p.HTTPProxy), cmp.Or(h.HTTPSProxy, p.HTTPSProxy), cmp.Or(h.NoProxy, p.NoProxy)
	for _, text := range []string{p.HTTPProxy, p.HTTPSProxy} {
		if _, err := url.Parse(text); err != nil {
			return nil, fault.New(fault.Invalid, "a proxy's address can't be read: write http://HOST:PORT") // it may hold a password
		}
	}
	s.HTTPProxy, s.HTTPSProxy, s.NoProxy = p.HTTPProxy, p.HTTPSProxy, p.NoProxy
	s.proxyFor = p.ProxyFunc()
	return s, nil
}

func (s *settings) proxy(r *http.Request) (*url.URL, error) { return s.proxyFor(r.URL) }

// insecure tells whether a host, with or without port, goes without proof of who it is.
func (s *settings) insecure(host string) bool { return isLoopback(host) || s.allowed(host) }

// allowed tells whether the user lets it go so.
func (s *settings) allowed(host string) bool {
	name := strings.ToLower(hostname(host))
	if s.hosts[strings.ToLower(host)] || s.hosts[name] {
		return true
	}
	if len(s.networks) == 0 {
		return false
	}
	if addr, err := netip.ParseAddr(name); err == nil {
		return s.within(addr)
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookupTimeout)
	defer cancel()
	addrs, _ := net.DefaultResolver.LookupNetIP(ctx, "ip", name) // a name that isn't known is in no network
	return slices.ContainsFunc(addrs, s.within)
}

func (s *settings) within(a netip.Addr) bool {
	return slices.ContainsFunc(s.networks, func(n netip.Prefix) bool { return n.Contains(a.Unmap()) })
}

// mirrors returns those that a repository may be had from, the ones for it in particular first.
func (s *settings) mirrors(name string) []Mirror {
	var list []Mirror
	for _, m := range s.Mirrors {
		if m.place(name) != "" {
			list = append(list, m)
		}
	}
	slices.SortStableFunc(list, func(a, b Mirror) int { return len(b.Prefix) - len(a.Prefix) })
	return list
}

// Check tells whether the settings can be used. fault.Invalid: one of them says nothing that makes sense.
func (h Hosts) Check() error {
	_, err := newSettings(h)
	return err
}

// Configure replaces the settings; requests that run go on with the old ones. On an error nothing changes.
func (c *Client) Configure(h Hosts) error {
	s, err := newSettings(h)
	if err != nil {
		return err
	}
	c.mu.Lock()
	old := c.lanes
	c.settings, c.lanes = s, map[laneKey]*lane{}
	c.mu.Unlock()
	for _, l := range old {
		l.close()
	}
	return nil
}

// ServiceConfig is the settings as the API's /info shows them.
func (c *Client) ServiceConfig() *api.ServiceConfig {
	s := c.current()
	d := &api.ServiceConfig{
		InsecureRegistryCIDRs: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
		IndexConfigs:          map[string]*api.IndexInfo{}, Mirrors: []string{},
	}
	d.InsecureRegistryCIDRs = append(d.InsecureRegistryCIDRs, s.networks...)
	official := &api.IndexInfo{Name: defaultDomain, Mirrors: []string{}, Secure: true, Official: true}
	d.IndexConfigs[defaultDomain] = official
	for _, host := range slices.Sorted(maps.Keys(s.hosts)) {
		d.IndexConfigs[host] = &api.IndexInfo{Name: host, Mirrors: []string{}}
	}
	for _, m := range s.Mirrors {
		host, _, deeper := strings.Cut(m.Prefix, "/")
		index := d.IndexConfigs[host]
		if index == nil {
			index = &api.IndexInfo{Name: host, Mirrors: []string{}, Secure: !s.insecure(host)}
			d.IndexConfigs[host] = index
		}
		if deeper {
			index.Mirrors = append(index.Mirrors, m.String())
			continue
		}
		index.Mirrors = append(index.Mirrors, m.URL.String()+"/")
	}
	d.Mirrors = official.Mirrors
	return d
}

// Proxies returns the proxies in effect, of the settings or the environment, without passwords.
func (c *Client) Proxies() (http, https, no string) {
	s := c.current()
	return masked(s.HTTPProxy), masked(s.HTTPSProxy), s.NoProxy
}

func masked(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.User == nil {
		return text
	}
	u.User = url.UserPassword("xxxxx", "xxxxx")
	return u.String()
}

func (c *Client) current() *settings {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.settings
}

// endpoint is one place that a repository can be had from.
type endpoint struct {
	lane   *lane
	base   string // what stands between host and repository: "/v2"
	path   string // the repository there
	auth   Auth
	mirror bool
	// the registry that a mirror stands for, which mirrors for several registries want to know (hosts.toml's convention); "" = not told
	namespace       string
	resolves, pulls bool
}

// laneKey is what makes lanes differ.
type laneKey struct{ host, scheme, trust string }

// lane returns the way to a host, which is made anew when its certificates have changed.
func (c *Client) lane(s *settings, host, scheme string, t trust) (*lane, error) {
	key := laneKey{host, scheme, t.stamp}
	c.mu.Lock()
	defer c.mu.Unlock()
	if l := c.lanes[key]; l != nil {
		return l, nil
	}
	l, err := c.newLane(s, host, scheme, t)
	if err != nil {
		return nil, err
	}
	if len(c.lanes) >= maxLanes {
		for _, old := range c.lanes {
			old.close()
		}
		clear(c.lanes)
	}
	c.lanes[key] = l
	return l, nil
}

// home returns where a registry itself answers; the base is for the protocol's second version.
func (c *Client) home(s *settings, domain string, a Auth) (*endpoint, *namespace, error) {
	host := domain
	if host == defaultDomain {
		host = defaultHost
	}
	n, err := readNamespace(s.CertDirs, domain, host)
	if err != nil {
		return nil, nil, err
	}
	e := &endpoint{base: "/v2", auth: a}
	if n.server != nil {
		e.lane, err = c.lane(s, n.server.url.Host, n.server.url.Scheme, n.server.trust)
		e.base = n.server.base()
	} else {
		e.lane, err = c.lane(s, host, "", n.trust)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reach %s: %w", domain, err)
	}
	return e, n, nil
}

// endpoints returns where a repository can be had from: mirrors, and as the last the registry itself.
func (c *Client) endpoints(name reference.Named, a Auth) ([]*endpoint, error) {
	s := c.current()
	domain := reference.Domain(name)
	home, n, err := c.home(s, domain, a)
	if err != nil {
		return nil, err
	}
	home.path, home.resolves, home.pulls = reference.Path(name), true, true
	var list []*endpoint
	for _, m := range s.mirrors(name.Name()) {
		n, err := readNamespace(s.CertDirs, m.URL.Host, m.URL.Host)
		if err != nil {
			return nil, err
		}
		l, err := c.lane(s, m.URL.Host, m.URL.Scheme, n.trust)
		if err != nil {
			return nil, err
		}
		list = append(list, &endpoint{lane: l, base: "/v2", path: m.place(name.Name()), mirror: true, resolves: true, pulls: true})
	}
	for _, h := range n.mirrors {
		l, err := c.lane(s, h.url.Host, h.url.Scheme, h.trust)
		if err != nil {
			return nil, err
		}
		list = append(list, &endpoint{lane: l, base: h.base(), path: home.path, mirror: true, namespace: domain, resolves: h.resolves, pulls: h.pulls})
	}
	for _, e := range list {
		if e.lane.host == home.lane.host { // what belongs to a registry may be shown to it under its other paths
			e.auth = a
		}
	}
	return append(list, home), nil
}
