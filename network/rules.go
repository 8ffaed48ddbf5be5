package network

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"

	"berth/kernel/nft"
)

// Names in our tables. There is one table of each family, and both say the same.
const (
	publishedAt  = "published_at"  // ports published on one address of the host
	publishedAny = "published_any" // ports published on all of them
	directPorts  = "reachable"     // ports of containers on routed networks
	ourBridges   = "bridges"       // the links of all our networks
	openedLinks  = "opened"        // links that forward only because we made them
	intoNetwork  = "into"          // from a network's link to its chain for packets on their way to it
	outOfNetwork = "out_of"        // and for those that come from it
	overNetwork  = "over"          // and for source addresses of those on their way to it
	fromSubnet   = "from"          // from a network's subnet to its chain for source addresses of packets that leave
	userChain    = "user"          // the administrator's own rules for forwarded packets
)

var (
	loopbacks = netip.MustParsePrefix("127.0.0.0/8")
	loopback6 = netip.MustParsePrefix("::1/128")
)

// table is all that we say to the packet filter of one family, but for what single networks add. What it opens: connections from
// containers to outside, and to published ports from everywhere. What it keeps closed: see each rule.
func table(f nft.Family, name string) *nft.Table {
	guard := []nft.Rule{}
	prerouting := []nft.Rule{{nft.ToSelf, nft.Jump("published")}}
	output := prerouting // from this host's own programs
	if f == nft.IPv4 {
		// route_localnet on the bridges lets 127.0.0.1 lead to a container's port. The same switch would let containers
		// speak to the host's loopback, or as the host's loopback.
		guard = append(guard,
			nft.Rule{nft.FromAny(ourBridges), nft.Destination(loopbacks), nft.Drop},
			nft.Rule{nft.FromAny(ourBridges), nft.Source(loopbacks), nft.Drop})
		// From outside and from containers. A loopback destination never comes from there, whatever another program
		// made of its links' route_localnet.
		prerouting = append([]nft.Rule{{nft.Destination(loopbacks), nft.Return}}, prerouting...)
	} else {
		// IPv6 has no route_localnet: what is sent to ::1 stays there, and is refused, so that clients try 127.0.0.1.
		output = append([]nft.Rule{{nft.Destination(loopback6), nft.Return}}, output...)
	}
	return &nft.Table{
		Family: f,
		Name:   name,
		Maps: []nft.Map{
			{Name: publishedAt, Kind: nft.AtAddress},
			{Name: publishedAny, Kind: nft.AnyAddress},
			{Name: directPorts, Kind: nft.Reachable},
			{Name: ourBridges, Kind: nft.LinkName},
			{Name: openedLinks, Kind: nft.LinkName},
			{Name: intoNetwork, Kind: nft.LinkVerdict},
			{Name: outOfNetwork, Kind: nft.LinkVerdict},
			{Name: overNetwork, Kind: nft.LinkVerdict},
			{Name: fromSubnet, Kind: nft.SubnetVerdict},
		},
		Chains: []nft.Chain{
			{Name: userChain, Theirs: true},
			{Name: "published", Rules: []nft.Rule{
				{nft.TranslateAt(f, publishedAt)},
				{nft.TranslateAny(f, publishedAny)},
			}},
			{Name: "guard", Hook: "prerouting", Type: "filter", Priority: -300, Rules: guard},
			{Name: "prerouting", Hook: "prerouting", Type: "nat", Priority: -100, Rules: prerouting},
			{Name: "output", Hook: "output", Type: "nat", Priority: -100, Rules: output},
			{Name: "postrouting", Hook: "postrouting", Type: "nat", Priority: 100, Rules: []nft.Rule{
				{nft.OverEach(overNetwork)},
				// Networks of ours find back to each other without a translation.
				{nft.OverAny(ourBridges), nft.Return},
				{nft.Over("lo"), nft.Return},
				{nft.SourceEach(f, fromSubnet)},
			}},
			{Name: "forward", Hook: "forward", Type: "filter", Priority: 0, Rules: []nft.Rule{
				{nft.Jump(userChain)},
				{nft.OverEach(intoNetwork)},
				{nft.FromEach(outOfNetwork)},
				// Links that forward for our sake forward nothing else: the host is no router. What another engine's bridge
				// let out or published is known by its flow.
				{nft.FromAny(openedLinks), nft.Answer, nft.Accept},
				{nft.FromAny(openedLinks), nft.Translated, nft.Accept},
				{nft.FromAny(openedLinks), nft.Drop},
			}},
		},
	}
}

