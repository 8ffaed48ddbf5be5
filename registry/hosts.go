package registry

import (
	"net/url"
)

// Hosts says how registries are reached. The zero value: directly, with verified TLS, plain HTTP with loopback addresses only.
type Hosts struct {
	Mirrors  []Mirror
	Insecure []string // host[:port], or CIDR: TLS is not verified there, and plain HTTP is spoken where there is no TLS
	CertDirs []string // in the manner of /etc/docker/certs.d; the first that knows a host counts
	// Proxies, as URLs; "" = what the environment says. NoProxy lists hosts that are reached directly.
	HTTPProxy, HTTPSProxy, NoProxy string
}

// Mirror is another place for the repositories of a registry or of a part of it. What begins with Prefix is pulled
// from URL in its stead, the rest of the name appended; what can't be had there comes from the registry itself.
type Mirror struct {
	Prefix string   // a registry's host, such as docker.io, or with a path below: quay.io/team
	URL    *url.URL // http or https, host, and a path that repositories have there
}

// settings are checked Hosts.
type settings struct {
	Hosts
}

// Configure replaces the settings; requests that run go on with the old ones. On an error nothing changes.
func (c *Client) Configure(h Hosts) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settings = &settings{Hosts: h}
	return nil
}
