package daemon

import (
	"encoding/json"
	"net"

	"berth/fault"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// oldNetworking brings what clients of earlier versions say of networks to where it stands now: a container's hardware address
// went to its endpoint with API 1.44, and until 1.52 both ways were good. It returns what the user should know.
func oldNetworking(v apiVersion, data []byte, body *container.CreateRequest) (warnings []string, err error) {
	if v >= 52 {
		return nil, nil
	}
	if n := body.NetworkingConfig; n != nil && v < 48 {
		for _, e := range n.EndpointsConfig {
			if e != nil {
				e.GwPriority = 0
			}
		}
	}
	var old struct{ MacAddress string }
	if json.Unmarshal(data, &old) != nil || old.MacAddress == "" {
		if n := body.NetworkingConfig; n != nil && v < 44 {
			for _, e := range n.EndpointsConfig {
				if e != nil {
					e.MacAddress = nil // was told, never asked for
				}
			}
		}
		return nil, nil
	}
	mac, err := net.ParseMAC(old.MacAddress)
	if err != nil {
		return nil, fault.New(fault.Invalid, "invalid MAC address: %s", old.MacAddress)
	}
	if v >= 44 {
		warnings = []string{"The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead."}
	}
	if m := body.HostConfig.NetworkMode; m.IsHost() || m.IsNone() || m.IsContainer() {
		if v >= 44 {
			return warnings, nil
		}
		return nil, fault.New(fault.Invalid, "conflicting options: mac-address and the network mode")
	}
	e, err := mainEndpoint(v, body)
	switch {
	case err != nil:
		return nil, err
	case v >= 44 && len(e.MacAddress) > 0 && e.MacAddress.String() != mac.String():
		return nil, fault.New(fault.Invalid, "the container-wide MAC address must match the endpoint-specific MAC address for the main network, or be left empty")
	}
	e.MacAddress = network.HardwareAddr(mac)
	return warnings, nil
}

// mainEndpoint finds or makes the endpoint that what is said of the whole container is for. Before API 1.44 there was one, whatever the
// network was called; since then it is to be called as in the network mode, as a network's name and its ID may be two endpoints' keys.
func mainEndpoint(v apiVersion, body *container.CreateRequest) (*network.EndpointSettings, error) {
	if body.NetworkingConfig == nil {
		body.NetworkingConfig = &network.NetworkingConfig{}
	}
	n := body.NetworkingConfig
	if n.EndpointsConfig == nil {
		n.EndpointsConfig = map[string]*network.EndpointSettings{}
	}
	all := n.EndpointsConfig
	name := string(body.HostConfig.NetworkMode)
	if name == "" || name == network.NetworkDefault {
		name = network.NetworkBridge
		if e, ok := all[network.NetworkDefault]; ok {
			delete(all, network.NetworkDefault)
			all[name] = e
		}
	}
	if _, there := all[name]; !there && len(all) > 0 {
		if v >= 44 {
			return nil, fault.New(fault.Invalid, "HostConfig.NetworkMode must match the identity of a network in NetworkSettings.Networks")
		}
		for name = range all { // the only one
		}
	}
	if all[name] == nil {
		all[name] = &network.EndpointSettings{}
	}
	return all[name], nil
}

// oldNetwork drops what clients of earlier versions can't mean by a network: that it has no IPv4 can be said since API 1.48.
func oldNetwork(v apiVersion, body *network.CreateRequest) {
	if v < 48 {
		body.EnableIPv4 = nil
	}
}
