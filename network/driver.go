package network

import (
	"context"
	"net"
	"net/netip"
	"os"

	"berth/kernel/netlink"
	"berth/kernel/nft"
)

// driver is how containers are wired to a kind of network.
type driver struct {
	shares   bool // its subnet is that of a wire outside, which the host may be on
	forwards bool // its packets pass through the host
	// read checks a Spec's options; it may fill in what follows from them.
	read func(*Spec) (optionSet, error)
	// bare tells whether the network needs no gateway of its own.
	bare func(*network) bool
	// open makes the network's links or adopts those that are there.
	open func(*Host, *network) error
	// close removes what open made; nil: nothing.
	close func(*Host, *network) error
	// plug wires an endpoint up, and sets its Link.
	plug func(context.Context, *Host, *network, *inside, *Endpoint, wiring) error
}

// drivers by the names that users give them.
var drivers = map[string]driver{"bridge": bridgeDriver, "macvlan": macvlanDriver, "ipvlan": ipvlanDriver}

// optionSet is what a network's options say, whatever its driver.
type optionSet struct {
	link       string // asked for by name: bridge or parent
	mtu        int    // 0: as the way out
	prefix     string // of the links in the containers
	masquerade bool
	icc        bool
	inhibit    bool          // the bridge gets no address
	mode       [2]string     // of the gateway, by family
	source     [2]netip.Addr // that packets leave with, by family
	binding    netip.Addr    // the host's address that ports are published on unless one is named
	submode    string        // of macvlan and ipvlan
	flag       string        // of ipvlan
}

// wiring is what a plug is told beside the endpoint.
type wiring struct {
	ready   *wire // one end is in the namespace already; nil: make one
	mac     net.HardwareAddr
	hairpin bool // the container may ask its own published port
	way     [2]bool
}

// inside is a namespace that is being wired, with a socket in it.
type inside struct {
	ns   *os.File
	conn *netlink.Conn
}

// addresses are an endpoint's, as the kernel is told of them.
func (e *Endpoint) addresses() (all []netip.Prefix) {
	for _, p := range []netip.Prefix{e.Address, e.Address6} {
		if p.IsValid() {
			all = append(all, p)
		}
	}
	return append(all, e.LinkLocal...)
}

// needs6 tells whether the container's link has to speak IPv6.
func (e *Endpoint) needs6() bool {
	for _, p := range e.addresses() {
		if p.Addr().Is6() {
			return true
		}
	}
	return false
}

// policy is what the network wants of the packet filter; false: nothing.
func (n *network) policy(f nft.Family) (policy, bool) {
	if n.ConfigOnly || !n.driver.forwards || n.broken != nil || n.link == "" {
		return policy{}, false
	}
	k := 0
	if f == nft.IPv6 {
		k = 1
	}
	p := policy{bridge: n.link, internal: n.Internal, apart: !n.options.icc, plain: !n.options.masquerade, source: n.options.source[k]}
	for _, pool := range n.Pools {
		if family(pool.Subnet.Addr()) == k {
			p.subnets = append(p.subnets, pool.Subnet)
		}
	}
	switch n.options.mode[k] {
	case modeRouted:
		p.routed = true
	case modeUnprotected:
		p.open = true
	}
	return p, true
}

// OtherWay4 and OtherWay6 are the names of auxiliary addresses of a bridge's subnet that are the containers' way out in the place of the bridge's own.
const (
	OtherWay4 = "DefaultGatewayIPv4"
	OtherWay6 = "DefaultGatewayIPv6"
)

// gateway is where containers send what is for elsewhere; zero: nowhere; an unspecified address: onto the link itself.
func (n *network) gateway(k int) netip.Addr {
	if n.Internal {
		return netip.Addr{}
	}
	for _, p := range n.Pools {
		other := p.Aux[[2]string{OtherWay4, OtherWay6}[k]]
		switch {
		case family(p.Subnet.Addr()) != k:
		case n.Driver == "bridge" && other.IsValid():
			return other
		case p.Gateway.IsValid():
			return p.Gateway
		case n.Driver == "ipvlan" && k == 1:
			return netip.IPv6Unspecified()
		case n.Driver == "ipvlan":
			return netip.IPv4Unspecified()
		}
	}
	return netip.Addr{}
}
