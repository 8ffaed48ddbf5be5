package network

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"berth/fault"
	"berth/internal/record"
	"berth/kernel/namespace"
	"berth/kernel/netlink"
	"berth/network/ipam"
)

// bridgeDriver makes networks of this host: a bridge each, which is the containers' way out.
var bridgeDriver = driver{
	forwards: true,
	read:     readBridge,
	bare: func(n *network) bool {
		return n.options.mode[0] == modeIsolated || n.options.mode[1] == modeIsolated
	},
	open:  openBridge,
	close: deleteLink,
	plug:  plugBridge,
}

func readBridge(s *Spec) (optionSet, error) {
	o := &options{values: s.Options}
	set := optionSet{
		link: o.link(optionBridge, ""), mtu: o.number(optionMTU, 68, 65535), prefix: o.text(optionPrefix, "eth"),
		masquerade: o.flag(optionMasquerade, true), icc: o.flag(optionICC, true), inhibit: o.flag(optionInhibit4, false),
		binding: o.address(optionBinding4, false),
	}
	modes := []string{modeNAT, modeUnprotected, modeRouted, modeIsolated}
	set.mode = [2]string{o.one(optionGateway4, modes...), o.one(optionGateway6, modes...)}
	set.source = [2]netip.Addr{o.address(optionHost4, false), o.address(optionHost6, true)}
	for k, key := range []string{optionGateway4, optionGateway6} {
		if set.mode[k] == modeIsolated && !s.Internal {
			o.refuse(key, "only an internal network (--internal) can be isolated from the host")
		}
	}
	return set, o.err
}

// openBridge makes or adopts the link and gives it its addresses.
func openBridge(h *Host, n *network) error {
	n.link = n.options.link
	if n.link == "" {
		n.link = "br-" + n.ID[:12]
	}
	link, err := h.links.Link(n.link)
	exists := err == nil
	if err != nil && !errors.Is(err, netlink.ErrNoLink) {
		return err
	}
	if exists && link.Kind != "bridge" {
		return fault.New(fault.Conflict, "a link %s exists and is no bridge but a %s; name another one", n.link, link.Kind)
	}
	n.index = link.Index
	n.made = !exists || h.cfg.made(link, n.ID)
	h.forward.add(n.link, n.IPv6)
	if !n.made {
		return adoptBridge(h, n, link)
	}
	return shapeBridge(h, n, link, exists)
}

// made tells whether we made a bridge for the network id. The default one may be of an engine whose records are gone, data root and all.
func (c Config) made(link netlink.Link, id string) bool {
	return link.Alias == c.mark(id) || link.Name == c.Bridge && strings.HasPrefix(link.Alias, c.mark(""))
}

// adoptBridge takes a bridge that the administrator made, as it is.
func adoptBridge(h *Host, n *network, link netlink.Link) error {
	has, err := addresses(n.index, n.hostAddresses()...)
	if err != nil {
		return err
	}
	n.mtu = link.MTU
	for _, p := range n.Pools {
		if p.Gateway.IsValid() && !slices.Contains(has, netip.PrefixFrom(p.Gateway, p.Subnet.Bits())) {
			return fault.New(fault.Invalid, "the bridge %s was not made by us and lacks the address %s; give it one (ip address add %s/%d dev %s)", n.link, p.Gateway, p.Gateway, p.Subnet.Bits(), n.link)
		}
	}
	return h.forward.adopt(n.link)
}

