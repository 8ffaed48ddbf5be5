package nft_test

import (
	"os/exec"
	"strings"
	"testing"

	"berth/internal/kerneltest"
	"berth/kernel/nft"
)

// rules runs a command line of an iptables program for each line, and undoes all at the end.
func rules(t *testing.T, program string, lines ...string) {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("needs %s to write rules as other software does", program)
	}
	run := func(line string) {
		t.Helper()
		if out, err := exec.Command(path, strings.Fields(line)...).CombinedOutput(); err != nil {
			t.Fatalf("%s %s: %v\n%s", program, line, err, out)
		}
	}
	t.Cleanup(func() { run("-P FORWARD ACCEPT"); run("-P INPUT ACCEPT"); run("-F"); run("-X") })
	for _, l := range lines {
		run(l)
	}
}

func filters(t *testing.T) []*nft.Filter {
	t.Helper()
	c := open(t)
	all, err := c.Filters(func(string) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// The same rules read the same, whatever program wrote them.
func TestRulesOfIptablesAreRead(t *testing.T) {
	kerneltest.Root(t)
	link := func(name string) []byte { return append([]byte(name), make([]byte, 16-len(name))...) }
	state := func(bit byte) []byte { return []byte{bit, 0, 0, 0} }
	for _, program := range []string{"iptables-legacy", "ip6tables-legacy", "iptables-nft", "ip6tables-nft"} {
		t.Run(program, func(t *testing.T) {
			rules(t, program, "-P FORWARD DROP", "-N checks", "-N last", "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
				"-A FORWARD -j checks", "-A checks -m addrtype --dst-type LOCAL -j DROP", "-A checks -i lan+ -j RETURN", "-A checks -p tcp --dport 22 -o up0 -j ACCEPT", "-A checks -g last", "-A checks -j ACCEPT",
				"-A last ! -i bad0 -p udp -j ACCEPT", "-A last -m comment --comment why -i bad0 -j REJECT")
			var f *nft.Filter
			for _, x := range filters(t) {
				if x.Hook == "forward" && x.Legacy == strings.HasSuffix(program, "legacy") && (x.Family == "ip6") == strings.HasPrefix(program, "ip6") {
					f = x
				}
			}
			if f == nil || !f.Drops || f.Table != "filter" || f.Chain != "FORWARD" {
				t.Fatalf("read %+v", f)
			}
			for _, x := range []struct {
				name    string
				packet  nft.Packet
				dropped bool
				chain   string
			}{
				{"an answer", nft.Packet{nft.StateOrNAT: state(2), nft.State: state(2)}, false, ""},
				{"for the host", nft.Packet{nft.StateOrNAT: state(8), nft.KindOfAddress: state(2)}, true, "checks"},
				{"not for the host", nft.Packet{nft.StateOrNAT: state(8), nft.KindOfAddress: state(1), nft.InLink: link("lan7")}, true, "FORWARD"},
				{"from a link of that prefix", nft.Packet{nft.StateOrNAT: state(8), nft.InLink: link("lan7")}, true, "FORWARD"},
				{"to the open port", nft.Packet{nft.StateOrNAT: state(8), nft.InLink: link("x"), nft.OutLink: link("up0"), nft.Protocol: {6}, nft.Port: {0, 22}}, false, ""},
				{"to another port", nft.Packet{nft.StateOrNAT: state(8), nft.InLink: link("x"), nft.OutLink: link("up0"), nft.Protocol: {6}, nft.Port: {0, 23}}, true, "FORWARD"},
				{"udp", nft.Packet{nft.StateOrNAT: state(8), nft.InLink: link("x"), nft.OutLink: link("up0"), nft.Protocol: {17}}, false, ""},
				{"refused", nft.Packet{nft.StateOrNAT: state(8), nft.InLink: link("bad0"), nft.OutLink: link("up0"), nft.Protocol: {17}}, true, "last"},
			} {
				if at, dropped := f.Fate(x.packet); dropped != x.dropped || at.Chain != x.chain {
					t.Errorf("%s: dropped %v at %q, want %v at %q\n%+v", x.name, dropped, at.Chain, x.dropped, x.chain, f.Rules)
				}
			}
		})
	}
}

func TestRulesOfNftAreRead(t *testing.T) {
	open(t)
	link := func(name string) []byte { return append([]byte(name), make([]byte, 16-len(name))...) }
	for _, x := range []struct {
		name    string
		rules   []string
		packet  nft.Packet
		dropped bool
	}{
		{"a map of states", []string{"ct state vmap { established : accept, related : accept, invalid : drop }", "drop"}, nft.Packet{nft.State: {2, 0, 0, 0}}, false},
		{"the same for a new one", []string{"ct state vmap { established : accept, related : accept, invalid : drop }", "drop"}, nft.Packet{nft.State: {8, 0, 0, 0}}, true},
		{"a set of links", []string{`iifname { "a0", "b0" } accept`, "drop"}, nft.Packet{nft.InLink: link("b0")}, false},
		{"one that isn't in it", []string{`iifname { "a0", "b0" } accept`, "drop"}, nft.Packet{nft.InLink: link("c0")}, true},
		{"a wildcard", []string{`iifname "br-*" accept`, "drop"}, nft.Packet{nft.InLink: link("br-12")}, false},
		{"a map of links to chains", []string{`iifname vmap { "a0" : jump more, "b0" : drop }`, "drop"}, nft.Packet{nft.InLink: link("a0")}, false},
		{"a subnet", []string{"ip saddr 172.16.0.0/12 accept", "drop"}, nft.Packet{nft.FromAddress: {172, 17, 0, 2}, nft.FamilyOf: {2}}, false},
		{"subnets", []string{"ip saddr { 10.0.0.0/8, 172.16.0.0/12 } drop"}, nft.Packet{nft.FromAddress: {172, 17, 0, 2}, nft.FamilyOf: {2}}, true},
		{"outside of subnets", []string{"ip saddr { 10.0.0.0/8, 172.16.0.0/12 } drop"}, nft.Packet{nft.FromAddress: {172, 32, 0, 0}, nft.FamilyOf: {2}}, false},
		{"a range of ports", []string{"tcp dport 1000-2000 drop"}, nft.Packet{nft.Protocol: {6}, nft.Port: {5, 0}}, true},
		{"beyond it", []string{"tcp dport 1000-2000 drop"}, nft.Packet{nft.Protocol: {6}, nft.Port: {50, 0}}, false},
		{"a mark that nobody can tell", []string{"meta mark 7 drop"}, nft.Packet{nft.InLink: link("a0")}, false},
		{"a mark and a link that is ours", []string{`iifname "a0" meta mark 7 accept`, "drop"}, nft.Packet{nft.InLink: link("a0")}, false},
		{"a translated flow", []string{"ct status dnat accept", "drop"}, nft.Packet{nft.Status: {1 << 5, 0, 0, 0}}, false},
		{"an address of the host", []string{"fib daddr type local drop"}, nft.Packet{nft.KindOfAddress: {2, 0, 0, 0}}, true},
		{"no address of the host", []string{"fib daddr type local drop"}, nft.Packet{nft.KindOfAddress: {1, 0, 0, 0}}, false},
		{"refused", []string{"reject with icmpx admin-prohibited"}, nft.Packet{}, true},
		{"only so many", []string{"limit rate 1/second drop"}, nft.Packet{}, false},
	} {
		t.Run(x.name, func(t *testing.T) {
			list(t, "add table inet other")
			t.Cleanup(func() { list(t, "delete table inet other") })
			list(t, "add chain inet other more")
			list(t, "add rule inet other more counter accept")
			list(t, "add chain inet other fw { type filter hook forward priority 0; policy accept; }")
			for _, r := range x.rules {
				list(t, "add rule inet other fw "+r)
			}
			for _, f := range filters(t) {
				if f.Table != "other" {
					continue
				}
				if at, dropped := f.Fate(x.packet); dropped != x.dropped {
					t.Errorf("dropped %v at %+v, want %v; read %+v", dropped, at, x.dropped, f.Rules)
				}
				return
			}
			t.Error("the chain was not found")
		})
	}
}
