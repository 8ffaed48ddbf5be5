package network

import (
	"net/netip"
	"slices"
	"strings"

	"berth/kernel/netlink"
	"berth/kernel/nft"
	"berth/network/firewall"
)

// Surroundings is what decides who reaches published ports, as it is now.
type Surroundings struct {
	Addresses []netip.Addr // of this host, but for loopback, link-local ones and our bridges'
	Notes     []string     // who drops packets of networks, for people

	seen seen
	ways map[string][]firewall.Way // by the network's ID
	own  map[nft.Family]*nft.Filter
}

// Survey looks at this host's addresses and packet filters.
func (h Firewalls) Survey() (*Surroundings, error) {
	s := &Surroundings{seen: h.others.look(), ways: map[string][]firewall.Way{}, own: map[nft.Family]*nft.Filter{}}
	if s.seen.err != nil {
		return nil, s.seen.err
	}
	var err error
	if s.seen.uplinks, err = uplinks(); err != nil {
		return nil, err
	}
	for _, f := range h.wall.families() {
		if s.own[f], err = h.wall.fw.Chain(f, h.Table(), userChain); err != nil {
			return nil, err
		}
	}
	addresses, err := netlink.Addresses()
	if err != nil {
		return nil, err
	}
	links, err := netlink.Links()
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	bridges := h.networks.bridges()
	for _, a := range addresses {
		ours := slices.ContainsFunc(links, func(l netlink.Link) bool { return l.Index == a.Link && slices.Contains(bridges, l.Name) })
		if ip := a.Prefix.Addr(); !ours && !ip.IsLoopback() && !ip.IsLinkLocalUnicast() {
			s.Addresses = append(s.Addresses, ip)
		}
	}
	for _, n := range h.networks {
		s.ways[n.ID] = n.ways(s.seen)
		for _, o := range n.obstacles(s.seen) {
			s.Notes = append(s.Notes, o.String())
		}
	}
	slices.Sort(s.Notes)
	slices.SortFunc(s.Addresses, netip.Addr.Compare)
	return s, nil
}

// Stops names the chain that drops connections from outside to a container's port on a network, by its ID; "": none.
func (s *Surroundings) Stops(network string, v6 bool, port uint16, proto string) string {
	for _, w := range s.ways[network] {
		if w.Subnet.Addr().Is6() != v6 {
			continue
		}
		filters := s.seen.filters
		if own := s.own[nft.Family(v6)]; own != nil {
			filters = append(slices.Clone(filters), own)
		}
		return firewall.Inward(filters, w, PortRequest{Proto: proto}.number(), port)
	}
	return ""
}

// Shut names the chain for packets to this host itself that drops what comes to a port of it from outside; "": none.
func (s *Surroundings) Shut(v6 bool, port uint16, proto string) string {
	k := 0
	if v6 {
		k = 1
	}
	return firewall.Shut(s.seen.filters, v6, s.seen.uplinks[k], PortRequest{Proto: proto}.number(), port)
}

// Mode is how a network's addresses of a family are known outside: "nat", "nat-unprotected", "routed" or "isolated"; of drivers that have no
// such thing, "".
func (s Spec) Mode(v6 bool) string {
	key := optionGateway4
	if v6 {
		key = optionGateway6
	}
	switch mode := strings.ToLower(s.Options[key]); {
	case s.Driver != "bridge":
		return ""
	case mode == "":
		return modeNAT
	default:
		return mode
	}
}

// Talk tells whether containers on a network reach each other.
func (s Spec) Talk() bool {
	return s.Driver != "bridge" || s.Options[optionICC] != "false" && s.Options[optionICC] != "0"
}
