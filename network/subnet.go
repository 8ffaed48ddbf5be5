package network

import (
	"fmt"
	"net/netip"
	"slices"

	"berth/fault"
	"berth/kernel/netlink"
	"berth/network/ipam"
)

// pools are the subnets that a bridge may take by itself, in this order: private ones (RFC 1918) that home and
// office networks use least.
func pools() []netip.Prefix {
	var all []netip.Prefix
	for second := 17; second < 32; second++ {
		all = append(all, netip.PrefixFrom(netip.AddrFrom4([4]byte{172, byte(second), 0, 0}), 16))
	}
	for third := 0; third < 256; third += 16 {
		all = append(all, netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, byte(third), 0}), 20))
	}
	return all
}

// uses lists the subnets that addresses and routes of links other than own occupy. Routes to
// (nearly) everywhere are none.
func uses(own int) ([]ipam.Use, error) {
	links, err := netlink.Links()
	if err != nil {
		return nil, err
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Index] = l.Name
	}
	addresses, err := netlink.Addresses()
	if err != nil {
		return nil, err
	}
	routes, err := netlink.Routes()
	if err != nil {
		return nil, err
	}
	var all []ipam.Use
	for _, a := range addresses {
		if a.Link != own {
			all = append(all, ipam.Use{Subnet: a.Prefix.Masked(), What: fmt.Sprintf("address %s of %s", a.Prefix, names[a.Link])})
		}
	}
	const nearlyAll = 8 // 0.0.0.0/1 and its like are ways out, as default routes are
	for _, r := range routes {
		if r.Link != own && r.To.Bits() >= nearlyAll {
			all = append(all, ipam.Use{Subnet: r.To.Masked(), What: fmt.Sprintf("route to %s over %s", r.To, names[r.Link])})
		}
	}
	return all, nil
}

// choose picks the bridge's address and subnet: the one asked for, else the one it had, else the first free one of the sources that the user named, or of ours.
func choose(asked, had netip.Prefix, sources []ipam.Source, taken []ipam.Use) (netip.Prefix, error) {
	if asked.IsValid() {
		if why := badAddress(asked); why != "" {
			return asked, fault.New(fault.Invalid, "bridge address %s: %s", asked, why)
		}
		if what := ipam.Clash(asked, taken); what != "" {
			return asked, fault.New(fault.Conflict, "bridge address %s: its subnet overlaps with the %s; choose another one (--bip)", asked, what)
		}
		return asked, nil
	}
	if had.IsValid() && ipam.Clash(had, taken) == "" {
		return had, nil
	}
	sources = slices.DeleteFunc(slices.Clone(sources), func(s ipam.Source) bool { return !s.Base.Addr().Is4() })
	if len(sources) > 0 {
		p, err := ipam.Cut(sources, taken)
		return netip.PrefixFrom(p.Addr().Next(), p.Bits()), err
	}
	for _, p := range pools() {
		if ipam.Clash(p, taken) == "" {
			return netip.PrefixFrom(p.Addr().Next(), p.Bits()), nil
		}
	}
	return netip.Prefix{}, fault.New(fault.Unavailable, "no free subnet for the bridge: every pool overlaps with a route or an address of this host, such as the %s; name one (--bip)",
		ipam.Clash(pools()[0], taken))
}

func badAddress(p netip.Prefix) string {
	switch {
	case !p.Addr().Is4():
		return "not an IPv4 address"
	case p.Bits() < 8 || p.Bits() > 29:
		return "the subnet must have 8 to 29 bits"
	case p.Addr() == p.Masked().Addr() || p.Addr() == ipam.Last(p):
		return "not an address of a host in its subnet"
	}
	return ""
}

// defaultMTU is that of the link that leads to everywhere, in bytes; 1500 without one.
func defaultMTU() (int, error) {
	const ethernet = 1500
	routes, err := netlink.Routes()
	if err != nil {
		return 0, err
	}
	links, err := netlink.Links()
	if err != nil {
		return 0, err
	}
	mtu, metric := ethernet, -1
	for _, r := range routes {
		if !r.To.Addr().Is4() || r.To.Bits() != 0 || (metric >= 0 && r.Metric >= metric) {
			continue
		}
		for _, l := range links {
			if l.Index == r.Link && l.MTU > 0 {
				mtu, metric = l.MTU, r.Metric
			}
		}
	}
	return mtu, nil
}
