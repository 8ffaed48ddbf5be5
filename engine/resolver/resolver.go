// Package resolver says what a container is called on its networks and whom it asks for names, from its record.
//
// It answers nothing itself (package network/dns does, in a process of its own). Invariant: a container on a user-defined network
// is served before its program starts, and one on no such network never is.
package resolver

import (
	"context"
	"net/netip"
	"os"
	"slices"

	"berth/container"
	"berth/engine/bundle"
	"berth/engine/link"
	"berth/engine/networks"
	"berth/network"
	"berth/network/names"
)

// Service tells the one who answers.
type Service struct {
	Networks *networks.Service
	Names    *names.Client
	Find     link.Find
	Defaults Defaults
}

// served tells whether a container has a network with names.
func served(r *container.Record, held *network.Attachment) bool {
	return held != nil && slices.ContainsFunc(held.Endpoints, func(e network.Endpoint) bool { return len(networks.Names(r, e.Network)) > 0 })
}

// Conf is a container's resolv.conf, and what a user should know of it; "": nothing.
func (s *Service) Conf(r *container.Record, held *network.Attachment) (text, warning string, err error) {
	text, from, err := network.HostResolvConf(s.Defaults.Conf)
	o := s.options(r, held)
	switch {
	case err != nil:
	case served(r, held):
		in := network.InnerResolv(text, from, names.Address, o)
		text, warning = in.Text, in.Warning
	case !r.HostConfig.NetworkMode.IsHost() || len(o.Servers)+len(o.Search)+len(o.Options) > 0:
		text, warning = network.Resolv(text, from, o)
		if r.HostConfig.NetworkMode.IsNone() {
			warning = ""
		}
	}
	return text, warning, err
}

// options are the container's own settings, each else the daemon's.
func (s *Service) options(r *container.Record, held *network.Attachment) network.ResolvOptions {
	o := network.ResolvOptions{IPv6: held != nil && held.Way(true) != nil, Search: r.HostConfig.DNSSearch, Options: r.HostConfig.DNSOptions}
	servers := r.HostConfig.DNS
	if len(servers) == 0 {
		servers = s.Defaults.Servers
	}
	for _, a := range servers {
		o.Servers = append(o.Servers, a.String())
	}
	if len(o.Search) == 0 {
		o.Search = s.Defaults.Search
	}
	if len(o.Options) == 0 {
		o.Options = s.Defaults.Options
	}
	return o
}

// member is a container that is served.
func (s *Service) member(r *container.Record, held *network.Attachment) (m names.Member, err error) {
	text, from, err := network.HostResolvConf(s.Defaults.Conf)
	if err != nil {
		return m, err
	}
	in := network.InnerResolv(text, from, names.Address, s.options(r, held))
	m = names.Member{ID: r.ID, Dotted: in.Dotted, Outside: held.Way(false) != nil || held.Way(true) != nil, Gateways: s.host(held)}
	for _, u := range in.Upstreams {
		m.Servers = append(m.Servers, names.Server{Address: u.Address, Host: u.Host})
	}
	for _, e := range held.Endpoints {
		called := networks.Names(r, e.Network)
		if len(called) == 0 {
			continue
		}
		p := names.Endpoint{NetworkID: e.NetworkID, Network: e.Network, Names: called, Links: links(r, e.Network)}
		for _, a := range []netip.Prefix{e.Address, e.Address6} {
			if a.IsValid() {
				p.Addresses = append(p.Addresses, a.Addr())
			}
		}
		m.Endpoints = append(m.Endpoints, p)
	}
	if m.Also, err = s.also(r, held, m.Servers); err != nil {
		return m, err
	}
	// The network that leads out is asked first.
	way := held.Way(false)
	slices.SortStableFunc(m.Endpoints, func(x, y names.Endpoint) int {
		return rank(way, x) - rank(way, y)
	})
	return m, nil
}

func rank(way *network.Endpoint, e names.Endpoint) int {
	if way != nil && way.NetworkID == e.NetworkID {
		return 0
	}
	return 1
}

