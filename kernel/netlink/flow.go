package netlink

import (
	"net/netip"

	"github.com/vishvananda/netlink"
)

// Flow is a tracked UDP conversation as its first packet had it, and who answers it.
type Flow struct {
	Destination netip.AddrPort // as the client named it
	Server      netip.Addr     // who answers; differs from Destination where it was translated
}

type flowFilter func(Flow) bool

// MatchConntrackFlow makes a flowFilter one of the library's filters.
func (f flowFilter) MatchConntrackFlow(c *netlink.ConntrackFlow) bool {
	const udp = 17
	if c.Forward.Protocol != udp {
		return false
	}
	to, _ := netip.AddrFromSlice(c.Forward.DstIP)
	server, _ := netip.AddrFromSlice(c.Reverse.SrcIP)
	return f(Flow{netip.AddrPortFrom(to.Unmap(), c.Forward.DstPort), server.Unmap()})
}

// ForgetFlows makes the kernel forget the IPv4 UDP conversations that match, so that their next packet is
// translated anew: connection tracking keeps a translation as long as packets come. It lists the whole
// table of the calling thread's namespace; keep it off the fast path.
func ForgetFlows(match func(Flow) bool) error {
	_, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, netlink.FAMILY_V4, flowFilter(match))
	return err
}
