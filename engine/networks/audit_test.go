package networks

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"berth/container"
	"berth/network"

	api "github.com/moby/moby/api/types/container"
	wire "github.com/moby/moby/api/types/network"
)

// around is a host whose firewalls stop the ports named.
type around struct{ stops, shut string }

func (a around) Stops(_ string, v6 bool, port uint16, proto string) string {
	if fmt.Sprintf("%d/%s", port, proto) == a.stops && !v6 {
		return "ip filter FORWARD"
	}
	return ""
}

func (a around) Shut(_ bool, port uint16, proto string) string {
	if fmt.Sprintf("%d/%s", port, proto) == a.shut {
		return "ip filter INPUT"
	}
	return ""
}

func TestAudit(t *testing.T) {
	a, p := netip.MustParseAddr, netip.MustParsePrefix
	lan, public := []netip.Addr{a("192.168.1.7")}, []netip.Addr{a("192.168.1.7"), a("198.51.100.1"), a("2001:db8::7")}
	on := func(ports ...network.Port) *network.Attachment {
		return &network.Attachment{Ports: ports, Endpoints: []network.Endpoint{{NetworkID: "n", Network: "own", Address: p("172.18.0.2/22"), Gateway: a("172.18.0.1"),
			Address6: p("fd00::2/64"), Gateway6: a("fd00::1")}}}
	}
	every := network.Port{HostIP: a("0.0.0.0"), HostPort: 8080, Port: 80, Proto: "tcp"}
	local := network.Port{HostIP: a("127.0.0.1"), HostPort: 8080, Port: 80, Proto: "tcp"}
	six := network.Port{HostIP: a("::"), HostPort: 8080, Port: 80, Proto: "tcp"}
	one := network.Port{HostIP: a("192.168.1.7"), HostPort: 8080, Port: 80, Proto: "tcp"}
	direct := network.Port{HostIP: a("0.0.0.0"), Port: 80, Proto: "tcp", Direct: true}
	const inside, bridges = "host neighbours", "host neighbours containers"
	option := func(kv ...string) map[string]string { return map[string]string{kv[0]: kv[1]} }
	for _, x := range []struct {
		name       string
		attachment *network.Attachment
		mode       string
		exposed    []string
		spec       network.Spec
		host       []netip.Addr
		around     around
		want       []string // port, host, reach, stopped
	}{
		{"every address, one of them public", on(every), "", nil, network.Spec{Driver: "bridge"}, public, around{}, []string{"80/tcp 0.0.0.0:8080 [" + bridges + " lan outside]"}},
		{"every address of a private network", on(every), "", nil, network.Spec{Driver: "bridge"}, lan, around{}, []string{"80/tcp 0.0.0.0:8080 [" + bridges + " lan]"}},
		{"one address", on(one), "", nil, network.Spec{Driver: "bridge"}, public, around{}, []string{"80/tcp 192.168.1.7:8080 [" + bridges + " lan]"}},
		{"loopback", on(local), "", nil, network.Spec{Driver: "bridge"}, public, around{}, []string{"80/tcp 127.0.0.1:8080 [host]"}},
		{"both families", on(every, six), "", nil, network.Spec{Driver: "bridge", IPv6: true}, public, around{}, []string{"80/tcp 0.0.0.0:8080 [" + bridges + " lan outside]", "80/tcp [::]:8080 [" + bridges + " lan outside]"}},
		{"a host without addresses", on(every), "", nil, network.Spec{Driver: "bridge"}, nil, around{}, []string{"80/tcp 0.0.0.0:8080 [" + bridges + "]"}},
		{"a firewall that stops them", on(every), "", nil, network.Spec{Driver: "bridge"}, public, around{stops: "80/tcp"}, []string{"80/tcp 0.0.0.0:8080 [" + bridges + "] stopped by ip filter FORWARD"}},
		{"a firewall that seems to", on(every), "", nil, network.Spec{Driver: "bridge"}, lan, around{shut: "8080/tcp"},
			[]string{"80/tcp 0.0.0.0:8080 [" + bridges + " lan]: chain ip filter INPUT drops what is for port 8080 of the host, but what is for a container never passes it"}},
		{"exposed, not published", on(every), "", []string{"80/tcp", "443/tcp", "53/udp"}, network.Spec{Driver: "bridge"}, lan, around{},
			[]string{"80/tcp 0.0.0.0:8080 [" + bridges + " lan]", "53/udp - [" + inside + "]", "443/tcp - [" + inside + "]"}},
		{"exposed, containers apart", on(), "", []string{"80/tcp"}, network.Spec{Driver: "bridge", Options: option("com.docker.network.bridge.enable_icc", "false")}, lan, around{}, []string{"80/tcp - [host]"}},
		{"routed", on(direct), "", nil, network.Spec{Driver: "bridge", Options: option("com.docker.network.bridge.gateway_mode_ipv4", "routed")}, public, around{},
			[]string{"80/tcp - [" + bridges + " lan]: the network is routed: it is reached at the container's own address"}},
		{"unprotected", on(), "", []string{"80/tcp"}, network.Spec{Driver: "bridge", Options: option("com.docker.network.bridge.gateway_mode_ipv4", "nat-unprotected")}, public, around{},
			[]string{"all - [" + bridges + " lan]: the network is unprotected (nat-unprotected): whoever has a route to it reaches every port"}},
		{"macvlan", on(), "", []string{"80/tcp"}, network.Spec{Driver: "macvlan"}, public, around{},
			[]string{"all - [neighbours lan]: a network of driver macvlan: the container is a machine of the wire, and no rule of ours stands before it"}},
		{"internal", on(), "", []string{"80/tcp"}, network.Spec{Driver: "bridge", Internal: true}, public, around{}, []string{"80/tcp - [" + inside + "]"}},
		{"the host's network", nil, "host", nil, network.Spec{}, public, around{},
			[]string{"all - [host containers lan outside]: it is on the host's network: what it listens on is the host's own, and the host's firewall filters it as such"}},
		{"no network", nil, "none", []string{"80/tcp"}, network.Spec{}, public, around{}, nil},
	} {
		t.Run(x.name, func(t *testing.T) {
			m := Member{Record: &container.Record{Config: &api.Config{ExposedPorts: wire.PortSet{}}, HostConfig: &api.HostConfig{NetworkMode: api.NetworkMode(x.mode)}}, Attachment: x.attachment}
			for _, e := range x.exposed {
				m.Record.Config.ExposedPorts[wire.MustParsePort(e)] = struct{}{}
			}
			var got []string
			for _, p := range auditOf(m, func(string) (network.Spec, bool) { return x.spec, true }, x.host, x.around) {
				text := p.Port + " -"
				if p.HostPort != 0 {
					text = p.Port + " " + netip.AddrPortFrom(p.HostIP, p.HostPort).String()
				}
				if text += fmt.Sprintf(" %v", p.Reach); p.Stopped != "" {
					text += " stopped by " + p.Stopped
				}
				if p.Note != "" {
					text += ": " + p.Note
				}
				got = append(got, text)
			}
			if !slices.Equal(got, x.want) {
				t.Errorf("got\n%q\nwant\n%q", got, x.want)
			}
		})
	}
}
