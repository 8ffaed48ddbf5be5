package network

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"

	"berth/fault"
	"berth/kernel/netlink"
	"berth/kernel/nft"
)

// wall is our tables in the packet filter.
type wall struct {
	fw    *nft.Conn
	table string // the name of both
	ipv6  bool   // the kernel has it
}

// families are those that there is a table for.
func (w *wall) families() []nft.Family {
	if w.ipv6 {
		return []nft.Family{nft.IPv4, nft.IPv6}
	}
	return []nft.Family{nft.IPv4}
}

// elements are what the tables of a family have for an attachment's ports, by map.
func (a *Attachment) elements(ports []Port, f nft.Family) (all []nft.Map, err error) {
	way := a.Way(f == nft.IPv6)
	if way == nil {
		return nil, nil
	}
	own := way.address(f == nft.IPv6).Addr()
	at := nft.Map{Name: publishedAt, Kind: nft.AtAddress}
	anywhere := nft.Map{Name: publishedAny, Kind: nft.AnyAddress}
	direct := nft.Map{Name: directPorts, Kind: nft.Reachable}
	for _, p := range ports {
		if p.HostIP.Is6() != own.Is6() {
			continue
		}
		to := netip.AddrPortFrom(own, p.Port)
		if p.Direct {
			e, err := nft.ReachablePort(to, p.Proto)
			if err != nil {
				return nil, err
			}
			direct.Elements = append(direct.Elements, e)
			continue
		}
		e, err := nft.Publish(netip.AddrPortFrom(p.HostIP, p.HostPort), p.Proto, to)
		if err != nil {
			return nil, err
		}
		if p.HostIP.IsUnspecified() {
			anywhere.Elements = append(anywhere.Elements, e)
		} else {
			at.Elements = append(at.Elements, e)
		}
	}
	for _, m := range []nft.Map{at, anywhere, direct} {
		if len(m.Elements) > 0 {
			all = append(all, m)
		}
	}
	return all, nil
}

// changes are what has to be done to the tables so that ports lead to a no more, or do.
func (w *wall) changes(a *Attachment, gone, added []Port) (all []nft.Change, err error) {
	for _, f := range w.families() {
		c := nft.Change{Family: f, Table: w.table}
		if c.Remove, err = a.elements(gone, f); err != nil {
			return nil, err
		}
		if c.Add, err = a.elements(added, f); err != nil {
			return nil, err
		}
		if len(c.Remove)+len(c.Add) > 0 {
			all = append(all, c)
		}
	}
	return all, nil
}

// publish adds elements.
func (h *Host) publish(a *Attachment, ports []Port) error {
	changes, err := h.wall.changes(a, nil, ports)
	if err != nil || len(changes) == 0 {
		return err
	}
	return h.update(changes...)
}

// update changes the tables. Where another program has removed them with all others (flush ruleset), they are written anew first.
// The caller does not hold mu.
func (h *Host) update(changes ...nft.Change) error {
	err := h.wall.fw.Update(changes...)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.updateHeld(changes...)
}

// updateHeld is update for who holds mu.
func (h *Host) updateHeld(changes ...nft.Change) error {
	err := h.wall.fw.Update(changes...)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	h.warn(fmt.Sprintf("another program removed the nftables tables %s, which published ports and NAT need; they are written anew", h.Table()))
	if err := h.writeTables(); err != nil {
		return err
	}
	return h.wall.fw.Update(changes...)
}

// unpublish removes elements, those that are there.
func (w *wall) unpublish(a *Attachment, ports []Port) error {
	changes, err := w.changes(a, ports, nil)
	if err != nil || len(changes) == 0 {
		return err
	}
	if err := w.fw.Update(changes...); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Somebody else took elements away. Those that are left go one by one.
	for _, c := range changes {
		for _, m := range c.Remove {
			for _, e := range m.Elements {
				one := nft.Change{Family: c.Family, Table: c.Table, Remove: []nft.Map{{Name: m.Name, Kind: m.Kind, Elements: []nft.Element{e}}}}
				if err := w.fw.Update(one); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return err
				}
			}
		}
	}
	return nil
}

