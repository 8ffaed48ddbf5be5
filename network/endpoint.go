package network

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"berth/fault"
	"berth/kernel/netlink"
	"berth/kernel/nft"
)

// aliasOf marks the host's end of a container's link, for people who read ip link and for Restore.
func aliasOf(ep *Endpoint) string { return "berth container " + ep.ContainerID + " " + ep.ID }

// pending stands for the link of an endpoint that Attach works on.
const pending = "?"

// usable tells why endpoints can't be handled. The caller holds mu.
func (b *Bridge) usable() error {
	switch {
	case b.cfg.Bridge == noBridge:
		return fault.New(fault.Invalid, "the bridge network is switched off (--bridge none); use --network none or host")
	case b.closed:
		return fault.New(fault.Unavailable, "network bridge %s: closed", b.cfg.Bridge)
	case !b.restored:
		return fault.New(fault.Unavailable, "network bridge %s: not restored yet", b.cfg.Bridge)
	}
	return nil
}

// Reserve decides an endpoint's address and host ports and holds them until
// Release. A port that another container has: fault.Conflict
// "Bind for 0.0.0.0:8080 failed: port is already allocated"; one that another program
// has: fault.Conflict "failed to bind host port 0.0.0.0:8080/tcp: address already in use".
// No address left: fault.Unavailable.
func (b *Bridge) Reserve(containerID string, ports []PortRequest) (*Endpoint, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.usable(); err != nil {
		return nil, err
	}
	ep := Endpoint{ID: randomHex(32), NetworkID: b.state.ID, ContainerID: containerID, Gateway: b.state.Subnet.Addr()}
	// Who says which port goes first: another of the same container may take any.
	choosy := slices.SortedStableFunc(slices.Values(ports), func(a, b PortRequest) int { return cmp.Compare(a.choice(), b.choice()) })
	for _, r := range choosy {
		p, err := b.ports.reserve(r)
		if err != nil {
			return nil, errors.Join(err, b.ports.release(ep.Ports))
		}
		ep.Ports = append(ep.Ports, p)
	}
	address, err := b.ledger.next()
	if err != nil {
		return nil, errors.Join(err, b.ports.release(ep.Ports))
	}
	ep.Address = netip.PrefixFrom(address, b.state.Subnet.Bits())
	ep.MAC = macOf(address).String()
	b.endpoints[ep.ID] = &held{endpoint: ep}
	given := ep
	return &given, nil
}

// Attach hands out a network namespace whose eth0 is configured as ep says and
// publishes its ports. It sets ep.Link. The caller closes the file; the link dies
// with the namespace. A bridge that has its 1,023 ports: fault.Unavailable.
func (b *Bridge) Attach(ctx context.Context, ep *Endpoint) (netns *os.File, err error) {
	netns, connect, err := b.Take(ep, Owner{})
	if err != nil {
		return nil, err
	}
	if err := connect(ctx); err != nil {
		return nil, errors.Join(err, netns.Close())
	}
	return netns, nil
}

// Take is Attach in two parts, so that what takes long can be done while something else is made in the namespace:
// it is handed out at once, and connect, which has to be called once, does the rest. Whatever connect
// returns, the caller closes the file.
func (b *Bridge) Take(ep *Endpoint, owner Owner) (netns *os.File, connect func(context.Context) error, err error) {
	failed := func(err error) error {
		return fmt.Errorf("attach container %s to bridge %s: %w", short(ep.ContainerID), b.cfg.Bridge, err)
	}
	mac, err := net.ParseMAC(ep.MAC)
	if err != nil {
		return nil, nil, failed(fault.Wrap(fault.Invalid, err))
	}
	maps, err := ep.elements()
	if err != nil {
		return nil, nil, failed(fault.Wrap(fault.Invalid, err))
	}
	if err := b.begin(ep, len(maps) > 0); err != nil {
		return nil, nil, failed(err)
	}
	w, err := b.pool.takeWired(owner)
	if err != nil {
		b.pool.more()
		return nil, nil, failed(errors.Join(err, b.abandon(ep)))
	}
	ep.Link = w.link
	attached := *ep // the caller may go on with its own
	return w.ns, func(ctx context.Context) error {
		defer b.pool.more()
		if err := b.finish(ctx, w, &attached, mac, maps); err != nil {
			return failed(err)
		}
		return nil
	}, nil
}

