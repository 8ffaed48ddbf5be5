// Package firewall tells what the packet filters on a host do with the packets of our networks, and how they are let through.
//
// It is no packet filter and changes none: it takes what package nft has read and follows a few packets of each network through it. Invariant:
// a rule that can't be judged is never the reason for a warning.
package firewall

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"berth/kernel/nft"
)

// Way is how a network's packets get in and out of the host.
type Way struct {
	Network string       // its name
	Bridge  string       // its link
	Subnet  netip.Prefix // one of its subnets
	Uplink  string       // the link to elsewhere; "": not known
}

// Obstacle is a chain that drops forwarded packets of a network.
type Obstacle struct {
	Filter *nft.Filter
	Place  nft.Place
	Way    Way
	Out    bool // containers reach nothing outside
	In     bool // nobody outside reaches published ports
}

// Bits of a connection's state and status (linux/netfilter/nf_conntrack_common.h, nf_tables.h): as rules ask for them.
const (
	established, fresh         = 1 << 1, 1 << 3
	seenReply, assured         = 1 << 1, 1 << 2
	snat, dnat                 = 1 << 4, 1 << 5
	xtSource, xtDestination    = 1 << 6, 1 << 7
	protoTCP, protoV4, protoV6 = 6, 2, 10
	unicast, local             = 1, 2 // RTN_UNICAST, RTN_LOCAL (rtnetlink(7))
)

func word(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

func link(name string) []byte { return append([]byte(name), make([]byte, 16-len(name))...) }

// packets are the four that must pass: the first one out, its answer, the first one in for a published port, and its answer.
func (w Way) packets() (out, outAnswer, in, inAnswer nft.Packet) {
	inside := w.Subnet.Masked().Addr().Next().Next()
	make := func(outward bool, state, status, xt uint32) nft.Packet {
		p := nft.Packet{
			nft.State: word(state), nft.StateOrNAT: word(state | xt), nft.Status: word(status), nft.Protocol: {protoTCP}, nft.FamilyOf: {protoV4},
			nft.KindOfAddress: word(unicast),
		}
		if inside.Is6() {
			p[nft.FamilyOf] = []byte{protoV6}
		}
		from, to := nft.InLink, nft.OutLink
		address := nft.FromAddress
		if !outward {
			from, to, address = to, from, nft.ToAddress
		}
		p[from], p[address] = link(w.Bridge), inside.AsSlice()
		if w.Uplink != "" {
			p[to] = link(w.Uplink)
		}
		return p
	}
	return make(true, fresh, 0, 0), make(false, established, snat|seenReply|assured, xtSource),
		make(false, fresh, dnat, xtDestination), make(true, established, dnat|seenReply|assured, xtDestination)
}

func (w Way) concerns(f *nft.Filter) bool {
	return f.Family == "inet" || (f.Family == "ip6") == w.Subnet.Addr().Is6()
}

// Obstacles are the chains that drop what a network's containers send or get, in the order of filters.
func Obstacles(filters []*nft.Filter, w Way) (all []Obstacle) {
	out, outAnswer, in, inAnswer := w.packets()
	for _, f := range filters {
		if f.Hook != "forward" || !w.concerns(f) {
			continue
		}
		o := Obstacle{Filter: f, Way: w}
		for _, p := range []struct {
			nft.Packet
			in bool
		}{{out, false}, {outAnswer, false}, {in, true}, {inAnswer, true}} {
			place, dropped := f.Fate(p.Packet)
			if !dropped {
				continue
			}
			if o.Out, o.In = o.Out || !p.in, o.In || p.in; o.Place.Chain == "" {
				o.Place = place
			}
		}
		if o.Out || o.In {
			all = append(all, o)
		}
	}
	return all
}

// Name is a chain's, as its own program has it.
func name(f *nft.Filter, chain string) string {
	if f.Legacy {
		return chain + " of " + program(f)
	}
	return f.Family + " " + f.Table + " " + chain
}

func program(f *nft.Filter) string {
	p := "iptables"
	if f.Family == "ip6" {
		p = "ip6tables"
	}
	if f.Legacy {
		return p + "-legacy"
	}
	return p + "-nft"
}

// String says which chain it is, what it means and what to do.
func (o Obstacle) String() string {
	what := "a rule"
	if o.Place.Policy {
		what = "policy"
	}
	var means []string
	if o.Out {
		means = append(means, "containers reach nothing outside")
	}
	if o.In {
		means = append(means, "published ports are not reachable from outside")
	}
	return fmt.Sprintf("the firewall of other software drops forwarded packets of network %s (%s of chain %s): %s. To let them through: %s",
		o.Way.Network, what, name(o.Filter, o.Place.Chain), strings.Join(means, ", and "), o.Remedy())
}

// Remedy is the command that lets the network's packets through. Ports that are not published stay closed: that is our own table's work.
func (o Obstacle) Remedy() string {
	f, bridge := o.Filter, o.Way.Bridge
	_, ufw := f.Rules["ufw-before-forward"]
	_, ufw6 := f.Rules["ufw6-before-forward"]
	switch {
	case ufw || ufw6:
		return fmt.Sprintf("ufw route allow in on %s; ufw route allow out on %s", bridge, bridge)
	case f.Table == "firewalld":
		return fmt.Sprintf("firewall-cmd --permanent --zone=trusted --add-interface=%s; firewall-cmd --reload", bridge)
	case f.Legacy || f.Table == "filter" && f.Chain == "FORWARD":
		return fmt.Sprintf("%s -I FORWARD -i %s -j ACCEPT; %s -I FORWARD -o %s -j ACCEPT", program(f), bridge, program(f), bridge)
	}
	chain := f.Family + " " + f.Table + " " + f.Chain
	return fmt.Sprintf("nft insert rule %s iifname %s accept; nft insert rule %s oifname %s accept", chain, bridge, chain, bridge)
}

// Shut tells which chain for packets that are for the host itself drops a new connection to a port of it that comes in by the
// uplink: what its administrator may think of as closed. "": none.
func Shut(filters []*nft.Filter, v6 bool, uplink string, proto byte, port uint16) string {
	p := nft.Packet{nft.State: word(fresh), nft.StateOrNAT: word(fresh), nft.Status: word(0), nft.Protocol: {proto}, nft.FamilyOf: {protoV4}, nft.OutLink: link(""),
		nft.KindOfAddress: word(local),
		nft.Port:          binary.BigEndian.AppendUint16(nil, port)}
	if v6 {
		p[nft.FamilyOf] = []byte{protoV6}
	}
	if uplink != "" {
		p[nft.InLink] = link(uplink)
	}
	for _, f := range filters {
		if f.Hook != "input" || f.Family != "inet" && (f.Family == "ip6") != v6 {
			continue
		}
		if place, dropped := f.Fate(p); dropped {
			return name(f, place.Chain)
		}
	}
	return ""
}

// Inward names the chain that drops the first packet of a connection from outside to a container's port; "": none.
func Inward(filters []*nft.Filter, w Way, proto byte, port uint16) string {
	_, _, p, _ := w.packets()
	p[nft.Protocol], p[nft.Port] = []byte{proto}, binary.BigEndian.AppendUint16(nil, port)
	for _, f := range filters {
		if f.Hook != "forward" || !w.concerns(f) {
			continue
		}
		if place, dropped := f.Fate(p); dropped {
			return name(f, place.Chain)
		}
	}
	return ""
}
