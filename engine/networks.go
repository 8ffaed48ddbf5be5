package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"berth/engine/journal"
	"berth/fault"
	"berth/network"

	wire "github.com/moby/moby/api/types/network"
)

// Networks describes the networks: the default bridge, the host's own, and none.
type Networks struct {
	bridge     *network.Bridge
	containers *Containers
	created    time.Time
}

func isOwnNetwork(name string) bool {
	return name == bridgeNetwork || name == "default" || name == hostNetwork || name == noneNetwork
}

// networkID is the ID of a network by its name. Those of host and none are the same everywhere.
func (c *views) networkID(name string) string {
	if name == bridgeNetwork || name == "default" {
		return c.bridge.ID()
	}
	sum := sha256.Sum256([]byte("berth network " + name))
	return hex.EncodeToString(sum[:])
}

func (n *Networks) all() []wire.Inspect {
	described := make([]wire.Inspect, 0, 3)
	for _, name := range []string{bridgeNetwork, hostNetwork, noneNetwork} {
		d := wire.Inspect{Containers: map[string]wire.EndpointResource{}}
		d.Name, d.ID, d.Created, d.Scope, d.Driver, d.EnableIPv4 = name, n.containers.networkID(name), n.created, "local", name, true
		d.IPAM = wire.IPAM{Driver: "default", Config: []wire.IPAMConfig{}}
		d.Options, d.Labels = map[string]string{}, map[string]string{}
		switch name {
		case noneNetwork:
			d.Driver = "null"
		case bridgeNetwork:
			if n.bridge.Name() == "" {
				continue
			}
			n.describeBridge(&d)
		}
		described = append(described, d)
	}
	return described
}

func (n *Networks) describeBridge(d *wire.Inspect) {
	subnet := n.bridge.Subnet()
	d.IPAM.Config = []wire.IPAMConfig{{Subnet: subnet.Masked(), Gateway: subnet.Addr()}}
	d.Options = map[string]string{
		"com.docker.network.bridge.default_bridge":       "true",
		"com.docker.network.bridge.enable_icc":           "true",
		"com.docker.network.bridge.enable_ip_masquerade": "true",
		"com.docker.network.bridge.host_binding_ipv4":    "0.0.0.0",
		"com.docker.network.bridge.name":                 n.bridge.Name(),
	}
	for _, i := range n.containers.index.All() {
		r := i.record()
		ep := endpointOf(r)
		if ep == nil {
			continue
		}
		e := wire.EndpointResource{Name: r.Name, EndpointID: ep.ID, IPv4Address: netip.PrefixFrom(ep.Address.Addr(), ep.Address.Bits())}
		if mac, err := net.ParseMAC(ep.MAC); err == nil {
			e.MacAddress = wire.HardwareAddr(mac)
		}
		d.Containers[r.ID] = e
	}
}

// List describes the networks that fit.
func (n *Networks) List(f Filters) ([]wire.Inspect, error) {
	for key := range f {
		if !slices.Contains([]string{"dangling", "driver", "id", "label", "name", "scope", "type"}, key) {
			return nil, invalid("invalid filter '%s'", key)
		}
	}
	return slices.DeleteFunc(n.all(), func(d wire.Inspect) bool { return !networkFits(d, f) }), nil
}

func networkFits(d wire.Inspect, f Filters) bool {
	for key, values := range f {
		ok := len(values) == 0
		for _, v := range values {
			switch key {
			case "driver":
				ok = ok || d.Driver == v
			case "id":
				ok = ok || strings.HasPrefix(d.ID, v)
			case "name":
				ok = ok || strings.Contains(d.Name, v)
			case "scope":
				ok = ok || d.Scope == v
			case "type":
				ok = ok || v == "builtin"
			case "label":
				ok = ok || journal.HasLabel(d.Labels, v)
			case "dangling":
				ok = ok || v == "false" || v == "0" // these three are always in use
			}
		}
		if !ok {
			return false
		}
	}
	return true
}

// Inspect describes one, by name, ID or unique prefix. fault.NotFound "network x not found".
func (n *Networks) Inspect(ref string) (wire.Inspect, error) {
	var found []wire.Inspect
	for _, d := range n.all() {
		if d.Name == ref || d.ID == ref {
			return d, nil
		}
		if ref != "" && strings.HasPrefix(d.ID, ref) {
			found = append(found, d)
		}
	}
	switch len(found) {
	case 0:
		return wire.Inspect{}, fault.New(fault.NotFound, "network %s not found", ref)
	case 1:
		return found[0], nil
	}
	return wire.Inspect{}, invalid("network %s is ambiguous (%d matches found on ID prefix)", ref, len(found))
}