// finish connects a namespace that was handed out, and publishes the endpoint's ports.
func (b *Bridge) finish(ctx context.Context, w *wired, ep *Endpoint, mac net.HardwareAddr, maps []nft.Map) error {
	err := b.connect(ctx, w, ep, mac)
	if err == nil && len(maps) > 0 {
		err = b.publish(maps)
	}
	if err != nil {
		return errors.Join(err, w.drop(), b.abandon(ep))
	}
	if !b.settle(ep, w.spare) {
		return errors.Join(fault.New(fault.NotFound, "released meanwhile"), w.drop())
	}
	if err := w.conn.Close(); err != nil {
		b.warn(fmt.Sprintf("attach container %s: %v", short(ep.ContainerID), err))
	}
	b.forgetFlows(ep)
	return nil
}

func short(id string) string { return id[:min(12, len(id))] }

// begin checks that ep is reserved and not attached.
func (b *Bridge) begin(ep *Endpoint, publishes bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.usable(); err != nil {
		return err
	}
	h := b.endpoints[ep.ID]
	if h == nil {
		return fault.New(fault.NotFound, "endpoint %s is not reserved", short(ep.ID))
	}
	if h.endpoint.Link != "" {
		return fault.New(fault.Conflict, "endpoint %s is attached already", short(ep.ID))
	}
	h.endpoint.Link, h.published = pending, publishes
	return nil
}

// abandon takes back what a failed Attach began; the reservation stays.
func (b *Bridge) abandon(ep *Endpoint) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.endpoints[ep.ID]
	if h == nil {
		return nil
	}
	h.endpoint.Link = ""
	if !h.published {
		return nil
	}
	h.published = false
	return b.unpublish(&h.endpoint)
}

// publish adds elements. Where another program has removed our table with all others (flush ruleset), it is written anew first.
func (b *Bridge) publish(maps []nft.Map) error {
	err := b.fw.Update(b.Table(), maps, nil)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	b.warn(fmt.Sprintf("another program removed the nftables table %s, which published ports and NAT need; it is written anew", b.Table()))
	b.mu.Lock()
	defer b.mu.Unlock()
	at, anywhere := []nft.Element{}, []nft.Element{}
	for _, h := range b.endpoints {
		if h.published {
			maps, err := h.endpoint.elements()
			if err != nil {
				return err
			}
			at, anywhere = sorted(at, anywhere, maps)
		}
	}
	return b.writeTable(at, anywhere)
}

// sorted adds the elements of maps to those of their kind.
func sorted(at, anywhere []nft.Element, maps []nft.Map) (a, b []nft.Element) {
	for _, m := range maps {
		if m.Kind == nft.AtAddress {
			at = append(at, m.Elements...)
		} else {
			anywhere = append(anywhere, m.Elements...)
		}
	}
	return at, anywhere
}

// settle notes what Attach made; false when the endpoint was released meanwhile, and then its elements are taken back.
func (b *Bridge) settle(ep *Endpoint, ns *os.File) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.endpoints[ep.ID]
	if h == nil || b.closed {
		if err := b.unpublish(ep); err != nil {
			b.warn(fmt.Sprintf("release container %s: %v", short(ep.ContainerID), err))
		}
		return false
	}
	h.endpoint, h.ns = *ep, ns
	return true
}

