package network

import (
	"errors"
	"fmt"
	"slices"

	"berth/fault"
	"berth/kernel/netlink"
	"berth/kernel/nft"
)

// SetPorts makes ports the published ones of an attached endpoint, at once: those that stay are never interrupted, connections that
// go on over one that is withdrawn end with themselves. It returns the endpoint as it is now, to be recorded; on an error, as from Reserve, nothing has changed.
func (b *Bridge) SetPorts(ep *Endpoint, ports []PortRequest) (*Endpoint, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.usable(); err != nil {
		return nil, err
	}
	h := b.endpoints[ep.ID]
	if h == nil || h.endpoint.Link == "" || h.endpoint.Link == pending {
		return nil, fault.New(fault.Conflict, "endpoint %s is not attached", short(ep.ID))
	}
	before := h.endpoint
	next := before
	gone := slices.Clone(before.Ports)
	next.Ports = nil
	var added []Port
	for _, r := range ports {
		if k := slices.IndexFunc(gone, r.fits); k >= 0 {
			next.Ports = append(next.Ports, gone[k])
			gone = slices.Delete(gone, k, k+1)
			continue
		}
		p, err := b.ports.reserve(r)
		if err != nil {
			return nil, errors.Join(err, b.ports.release(added))
		}
		added, next.Ports = append(added, p), append(next.Ports, p)
	}
	if err := b.swap(&before, added, gone); err != nil {
		return nil, errors.Join(err, b.ports.release(added))
	}
	h.endpoint, h.published = next, len(next.Ports) > 0
	if err := b.ports.release(gone); err != nil {
		b.warn(fmt.Sprintf("release ports of container %s: %v", short(ep.ContainerID), err))
	}
	b.forgetFlows(&Endpoint{ContainerID: ep.ContainerID, Address: next.Address, Ports: added})
	b.forgetOwnFlows(&next, gone)
	return &next, nil
}

// fits tells whether a port that is held is what r asks for.
func (r PortRequest) fits(p Port) bool {
	r, err := r.checked()
	if err != nil || r.HostIP != p.HostIP || r.Port != p.Port || r.Proto != p.Proto {
		return false
	}
	return r.HostPort == 0 || p.HostPort >= r.HostPort && p.HostPort <= max(r.HostPort, r.HostPortEnd)
}

// swap publishes added and withdraws gone in one step. The caller holds mu.
func (b *Bridge) swap(ep *Endpoint, added, gone []Port) error {
	part := func(ports []Port) ([]nft.Map, error) {
		e := *ep
		e.Ports = ports
		return e.elements()
	}
	put, err := part(added)
	if err != nil {
		return fault.Wrap(fault.Invalid, err)
	}
	take, err := part(gone)
	if err != nil {
		return err
	}
	if len(ep.Ports) == 0 && len(added) > 0 { // as connect does, for a container that asks its own published port
		link, err := b.host.Link(ep.Link)
		if err == nil {
			err = b.host.Apply(netlink.SetHairpin(link.Index))
		}
		if err != nil {
			return fmt.Errorf("publish ports of container %s: %w", short(ep.ContainerID), err)
		}
	}
	if len(put)+len(take) == 0 {
		return nil
	}
	return b.fw.Update(b.Table(), put, take)
}

// forgetOwnFlows ends the tracked UDP conversations over ports that ep no longer has.
func (b *Bridge) forgetOwnFlows(ep *Endpoint, gone []Port) {
	ports := map[uint16]bool{}
	for _, p := range gone {
		if p.Proto == "udp" {
			ports[p.HostPort] = true
		}
	}
	if len(ports) == 0 {
		return
	}
	own := ep.Address.Addr()
	b.background.Go(func() {
		err := netlink.ForgetFlows(func(f netlink.Flow) bool { return ports[f.Destination.Port()] && f.Server == own })
		if err != nil {
			b.warn(fmt.Sprintf("forget UDP conversations of container %s: %v", short(ep.ContainerID), err))
		}
	})
}
