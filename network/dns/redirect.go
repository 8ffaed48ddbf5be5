package dns

import (
	"errors"
	"net/netip"

	"berth/kernel/nft"
	"berth/network/names"
)

// tableName is of the table in a container's namespace.
const tableName = "berth_dns"

// redirect is the table that leads what is sent to names.Address, port 53, to where we listen in the same namespace, so that the container may
// have a name server of its own on all addresses. It changes ports and tracks nothing: with translation (nat), every packet
// of the container would be tracked.
func redirect(port uint16) *nft.Table {
	const usual = 53
	we := netip.PrefixFrom(netip.MustParseAddr(names.Address), 32)
	rules := []nft.Rule{{nft.NotOver("lo"), nft.Return}}
	for _, proto := range []string{"udp", "tcp"} {
		rules = append(rules,
			nft.Rule{nft.Destination(we), nft.ToPort(proto, usual), nft.SetToPort(proto, port)},
			nft.Rule{nft.Source(we), nft.FromPort(proto, port), nft.SetFromPort(proto, usual)})
	}
	const early = -300 // where packets come before they are tracked, if somebody does that here (nft(8), raw)
	return &nft.Table{Family: nft.IPv4, Name: tableName, Chains: []nft.Chain{{Name: "output", Hook: "output", Type: "filter", Priority: early, Rules: rules}}}
}

// writeRedirect puts the table into the namespace of the calling thread.
func writeRedirect(port uint16) (err error) {
	fw, err := nft.Open()
	if err != nil {
		return err
	}
	return errors.Join(fw.Replace(redirect(port)), fw.Close())
}
