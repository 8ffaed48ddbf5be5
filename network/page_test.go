package network

import (
	"bytes"
	"net/netip"
	"os"
	"strings"
	"testing"
	"text/template"

	"berth/kernel/nft"
	"berth/network/ipam"
)

// combination is a network on the page.
type combination struct {
	Title, Command, Why string
	spec                Spec
	Rules               string
}

func combinations() []combination {
	const mode4, mode6 = optionGateway4, optionGateway6
	subnet := func(s string) ipam.Pool {
		p := netip.MustParsePrefix(s)
		return ipam.Pool{Subnet: p, Gateway: p.Addr().Next()}
	}
	bridge := func(options ...string) Spec {
		s := Spec{Driver: "bridge", IPv4: true, Pools: []ipam.Pool{subnet("172.18.0.0/22")}, Options: map[string]string{optionBridge: "br-app"}}
		for k := 0; k < len(options); k += 2 {
			s.Options[options[k]] = options[k+1]
		}
		return s
	}
	with6 := func(s Spec) Spec {
		s.IPv6, s.Pools = true, append(s.Pools, subnet("fd00:18::/64"))
		return s
	}
	internal := func(s Spec) Spec { s.Internal = true; return s }
	return []combination{
		{"As it comes", "network create app", "Containers reach each other and everything outside, with the host's address. From outside and from other networks they are reached on published ports alone: those were translated. " +
			"A packet that fits no flow would leave with an address that nobody can answer, and is dropped. A container that asks a published port of the host that leads to its own network is translated twice, so that the answer comes back the same way.", bridge(), ""},
		{"With IPv6", "network create --ipv6 app", "The same rules again in `table ip6 berth`: IPv6 addresses of containers are unique local ones, and no more open than those of IPv4.", with6(bridge()), ""},
		{"Containers apart", "network create -o " + optionICC + "=false app", "Containers don't reach each other: the rule that lets them is missing, for what is routed, and the ports of the bridge are isolated, for what the bridge would pass on itself.", bridge(optionICC, "false"), ""},
		{"Internal", "network create --internal app", "No way out and none in: no default route, no published ports, and rules that hold even if somebody makes a route. Containers on it reach each other.", internal(bridge()), ""},
		{"Internal and isolated", "network create --internal -o " + mode4 + "=isolated app", "The same for the packet filter; the bridge has no address, so that containers don't reach the host either.", internal(bridge(mode4, modeIsolated)), ""},
		{"Internal, containers apart", "network create --internal -o " + optionICC + "=false app", "Nobody reaches anybody.", internal(bridge(optionICC, "false")), ""},
		{"Routed", "network create -o " + mode4 + "=routed app", "The world outside has a route to the containers' addresses: nothing is translated, and ports that are published (`-p 80`) are reached at the container's own address. All others stay closed.", bridge(mode4, modeRouted), ""},
		{"Routed, with IPv6", "network create --ipv6 -o " + mode4 + "=routed -o " + mode6 + "=routed app", "As for IPv4.", with6(bridge(mode4, modeRouted, mode6, modeRouted)), ""},
		{"IPv4 translated, IPv6 routed", "network create --ipv6 -o " + mode6 + "=routed app", "The families don't depend on each other.", with6(bridge(mode6, modeRouted)), ""},
		{"Routed, containers apart", "network create -o " + mode4 + "=routed -o " + optionICC + "=false app", "As routed; neighbours reach what is published, as the outside does.", bridge(mode4, modeRouted, optionICC, "false"), ""},
		{"Translated, unprotected", "network create -o " + mode4 + "=nat-unprotected app", "Whoever has a route to a container reaches every port of it, published or not. For networks whose hosts are trusted.", bridge(mode4, modeUnprotected), ""},
		{"Without translation", "network create -o " + optionMasquerade + "=false app", "Packets leave with the container's address; somebody outside must know the way back. Published ports work as ever.", bridge(optionMasquerade, "false"), ""},
		{"A source address of the host", "network create -o " + optionHost4 + "=198.51.100.1 app", "On hosts with several addresses: packets leave with this one.", bridge(optionHost4, "198.51.100.1"), ""},
		{"A source address, with IPv6", "network create --ipv6 -o " + optionHost4 + "=198.51.100.1 -o " + optionHost6 + "=2001:db8::1 app", "As for IPv4.", with6(bridge(optionHost4, "198.51.100.1", optionHost6, "2001:db8::1")), ""},
	}
}

