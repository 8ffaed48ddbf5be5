package network

import (
	"net/netip"

	"berth/kernel/nft"
)

// Names in our table.
const (
	publishedAt  = "published_at"  // ports published on one address of the host
	publishedAny = "published_any" // ports published on all of them
	openedLinks  = "opened"        // links that forward only because we made them
)

var loopbacks = netip.MustParsePrefix("127.0.0.0/8")

// table is all that we say to the packet filter for one bridge. What it opens: connections from containers to outside, and to
// published ports from everywhere. What it keeps closed: see each rule.
func table(name, bridge string, subnet netip.Prefix, at, anywhere, opened []nft.Element) *nft.Table {
	return &nft.Table{
		Name: name,
		Maps: []nft.Map{
			{Name: publishedAt, Kind: nft.AtAddress, Elements: at},
			{Name: publishedAny, Kind: nft.AnyAddress, Elements: anywhere},
			{Name: openedLinks, Kind: nft.LinkName, Elements: opened},
		},
		Chains: []nft.Chain{
			{Name: "published", Rules: []nft.Rule{
				{nft.TranslateAt(publishedAt)},
				{nft.TranslateAny(publishedAny)},
			}},
			// route_localnet on the bridge lets 127.0.0.1 lead to a container's port. The same switch would let containers
			// speak to the host's loopback, or as the host's loopback.
			{Name: "guard", Hook: "prerouting", Type: "filter", Priority: -300, Rules: []nft.Rule{
				{nft.From(bridge), nft.Destination(loopbacks), nft.Drop},
				{nft.From(bridge), nft.Source(loopbacks), nft.Drop},
			}},
			// From outside and from containers. A loopback destination never comes from there, whatever another program
			// made of its links' route_localnet.
			{Name: "prerouting", Hook: "prerouting", Type: "nat", Priority: -100, Rules: []nft.Rule{
				{nft.Destination(loopbacks), nft.Return},
				{nft.ToSelf, nft.Jump("published")},
			}},
			// From this host's own programs.
			{Name: "output", Hook: "output", Type: "nat", Priority: -100, Rules: []nft.Rule{
				{nft.ToSelf, nft.Jump("published")},
			}},
			{Name: "postrouting", Hook: "postrouting", Type: "nat", Priority: 100, Rules: []nft.Rule{
				// A container can't answer 127.0.0.1, nor a neighbour on its bridge that asked another address.
				{nft.Over(bridge), nft.Source(loopbacks), nft.Masquerade},
				{nft.Over(bridge), nft.Source(subnet), nft.Translated, nft.Masquerade},
				{nft.NotOver("lo"), nft.NotOver(bridge), nft.Source(subnet), nft.Masquerade},
			}},
			{Name: "forward", Hook: "forward", Type: "filter", Priority: 0, Rules: []nft.Rule{
				{nft.From(bridge), nft.Over(bridge), nft.Accept},
				{nft.Over(bridge), nft.Answer, nft.Accept},
				{nft.Over(bridge), nft.Translated, nft.Accept},
				{nft.Over(bridge), nft.Drop}, // ports that are not published
				// What fits no flow would leave untranslated, with an address that nobody outside can answer.
				{nft.From(bridge), nft.Stray, nft.Drop},
				{nft.From(bridge), nft.Accept},
				// Links that forward for our sake forward nothing else: the host is no router. What another bridge of ours
				// let out or published is known by its flow.
				{nft.FromAny(openedLinks), nft.Answer, nft.Accept},
				{nft.FromAny(openedLinks), nft.Translated, nft.Accept},
				{nft.FromAny(openedLinks), nft.Drop},
			}},
		},
	}
}

// tableName is "berth" for the usual bridge; another bridge, of a second engine, has its own.
func tableName(bridge string) string {
	if bridge == defaultBridge {
		return "berth"
	}
	return "berth_" + bridge
}

// elements are the published ports of an endpoint, by map.
func (e *Endpoint) elements() (maps []nft.Map, err error) {
	at := nft.Map{Name: publishedAt, Kind: nft.AtAddress}
	anywhere := nft.Map{Name: publishedAny, Kind: nft.AnyAddress}
	for _, p := range e.Ports {
		el, err := nft.Publish(netip.AddrPortFrom(p.HostIP, p.HostPort), p.Proto, netip.AddrPortFrom(e.Address.Addr(), p.Port))
		if err != nil {
			return nil, err
		}
		if p.HostIP.IsUnspecified() {
			anywhere.Elements = append(anywhere.Elements, el)
		} else {
			at.Elements = append(at.Elements, el)
		}
	}
	for _, m := range []nft.Map{at, anywhere} {
		if len(m.Elements) > 0 {
			maps = append(maps, m)
		}
	}
	return maps, nil
}
