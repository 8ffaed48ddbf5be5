package dns

import (
	"errors"
	"net/netip"

	"berth/kernel/nft"
	"berth/network/names"
)

// tableName is of the table in a container's namespace.
const tableName = "berth_dns"

const usual = 53

// redirect is the table that leads what is sent to names.Address, port 53, to where we listen in the same namespace, so that the container may
// have a name server of its own on all addresses. It changes ports and tracks nothing: with translation (nat), every packet
// of the container would be tracked. Only what is sent to other addresses needs that.
func redirect(port uint16, also []netip.Addr) (*nft.Table, error) {
	if len(also) > 0 {
		return translation(port, also)
	}
	we := netip.PrefixFrom(netip.MustParseAddr(names.Address), 32)
	rules := []nft.Rule{{nft.NotOver("lo"), nft.Return}}
	for _, proto := range []string{"udp", "tcp"} {
		rules = append(rules,
			nft.Rule{nft.Destination(we), nft.ToPort(proto, usual), nft.SetToPort(proto, port)},
			nft.Rule{nft.Source(we), nft.FromPort(proto, port), nft.SetFromPort(proto, usual)})
	}
	const early = -300 // where packets come before they are tracked, if somebody does that here (nft(8), raw)
	return &nft.Table{Family: nft.IPv4, Name: tableName, Chains: []nft.Chain{{Name: "output", Hook: "output", Type: "filter", Priority: early, Rules: rules}}}, nil
}

// translation leads what is sent to port 53 of other addresses here too: what the container's own programs send, and, as far as they are, what it forwards for
// machines within it (that needs route_localnet on the link that they come by, which who has such machines sets).
func translation(port uint16, also []netip.Addr) (*nft.Table, error) {
	const asked, destination = "asked", -100
	here := netip.AddrPortFrom(netip.MustParseAddr(names.Address), port)
	m := nft.Map{Name: asked, Kind: nft.AtAddress}
	for _, a := range append([]netip.Addr{here.Addr()}, also...) {
		for _, proto := range []string{"udp", "tcp"} {
			e, err := nft.Publish(netip.AddrPortFrom(a, usual), proto, here)
			if err != nil {
				return nil, err
			}
			m.Elements = append(m.Elements, e)
		}
	}
	rules := []nft.Rule{{nft.TranslateAt(nft.IPv4, asked)}}
	return &nft.Table{Family: nft.IPv4, Name: tableName, Maps: []nft.Map{m}, Chains: []nft.Chain{
		{Name: "output", Hook: "output", Type: "nat", Priority: destination, Rules: rules},
		{Name: "prerouting", Hook: "prerouting", Type: "nat", Priority: destination, Rules: rules},
	}}, nil
}

// writeRedirect puts the table into the namespace of the calling thread.
func writeRedirect(port uint16, also []netip.Addr) error {
	table, err := redirect(port, also)
	if err != nil {
		return err
	}
	fw, err := nft.Open()
	if err != nil {
		return err
	}
	return errors.Join(fw.Replace(table), fw.Close())
}
