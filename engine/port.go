package engine

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"

	"berth/network"

	api "github.com/moby/moby/api/types/container"
	wire "github.com/moby/moby/api/types/network"
)

const (
	bridgeNetwork = "bridge"
	hostNetwork   = "host"
	noneNetwork   = "none"
)

func loopbackAddress() netip.Addr { return netip.AddrFrom4([4]byte{127, 0, 0, 1}) }

// portMap shows the exposed ports, and where they are published.
func portMap(c *api.Config, ep *network.Endpoint) wire.PortMap {
	m := wire.PortMap{}
	if ep == nil {
		return m
	}
	for p := range c.ExposedPorts {
		m[p] = nil
	}
	for _, p := range ep.Ports {
		if port, ok := wire.PortFrom(p.Port, wire.IPProtocol(p.Proto)); ok {
			m[port] = append(m[port], wire.PortBinding{HostIP: p.HostIP, HostPort: strconv.Itoa(int(p.HostPort))})
		}
	}
	return m
}

// portSummary is portMap as a list for ps.
func portSummary(c *api.Config, ep *network.Endpoint) []api.PortSummary {
	all := []api.PortSummary{}
	for port, bindings := range portMap(c, ep) {
		s := api.PortSummary{PrivatePort: port.Num(), Type: string(port.Proto())}
		if len(bindings) == 0 {
			all = append(all, s)
		}
		for _, b := range bindings {
			n, _ := strconv.ParseUint(b.HostPort, 10, 16) // written by portMap
			s.IP, s.PublicPort = b.HostIP, uint16(n)
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b api.PortSummary) int {
		return cmp.Or(cmp.Compare(a.PrivatePort, b.PrivatePort), cmp.Compare(a.Type, b.Type), a.IP.Compare(b.IP), cmp.Compare(a.PublicPort, b.PublicPort))
	})
	return all
}
