package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"

	"berth/fault"
	"berth/kernel/netlink"
	"berth/kernel/nft"
)

// Connect puts a container that runs on a further network. ns is its network namespace, which stays the caller's. Where the new network is the
// better way out, default routes and published ports move there. It returns the attachment as it is now, to be recorded; on an error nothing has changed.
// fault.Conflict: it is on that network.
func (h *Host) Connect(ctx context.Context, a *Attachment, j Join, ns *os.File) (_ *Attachment, err error) {
	if err := h.departed.await(ctx, j.Address, j.Address6); err != nil {
		return nil, err
	}
	next, n, held, err := h.reserveMore(a, j)
	if err != nil {
		return nil, fmt.Errorf("connect container %s: %w", short(a.ContainerID), err)
	}
	in, err := insideOf(ns)
	if err == nil {
		defer fault.Close(in.conn, &err)
		err = join(ctx, h, n, in, a, next)
	}
	if err != nil {
		h.mu.Lock()
		h.freeAddresses(next.On(n.ID))
		err = errors.Join(err, h.ports.release(held))
		h.mu.Unlock()
		return nil, fmt.Errorf("connect container %s to network %s: %w", short(a.ContainerID), n.Name, err)
	}
	return next, nil
}

// reserveMore is a with one endpoint more, whose addresses are taken, and with the ports that this gives a way out; those that
// were not held before are held.
func (h *Host) reserveMore(a *Attachment, j Join) (_ *Attachment, _ *network, more []Port, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	held, err := h.wiredOne(a)
	if err != nil {
		return nil, nil, nil, err
	}
	next := held.attachment.clone()
	if next.On(j.Network) != nil {
		return nil, nil, nil, fault.New(fault.Conflict, "it is on network %s already", next.On(j.Network).Network)
	}
	e, err := reserveOne(h, j, &next)
	if err != nil {
		return nil, nil, nil, err
	}
	next.Endpoints = append(next.Endpoints, e)
	next.arrange()
	c := &portChange{gone: slices.Clone(next.Ports)}
	wanted, err := groups(h, &next, next.Wanted)
	if err == nil {
		err = c.plan(h.ports, wanted)
	}
	if err != nil {
		h.freeAddresses(&e)
		return nil, nil, nil, errors.Join(err, h.ports.release(c.held))
	}
	next.Ports = append(slices.Concat(c.now...), c.gone...)
	return &next, h.networks[j.Network], c.held, nil
}

// join wires the new endpoint of next, and lets routes and ports follow.
func join(ctx context.Context, h *Host, n *network, in *inside, a, next *Attachment) error {
	e := next.On(n.ID)
	mac, err := net.ParseMAC(e.MAC)
	if err != nil {
		return fault.Wrap(fault.Invalid, err)
	}
	how := wiring{mac: mac, hairpin: len(next.Ports) > 0}
	err = n.driver.plug(ctx, h, n, in, e, how)
	if errors.Is(err, fs.ErrExist) && in.unplugStale(e) {
		err = n.driver.plug(ctx, h, n, in, e, how)
	}
	if errors.Is(err, fs.ErrExist) {
		return err // somebody else's link, which stays
	}
	if err != nil {
		return errors.Join(err, in.unplug(e))
	}
	if err := in.reroute(a, next); err != nil {
		return errors.Join(err, in.reroute(next, a), in.unplug(e))
	}
	if err := h.follow(a, next); err != nil {
		return errors.Join(err, in.reroute(next, a), in.unplug(e))
	}
	return nil
}

// follow makes next what is held of the attachment, and its ports lead to where it is reached now.
func (h *Host) follow(a, next *Attachment) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	held, err := h.wiredOne(a)
	if err != nil {
		return err
	}
	var changes []nft.Change
	if held.published {
		if changes, err = h.wall.changes(a, a.Ports, nil); err != nil {
			return err
		}
	}
	added, err := h.wall.changes(next, nil, next.Ports)
	if err != nil {
		return err
	}
	if changes = append(changes, added...); len(changes) > 0 {
		if err := h.updateHeld(changes...); err != nil {
			return err
		}
	}
	held.attachment, held.published = next.clone(), len(next.Ports) > 0
	return nil
}

