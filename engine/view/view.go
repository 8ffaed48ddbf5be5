// Package view says what answers of the API show of a container's record.
//
// It is pure and shows only what it is given. Invariant: a record and an endpoint give the same answer, whoever asks.
package view

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"berth/container"
	"berth/network"

	api "github.com/moby/moby/api/types/container"
	wire "github.com/moby/moby/api/types/network"
)

// State derives Docker's booleans from the one enum.
func State(s container.State) *api.State {
	return &api.State{
		Status: api.ContainerState(s.Status), Running: s.Status.Alive() || s.Status == container.Restarting,
		Paused: s.Status == container.Paused, Restarting: s.Status == container.Restarting, Dead: s.Status == container.Dead,
		OOMKilled: s.OOMKilled, Pid: s.Pid, ExitCode: s.ExitCode, Error: s.Error,
		Health:    s.Health,
		StartedAt: s.StartedAt.Format(time.RFC3339Nano), FinishedAt: s.FinishedAt.Format(time.RFC3339Nano),
	}
}

// Ports shows the exposed ports, and where they are published.
func Ports(c *api.Config, a *network.Attachment) wire.PortMap {
	m := wire.PortMap{}
	if a == nil {
		return m
	}
	for p := range c.ExposedPorts {
		m[p] = nil
	}
	for _, p := range a.Ports {
		port, ok := wire.PortFrom(p.Port, wire.IPProtocol(p.Proto))
		if !ok {
			continue
		}
		if _, shown := m[port]; !shown {
			m[port] = nil
		}
		if !p.Direct { // else no port of the host leads to it
			m[port] = append(m[port], wire.PortBinding{HostIP: p.HostIP, HostPort: strconv.Itoa(int(p.HostPort))})
		}
	}
	return m
}

// PortList is Ports as a list for ps.
func PortList(c *api.Config, a *network.Attachment) []api.PortSummary {
	all := []api.PortSummary{}
	for port, bindings := range Ports(c, a) {
		s := api.PortSummary{PrivatePort: port.Num(), Type: string(port.Proto())}
		if len(bindings) == 0 {
			all = append(all, s)
		}
		for _, b := range bindings {
			n, _ := strconv.ParseUint(b.HostPort, 10, 16) // written by Ports
			s.IP, s.PublicPort = b.HostIP, uint16(n)
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b api.PortSummary) int {
		return cmp.Or(cmp.Compare(a.PrivatePort, b.PrivatePort), cmp.Compare(a.Type, b.Type), a.IP.Compare(b.IP), cmp.Compare(a.PublicPort, b.PublicPort))
	})
	return all
}

// HasPort tells whether a container exposes, or publishes on a host's port, one of the ranges.
func HasPort(c *api.Config, a *network.Attachment, published bool, ranges []wire.PortRange) bool {
	inRange := func(port uint16, proto wire.IPProtocol) bool {
		return slices.ContainsFunc(ranges, func(w wire.PortRange) bool {
			return port >= w.Start() && port <= w.End() && proto == w.Proto()
		})
	}
	if !published {
		for p := range c.ExposedPorts {
			if inRange(p.Num(), p.Proto()) {
				return true
			}
		}
		return false
	}
	if a == nil {
		return false
	}
	for _, p := range a.Ports {
		if !p.Direct && inRange(p.HostPort, wire.IPProtocol(p.Proto)) {
			return true
		}
	}
	return false
}
