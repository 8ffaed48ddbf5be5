package network

import (
	"errors"
	"fmt"
	"slices"

	"berth/fault"
	"berth/kernel/netlink"
)

// SetPorts makes ports the published ones of an attachment that is wired, at once: those that stay are never interrupted, connections that
// go on over one that is withdrawn end with themselves. It returns the attachment as it is now, to be recorded; on an error, as from Reserve, nothing has changed.
func (h *Host) SetPorts(a *Attachment, ports []PortRequest) (*Attachment, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	held, err := h.wiredOne(a)
	if err != nil {
		return nil, err
	}
	groups, err := groups(h, a, ports)
	if err != nil {
		return nil, err
	}
	before := held.attachment
	c := &portChange{gone: slices.Clone(before.Ports)}
	if err := c.plan(h.ports, groups); err != nil {
		return nil, errors.Join(err, h.ports.release(c.held))
	}
	if err := swap(h, &before, c); err != nil {
		return nil, errors.Join(err, h.ports.release(c.held))
	}
	next := before.clone()
	next.Ports, next.Wanted = slices.Concat(c.now...), ports
	held.attachment, held.published = next.clone(), len(next.Ports) > 0
	if err := h.ports.release(c.gone); err != nil {
		h.warn(fmt.Sprintf("release ports of container %s: %v", short(a.ContainerID), err))
	}
	forgetFlows(h, &next, c.added)
	forgetOwnFlows(h, &next, append(c.gone, c.moved...))
	return &next, nil
}

// wiredOne finds an attachment that is wired. The caller holds mu.
func (h *Host) wiredOne(a *Attachment) (*held, error) {
	if err := h.usable(); err != nil {
		return nil, err
	}
	held := h.attached[a.ID]
	if held == nil || !held.wired {
		return nil, fault.New(fault.Conflict, "attachment %s is not wired", short(a.ID))
	}
	return held, nil
}

// portChange sorts an attachment's ports into what stays, comes and goes.
type portChange struct {
	now   [][]Port // in the order in which they were asked for
	added []Port   // to be published
	held  []Port   // those of added that were not ours before
	moved []Port   // to be withdrawn: the host's port leads to another one of the container
	gone  []Port   // to be withdrawn and released
}

// plan keeps what fits, moves what only leads elsewhere, and reserves the rest.
func (c *portChange) plan(t *portTable, groups []portGroup) error {
	c.now = make([][]Port, len(groups))
	var open []int
	for n, g := range groups {
		if kept := c.take(g, true); kept != nil {
			c.now[n] = kept
		} else {
			open = append(open, n)
		}
	}
	for _, n := range open {
		g := groups[n]
		if had := c.take(g, false); had != nil {
			c.moved = append(c.moved, had...)
			for k := range had {
				had[k].Port = g[0].Port
			}
			c.now[n], c.added = had, append(c.added, had...)
			continue
		}
		got, err := t.reserve(g)
		if err != nil {
			return err
		}
		c.now[n], c.added, c.held = got, append(c.added, got...), append(c.held, got...)
	}
	return nil
}

// take moves the ports that are what g asks for out of those that go; with same, they lead to g's port already. nil: there are none.
func (c *portChange) take(g portGroup, same bool) []Port {
	for _, first := range c.gone {
		var found []Port
		for _, r := range g {
			k := slices.IndexFunc(c.gone, func(p Port) bool { return p.HostPort == first.HostPort && r.fits(p, same) })
			if k >= 0 {
				found = append(found, c.gone[k])
			}
		}
		if len(found) == len(g) {
			c.gone = slices.DeleteFunc(c.gone, func(p Port) bool { return slices.Contains(found, p) })
			return found
		}
	}
	return nil
}

// fits tells whether a port that is held is on the host what r asks for; with same, in the container, too.
func (r portWish) fits(p Port, same bool) bool {
	if r.direct != p.Direct || r.Proto != p.Proto || (same || r.direct) && r.Port != p.Port {
		return false
	}
	if r.direct {
		return unspecified(r.HostIP) == p.HostIP
	}
	return r.HostIP == p.HostIP && (r.HostPort == 0 && same || r.HostPort != 0 && p.HostPort >= r.HostPort && p.HostPort <= max(r.HostPort, r.HostPortEnd))
}

// swap publishes and withdraws in one step. The caller holds mu.
func swap(h *Host, a *Attachment, c *portChange) error {
	changes, err := h.wall.changes(a, append(slices.Clone(c.gone), c.moved...), c.added)
	if err != nil {
		return err
	}
	if len(a.Ports) == 0 && len(c.added) > 0 { // as at the start, for a container that asks its own published port
		for _, e := range a.Endpoints {
			if e.Link == "" {
				continue
			}
			link, err := h.links.Link(e.Link)
			if err == nil {
				err = h.links.Apply(netlink.SetHairpin(link.Index))
			}
			if err != nil {
				return fmt.Errorf("publish ports of container %s: %w", short(a.ContainerID), err)
			}
		}
	}
	if len(changes) == 0 {
		return nil
	}
	return h.updateHeld(changes...)
}
