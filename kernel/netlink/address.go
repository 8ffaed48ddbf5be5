package netlink

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Address is an address of a link.
type Address struct {
	Link   int          // index
	Prefix netip.Prefix // the address with the subnet's length
}

// Addresses lists the addresses of the calling thread's namespace, of both families.
func Addresses() ([]Address, error) {
	found, err := whole(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	var all []Address
	for _, a := range found {
		if p, ok := prefix(a.IPNet); ok {
			all = append(all, Address{a.LinkIndex, p})
		}
	}
	return all, err
}

// prefix keeps the bits below the mask.
func prefix(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), ones), ok
}

func addressChange(what string, kind, flags int, index int, p netip.Prefix) Change {
	family := unix.AF_INET
	if p.Addr().Is6() {
		family = unix.AF_INET6
	}
	req := nl.NewNetlinkRequest(kind, flags)
	msg := nl.NewIfAddrmsg(family)
	msg.Index, msg.Prefixlen = uint32(index), uint8(p.Bits())
	req.AddData(msg)
	own := p.Addr().AsSlice()
	req.AddData(nl.NewRtAttr(unix.IFA_LOCAL, own))
	req.AddData(nl.NewRtAttr(unix.IFA_ADDRESS, own))
	if p.Addr().Is4() && p.Bits() < 31 { // RFC 3021: none on a /31
		last := p.Masked().Addr().As4()
		for i := p.Bits(); i < 32; i++ {
			last[i/8] |= 1 << (7 - i%8)
		}
		req.AddData(nl.NewRtAttr(unix.IFA_BROADCAST, last[:]))
	}
	if p.Addr().Is6() { // addresses that are dealt out need no detection of duplicates, which takes a second
		req.AddData(nl.NewRtAttr(unix.IFA_FLAGS, nl.Uint32Attr(unix.IFA_F_NODAD)))
	}
	return Change{fmt.Sprintf("%s address %s of link %d", what, p, index), req}
}

// AddAddress gives the link an address; EEXIST when it has it.
func AddAddress(index int, p netip.Prefix) Change {
	return addressChange("add", unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, index, p)
}

// RemoveAddress takes an address from the link.
func RemoveAddress(index int, p netip.Prefix) Change {
	return addressChange("remove", unix.RTM_DELADDR, 0, index, p)
}

// Route is a route of the main or another table, local ones left out.
type Route struct {
	Link    int          // index; 0 when it leads nowhere or over several links
	To      netip.Prefix // /0 is a default route
	Gateway netip.Addr   // zero: on the link
	Metric  int
}

// Routes lists the IPv4 and IPv6 routes of every table but the local one, in the calling thread's namespace.
func Routes() ([]Route, error) {
	found, err := whole(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	})
	var all []Route
	for _, r := range found {
		if r.Table == unix.RT_TABLE_LOCAL {
			continue
		}
		to, ok := prefix(r.Dst)
		if !ok {
			continue
		}
		gw, _ := netip.AddrFromSlice(r.Gw)
		all = append(all, Route{r.LinkIndex, to, gw.Unmap(), r.Priority})
	}
	return all, err
}

// AddDefault makes gateway, reached over the link, the way to everywhere.
func AddDefault(index int, gateway netip.Addr) Change {
	return AddRoute(index, netip.PrefixFrom(gateway, 0).Masked(), gateway)
}

// RemoveDefault takes the way over gateway to everywhere back; ESRCH when it is none.
func RemoveDefault(index int, gateway netip.Addr) Change {
	return route("remove", unix.RTM_DELROUTE, 0, index, netip.PrefixFrom(gateway, 0).Masked(), gateway)
}

// AddLinkDefault makes the link the way to everywhere, for addresses of the family of any.
func AddLinkDefault(index int, any netip.Addr) Change {
	return route("add", unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, index, netip.PrefixFrom(any, 0).Masked(), netip.Addr{})
}

// RemoveLinkDefault takes that back.
func RemoveLinkDefault(index int, any netip.Addr) Change {
	return route("remove", unix.RTM_DELROUTE, 0, index, netip.PrefixFrom(any, 0).Masked(), netip.Addr{})
}

// AddRoute makes gateway, reached over the link, the way to the subnet.
func AddRoute(index int, to netip.Prefix, gateway netip.Addr) Change {
	return route("add", unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, index, to, gateway)
}

func route(what string, kind, flags, index int, to netip.Prefix, gateway netip.Addr) Change {
	family := unix.AF_INET
	if to.Addr().Is6() {
		family = unix.AF_INET6
	}
	req := nl.NewNetlinkRequest(kind, flags)
	msg := nl.NewRtMsg()
	msg.Family, msg.Dst_len = uint8(family), uint8(to.Bits())
	req.AddData(msg)
	if to.Bits() > 0 {
		req.AddData(nl.NewRtAttr(unix.RTA_DST, to.Masked().Addr().AsSlice()))
	}
	over := fmt.Sprintf("link %d", index)
	if gateway.IsValid() {
		over = gateway.String()
		req.AddData(nl.NewRtAttr(unix.RTA_GATEWAY, gateway.AsSlice()))
	} else {
		msg.Scope = unix.RT_SCOPE_LINK
	}
	req.AddData(nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(index))))
	return Change{fmt.Sprintf("%s route to %s over %s", what, to, over), req}
}