// shapeBridge brings our bridge to what is wanted, whatever a killed start left of it.
func shapeBridge(h *Host, n *network, link netlink.Link, exists bool) (err error) {
	if n.mtu = n.options.mtu; n.mtu == 0 {
		if n.mtu, err = defaultMTU(); err != nil {
			return err
		}
	}
	want := n.hostAddresses()
	var has []netip.Prefix
	if !exists {
		var mac net.HardwareAddr
		if len(want) > 0 && want[0].Addr().Is4() {
			mac = macOf(want[0].Addr())
		}
		err := h.links.Apply( // one system call, so that no kill leaves a bridge that isn't marked
			netlink.NewBridge(n.link, mac, n.mtu),
			netlink.SetAliasOf(n.link, h.cfg.mark(n.ID)))
		if err != nil {
			return err
		}
		if link, err = h.links.Link(n.link); err != nil {
			return err
		}
		n.index = link.Index
	}
	if err := bridgeSwitches(n, !h.cfg.NoForwarding); err != nil {
		return err
	}
	if exists { // after the switches: the one of IPv6 takes its addresses away
		if has, err = addresses(n.index, want...); err != nil {
			return err
		}
	}
	var changes []netlink.Change
	for _, a := range has {
		if !slices.Contains(want, a) {
			changes = append(changes, netlink.RemoveAddress(n.index, a))
		}
	}
	for _, a := range want {
		if !slices.Contains(has, a) {
			changes = append(changes, netlink.AddAddress(n.index, a))
		}
	}
	if link.Alias != h.cfg.mark(n.ID) { // NewBridge's alias is for newer kernels: 6.18 still ignores it at creation
		changes = append(changes, netlink.SetAlias(n.index, h.cfg.mark(n.ID)))
	}
	if link.MTU != n.mtu {
		changes = append(changes, netlink.SetMTU(n.index, n.mtu))
	}
	return h.links.Apply(append(changes, netlink.SetUp(n.index))...)
}

// hostAddresses are those that the bridge has.
func (n *network) hostAddresses() (all []netip.Prefix) {
	for _, p := range n.Pools {
		k := family(p.Subnet.Addr())
		if p.Gateway.IsValid() && n.options.mode[k] != modeIsolated && !(k == 0 && n.options.inhibit) {
			all = append(all, netip.PrefixFrom(p.Gateway, p.Subnet.Bits()))
		}
	}
	return all
}

// bridgeSwitches sets what the kernel must know of our bridge before it is up.
func bridgeSwitches(n *network, forwarding bool) error {
	v4, v6 := "net/ipv4/conf/"+n.link+"/", "net/ipv6/conf/"+n.link+"/"
	// 127.0.0.1 may lead to a container's port; the table's guard closes what this opens.
	err := setSysctl(v4+"route_localnet", "1")
	if !forwarding {
		err = errors.Join(err, setSysctl(forwardSwitch(n.link), getSysctl("net/ipv4/conf/all/forwarding")))
	} else {
		err = errors.Join(err, setSysctl(forwardSwitch(n.link), "1"))
	}
	if !n.IPv6 { // no addresses of IPv6 where the containers have none
		return errors.Join(err, setSysctl(v6+"disable_ipv6", "1"))
	}
	return errors.Join(err, setSysctl(v6+"disable_ipv6", "0"), setSysctl(v6+"accept_ra", "0"), setSysctl(v6+"accept_dad", "0"))
}

// addresses are a link's, but for those of IPv6 that it may have given itself: those of fe80::/64 (RFC 4291, section 2.5.6) that are not among wanted.
func addresses(index int, wanted ...netip.Prefix) (own []netip.Prefix, err error) {
	all, err := netlink.Addresses()
	itself := netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfe, 0x80}), 64)
	for _, a := range all {
		if a.Link == index && (!itself.Contains(a.Prefix.Addr()) || slices.Contains(wanted, a.Prefix)) {
			own = append(own, a.Prefix)
		}
	}
	return own, err
}

// deleteLink removes the link that we made for a network.
func deleteLink(h *Host, n *network) error {
	if n.index == 0 {
		return nil
	}
	err := h.links.Apply(netlink.Delete(n.index))
	if errors.Is(err, netlink.ErrNoLink) {
		return nil
	}
	return err
}

