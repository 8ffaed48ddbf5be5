package request

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"berth/network"

	api "github.com/moby/moby/api/types/container"
	wire "github.com/moby/moby/api/types/network"
)

// Ports reads which ports to publish, in the order of container ports.
func Ports(c *api.Config, h *api.HostConfig) ([]network.PortRequest, error) {
	var all []network.PortRequest
	add := func(p wire.Port, b wire.PortBinding) error {
		if proto := p.Proto(); proto != wire.TCP && proto != wire.UDP && proto != wire.SCTP {
			return invalid("port %s: protocol %q can't be published; use tcp, udp or sctp", p, proto)
		}
		r := network.PortRequest{HostIP: b.HostIP, Port: p.Num(), Proto: string(p.Proto())}
		from, to, isRange := strings.Cut(b.HostPort, "-")
		if from != "" {
			first, err := strconv.ParseUint(from, 10, 16)
			last := first
			if err == nil && isRange {
				last, err = strconv.ParseUint(to, 10, 16)
			}
			if err != nil || last < first {
				return invalid("invalid port specification: %q", b.HostPort)
			}
			r.HostPort = uint16(first)
			if last > first {
				r.HostPortEnd = uint16(last)
			}
		}
		all = append(all, r)
		return nil
	}
	for p, bindings := range h.PortBindings {
		if p.Num() == 0 {
			return nil, invalid("invalid port specification: %q", p.String())
		}
		if len(bindings) == 0 {
			bindings = []wire.PortBinding{{}}
		}
		for _, b := range bindings {
			if err := add(p, b); err != nil {
				return nil, err
			}
		}
	}
	if h.PublishAllPorts {
		for p := range c.ExposedPorts {
			if _, bound := h.PortBindings[p]; !bound {
				if err := add(p, wire.PortBinding{}); err != nil {
					return nil, err
				}
			}
		}
	}
	slices.SortStableFunc(all, func(a, b network.PortRequest) int {
		return cmp.Or(cmp.Compare(a.Port, b.Port), cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.HostPort, b.HostPort))
	})
	return all, nil
}

// ExtraHost reads "name:address" of --add-host, also with "=" and an address in brackets; host-gateway means the given ones, a line each.
func ExtraHost(s string, gateways []netip.Addr) (lines []network.HostEntry, err error) {
	name, address, ok := strings.Cut(s, "=")
	if !ok {
		name, address, ok = strings.Cut(s, ":")
	}
	if !ok || name == "" {
		return nil, invalid("bad format for add-host: %q", s)
	}
	if address != "host-gateway" {
		ip, err := netip.ParseAddr(strings.Trim(address, "[]"))
		if err != nil {
			return nil, invalid("invalid IP address in add-host: %q", address)
		}
		gateways = []netip.Addr{ip}
	}
	for _, a := range gateways {
		lines = append(lines, network.HostEntry{Address: a, Names: []string{name}})
	}
	return lines, nil
}
