package firewall_test

import (
	"net/netip"
	"strings"
	"testing"

	"berth/kernel/nft"
	"berth/network/firewall"
)

// What is told, and when nothing is.
func TestObstacles(t *testing.T) {
	link := func(name string) []nft.Range {
		b := append([]byte(name), make([]byte, 16-len(name))...)
		return []nft.Range{{Low: b, High: b}}
	}
	drop, accept := nft.Step{Do: nft.Drops}, nft.Step{Do: nft.Accepts}
	answers := nft.Read{Then: accept, Matches: []nft.Match{{Field: nft.StateOrNAT, Mask: []byte{6, 0, 0, 0}, Not: true, Ranges: []nft.Range{{Low: make([]byte, 4), High: make([]byte, 4)}}}}}
	ufw := map[string][]nft.Read{
		"FORWARD":                 {{Then: nft.Step{Do: nft.Jumps, To: "ufw-before-logging-forward"}}, {Then: nft.Step{Do: nft.Jumps, To: "ufw-before-forward"}}, {Then: nft.Step{Do: nft.Jumps, To: "ufw-reject-forward"}}},
		"ufw-before-forward":      {answers, {Then: nft.Step{Do: nft.Jumps, To: "ufw-user-forward"}}},
		"ufw-user-forward":        {},
		"ufw-skip-to-policy-none": {{Then: drop}},
	}
	opened := map[string][]nft.Read{}
	for k, v := range ufw {
		opened[k] = v
	}
	opened["ufw-user-forward"] = []nft.Read{{Then: accept, Matches: []nft.Match{{Field: nft.InLink, Ranges: link("br0")}}}, {Then: accept, Matches: []nft.Match{{Field: nft.OutLink, Ranges: link("br0")}}}}
	for _, x := range []struct {
		name   string
		filter nft.Filter
		subnet string
		parts  []string // of the only obstacle; nil: there is none
	}{
		{"ufw", nft.Filter{Legacy: true, Family: "ip", Table: "filter", Chain: "FORWARD", Hook: "forward", Drops: true, Rules: ufw}, "172.17.0.0/16",
			[]string{"policy of chain FORWARD of iptables-legacy", "nothing outside, and published", "ufw route allow in on br0; ufw route allow out on br0"}},
		{"ufw that lets through", nft.Filter{Family: "ip", Table: "filter", Chain: "FORWARD", Hook: "forward", Drops: true, Rules: opened}, "172.17.0.0/16", nil},
		{"the other family", nft.Filter{Family: "ip6", Table: "filter", Chain: "FORWARD", Hook: "forward", Drops: true}, "172.17.0.0/16", nil},
		{"IPv6", nft.Filter{Family: "ip6", Table: "filter", Chain: "FORWARD", Hook: "forward", Drops: true}, "fd00::/64", []string{"policy of chain ip6 filter FORWARD", "ip6tables-nft -I FORWARD -i br0"}},
		{"firewalld", nft.Filter{Family: "inet", Table: "firewalld", Chain: "filter_FORWARD", Hook: "forward", Rules: map[string][]nft.Read{"filter_FORWARD": {{Then: drop}}}}, "172.17.0.0/16",
			[]string{"a rule of chain inet firewalld filter_FORWARD", "firewall-cmd --permanent --zone=trusted --add-interface=br0"}},
		{"answers alone are dropped", nft.Filter{Family: "inet", Table: "t", Chain: "c", Hook: "forward", Rules: map[string][]nft.Read{"c": {{Then: drop, Matches: []nft.Match{{Field: nft.OutLink, Ranges: link("br0")}}}}}},
			"172.17.0.0/16", []string{"a rule of chain inet t c", "nothing outside"}},
		{"input is not forwarded", nft.Filter{Family: "ip", Table: "t", Chain: "c", Hook: "input", Drops: true}, "172.17.0.0/16", nil},
		{"a jump in circles", nft.Filter{Family: "ip", Table: "t", Chain: "c", Hook: "forward", Rules: map[string][]nft.Read{"c": {{Then: nft.Step{Do: nft.Jumps, To: "c"}}}}}, "172.17.0.0/16", nil},
	} {
		t.Run(x.name, func(t *testing.T) {
			got := firewall.Obstacles([]*nft.Filter{&x.filter}, firewall.Way{Network: "own", Bridge: "br0", Subnet: netip.MustParsePrefix(x.subnet), Uplink: "eth0"})
			if len(got) != min(1, len(x.parts)) {
				t.Fatalf("obstacles %v", got)
			}
			for _, p := range x.parts {
				if !strings.Contains(got[0].String(), p) {
					t.Errorf("%q lacks %q", got[0], p)
				}
			}
		})
	}
}
