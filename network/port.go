package network

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"

	"berth/fault"
	"berth/kernel"
)

// The range that ports are taken from when none is asked for: the dynamic ports of RFC 6335, less the first.
const (
	firstFree = 49153
	lastFree  = 65535
)

// hostPort is one port of the host.
type hostPort struct {
	ip    netip.Addr
	port  uint16
	proto string
}

func (h hostPort) String() string { return netip.AddrPortFrom(h.ip, h.port).String() }

// portTable knows the published ports and holds each by a bound socket, so that other programs can't take it and
// those that have it are noticed. The caller locks.
type portTable struct {
	held map[hostPort]io.Closer
	next uint16 // where the search for a free one goes on
}

func newPortTable() *portTable {
	return &portTable{held: map[hostPort]io.Closer{}, next: firstFree}
}

// taken tells whether one of ours has the port on that address or on all of its family.
func (t *portTable) taken(h hostPort) bool {
	if h.ip.IsUnspecified() {
		for other := range t.held {
			if other.port == h.port && other.proto == h.proto && other.ip.Is6() == h.ip.Is6() {
				return true
			}
		}
		return false
	}
	if _, ok := t.held[h]; ok {
		return true
	}
	every := netip.IPv4Unspecified()
	if h.ip.Is6() {
		every = netip.IPv6Unspecified()
	}
	_, ok := t.held[hostPort{every, h.port, h.proto}]
	return ok
}

// portGroup is requests for one port of the host on several addresses.
type portGroup []portWish

// portWish is a request as a container's way out has it; direct on a routed network.
type portWish struct {
	PortRequest
	direct bool
}

// choosy orders groups: those that would take any port go last.
func choosy(groups []portGroup) []portGroup {
	return slices.SortedStableFunc(slices.Values(groups), func(a, b portGroup) int { return cmp.Compare(a[0].choice(), b[0].choice()) })
}

// reserve decides and holds a port for g.
func (t *portTable) reserve(g portGroup) (ports []Port, err error) {
	r := g[0]
	if r.direct {
		for _, r := range g {
			ports = append(ports, Port{HostIP: unspecified(r.HostIP), Port: r.Port, Proto: r.Proto, Direct: true})
		}
		return ports, nil
	}
	from, to := r.HostPort, max(r.HostPort, r.HostPortEnd)
	if r.HostPort == 0 {
		from, to = firstFree, lastFree
	}
	start := from
	if r.HostPort == 0 && t.next > from {
		start = t.next
	}
	var refused error
	for n := 0; n <= int(to-from); n++ {
		p := from + uint16((int(start-from)+n)%(int(to-from)+1))
		if ports, refused = t.holdAll(g, p); refused == nil {
			if r.HostPort == 0 {
				t.next = p + 1
				if p == lastFree {
					t.next = firstFree
				}
			}
			return ports, nil
		}
		if !errors.Is(refused, fault.Conflict) {
			return nil, refused
		}
	}
	if from == to {
		return nil, refused
	}
	return nil, fault.New(fault.Conflict, "Bind for %s:%d-%d failed: all ports are allocated", r.HostIP, from, to)
}

func unspecified(a netip.Addr) netip.Addr {
	if a.Is6() {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}

// holdAll takes one port on every address of g, or on none.
func (t *portTable) holdAll(g portGroup, port uint16) (ports []Port, err error) {
	for _, r := range g {
		if err := t.hold(hostPort{r.HostIP, port, r.Proto}); err != nil {
			return nil, errors.Join(err, t.release(ports))
		}
		ports = append(ports, Port{HostIP: r.HostIP, HostPort: port, Port: r.Port, Proto: r.Proto})
	}
	return ports, nil
}

// choice is how many ports would do.
func (r PortRequest) choice() int {
	if r.HostPort == 0 {
		return lastFree - firstFree + 1
	}
	return max(0, int(r.HostPortEnd)-int(r.HostPort)) + 1
}

// checked fills in defaults.
func (r PortRequest) checked() (PortRequest, error) {
	r.HostIP = r.HostIP.Unmap()
	if r.Proto == "" {
		r.Proto = "tcp"
	}
	name := fmt.Sprintf("publish port %d/%s", r.Port, r.Proto)
	switch {
	case r.Proto != "tcp" && r.Proto != "udp" && r.Proto != "sctp":
		return r, fault.New(fault.Invalid, "%s: only tcp, udp and sctp ports can be published", name)
	case r.Port == 0:
		return r, fault.New(fault.Invalid, "%s: a container's port is 1 to 65535", name)
	case r.HostPortEnd != 0 && r.HostPortEnd < r.HostPort:
		return r, fault.New(fault.Invalid, "%s: host ports %d-%d are no range", name, r.HostPort, r.HostPortEnd)
	}
	return r, nil
}

// hold takes one port. Docker's words, as programs match on them.
func (t *portTable) hold(h hostPort) error {
	if t.taken(h) {
		return fault.New(fault.Conflict, "Bind for %s failed: port is already allocated", h)
	}
	f, err := kernel.HoldPort(h.proto, netip.AddrPortFrom(h.ip, h.port))
	switch {
	case errors.Is(err, kernel.ErrPortInUse):
		return fault.New(fault.Conflict, "failed to bind host port %s/%s: address already in use", h, h.proto)
	case errors.Is(err, kernel.ErrNoProtocol):
		return fault.New(fault.Unsupported, "failed to bind host port %s/%s: this kernel has no %s; load its module (modprobe %s)", h, h.proto, h.proto, h.proto)
	case errors.Is(err, kernel.ErrNotLocal):
		return fault.New(fault.Invalid, "failed to bind host port %s/%s: cannot assign requested address: %s is not an address of this host", h, h.proto, h.ip)
	case err != nil:
		return fmt.Errorf("failed to bind host port %s/%s: %w", h, h.proto, err)
	}
	t.held[h] = f
	return nil
}

// adopt takes a port that a running container has published. Where another program has got hold of the
// port meanwhile, ours stays translated, and the error says so.
func (t *portTable) adopt(h hostPort) error {
	err := t.hold(h)
	if _, ok := t.held[h]; !ok {
		t.held[h] = io.NopCloser(nil)
	}
	return err
}

func (t *portTable) release(ports []Port) (err error) {
	for _, p := range ports {
		if p.Direct {
			continue
		}
		h := hostPort{p.HostIP, p.HostPort, p.Proto}
		if f, ok := t.held[h]; ok {
			err = errors.Join(err, f.Close())
			delete(t.held, h)
		}
	}
	return err
}

// closeAll gives up the sockets, not the ports' translation.
func (t *portTable) closeAll() (err error) {
	for _, f := range t.held {
		if cerr := f.Close(); !errors.Is(cerr, os.ErrClosed) {
			err = errors.Join(err, cerr)
		}
	}
	t.held = map[hostPort]io.Closer{}
	return err
}
