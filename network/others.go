package network

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"berth/kernel/netlink"
	"berth/kernel/nft"
	"berth/network/firewall"
)

// others is what we know of other software's packet filters. What was read is good for a while, so that a container's start
// costs nothing where many follow each other.
type others struct {
	lookup sync.Mutex // held while reading
	eyes   *nft.Conn  // apart from the connection that rules are written on; nil until the first look

	mu    sync.Mutex
	seen  seen
	at    time.Time
	told  map[string]bool // what was said already of single containers
	shown map[string]bool // the same, to clients
}

// seen is one look.
type seen struct {
	filters []*nft.Filter
	uplinks [2]string // of each family; "": none, or there was no need to know
	err     error
}

const (
	goodFor   = 2 * time.Second
	startWait = 2 * time.Millisecond // of a container's start, for a new look
)

// look reads now.
func (o *others) look() seen {
	o.lookup.Lock()
	defer o.lookup.Unlock()
	var s seen
	if o.eyes == nil {
		o.eyes, s.err = nft.Open()
	}
	if s.err == nil {
		s.filters, s.err = o.eyes.Filters(isOurs)
	}
	if s.err == nil && len(s.filters) > 0 {
		s.uplinks, s.err = uplinks()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seen, o.at = s, time.Now()
	return s
}

// recent is a look that is not older than goodFor, or the last one where a new one takes its time. Where there was no firewall,
// nobody waits for one; with wait, the new one is waited for in any case.
func (o *others) recent(background *sync.WaitGroup, wait bool) seen {
	o.mu.Lock()
	last, at := o.seen, o.at
	if time.Since(at) > goodFor {
		o.at = time.Now() // one at a time
	}
	o.mu.Unlock()
	if time.Since(at) <= goodFor {
		return last
	}
	if wait {
		return o.look()
	}
	fresh := make(chan seen, 1)
	background.Go(func() { fresh <- o.look() })
	if !at.IsZero() && len(last.filters) == 0 {
		return last
	}
	late := time.NewTimer(startWait)
	defer late.Stop()
	select {
	case s := <-fresh:
		return s
	case <-late.C:
		return last
	}
}

func (o *others) close() error {
	o.lookup.Lock()
	defer o.lookup.Unlock()
	if o.eyes == nil {
		return nil
	}
	return o.eyes.Close()
}

// isOurs tells tables of engines like this one.
func isOurs(table string) bool {
	return table == tablePrefix || strings.HasPrefix(table, tablePrefix+"_")
}

// uplinks are the links of the default routes.
func uplinks() (names [2]string, err error) {
	routes, err := netlink.Routes()
	if err != nil {
		return names, err
	}
	links, err := netlink.Links()
	slices.SortStableFunc(routes, func(a, b netlink.Route) int { return cmp.Compare(b.Metric, a.Metric) }) // the best is the last
	for _, r := range routes {
		for _, l := range links {
			if r.To.Bits() == 0 && l.Index == r.Link {
				names[family(r.To.Addr())] = l.Name
			}
		}
	}
	return names, err
}

// ways are how a network's packets pass the host; none where they don't.
func (n *network) ways(s seen) (all []firewall.Way) {
	if n.ConfigOnly || !n.driver.forwards || n.broken != nil || n.link == "" || n.Internal {
		return nil
	}
	for _, p := range n.Pools {
		all = append(all, firewall.Way{Network: n.Name, Bridge: n.link, Subnet: p.Subnet, Uplink: s.uplinks[family(p.Subnet.Addr())]})
	}
	return all
}

// obstacles are the chains of others that drop a network's packets.
func (n *network) obstacles(s seen) (all []firewall.Obstacle) {
	for _, w := range n.ways(s) {
		for _, o := range firewall.Obstacles(s.filters, w) {
			// A chain of both families is one chain, and one command lets both through.
			same := func(x firewall.Obstacle) bool { return x.Filter == o.Filter || x.Remedy() == o.Remedy() }
			if !slices.ContainsFunc(all, same) {
				all = append(all, o)
			}
		}
	}
	return all
}

// Firewalls is what the packet filters of this host do with our packets, other software's and our own.
type Firewalls struct{ *Host }

// Firewalls tells of packet filters.
func (h *Host) Firewalls() Firewalls { return Firewalls{h} }

// Obstacles tells what other software's firewalls drop of a network's packets now, with the commands that let them through, for people.
func (h Firewalls) Obstacles(id string) (all []string) {
	s := h.others.look()
	if s.err != nil {
		h.warn(s.err.Error())
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := h.networks[id]; n != nil {
		for _, o := range n.obstacles(s) {
			all = append(all, o.String())
		}
	}
	return all
}

// PortNotes tells what is to be known of ports that a container on networks (by their IDs) publishes: who drops their packets, every time, and, once
// for the same ports, that a firewall which seems to close them doesn't. It may rest on a look some seconds old.
func (h Firewalls) PortNotes(networks []string, ports []PortRequest) []string {
	return h.portNotes(networks, ports, h.others.shown, false)
}

func (h Firewalls) portNotes(networks []string, ports []PortRequest, told map[string]bool, wait bool) (all []string) {
	s := h.others.recent(&h.background, wait)
	if s.err != nil || len(s.filters) == 0 {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	var open [2]bool // something outside can come in
	bindings := [2]netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	for _, id := range networks {
		n := h.networks[id]
		if n == nil {
			continue
		}
		found := n.obstacles(s)
		for _, o := range found {
			all = append(all, o.String())
		}
		for _, w := range n.ways(s) {
			k := family(w.Subnet.Addr())
			open[k] = open[k] || !slices.ContainsFunc(found, func(o firewall.Obstacle) bool { return o.In })
		}
		if n.options.binding.IsValid() {
			bindings[0] = n.options.binding
		}
	}
	exposed := h.exposed(s, ports, open, bindings)
	key := strings.Join(exposed, "\n")
	h.others.mu.Lock()
	defer h.others.mu.Unlock()
	if key == "" || told[key] {
		return all
	}
	if len(told) >= 1000 { // what was said is said again some day
		clear(told)
	}
	told[key] = true
	return append(all, exposed...)
}

// exposed says which ports are reached from outside although a chain for packets to this host drops them. The caller holds mu.
func (h Firewalls) exposed(s seen, ports []PortRequest, open [2]bool, bindings [2]netip.Addr) (all []string) {
	const most = 4 // lines; a range is one thing to know
	for _, p := range ports {
		p, err := p.checked()
		if err != nil {
			continue
		}
		for k := range open {
			v6 := k == 1
			at := p.HostIP
			if !at.IsValid() {
				at = bindings[k]
			}
			if !open[k] || at.IsLoopback() || at.Is6() != v6 || v6 && !p.HostIP.IsValid() && !bindings[0].IsUnspecified() {
				continue
			}
			chain := firewall.Shut(s.filters, v6, s.uplinks[k], p.number(), p.HostPort)
			if chain == "" {
				continue
			}
			if len(all) == most {
				return append(all, "and more ports like these")
			}
			all = append(all, h.exposure(p, at, chain, s.uplinks[k]))
			break // the other family's chain says the same
		}
	}
	return all
}

func (p PortRequest) number() byte {
	return map[string]byte{"tcp": 6, "udp": 17, "sctp": 132}[p.Proto]
}

// exposure says so of one port, and how to restrict it.
func (h Firewalls) exposure(p PortRequest, at netip.Addr, chain, uplink string) string {
	host, local := "any free port", fmt.Sprintf("127.0.0.1::%d", p.Port)
	match := fmt.Sprintf("%s dport %d", p.Proto, p.Port)
	if p.HostPort != 0 {
		host, local = fmt.Sprint("port ", p.HostPort), fmt.Sprintf("127.0.0.1:%d:%d", p.HostPort, p.Port)
		match = fmt.Sprintf("meta l4proto %s ct original proto-dst %d", p.Proto, p.HostPort)
	}
	if p.Proto != "tcp" {
		local += "/" + p.Proto
	}
	f, from, example := "ip", "", "ip saddr != 192.0.2.0/24"
	if at.Is6() {
		f, example = "ip6", "ip6 saddr != 2001:db8::/32"
	}
	if uplink != "" {
		from = "iifname " + uplink + " "
	}
	return fmt.Sprintf("%s (%s, to port %d of the container) is reachable from outside, although chain %s drops such packets: what is for a container is forwarded, "+
		"and never passes that chain. To keep it to this host, publish it as %s; to let in only some: nft add rule %s %s %s %sct status dnat %s %s drop",
		host, p.Proto, p.Port, chain, local, f, h.Table(), userChain, from, match, example)
}

// noteStart tells what is to be known of an attachment's ports, aside of the start.
func (h Firewalls) noteStart(a *Attachment) {
	var on []string
	for _, e := range a.Endpoints {
		on = append(on, e.NetworkID)
	}
	var ports []PortRequest
	for _, p := range a.Ports {
		if !p.Direct {
			ports = append(ports, PortRequest{HostIP: p.HostIP, HostPort: p.HostPort, Port: p.Port, Proto: p.Proto})
		}
	}
	h.background.Go(func() {
		for _, text := range h.portNotes(on, ports, h.others.told, true) {
			h.warn(fmt.Sprintf("container %s: %s", short(a.ContainerID), text))
		}
	})
}