// links are the aliases that a container alone has on a network.
func links(r *container.Record, on string) map[string]string {
	var all []string
	if e := networks.Wishes(r)[on]; e != nil {
		all = e.Links
	}
	if len(all) == 0 && networks.Main(r.HostConfig.NetworkMode) == on {
		all = r.HostConfig.Links
	}
	var by map[string]string
	for _, s := range all {
		l, err := link.Parse(s)
		if err != nil {
			continue // create has told
		}
		if by == nil {
			by = map[string]string{}
		}
		by[l.Alias] = l.Container
	}
	return by
}

// gateways are the host's addresses on the bridges that the container is on, at most one of each family: that of its way out comes before others.
func (s *Service) gateways(held *network.Attachment) (all []netip.Addr) {
	for _, six := range []bool{false, true} {
		on := held.Endpoints
		if way := held.Way(six); way != nil {
			on = append([]network.Endpoint{*way}, on...)
		}
		if a := s.onBridge(on, six); a.IsValid() {
			all = append(all, a)
		}
	}
	return all
}

// also are the addresses of others that a container's questions are answered at. Clusters in a container (kind, minikube, k3d, …) put the host's address on
// their bridge in the place of 127.0.0.11 in resolv.conf, as machines within them can't ask a loopback address, and rewrite the engine's rules of iptables
// to fit. We have none of those; who may write such rules has the answer at that address. One that the user or the host named as a server stays what it is.
func (s *Service) also(r *container.Record, held *network.Attachment, servers []names.Server) ([]netip.Addr, error) {
	set, err := bundle.Capabilities(r.HostConfig.CapAdd, r.HostConfig.CapDrop, r.HostConfig.Privileged)
	way := held.Way(false)
	if err != nil || way == nil || !slices.Contains(set, "CAP_NET_ADMIN") || slices.ContainsFunc(servers, func(n names.Server) bool { return n.Address == way.Gateway }) {
		return nil, err
	}
	if n, ok := s.Networks.Host.Get(way.NetworkID); !ok || n.Driver != "bridge" {
		return nil, nil
	}
	return []netip.Addr{way.Gateway}, nil
}

func (s *Service) onBridge(on []network.Endpoint, six bool) netip.Addr {
	for _, e := range on {
		n, ok := s.Networks.Host.Get(e.NetworkID)
		if !ok || n.Driver != "bridge" || n.Mode(six) == "isolated" || six && !e.Address6.IsValid() {
			continue
		}
		for _, p := range n.Pools {
			if p.Gateway.IsValid() && p.Gateway.Is6() == six {
				return p.Gateway
			}
		}
	}
	return netip.Addr{}
}

// After adds to the wiring of a container's network that it is served names. Settle or Drop is next.
func (s *Service) After(connect func(context.Context) error, r *container.Record, held *network.Attachment, ns *os.File) func(context.Context) error {
	if connect == nil || !served(r, held) {
		return connect
	}
	return func(ctx context.Context) error {
		if err := connect(ctx); err != nil {
			return err
		}
		m, err := s.member(r, held)
		if err != nil {
			return err
		}
		return s.Names.Serve(m, ns)
	}
}

// Follow makes what is known of a container that runs as pid what it is now.
func (s *Service) Follow(r *container.Record, held *network.Attachment, pid int) error {
	if !served(r, held) {
		return s.Names.Drop(r.ID)
	}
	m, err := s.member(r, held)
	if err != nil {
		return err
	}
	return s.Names.Put(m, pid)
}

// Restore tells of all containers that run. Call it once.
func (s *Service) Restore() error {
	running := map[int]names.Member{}
	for _, c := range s.Networks.Members() {
		if !c.Record.State.Status.Alive() || !served(c.Record, c.Attachment) {
			continue
		}
		m, err := s.member(c.Record, c.Attachment)
		if err != nil {
			return err
		}
		running[c.Record.State.Pid] = m
	}
	return s.Names.Restore(running)
}