// Disconnect takes a container that runs off a network. It returns the attachment as it is now, to be recorded.
// fault.NotFound: it is not on that network.
func (h *Host) Disconnect(ctx context.Context, a *Attachment, networkID string, ns *os.File) (_ *Attachment, err error) {
	h.mu.Lock()
	held, err := h.wiredOne(a)
	var before Attachment
	if err == nil {
		before = held.attachment.clone()
	}
	h.mu.Unlock()
	if err != nil {
		return nil, err
	}
	e := before.On(networkID)
	if e == nil {
		return nil, fault.New(fault.NotFound, "container %s is not connected to network %s", short(a.ContainerID), networkID)
	}
	next := before.clone()
	next.Endpoints = slices.DeleteFunc(next.Endpoints, func(x Endpoint) bool { return x.NetworkID == networkID })
	in, err := insideOf(ns)
	if err != nil {
		return nil, err
	}
	defer fault.Close(in.conn, &err)
	// The link goes first, and its routes with it: another may then be the way.
	if err := in.unplug(e); err != nil {
		return nil, fmt.Errorf("disconnect container %s from network %s: %w", short(a.ContainerID), e.Network, err)
	}
	err = errors.Join(in.rerouteFrom(before.Way(false), before.Way(true), &next, networkID), h.follow(&before, &next))
	h.mu.Lock()
	h.freeAddresses(e)
	h.mu.Unlock()
	return &next, err
}

// unplug removes an endpoint's link, from whichever end it can be had; none is fine.
func (in *inside) unplug(e *Endpoint) error {
	link, err := in.conn.Link(e.Interface)
	if err == nil {
		err = in.conn.Apply(netlink.Delete(link.Index))
	}
	if errors.Is(err, netlink.ErrNoLink) {
		return nil
	}
	return err
}

// unplugStale removes a link of that name which was ours: of an engine that died before it had noted it. False: there is none.
func (in *inside) unplugStale(e *Endpoint) bool {
	link, err := in.conn.Link(e.Interface)
	if err != nil {
		return false
	}
	ours := link.Kind == "macvlan" || link.Kind == "ipvlan"
	if link.Kind == "veth" {
		links, err := netlink.Links()
		ours = err == nil && slices.ContainsFunc(links, func(l netlink.Link) bool {
			return l.Index == link.Peer && l.Peer == link.Index && strings.HasPrefix(l.Name, linkPrefix)
		})
	}
	return ours && in.unplug(e) == nil
}

// reroute changes the default routes from those of a to those of next.
func (in *inside) reroute(a, next *Attachment) error {
	return in.rerouteFrom(a.Way(false), a.Way(true), next, "")
}

// rerouteFrom does it; the routes over the network called gone have gone with its link.
func (in *inside) rerouteFrom(old4, old6 *Endpoint, next *Attachment, gone string) error {
	var changes []netlink.Change
	for k, old := range []*Endpoint{old4, old6} {
		now := next.Way(k == 1)
		if old != nil && now != nil && old.NetworkID == now.NetworkID || old == nil && now == nil {
			continue
		}
		var way [2]bool
		way[k] = true
		if old != nil && old.NetworkID != gone {
			link, err := in.conn.Link(old.Interface)
			if err != nil {
				return err
			}
			changes = append(changes, old.routes(link.Index, way, false)...)
		}
		if now != nil {
			link, err := in.conn.Link(now.Interface)
			if err != nil {
				return err
			}
			changes = append(changes, now.routes(link.Index, way, true)...)
		}
	}
	for _, c := range changes {
		// An engine that died in the middle of this may have done a part of it, and its link's end takes routes along.
		if err := in.conn.Apply(c); err != nil && !errors.Is(err, netlink.ErrNoRoute) && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}