// table names our tables: "berth" for the usual bridge; another bridge, of a second engine, has its own, and so has an engine without one.
func (c Config) table() string {
	switch c.Bridge {
	case defaultBridge:
		return "berth"
	case noBridge:
		sum := sha256.Sum256([]byte(c.Dir))
		return "berth_" + hex.EncodeToString(sum[:4])
	}
	return "berth_" + c.Bridge
}

// policy is what a network wants of the packet filter, for one family.
type policy struct {
	bridge   string
	subnets  []netip.Prefix
	internal bool
	apart    bool       // containers on it don't reach each other; the bridge's ports are isolated, too
	routed   bool       // its addresses are known outside: nothing is translated, open ports are reached as they are
	open     bool       // every port is open
	plain    bool       // packets keep their source address on the way out
	source   netip.Addr // the host's address that packets leave with; zero: that of the link they leave by
}

func (p policy) chain(what string) string { return what + "_" + p.bridge }

// chains are a network's own.
func (p policy) chains(f nft.Family) []nft.Chain {
	into := []nft.Rule{{nft.Answer, nft.Accept}}
	if p.internal {
		into = nil
	} else {
		into = append(into, nft.Rule{nft.Translated, nft.Accept})
	}
	if !p.apart {
		into = append(into, nft.Rule{nft.From(p.bridge), nft.Accept})
	}
	switch {
	case p.internal:
	case p.open:
		into = append(into, nft.Rule{nft.Accept})
	case p.routed:
		into = append(into, nft.Rule{nft.ToReachable(f, directPorts), nft.Accept})
	}
	into = append(into, nft.Rule{nft.Drop}) // ports that are not published
	outOf := []nft.Rule{{nft.Drop}}
	if !p.internal {
		// What fits no flow would leave untranslated, with an address that nobody outside can answer.
		outOf = []nft.Rule{{nft.Stray, nft.Drop}, {nft.Accept}}
	}
	var over []nft.Rule
	if f == nft.IPv4 {
		// A container can't answer 127.0.0.1, nor a neighbour on its bridge that asked another address.
		over = append(over, nft.Rule{nft.Source(loopbacks), nft.Masquerade})
	}
	for _, s := range p.subnets {
		over = append(over, nft.Rule{nft.Source(s), nft.Translated, nft.Masquerade})
	}
	all := []nft.Chain{
		{Name: p.chain(intoNetwork), Rules: into},
		{Name: p.chain(outOfNetwork), Rules: outOf},
		{Name: p.chain(overNetwork), Rules: over},
	}
	if p.translates() {
		from := nft.Rule{nft.Masquerade}
		if p.source.IsValid() {
			from = nft.Rule{nft.SourceAddress(p.source)}
		}
		all = append(all, nft.Chain{Name: p.chain(fromSubnet), Rules: []nft.Rule{from}})
	}
	return all
}

func (p policy) translates() bool { return !p.internal && !p.routed && !p.plain }

// elements lead packets to the network's chains.
func (p policy) elements() []nft.Map {
	to := func(m string) nft.Map {
		return nft.Map{Name: m, Kind: nft.LinkVerdict, Elements: []nft.Element{nft.LinkTo(p.bridge, p.chain(m))}}
	}
	all := []nft.Map{
		{Name: ourBridges, Kind: nft.LinkName, Elements: []nft.Element{nft.LinkElement(p.bridge)}},
		to(intoNetwork), to(outOfNetwork), to(overNetwork),
	}
	if p.translates() {
		from := nft.Map{Name: fromSubnet, Kind: nft.SubnetVerdict}
		for _, s := range p.subnets {
			from.Elements = append(from.Elements, nft.SubnetTo(s, p.chain(fromSubnet)))
		}
		all = append(all, from)
	}
	return all
}

// enter and leave are the change that a network makes when it comes and goes.
func (p policy) enter(f nft.Family, table string) nft.Change {
	return nft.Change{Family: f, Table: table, NewChains: p.chains(f), Add: p.elements()}
}

func (p policy) leave(f nft.Family, table string) nft.Change {
	c := nft.Change{Family: f, Table: table, Remove: p.elements()}
	for _, ch := range p.chains(f) {
		c.OldChains = append(c.OldChains, ch.Name)
	}
	return c
}

// with adds a network to a table that is to be written as a whole.
func with(t *nft.Table, chains []nft.Chain, elements []nft.Map) {
	t.Chains = append(t.Chains, chains...)
	for _, m := range elements {
		for k := range t.Maps {
			if t.Maps[k].Name == m.Name {
				t.Maps[k].Elements = append(t.Maps[k].Elements, m.Elements...)
			}
		}
	}
}