// connect configures the namespace and plugs it in. On a full bridge it waits a moment for links that are about to go.
func (b *Bridge) connect(ctx context.Context, w *wired, ep *Endpoint, mac net.HardwareAddr) error {
	err := w.conn.Apply(
		netlink.SetMAC(w.peer, mac),
		netlink.AddAddress(w.peer, ep.Address),
		netlink.AddDefault(w.peer, ep.Gateway),
	)
	if err != nil {
		return err
	}
	plug := func() error {
		return b.host.Apply(netlink.SetAlias(w.host, aliasOf(ep)), netlink.SetMaster(w.host, b.index))
	}
	err = plug()
	for deadline := time.Now().Add(patient); errors.Is(err, netlink.ErrFull) && b.departed.flush() && time.Now().Before(deadline); err = plug() {
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
	if errors.Is(err, netlink.ErrFull) {
		return fault.New(fault.Unavailable, "the bridge has all %d links that the kernel allows it (%w): remove containers on it, "+
			"or start this one with --network container:NAME, host or none", netlink.BridgePorts, err)
	}
	// A container that asks its own published port gets its packets back over the link they came from.
	if err == nil && len(ep.Ports) > 0 {
		err = b.host.Apply(netlink.SetHairpin(w.host))
	}
	return err
}

// forgetFlows makes UDP clients that talked to ep's ports before find it: a tracked conversation keeps its way.
func (b *Bridge) forgetFlows(ep *Endpoint) {
	ports := map[uint16]bool{}
	for _, p := range ep.Ports {
		if p.Proto == "udp" {
			ports[p.HostPort] = true
		}
	}
	if len(ports) == 0 {
		return
	}
	own := ep.Address.Addr()
	b.background.Go(func() {
		err := netlink.ForgetFlows(func(f netlink.Flow) bool {
			return ports[f.Destination.Port()] && f.Server != own
		})
		if err != nil {
			b.warn(fmt.Sprintf("forget former UDP conversations of container %s: %v", short(ep.ContainerID), err))
		}
	})
}

// Release takes ports and address back. It is idempotent and does not wait
// for the link's deletion. Call it when the container's processes are gone.
func (b *Bridge) Release(ep *Endpoint) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.endpoints[ep.ID]
	if h == nil || b.closed {
		return nil
	}
	var err error
	if h.published {
		err = b.unpublish(&h.endpoint)
	}
	if err != nil {
		return fmt.Errorf("release container %s from bridge %s: %w", short(ep.ContainerID), b.cfg.Bridge, err)
	}
	delete(b.endpoints, ep.ID)
	gone := &departed{ns: h.ns, address: h.endpoint.Address.Addr()}
	if h.endpoint.Link != pending {
		gone.link = h.endpoint.Link
	}
	gone.flows = slices.ContainsFunc(h.endpoint.Ports, func(p Port) bool { return p.Proto == "udp" })
	b.departed.add(gone)
	return b.ports.release(h.endpoint.Ports)
}

// unpublish removes the endpoint's elements, those that are there.
func (b *Bridge) unpublish(ep *Endpoint) error {
	maps, err := ep.elements()
	if err != nil || len(maps) == 0 {
		return err
	}
	if err := b.fw.Update(b.Table(), nil, maps); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Somebody else took elements away. Those that are left go one by one.
	for _, m := range maps {
		for _, e := range m.Elements {
			one := []nft.Map{{Name: m.Name, Kind: m.Kind, Elements: []nft.Element{e}}}
			if uerr := b.fw.Update(b.Table(), nil, one); uerr != nil && !errors.Is(uerr, fs.ErrNotExist) {
				return uerr
			}
		}
	}
	return nil
}

func (b *Bridge) freeAddress(a netip.Addr) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ledger.free(a)
}

// Loopback hands out a network namespace with only lo, which is up; for --network none. The caller closes it.
func (b *Bridge) Loopback(owner Owner) (*os.File, error) { return b.pool.takePlain(owner) }

