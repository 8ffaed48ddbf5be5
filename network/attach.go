package network

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"

	"berth/fault"
	"berth/kernel/namespace"
	"berth/kernel/netlink"
	"berth/network/ipam"
)

// aliasOf marks the host's end of a container's link, for people who read ip link and for Restore.
func aliasOf(e *Endpoint) string { return "berth endpoint " + e.ID }

func short(id string) string { return id[:min(12, len(id))] }

// Reserve decides a container's addresses and host ports and holds them until
// Release. A port that another container has: fault.Conflict
// "Bind for 0.0.0.0:8080 failed: port is already allocated"; one that another program
// has: fault.Conflict "failed to bind host port 0.0.0.0:8080/tcp: address already in use".
// No address left: fault.Unavailable; one asked for that is taken: fault.Conflict; no such network: fault.NotFound.
func (h *Host) Reserve(containerID string, joins []Join, ports []PortRequest) (_ *Attachment, err error) {
	for _, j := range joins { // a container that is started again wants its address back, which its last life may hold yet
		if err := h.departed.await(context.Background(), j.Address, j.Address6); err != nil {
			return nil, err
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.usable(); err != nil {
		return nil, err
	}
	a := Attachment{ID: randomHex(32), ContainerID: containerID, Wanted: ports}
	defer func() {
		if err != nil {
			for k := range a.Endpoints {
				h.freeAddresses(&a.Endpoints[k])
			}
		}
	}()
	for _, j := range joins {
		if a.On(j.Network) != nil {
			continue
		}
		e, err := reserveOne(h, j, &a)
		if err != nil {
			return nil, err
		}
		a.Endpoints = append(a.Endpoints, e)
	}
	a.arrange()
	if a.Ports, err = h.reservePorts(&a, ports); err != nil {
		return nil, err
	}
	h.attached[a.ID] = &held{attachment: a.clone()}
	given := a.clone()
	return &given, nil
}

func (a *Attachment) clone() Attachment {
	c := *a
	c.Endpoints, c.Ports = slices.Clone(a.Endpoints), slices.Clone(a.Ports)
	return c
}

// arrange orders the endpoints and names the links that have no name yet.
func (a *Attachment) arrange() {
	slices.SortStableFunc(a.Endpoints, func(x, y Endpoint) int { return cmp.Compare(x.Network, y.Network) })
	for k := range a.Endpoints {
		e := &a.Endpoints[k]
		prefix, open := cutStar(e.Interface)
		if !open {
			continue
		}
		for n := 0; ; n++ {
			name := prefix + strconv.Itoa(n)
			if !slices.ContainsFunc(a.Endpoints, func(x Endpoint) bool { return x.Interface == name }) {
				e.Interface = name
				break
			}
		}
	}
}

// cutStar reads a link's name that is yet to get its number.
func cutStar(name string) (prefix string, open bool) {
	if k := len(name) - 1; k >= 0 && name[k] == '*' {
		return name[:k], true
	}
	return name, false
}

// reserveOne takes the addresses of one endpoint. The caller holds mu.
func reserveOne(h *Host, j Join, a *Attachment) (e Endpoint, err error) {
	n := h.networks[j.Network]
	switch {
	case n == nil:
		return e, fault.New(fault.NotFound, "network %s not found", j.Network)
	case n.ConfigOnly:
		return e, fault.New(fault.Denied, "network %s only holds settings for other networks, and containers can't be on it", n.Name)
	case n.broken != nil:
		return e, fault.New(fault.Unavailable, "network %s can't be used: %w", n.Name, n.broken)
	}
	e = Endpoint{ID: randomHex(32), NetworkID: n.ID, Network: n.Name, Interface: j.Interface, Priority: j.Priority, MAC: j.MAC,
		Gateway: n.gateway(0), Gateway6: n.gateway(1), Sysctls: j.Sysctls}
	if j.NoIPv6 {
		e.Gateway6 = netip.Addr{}
	}
	if e.Interface == "" {
		e.Interface = n.options.prefix + "*"
	} else if !goodLink(e.Interface) || slices.ContainsFunc(a.Endpoints, func(x Endpoint) bool { return x.Interface == e.Interface }) {
		return e, fault.New(fault.Invalid, "network %s: %q can't be the name of the container's link: at most %d bytes, no slash and no blank, and once in a container", n.Name, e.Interface, netlink.NameLimit)
	}
	if e.Address, err = n.takeAddress(0, j.Address); err != nil {
		return e, fmt.Errorf("network %s: %w", n.Name, err)
	}
	if !j.NoIPv6 {
		if e.Address6, err = n.takeAddress(1, j.Address6); err != nil {
			n.freeAddress(e.Address)
			return e, fmt.Errorf("network %s: %w", n.Name, err)
		}
	}
	for _, l := range j.LinkLocal {
		if j.NoIPv6 && l.Is6() {
			continue
		}
		bits := 16
		if l.Is6() {
			bits = 64
		}
		e.LinkLocal = append(e.LinkLocal, netip.PrefixFrom(l, bits))
	}
	switch {
	case e.MAC != "":
		if _, err := net.ParseMAC(e.MAC); err != nil {
			h.freeAddresses(&e)
			return e, fault.New(fault.Invalid, "invalid MAC address %q: %w", e.MAC, err)
		}
	case e.Address.IsValid():
		e.MAC = macOf(e.Address.Addr()).String()
	default:
		e.MAC = randomMAC()
	}
	return e, nil
}

// randomMAC is a locally administered address, for an endpoint that has no IPv4 address to make it of.
func randomMAC() string { return "02:42:" + colons(randomHex(4)) }

func colons(digits string) string {
	out := ""
	for len(digits) > 2 {
		out, digits = out+digits[:2]+":", digits[2:]
	}
	return out + digits
}

// takeAddress takes the address wanted of a family, or any; the zero prefix when the network has none of that family.
func (n *network) takeAddress(k int, want netip.Addr) (netip.Prefix, error) {
	var some *ipam.Ledger
	for _, l := range n.ledgers {
		if family(l.Subnet().Addr()) != k {
			continue
		}
		if some = l; !want.IsValid() || l.Subnet().Contains(want) {
			break
		}
	}
	switch {
	case some == nil && want.IsValid():
		return netip.Prefix{}, fault.New(fault.Invalid, "invalid endpoint settings: no configured subnet or ip-range contain the IP address %s", want)
	case some == nil:
		return netip.Prefix{}, nil
	case want.IsValid() && !some.Subnet().Contains(want):
		return netip.Prefix{}, fault.New(fault.Invalid, "invalid endpoint settings: no configured subnet contains IP address %s", want)
	case want.IsValid():
		return netip.PrefixFrom(want, some.Subnet().Bits()), some.Take(want)
	}
	got, err := some.Next()
	return netip.PrefixFrom(got, some.Subnet().Bits()), err
}

func (n *network) freeAddress(p netip.Prefix) {
	for _, l := range n.ledgers {
		if l.Subnet().Contains(p.Addr()) {
			l.Free(p.Addr())
		}
	}
}

// freeAddresses gives an endpoint's addresses back. The caller holds mu.
func (h *Host) freeAddresses(e *Endpoint) {
	n := h.networks[e.NetworkID]
	if n == nil {
		return
	}
	for _, p := range []netip.Prefix{e.Address, e.Address6} {
		if p.IsValid() {
			n.freeAddress(p)
		}
	}
}

// Attach hands out a network namespace that is wired as a says and
// publishes its ports. It sets the endpoints' links. The caller closes the file; the links die
// with the namespace. A bridge that has its 1,023 ports: fault.Unavailable.
func (h *Host) Attach(ctx context.Context, a *Attachment) (netns *os.File, err error) {
	netns, connect, err := h.Take(a, Owner{})
	if err != nil {
		return nil, err
	}
	if err := connect(ctx); err != nil {
		return nil, errors.Join(err, netns.Close())
	}
	return netns, nil
}

// Take is Attach in two parts, so that what takes long can be done while something else is made in the namespace:
// it is handed out at once, and connect, which has to be called once, does the rest. a may be recorded before, and what connect adds
// to it is found again by Restore. Whatever connect returns, the caller closes the file.
func (h *Host) Take(a *Attachment, owner Owner) (netns *os.File, connect func(context.Context) error, err error) {
	failed := func(err error) error {
		return fmt.Errorf("attach container %s to its networks: %w", short(a.ContainerID), err)
	}
	plan, err := h.begin(a)
	if err != nil {
		return nil, nil, failed(err)
	}
	w, err := h.pool.take(owner, plan.wired())
	if err != nil {
		h.pool.more()
		return nil, nil, failed(errors.Join(err, h.abandon(a)))
	}
	if w.wire != nil {
		a.Endpoints[plan.first].Link = w.wire.link
	}
	attached := a.clone() // the caller may go on with its own
	return w.ns, func(ctx context.Context) error {
		defer h.pool.more()
		if err := h.finish(ctx, w, &attached, plan); err != nil {
			return failed(err)
		}
		return nil
	}, nil
}

// plugs is how an attachment is wired: its networks, in the order of the endpoints.
type plugs struct {
	networks []*network
	first    int // the endpoint that gets the pool's veth; -1: none
}

func (p plugs) wired() bool { return p.first >= 0 }

// begin checks that a is reserved and not wired.
func (h *Host) begin(a *Attachment) (p plugs, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.usable(); err != nil {
		return p, err
	}
	held := h.attached[a.ID]
	if held == nil {
		return p, fault.New(fault.NotFound, "attachment %s is not reserved", short(a.ID))
	}
	if held.wired {
		return p, fault.New(fault.Conflict, "attachment %s is wired already", short(a.ID))
	}
	p.first = -1
	for k, e := range a.Endpoints {
		n := h.networks[e.NetworkID]
		if n == nil {
			return p, fault.New(fault.NotFound, "network %s not found", e.Network)
		}
		p.networks = append(p.networks, n)
		if p.first < 0 && n.driver.forwards && e.Interface == readyName {
			p.first = k
		}
	}
	held.wired = true
	return p, nil
}

// abandon takes back what a failed Take began; the reservation stays.
func (h *Host) abandon(a *Attachment) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	held := h.attached[a.ID]
	if held == nil {
		return nil
	}
	held.wired = false
	if !held.published {
		return nil
	}
	held.published = false
	return h.wall.unpublish(&held.attachment, held.attachment.Ports)
}

// finish wires a namespace that was handed out, and publishes the ports.
func (h *Host) finish(ctx context.Context, w *wired, a *Attachment, p plugs) error {
	err := plugAll(h, ctx, w, a, p)
	if err == nil && len(a.Ports) > 0 {
		if err = h.publish(a, a.Ports); err == nil {
			h.Firewalls().noteStart(a)
		}
	}
	if err != nil {
		return errors.Join(err, w.drop(), h.abandon(a))
	}
	if !h.settle(a, w.spare) {
		return errors.Join(fault.New(fault.NotFound, "released meanwhile"), w.drop())
	}
	if err := w.conn.Close(); err != nil {
		h.warn(fmt.Sprintf("attach container %s: %v", short(a.ContainerID), err))
	}
	forgetFlows(h, a, a.Ports)
	return nil
}

func plugAll(h *Host, ctx context.Context, w *wired, a *Attachment, p plugs) error {
	ways := [2]*Endpoint{a.Way(false), a.Way(true)}
	for k, n := range p.networks {
		if err := ctx.Err(); err != nil {
			return err
		}
		e := &a.Endpoints[k]
		mac, err := net.ParseMAC(e.MAC)
		if err != nil {
			return fault.Wrap(fault.Invalid, err)
		}
		how := wiring{mac: mac, hairpin: len(a.Ports) > 0, way: [2]bool{ways[0] == e, ways[1] == e}}
		if k == p.first {
			how.ready = w.wire
		}
		if err := n.driver.plug(ctx, h, n, &w.inside, e, how); err != nil {
			return err
		}
	}
	return nil
}

// settle notes what finish made; false when the attachment was released meanwhile, and then its elements are taken back.
func (h *Host) settle(a *Attachment, ns *os.File) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	held := h.attached[a.ID]
	if held == nil || h.closed {
		if err := h.wall.unpublish(a, a.Ports); err != nil {
			h.warn(fmt.Sprintf("release container %s: %v", short(a.ContainerID), err))
		}
		return false
	}
	held.attachment, held.ns, held.published = a.clone(), ns, len(a.Ports) > 0
	return true
}

