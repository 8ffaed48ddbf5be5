package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"berth/fault"
	"berth/kernel/namespace"
	"berth/kernel/netlink"
	"berth/kernel/nft"
)

// View is a network namespace as the kernel has it now.
type View struct {
	Links    []ViewLink
	Routes   []ViewRoute
	Firewall []ViewEntry // what leads to its addresses
}

// ViewLink is a link with its addresses, and the other end of its wire.
type ViewLink struct {
	Index     int
	Name      string
	Kind      string // "veth", …; "device" for hardware and lo
	MAC       string
	MTU       int // bytes
	Up        bool
	Addresses []netip.Prefix
	Peer      string // link of the caller's namespace that is a veth's other end; "" when it isn't there
	PeerIndex int
	Bridge    string // that the peer is a port of
}

// ViewRoute is a route of any table but the local one.
type ViewRoute struct {
	To      netip.Prefix
	Gateway netip.Addr // zero: on the link
	Link    string
	Metric  int
}

// ViewEntry is an element of one of our maps in the caller's packet filter.
type ViewEntry struct{ Table, Map, Text string }

// Look describes the network namespace ns, which stays the caller's.
func Look(ns *os.File) (*View, error) {
	v := &View{}
	var addresses []netlink.Address
	var links []netlink.Link
	var routes []netlink.Route
	err := namespace.Do(ns, func() (err error) {
		var more [2]error
		links, err = netlink.Links()
		addresses, more[0] = netlink.Addresses()
		routes, more[1] = netlink.Routes()
		return errors.Join(err, more[0], more[1])
	})
	if err != nil {
		return nil, fmt.Errorf("look into network namespace %s: %w", ns.Name(), err)
	}
	ours, err := netlink.Links()
	if err != nil {
		return nil, err
	}
	byIndex := map[int]netlink.Link{}
	for _, l := range ours {
		byIndex[l.Index] = l
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Index] = l.Name
		one := ViewLink{Index: l.Index, Name: l.Name, Kind: l.Kind, MAC: l.MAC.String(), MTU: l.MTU, Up: l.Up}
		for _, a := range addresses {
			if a.Link == l.Index {
				one.Addresses = append(one.Addresses, a.Prefix)
			}
		}
		// The number may mean a link of any namespace: it is ours when it names this one in turn.
		if peer, ok := byIndex[l.Peer]; ok && l.Kind == "veth" && peer.Kind == "veth" && peer.Peer == l.Index {
			one.Peer, one.PeerIndex, one.Bridge = peer.Name, peer.Index, byIndex[peer.Master].Name
		}
		v.Links = append(v.Links, one)
	}
	for _, r := range routes {
		v.Routes = append(v.Routes, ViewRoute{r.To, r.Gateway, names[r.Link], r.Metric})
	}
	v.Firewall, err = entriesFor(v.Links)
	return v, err
}

// entriesFor asks the packet filter what leads to the links' addresses.
func entriesFor(links []ViewLink) (all []ViewEntry, err error) {
	fw, err := nft.Open()
	if err != nil {
		return nil, err
	}
	defer fault.Close(fw, &err)
	for _, l := range links {
		for _, a := range l.Addresses {
			if a.Addr().IsLoopback() || a.Addr().IsLinkLocalUnicast() {
				continue
			}
			found, err := fw.LeadingTo(tablePrefix, a.Addr())
			if err != nil {
				return nil, err
			}
			for _, e := range found {
				all = append(all, ViewEntry(e))
			}
		}
	}
	return all, nil
}

// tablePrefix begins the names of all our tables (see Config.table).
const tablePrefix = "berth"