// rulesOf prints what a network adds to the tables.
func rulesOf(t *testing.T, s Spec) (text string) {
	n := must(newNetwork(s))(t)
	n.link = n.options.link
	for _, f := range []nft.Family{nft.IPv4, nft.IPv6} {
		if p, ok := n.policy(f); ok && (f == nft.IPv4 || s.IPv6) {
			text += (&nft.Table{Family: f, Name: "berth", Maps: p.elements(), Chains: p.chains(f)}).String()
		}
	}
	return text
}

// doc/firewall.md is what is really written.
func TestFirewallPage(t *testing.T) {
	page := struct {
		Networks        []combination
		PortsWhy, Ports string
	}{Networks: combinations()}
	for k := range page.Networks {
		page.Networks[k].Rules = rulesOf(t, page.Networks[k].spec)
	}
	page.PortsWhy = "An element for each port: `-p 8080:80` for every address of the host, of both families where the container has both; `-p 127.0.0.1:5353:53/udp` for one address, where others don't reach it. " +
		"`-p 8000-8999:8000-8999` is a thousand elements and one transaction. On a routed network, a port is an element of `reachable`. SCTP is as the others. The host's port is held by a bound socket as well, so that a program that wants it is told at once."
	p, a := netip.MustParsePrefix, netip.MustParseAddr
	at := &Attachment{
		Endpoints: []Endpoint{{Address: p("172.18.0.2/22"), Gateway: a("172.18.0.1"), Address6: p("fd00:18::2/64"), Gateway6: a("fd00:18::1")}},
		Ports: []Port{
			{a("0.0.0.0"), 8080, 80, "tcp", false}, {a("::"), 8080, 80, "tcp", false}, {a("127.0.0.1"), 5353, 53, "udp", false},
			{a("0.0.0.0"), 3868, 3868, "sctp", false}, {a("0.0.0.0"), 0, 443, "tcp", true}, {a("2001:db8::1"), 8443, 443, "tcp", false},
		},
	}
	for _, f := range []nft.Family{nft.IPv4, nft.IPv6} {
		page.Ports += (&nft.Table{Family: f, Name: "berth", Maps: must(at.elements(at.Ports, f))(t)}).String()
	}
	tables := map[string]*nft.Table{"ip": table(nft.IPv4, "berth"), "ip6": table(nft.IPv6, "berth")}
	parts := template.FuncMap{
		"table": func(family string) string { return tables[family].String() },
		"chain6": func(name string) string {
			_, text, _ := strings.Cut(tables["ip6"].String(), "\tchain "+name+" {\n")
			text, _, _ = strings.Cut(text, "\n\t}")
			return "\tchain " + name + " {\n" + text + "\n\t}\n"
		},
	}
	var got bytes.Buffer
	const source, golden = "testdata/firewall.tmpl", "../doc/firewall.md"
	if err := template.Must(template.New("firewall.tmpl").Funcs(parts).ParseFiles(source)).Execute(&got, page); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want := must(os.ReadFile(golden))(t)
	for k, line := range strings.Split(got.String(), "\n") {
		if wanted := strings.Split(string(want), "\n"); k >= len(wanted) || line != wanted[k] {
			t.Fatalf("doc/firewall.md, line %d: the engine writes\n%s\nand the page has\n%s\nif that is what is wanted: go test ./network -run TestFirewallPage -update", k+1, line, strings.Join(wanted[min(k, len(wanted)):min(k+1, len(wanted))], ""))
		}
	}
	if got.Len() != len(want) {
		t.Error("the page has more than is written")
	}
}