// openDefault makes the default network, or adopts the one that was.
func openDefault(h *Host, had *kept) error {
	s := h.cfg.Default
	s.Name, s.Driver, s.IPv4 = DefaultName, "bridge", true
	options := map[string]string{optionDefault: "true", optionICC: "true", optionMasquerade: "true", optionBinding4: "0.0.0.0", optionBridge: h.cfg.Bridge}
	maps.Copy(options, h.cfg.Options["bridge"])
	maps.Copy(options, s.Options)
	s.Options = options
	s.ID, s.Created = randomHex(32), time.Now().UTC()
	var before netip.Prefix // the bridge's own address
	if had != nil {
		s.ID, s.Created = had.Spec.ID, had.Spec.Created
		if len(had.Spec.Pools) > 0 && had.Spec.Options[optionBridge] == h.cfg.Bridge {
			p := had.Spec.Pools[0]
			before = netip.PrefixFrom(p.Gateway, p.Subnet.Bits())
		}
	}
	address, err := defaultAddress(h, s.ID, before)
	if err != nil {
		return err
	}
	own := ipam.Pool{Subnet: address.Masked(), Gateway: address.Addr()}
	for _, p := range s.Pools { // the range and what else is special of it, and the one of IPv6
		if p.Subnet.Addr().Is6() {
			continue
		}
		own.Range, own.Aux = p.Range, p.Aux // a range without a subnet is one of the bridge's
	}
	s.Pools = append([]ipam.Pool{own}, slices.DeleteFunc(slices.Clone(s.Pools), func(p ipam.Pool) bool { return !p.Subnet.Addr().Is6() })...)
	if s.IPv6 && len(s.Pools) == 1 {
		s.Pools = append(s.Pools, ipam.Pool{Subnet: ipam.Local(machineID(), s.ID)})
	}
	for k := range s.Pools {
		if s.Pools[k], err = s.Pools[k].Complete(false); err != nil {
			return err
		}
	}
	n, err := newNetwork(s)
	if err != nil {
		return err
	}
	h.networks[n.ID] = n
	if err := n.driver.open(h, n); err != nil {
		delete(h.networks, n.ID)
		return err
	}
	return record.Save(h.cfg.path(n.ID), kept{Version: keptVersion, Spec: n.Spec, Made: n.made})
}

// defaultAddress decides the default bridge's address. Containers that run keep theirs.
func defaultAddress(h *Host, id string, had netip.Prefix) (netip.Prefix, error) {
	link, err := h.links.Link(h.cfg.Bridge)
	if err != nil && !errors.Is(err, netlink.ErrNoLink) {
		return had, err
	}
	own := -1
	var has []netip.Prefix
	if err == nil {
		own = link.Index
		if has, err = addresses(own); err != nil {
			return had, err
		}
		has = slices.DeleteFunc(has, func(p netip.Prefix) bool { return !p.Addr().Is4() })
	}
	if own >= 0 && !h.cfg.made(link, id) {
		switch {
		case len(has) == 0:
			return had, fault.New(fault.Invalid, "this bridge was not made by us and has no IPv4 address; give it one (ip address add ADDRESS/BITS dev %s)", h.cfg.Bridge)
		case h.cfg.BIP.IsValid() && h.cfg.BIP != has[0]:
			return had, fault.New(fault.Invalid, "this bridge was not made by us and has address %s; an address of its own (--bip %s) needs a bridge of ours", has[0], h.cfg.BIP)
		}
		return has[0], nil
	}
	taken, err := uses(own)
	if err != nil {
		return had, err
	}
	if len(has) > 0 {
		had = has[0]
		n, err := portCount(own)
		if err != nil {
			return had, err
		}
		if n > 0 && !h.cfg.BIP.IsValid() {
			if what := ipam.Clash(had, taken); what != "" {
				h.warn(fmt.Sprintf("bridge %s keeps address %s as containers run on it, but its subnet overlaps with the %s", h.cfg.Bridge, had, what))
			}
			return had, nil
		}
		if n > 0 && h.cfg.BIP != had {
			return had, fault.New(fault.Conflict, "it has address %s, which running containers use; stop them, or keep that address (--bip %s)", had, had)
		}
	}
	return choose(h.cfg.wantedBIP(had), had, h.cfg.Sources, taken)
}

// sources are what networks get their subnets from.
func (c Config) sources() []ipam.Source {
	if c.Sources == nil {
		return ipam.Sources()
	}
	return c.Sources
}

// wantedBIP is the default bridge's address as the settings have it: a range of addresses without an address of the bridge is the whole subnet, unless it is a
// part of the one that the bridge had.
func (c Config) wantedBIP(had netip.Prefix) netip.Prefix {
	for _, p := range c.Default.Pools {
		r := p.Range
		if !c.BIP.IsValid() && r.IsValid() && r.Addr().Is4() && !p.Subnet.IsValid() && !(had.IsValid() && had.Bits() <= r.Bits() && had.Masked().Contains(r.Addr())) {
			return netip.PrefixFrom(r.Masked().Addr().Next(), r.Bits())
		}
	}
	return c.BIP
}

