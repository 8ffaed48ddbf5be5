package view

import (
	"net/netip"
	"testing"

	"berth/network"

	api "github.com/moby/moby/api/types/container"
	wire "github.com/moby/moby/api/types/network"
)

func TestPorts(t *testing.T) {
	http, dns, other := wire.MustParsePort("80/tcp"), wire.MustParsePort("53/udp"), wire.MustParsePort("9/tcp")
	c := &api.Config{ExposedPorts: wire.PortSet{http: {}, dns: {}, other: {}}}
	local := netip.MustParseAddr("127.0.0.1")
	ep := &network.Attachment{Ports: []network.Port{{HostIP: local, HostPort: 8080, Port: 80, Proto: "tcp"}}}
	summary := PortList(c, ep)
	if len(summary) != 3 || summary[0].PrivatePort != 9 || summary[0].PublicPort != 0 || summary[2].PublicPort != 8080 || summary[2].IP != local {
		t.Errorf("%+v", summary)
	}
	if m := Ports(c, nil); len(m) != 0 {
		t.Errorf("not connected: %v", m)
	}
}