// reservePorts holds the host's ports for what is asked. The caller holds mu.
func (h *Host) reservePorts(a *Attachment, requests []PortRequest) (ports []Port, err error) {
	groups, err := groups(h, a, requests)
	if err != nil {
		return nil, err
	}
	// Who says which port goes first: another of the same container may take any.
	for _, g := range choosy(groups) {
		got, err := h.ports.reserve(g)
		if err != nil {
			return nil, errors.Join(err, h.ports.release(ports))
		}
		ports = append(ports, got...)
	}
	return ports, nil
}

// groups are the requests as the container's ways out have them: one that names no address of the host is for each family
// that the container has, with one port for all. Without a way out there is nothing to publish.
func groups(h *Host, a *Attachment, requests []PortRequest) (all []portGroup, err error) {
	for _, r := range requests {
		var g portGroup
		if r, err = r.checked(); err != nil {
			return nil, err
		}
		for _, v6 := range []bool{false, true} {
			way := a.Way(v6)
			if way == nil || r.HostIP.IsValid() && r.HostIP.Is6() != v6 {
				continue
			}
			one := portWish{PortRequest: r}
			n := h.networks[way.NetworkID]
			one.direct = n != nil && n.options.mode[family(way.address(v6).Addr())] == modeRouted
			if !one.HostIP.IsValid() {
				one.HostIP = netip.IPv4Unspecified()
				if v6 {
					one.HostIP = netip.IPv6Unspecified()
				} else if n != nil && n.options.binding.IsValid() {
					one.HostIP = n.options.binding
				}
			}
			g = append(g, one)
		}
		// The usual address of IPv4 stands for those of every family, a single one does not.
		if len(g) == 2 && !g[0].HostIP.IsUnspecified() {
			g = g[:1]
		}
		if len(g) > 0 {
			all = append(all, g)
		} else if r.HostIP.IsValid() && a.Way(!r.HostIP.Is6()) != nil {
			return nil, fault.New(fault.Unsupported, "publish port %d/%s on %s: the container has no address of that family; put it on a network with IPv6 (network create --ipv6), or publish it on an address of the other family", r.Port, r.Proto, r.HostIP)
		}
	}
	return all, nil
}

// forgetFlows makes UDP clients that talked to a's ports before find it: a tracked conversation keeps its way.
func forgetFlows(h *Host, a *Attachment, ports []Port) {
	own := a.own()
	forgetUDP(h, a, ports, func(f netlink.Flow) bool { return !own[f.Server] })
}

// forgetOwnFlows ends the tracked UDP conversations over ports that a no longer has.
func forgetOwnFlows(h *Host, a *Attachment, gone []Port) {
	own := a.own()
	forgetUDP(h, a, gone, func(f netlink.Flow) bool { return own[f.Server] })
}

func (a *Attachment) own() map[netip.Addr]bool {
	own := map[netip.Addr]bool{}
	for _, e := range a.Endpoints {
		own[e.Address.Addr()], own[e.Address6.Addr()] = true, true
	}
	return own
}

func forgetUDP(h *Host, a *Attachment, ports []Port, fits func(netlink.Flow) bool) {
	udp := map[uint16]bool{}
	for _, p := range ports {
		if p.Proto == "udp" {
			udp[p.HostPort] = true
		}
	}
	if len(udp) == 0 {
		return
	}
	h.background.Go(func() {
		err := netlink.ForgetFlows(func(f netlink.Flow) bool { return udp[f.Destination.Port()] && fits(f) })
		if err != nil {
			h.warn(fmt.Sprintf("forget UDP conversations of container %s: %v", short(a.ContainerID), err))
		}
	})
}
