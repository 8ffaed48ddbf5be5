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
	c := &portChange{before: h.endpoint, gone: slices.Clone(h.endpoint.Ports), now: make([]Port, len(ports))}
	if err := c.plan(b.ports, ports); err != nil {
		return nil, errors.Join(err, b.ports.release(c.held))
	}
	if err := b.swap(&c.before, c.added, append(c.gone, c.moved...)); err != nil {
		return nil, errors.Join(err, b.ports.release(c.held))
	}
	next := c.before
	next.Ports = c.now
	h.endpoint, h.published = next, len(next.Ports) > 0
	if err := b.ports.release(c.gone); err != nil {
		b.warn(fmt.Sprintf("release ports of container %s: %v", short(ep.ContainerID), err))
	}
	b.forgetFlows(&Endpoint{ContainerID: ep.ContainerID, Address: next.Address, Ports: c.added})
	b.forgetOwnFlows(&next, append(c.gone, c.moved...))
	return &next, nil
}

// portChange sorts an endpoint's ports into what stays, comes and goes.
type portChange struct {
	before Endpoint
	now    []Port // in the order in which they were asked for
	added  []Port // to be published
	held   []Port // those of added that were not ours before
	moved  []Port // to be withdrawn: the host's port leads to another one of the container
	gone   []Port // to be withdrawn and released
}

// plan keeps what fits, moves what only leads elsewhere, and reserves the rest.
func (c *portChange) plan(t *portTable, ports []PortRequest) error {
	var open []int
	for n, r := range ports {
		if k := slices.IndexFunc(c.gone, r.fits); k >= 0 {
			c.now[n] = c.gone[k]
			c.gone = slices.Delete(c.gone, k, k+1)
		} else {
			open = append(open, n)
		}
	}
	for _, n := range open {
		r, err := ports[n].checked()
		if err != nil {
			return err
		}
		k := slices.IndexFunc(c.gone, func(p Port) bool {
			return r.HostPort != 0 && r.HostIP == p.HostIP && r.Proto == p.Proto && p.HostPort >= r.HostPort && p.HostPort <= max(r.HostPort, r.HostPortEnd)
		})
		if k >= 0 {
			p := c.gone[k]
			c.moved, c.gone = append(c.moved, p), slices.Delete(c.gone, k, k+1)
			p.Port = r.Port
			c.now[n], c.added = p, append(c.added, p)
			continue
		}
		p, err := t.reserve(r)
		if err != nil {
			return err
		}
		c.now[n], c.added, c.held = p, append(c.added, p), append(c.held, p)
	}
	return nil
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
