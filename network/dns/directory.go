package dns

import (
	"net/netip"
	"slices"
	"strings"
	"sync"

	"berth/network/names"
)

// directory is who is called what on which network. Names are looked for in lower case (RFC 4343).
type directory struct {
	mu       sync.RWMutex
	members  map[string]*names.Member
	networks map[string]*network // by ID
}

// network is its places by their names and addresses.
type network struct {
	names     map[string][]*place
	addresses map[netip.Addr][]*place
}

// place is a container's on a network.
type place struct {
	id        string // the container's
	name      string // and its own name
	addresses []netip.Addr
	called    []string // lower case
}

func newDirectory() *directory {
	return &directory{members: map[string]*names.Member{}, networks: map[string]*network{}}
}

// put makes a member what it says now.
func (d *directory) put(m names.Member) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.forget(m.ID)
	m.Endpoints = slices.Clone(m.Endpoints)
	for k := range m.Endpoints {
		e := &m.Endpoints[k]
		links := map[string]string{}
		for alias, target := range e.Links {
			links[strings.ToLower(alias)] = target
		}
		e.Links = links
		if len(e.Names) == 0 {
			continue
		}
		n := d.networks[e.NetworkID]
		if n == nil {
			n = &network{names: map[string][]*place{}, addresses: map[netip.Addr][]*place{}}
			d.networks[e.NetworkID] = n
		}
		p := &place{id: m.ID, name: e.Names[0], addresses: e.Addresses}
		for _, name := range append([]string{m.ID}, e.Names...) { // a link may name it by its ID
			if name = strings.ToLower(name); !slices.Contains(p.called, name) {
				p.called = append(p.called, name)
				n.names[name] = append(n.names[name], p)
			}
		}
		for _, a := range e.Addresses {
			n.addresses[a] = append(n.addresses[a], p)
		}
	}
	d.members[m.ID] = &m
}

// drop forgets a member.
func (d *directory) drop(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.forget(id)
}

// forget is drop for who holds mu.
func (d *directory) forget(id string) {
	m := d.members[id]
	if m == nil {
		return
	}
	delete(d.members, id)
	other := func(p *place) bool { return p.id == id }
	for _, e := range m.Endpoints {
		n := d.networks[e.NetworkID]
		if n == nil {
			continue
		}
		for name, places := range mentions(n.names, append([]string{id}, e.Names...)) {
			if n.names[name] = slices.DeleteFunc(slices.Clone(places), other); len(n.names[name]) == 0 {
				delete(n.names, name)
			}
		}
		for _, a := range e.Addresses {
			if n.addresses[a] = slices.DeleteFunc(slices.Clone(n.addresses[a]), other); len(n.addresses[a]) == 0 {
				delete(n.addresses, a)
			}
		}
		if len(n.names) == 0 {
			delete(d.networks, e.NetworkID)
		}
	}
}

func mentions(all map[string][]*place, called []string) map[string][]*place {
	some := map[string][]*place{}
	for _, name := range called {
		name = strings.ToLower(name)
		some[name] = all[name]
	}
	return some
}

// member is what is known of a container; nil: nothing.
func (d *directory) member(id string) *names.Member {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.members[id]
}

// ofHost are the names of the machine that containers run on, as desktops' engines have them too.
var ofHost = []string{"host.docker.internal", "gateway.docker.internal"}

// find looks a name up for m, as any family of addresses: the first network on which somebody has it and an address of
// the family six asks for. A name may be followed by that of the network. known: somebody has the name, maybe
// without such an address. note hears of each place that was asked; nil: nobody does.
func (d *directory) find(m *names.Member, name string, six bool, note func(names.Step)) (found []netip.Addr, known bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	for own, on := name, ""; ; {
		for _, linked := range []bool{true, false} {
			got, there := d.findOn(m, own, on, linked, six, note)
			if len(got) > 0 {
				return got, true
			}
			if there {
				return nil, true
			}
		}
		k := strings.LastIndexByte(own, '.')
		if k < 0 {
			break
		}
		own, on = name[:k], name[k+1:]
	}
	if slices.Contains(ofHost, name) && len(m.Gateways) > 0 {
		found = only(m.Gateways, six)
		tell(note, names.Step{Asked: name, Result: "the host, at the gateway's address"})
		return found, true
	}
	return nil, false
}

// findOn looks in one way: on the networks called on ("": all), by links or by names.
func (d *directory) findOn(m *names.Member, name, on string, linked, six bool, note func(names.Step)) (found []netip.Addr, known bool) {
	for k := range m.Endpoints {
		e := &m.Endpoints[k]
		target, isLink := e.Links[name]
		if on != "" && !strings.EqualFold(on, e.Network) || isLink != linked {
			continue
		}
		result := "has it"
		if !linked {
			target = name
		} else {
			target, result = strings.ToLower(target), "has it, by a link to "+target
		}
		n := d.networks[e.NetworkID]
		if n == nil || len(n.names[target]) == 0 {
			tell(note, names.Step{Network: e.Network, Asked: name, Result: "nobody has that name"})
			continue
		}
		known = true
		step := names.Step{Network: e.Network, Asked: name, Result: result}
		for _, p := range n.names[target] {
			step.Found = append(step.Found, p.id)
			for _, a := range only(p.addresses, six) {
				if !slices.Contains(found, a) {
					found = append(found, a)
				}
			}
		}
		if len(found) == 0 {
			step.Result += ", without an address of this family"
		}
		tell(note, step)
		if len(found) > 0 {
			return found, true
		}
	}
	return nil, known
}

func tell(note func(names.Step), s names.Step) {
	if note != nil {
		note(s)
	}
}

// only are the addresses of one family.
func only(all []netip.Addr, six bool) (some []netip.Addr) {
	for _, a := range all {
		if a.Is6() == six {
			some = append(some, a)
		}
	}
	return some
}

// called is the name of who has an address on a network of m, followed by the network's; "": nobody.
func (d *directory) called(m *names.Member, a netip.Addr) (name, network string) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	for _, e := range m.Endpoints {
		if n := d.networks[e.NetworkID]; n != nil && len(n.addresses[a]) > 0 {
			return n.addresses[a][0].name + "." + e.Network, e.Network
		}
	}
	return "", ""
}