// Restore makes exactly eps exist: their addresses and ports are taken, their
// elements stand in the table, and every other link of ours is removed in the background.
func (b *Bridge) Restore(eps []*Endpoint) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cfg.Bridge == noBridge {
		return nil
	}
	if b.closed || b.restored {
		return fault.New(fault.Conflict, "network bridge %s: closed or restored already", b.cfg.Bridge)
	}
	links, err := netlink.Links()
	if err != nil {
		return fmt.Errorf("restore network bridge %s: %w", b.cfg.Bridge, err)
	}
	byName, byAlias := map[string]netlink.Link{}, map[string]netlink.Link{}
	for _, l := range links {
		if l.Master == b.index && strings.HasPrefix(l.Name, linkPrefix) {
			byName[l.Name], byAlias[l.Alias] = l, l
		}
	}
	at, anywhere := []nft.Element{}, []nft.Element{}
	for _, ep := range eps {
		l, ok := byName[ep.Link]
		if !ok {
			l, ok = byAlias[aliasOf(ep)]
		}
		delete(byName, l.Name)
		ep.Link = l.Name
		maps, err := b.readmit(ep, ok)
		if err != nil {
			b.warn(fmt.Sprintf("restore container %s on bridge %s: %v", short(ep.ContainerID), b.cfg.Bridge, err))
			continue
		}
		at, anywhere = sorted(at, anywhere, maps)
	}
	if err := b.writeTable(at, anywhere); err != nil {
		return err
	}
	for name := range byName {
		b.departed.add(&departed{link: name, stale: true})
	}
	b.restored = true
	return b.startForwarding()
}

// advice says what to do about other software's firewall, which is not ours to change.
func advice(x nft.Blocker, bridge string) string {
	chain := x.Family + " " + x.Table + " " + x.Chain
	return fmt.Sprintf("%s. To let them through: nft insert rule %s iifname %s accept; nft insert rule %s oifname %s accept",
		blocked(chain), chain, bridge, chain, bridge)
}

func blocked(chain string) string {
	return "the firewall of other software drops forwarded packets (policy of chain " + chain +
		"): containers reach nothing outside, and published ports are not reachable from outside"
}

// readmit takes what one endpoint had. live: its link exists, so its ports are published.
func (b *Bridge) readmit(ep *Endpoint, live bool) ([]nft.Map, error) {
	if !b.ledger.take(ep.Address.Addr()) {
		return nil, fault.New(fault.Conflict, "address %s is not free in %s", ep.Address.Addr(), b.state.Subnet)
	}
	for _, p := range ep.Ports {
		if err := b.ports.adopt(hostPort{p.HostIP, p.HostPort, p.Proto}); err != nil {
			b.warn(fmt.Sprintf("restore container %s: %v; the container keeps it", short(ep.ContainerID), err))
		}
	}
	b.endpoints[ep.ID] = &held{endpoint: *ep, published: live && len(ep.Ports) > 0}
	if !live {
		return nil, nil
	}
	return ep.elements()
}

// writeTable puts the whole rule set in the place of the one that stands.
func (b *Bridge) writeTable(at, anywhere []nft.Element) error {
	b.forward.mu.Lock()
	defer b.forward.mu.Unlock()
	return b.fw.Replace(table(b.Table(), b.cfg.Bridge, b.state.Subnet.Masked(), at, anywhere, b.forward.opened()))
}

func (b *Bridge) startForwarding() error {
	if err := b.forward.ensure(); err != nil {
		return fmt.Errorf("forward packets of bridge %s: %w", b.cfg.Bridge, err)
	}
	if err := b.forward.follow(); err != nil {
		return err
	}
	blockers, err := b.fw.Blockers(b.cfg.Bridge)
	if err != nil {
		b.warn(err.Error())
	}
	for _, x := range blockers {
		b.warn(advice(x, b.cfg.Bridge))
	}
	legacy, err := nft.LegacyBlocker(b.cfg.Bridge)
	if err != nil {
		b.warn(err.Error())
	}
	if legacy {
		b.warn(fmt.Sprintf("%s. To let them through: iptables-legacy -I FORWARD -i %s -j ACCEPT; iptables-legacy -I FORWARD -o %s -j ACCEPT",
			blocked("FORWARD of iptables-legacy"), b.cfg.Bridge, b.cfg.Bridge))
	}
	return nil
}
