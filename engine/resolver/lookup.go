package resolver

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"berth/container"
	"berth/engine/networks"
	"berth/fault"
	"berth/network/names"
)

// Lookup is who has a name, and how it was looked up for one container.
type Lookup struct {
	Name   string
	Owners []Owner      // all that are called so, whoever may see them
	Trace  *names.Trace `json:",omitempty"` // nil: for no container
}

// Owner is a container that has a name.
type Owner struct {
	Network   string
	Container string // its ID
	Name      string // and its own name
	As        string // "name", "alias", "id", "hostname"
	Addresses []netip.Addr
	Sees      bool // the one that asks is on that network
}

// Lookup tells who is called name, and looks it up as the container ref would; "": as nobody. kind is the type of records, "A" when empty.
// fault.Conflict: the container is served no names.
func (s *Service) Lookup(ctx context.Context, name, kind, ref string) (*Lookup, error) {
	var asks *container.Record
	if ref != "" {
		r, _, err := s.Find(ref)
		if err == nil && r.HostConfig.NetworkMode.IsContainer() { // it has the other's
			r, _, err = s.Find(r.HostConfig.NetworkMode.ConnectedContainer())
		}
		if err != nil {
			return nil, err
		}
		asks = r
	}
	if kind = strings.ToUpper(kind); kind == "" {
		kind = "A"
	}
	l := &Lookup{Name: name, Owners: s.owners(name, asks)}
	if asks == nil {
		return l, nil
	}
	t, err := s.Names.Trace(ctx, asks.ID, name, kind)
	if fault.Of(err) == fault.NotFound {
		return nil, fault.New(fault.Conflict, "container %s is served no names: it does not run, or is on no user-defined network", asks.Name)
	}
	l.Trace = t
	return l, err
}

// owners are all containers called name, alone or followed by the network's name, or that have that address.
func (s *Service) owners(name string, asks *container.Record) []Owner {
	list := []Owner{}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	address, _ := netip.ParseAddr(name)
	for _, m := range s.Networks.Members() {
		if m.Attachment == nil || !m.Record.State.Status.Alive() {
			continue
		}
		for _, e := range m.Attachment.Endpoints {
			o := Owner{Network: e.Network, Container: m.Record.ID, Name: m.Record.Name}
			for _, p := range []netip.Prefix{e.Address, e.Address6} {
				if p.IsValid() {
					o.Addresses = append(o.Addresses, p.Addr())
				}
			}
			own := strings.TrimSuffix(name, "."+strings.ToLower(e.Network))
			for _, called := range networks.Names(m.Record, e.Network) {
				if low := strings.ToLower(called); low == name || low == own {
					o.As = as(m.Record, called)
					break
				}
			}
			if address.IsValid() && slices.Contains(o.Addresses, address) && len(networks.Names(m.Record, e.Network)) > 0 {
				o.As = "address"
			}
			if o.As == "" {
				continue
			}
			if asks != nil {
				_, o.Sees = networks.Wishes(asks)[e.Network]
			}
			list = append(list, o)
		}
	}
	slices.SortFunc(list, func(a, b Owner) int {
		return strings.Compare(a.Network+"\x00"+a.Name, b.Network+"\x00"+b.Name)
	})
	return list
}

// as is what kind of a name a container has.
func as(r *container.Record, called string) string {
	switch called {
	case r.Name:
		return "name"
	case container.ShortID(r.ID):
		return "id"
	case r.Config.Hostname:
		return "hostname"
	}
	return "alias"
}