// Release takes ports and addresses back. It is idempotent and does not wait
// for the links' deletion. Call it when the container's processes are gone.
func (h *Host) Release(a *Attachment) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	held := h.attached[a.ID]
	if held == nil || h.closed {
		return nil
	}
	own := held.attachment
	if held.published {
		if err := h.wall.unpublish(&own, own.Ports); err != nil {
			return fmt.Errorf("release container %s from its networks: %w", short(a.ContainerID), err)
		}
	}
	delete(h.attached, a.ID)
	gone := &departed{ns: held.ns, free: func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		for k := range own.Endpoints {
			h.freeAddresses(&own.Endpoints[k])
		}
	}}
	for _, e := range own.Endpoints {
		if e.Link != "" {
			gone.links = append(gone.links, e.Link)
		}
		gone.addresses = append(gone.addresses, e.Address.Addr(), e.Address6.Addr())
	}
	gone.flows = slices.ContainsFunc(own.Ports, func(p Port) bool { return p.Proto == "udp" })
	h.departed.add(gone)
	return h.ports.release(own.Ports)
}

// Loopback hands out a network namespace with only lo, which is up; for --network none. The caller closes it.
func (h *Host) Loopback(owner Owner) (*os.File, error) { return h.pool.takePlain(owner) }

// insideOf opens a socket in a namespace that is in use. The caller closes the socket.
func insideOf(ns *os.File) (in *inside, err error) {
	in = &inside{ns: ns}
	err = namespace.Do(ns, func() (err error) {
		in.conn, err = netlink.Open()
		return err
	})
	return in, err
}
