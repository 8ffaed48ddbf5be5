package networks

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"berth/network"

	wire "github.com/moby/moby/api/types/network"
)

// Audit says who can reach what.
type Audit struct {
	Ports []AuditPort // by the container's name, then by port
	Notes []string    // what the host's firewalls do with whole networks, for people
}

// AuditPort is a port of a running container, published or only exposed, or all of its ports.
type AuditPort struct {
	Container string       // ID
	Name      string       // the container's
	Network   string       // over which it is reached
	Port      string       // "80/tcp"; "all": every port that it listens on
	HostIP    netip.Addr   // that it is published on; zero: it isn't
	HostPort  uint16       // 0: it isn't published, or is reached at the container's own address
	Addresses []netip.Addr // where a client finds it
	Reach     []string     // who can: see the constants
	Stopped   string       // the chain that keeps out those from outside; "": none
	Note      string       // what else is to be known
}

// Who can reach a port.
const (
	FromHost       = "host"       // programs of this host
	FromNeighbours = "neighbours" // containers on the same network
	FromContainers = "containers" // containers on any network that has a way out
	FromLAN        = "lan"        // whoever is on a private network that this host is on
	FromOutside    = "outside"    // everybody
)

// surroundings is what is known of the host (*network.Surroundings).
type surroundings interface {
	Stops(network string, v6 bool, port uint16, proto string) string
	Shut(v6 bool, port uint16, proto string) string
}

// Audit looks at all containers that run.
func (s *Service) Audit() (*Audit, error) {
	around, err := s.Host.Firewalls().Survey()
	if err != nil {
		return nil, err
	}
	a := &Audit{Ports: []AuditPort{}, Notes: append([]string{}, around.Notes...)}
	for _, m := range s.Members() {
		if m.Record.State.Status.Alive() {
			a.Ports = append(a.Ports, auditOf(m, s.Host.Get, around.Addresses, around)...)
		}
	}
	slices.SortStableFunc(a.Ports, func(x, y AuditPort) int { return cmp.Compare(x.Name, y.Name) })
	return a, nil
}

// auditOf is what there is to say of one container. Pure.
func auditOf(m Member, get func(id string) (network.Spec, bool), host []netip.Addr, around surroundings) (all []AuditPort) {
	own := AuditPort{Container: m.Record.ID, Name: m.Record.Name}
	if m.Record.HostConfig.NetworkMode.IsHost() {
		own.Network, own.Port, own.Addresses = Host, "all", host
		own.Reach = append([]string{FromHost, FromContainers}, widest(host)...)
		own.Note = "it is on the host's network: what it listens on is the host's own, and the host's firewall filters it as such"
		return []AuditPort{own}
	}
	if m.Attachment == nil {
		return nil
	}
	published := map[string]bool{}
	for _, p := range m.Attachment.Ports {
		one := own
		one.Port = fmt.Sprintf("%d/%s", p.Port, p.Proto)
		published[one.Port] = true
		if way := m.Attachment.Way(p.HostIP.Is6()); way != nil {
			one.publish(p, way, host, around)
			all = append(all, one)
		}
	}
	var exposed []string
	for p := range m.Record.Config.ExposedPorts {
		if !published[p.String()] {
			exposed = append(exposed, p.String())
		}
	}
	slices.SortFunc(exposed, func(a, b string) int {
		x, _ := wire.ParsePort(a)
		y, _ := wire.ParsePort(b)
		return cmp.Or(cmp.Compare(x.Num(), y.Num()), cmp.Compare(a, b))
	})
	for _, e := range m.Attachment.Endpoints {
		spec, ok := get(e.NetworkID)
		if !ok {
			continue
		}
		own := own
		own.Network = e.Network
		all = append(all, own.open(spec, e, exposed)...)
	}
	return all
}

// addressesOf are an endpoint's.
func addressesOf(e network.Endpoint) (all []netip.Addr) {
	for _, p := range []netip.Prefix{e.Address, e.Address6} {
		if p.IsValid() {
			all = append(all, p.Addr())
		}
	}
	return all
}

// open is what of a container is reached without being published.
func (own AuditPort) open(spec network.Spec, e network.Endpoint, exposed []string) (all []AuditPort) {
	own.Addresses = addressesOf(e)
	inside := []string{}
	if spec.Driver == "bridge" && spec.Mode(false) != "isolated" {
		inside = append(inside, FromHost)
	}
	if spec.Talk() {
		inside = append(inside, FromNeighbours)
	}
	switch {
	case spec.Driver != "bridge" && !spec.Internal:
		own.Port, own.Reach = "all", append(inside, widest(own.Addresses)...)
		own.Note = "a network of driver " + spec.Driver + ": the container is a machine of the wire, and no rule of ours stands before it"
		return []AuditPort{own}
	case !spec.Internal && (spec.Mode(false) == "nat-unprotected" || spec.IPv6 && spec.Mode(true) == "nat-unprotected"):
		own.Port, own.Reach = "all", append(inside, append([]string{FromContainers}, widest(own.Addresses)...)...)
		own.Note = "the network is unprotected (nat-unprotected): whoever has a route to it reaches every port"
		return []AuditPort{own}
	}
	for _, p := range exposed {
		one := own
		one.Port, one.Reach = p, inside
		all = append(all, one)
	}
	return all
}

// publish tells of a published port.
func (one *AuditPort) publish(p network.Port, way *network.Endpoint, host []netip.Addr, around surroundings) {
	v6 := p.HostIP.Is6()
	one.Network, one.HostIP, one.HostPort = way.Network, p.HostIP, p.HostPort
	one.Reach = []string{FromHost, FromNeighbours, FromContainers}
	switch {
	case p.Direct:
		own := way.Address.Addr()
		if v6 {
			own = way.Address6.Addr()
		}
		one.HostIP, one.Addresses = netip.Addr{}, []netip.Addr{own}
		one.Note = "the network is routed: it is reached at the container's own address"
	case p.HostIP.IsUnspecified():
		for _, a := range host {
			if a.Is6() == v6 {
				one.Addresses = append(one.Addresses, a)
			}
		}
	default:
		one.Addresses = []netip.Addr{p.HostIP}
	}
	if p.HostIP.IsLoopback() {
		one.Reach = []string{FromHost}
		return
	}
	who := widest(one.Addresses)
	if len(who) == 0 {
		return
	}
	if one.Stopped = around.Stops(way.NetworkID, v6, p.Port, p.Proto); one.Stopped != "" {
		return
	}
	one.Reach = append(one.Reach, who...)
	if !p.Direct {
		if chain := around.Shut(v6, p.HostPort, p.Proto); chain != "" {
			one.Note = "chain " + chain + " drops what is for port " + strconv.Itoa(int(p.HostPort)) + " of the host, but what is for a container never passes it"
		}
	}
}

// widest tells who finds addresses: those of private networks (RFC 1918, RFC 4193, RFC 6598) only who is on one.
func widest(all []netip.Addr) []string {
	shared := netip.MustParsePrefix("100.64.0.0/10")
	var lan bool
	for _, a := range all {
		switch {
		case a.IsLoopback() || a.IsLinkLocalUnicast():
		case a.IsPrivate() || shared.Contains(a):
			lan = true
		default:
			return []string{FromLAN, FromOutside}
		}
	}
	if lan {
		return []string{FromLAN}
	}
	return nil
}
