package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"berth/fault"
	"berth/kernel/netlink"
)

// Restore makes exactly these attachments exist: their addresses and ports are taken, their
// elements stand in the tables, and every other link of ours is removed in the background. Links that are found again are noted in them.
func (h *Host) Restore(all []*Attachment) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || h.restored {
		return fault.New(fault.Conflict, "networks: closed or restored already")
	}
	links, err := netlink.Links()
	if err != nil {
		return fmt.Errorf("restore networks: %w", err)
	}
	byName, byAlias := map[string]netlink.Link{}, map[string]netlink.Link{}
	for _, l := range links {
		if strings.HasPrefix(l.Name, linkPrefix) && h.networks.hasBridge(l.Master) {
			byName[l.Name], byAlias[l.Alias] = l, l
		}
	}
	for _, a := range all {
		for k := range a.Endpoints {
			e := &a.Endpoints[k]
			l, ok := byName[e.Link]
			if !ok {
				l = byAlias[aliasOf(e)]
			}
			delete(byName, l.Name)
			e.Link = l.Name
		}
		if err := readmit(h, a); err != nil {
			h.warn(fmt.Sprintf("restore container %s on its networks: %v", short(a.ContainerID), err))
		}
	}
	if len(h.networks) > 0 {
		if err := h.writeTables(); err != nil {
			return err
		}
	}
	for name := range byName {
		h.departed.add(&departed{links: []string{name}, stale: true})
	}
	h.restored = true
	return startForwarding(h)
}

// hasBridge tells whether a link is the bridge of one of them.
func (s networkSet) hasBridge(index int) bool {
	for _, n := range s {
		if index != 0 && n.index == index && n.driver.forwards {
			return true
		}
	}
	return false
}

// readmit takes what one attachment had. Its ports are published, whether a link of it was found or not: a container that was being moved
// from one network to another may be on none that is on record.
func readmit(h *Host, a *Attachment) (err error) {
	for _, e := range a.Endpoints {
		n := h.networks[e.NetworkID]
		if n == nil {
			err = errors.Join(err, fault.New(fault.NotFound, "network %s is gone", e.Network))
			continue
		}
		for _, p := range []netip.Prefix{e.Address, e.Address6} {
			if p.IsValid() {
				err = errors.Join(err, n.retake(p.Addr()))
			}
		}
	}
	for _, p := range a.Ports {
		if p.Direct {
			continue
		}
		if err := h.ports.adopt(hostPort{p.HostIP, p.HostPort, p.Proto}); err != nil {
			h.warn(fmt.Sprintf("restore container %s: %v; the container keeps it", short(a.ContainerID), err))
		}
	}
	h.attached[a.ID] = &held{attachment: a.clone(), wired: true, published: len(a.Ports) > 0}
	return err
}

func (n *network) retake(a netip.Addr) error {
	for _, l := range n.ledgers {
		if l.Subnet().Contains(a) {
			return l.Take(a)
		}
	}
	return fault.New(fault.Conflict, "address %s is of no subnet of network %s", a, n.Name)
}

// bridges are the links of those that have one.
func (s networkSet) bridges() (names []string) {
	for _, n := range s {
		if n.driver.forwards && n.broken == nil && n.link != "" {
			names = append(names, n.link)
		}
	}
	return names
}

// startForwarding switches forwarding on and tells who is in the way of it. The caller holds mu.
func startForwarding(h *Host) error {
	names := h.networks.bridges()
	if len(names) == 0 {
		return nil
	}
	if err := h.forward.ensure(); err != nil {
		return fmt.Errorf("forward packets of the containers: %w", err)
	}
	if err := h.forward.follow(); err != nil {
		return err
	}
	s := h.others.look()
	if s.err != nil {
		h.warn(s.err.Error())
	}
	if s.withFirewalld() {
		ctx := context.Background()
		err := makeZone(ctx)
		if err == nil {
			err = joinZone(ctx, names...)
		}
		if err == nil {
			err = sweepZone(ctx)
		}
		if err != nil {
			h.warn(fmt.Sprintf("put the bridges into the zone %s of firewalld: %v", zone, err))
		}
		s = h.others.look()
	}
	for _, n := range h.networks {
		for _, o := range n.obstacles(s) {
			h.warn(o.String())
		}
	}
	return nil
}