// portCount is how many links are attached.
func portCount(bridge int) (n int, err error) {
	links, err := netlink.Links()
	for _, l := range links {
		if l.Master == bridge {
			n++
		}
	}
	return n, err
}

// macOf derives a hardware address (locally administered) from an IPv4 address: unique on the bridge, and the same
// whenever that address is used again, so that no neighbour's table is ever wrong.
func macOf(a netip.Addr) net.HardwareAddr {
	ip := a.As4()
	return append(net.HardwareAddr{0x02, 0x42}, ip[:]...)
}

// plugBridge configures the container's end of a veth and plugs the other into the bridge. On a full bridge it waits a moment
// for links that are about to go.
func plugBridge(ctx context.Context, h *Host, n *network, in *inside, e *Endpoint, w wiring) (err error) {
	wire := w.ready
	if wire == nil {
		if wire, err = h.pool.addWire(in, e.Interface, n.mtu); err != nil {
			return err
		}
	}
	e.Link = wire.link
	if err := configure(n, in, e, wire.peer, w); err != nil {
		return err
	}
	plug := func() error {
		return h.links.Apply(netlink.SetAlias(wire.host, aliasOf(e)), netlink.SetMaster(wire.host, n.index))
	}
	err = plug()
	for deadline := time.Now().Add(patient); errors.Is(err, netlink.ErrFull) && h.departed.flush() && time.Now().Before(deadline); err = plug() {
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
	if errors.Is(err, netlink.ErrFull) {
		return fault.New(fault.Unavailable, "the bridge of network %s has all %d links that the kernel allows it (%w): remove containers on it, "+
			"or start this one on another network", n.Name, netlink.BridgePorts, err)
	}
	var more []netlink.Change
	// A container that asks its own published port gets its packets back over the link they came from.
	if w.hairpin {
		more = append(more, netlink.SetHairpin(wire.host))
	}
	if !n.options.icc {
		more = append(more, netlink.SetIsolated(wire.host))
	}
	if wire.mtu != n.mtu {
		more = append(more, netlink.SetMTU(wire.host, n.mtu))
	}
	if err != nil || len(more) == 0 {
		return err
	}
	return h.links.Apply(more...)
}

// configure gives the container's link its addresses and, if it is the way out, the default routes.
func configure(n *network, in *inside, e *Endpoint, link int, w wiring) error {
	if e.needs6() {
		// The link-local address that the kernel makes is of the hardware address at that moment.
		if w.mac != nil {
			if err := in.conn.Apply(netlink.SetMAC(link, w.mac)); err != nil {
				return err
			}
			w.mac = nil
		}
		err := namespace.Do(in.ns, func() error {
			name := "net/ipv6/conf/" + e.Interface + "/"
			return errors.Join(setSysctl(name+"accept_ra", "0"), setSysctl(name+"disable_ipv6", "0"))
		})
		if err != nil {
			return err
		}
	}
	var changes []netlink.Change
	if w.mac != nil {
		changes = append(changes, netlink.SetMAC(link, w.mac))
	}
	if w.ready != nil && w.ready.mtu != n.mtu {
		changes = append(changes, netlink.SetMTU(link, n.mtu))
	}
	for _, a := range e.addresses() {
		changes = append(changes, netlink.AddAddress(link, a))
	}
	if w.ready == nil {
		changes = append(changes, netlink.SetUp(link))
	}
	if err := in.conn.Apply(append(changes, e.routes(link, w.way, true)...)...); err != nil {
		return err
	}
	return e.setSysctls(in.ns)
}

// routes are the default routes over an endpoint, of the families in way, to be added or taken away.
func (e *Endpoint) routes(link int, way [2]bool, add bool) (changes []netlink.Change) {
	for k, g := range []netip.Addr{e.Gateway, e.Gateway6} {
		a := e.address(k == 1)
		switch {
		case !way[k] || !g.IsValid():
		case g.IsUnspecified() && add:
			changes = append(changes, netlink.AddLinkDefault(link, a.Addr()))
		case g.IsUnspecified():
			changes = append(changes, netlink.RemoveLinkDefault(link, a.Addr()))
		case add:
			changes = append(changes, netlink.AddDefault(link, g))
		default:
			changes = append(changes, netlink.RemoveDefault(link, g))
		}
	}
	return changes
}
