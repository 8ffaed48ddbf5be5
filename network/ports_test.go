package network

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"testing"

	"berth/kernel/nft"
)

// many are so many ports, of every address of the host.
func many(n int) (all []PortRequest) {
	for k := range n {
		all = append(all, port("", uint16(10000+k), uint16(10000+k), "tcp"))
	}
	return all
}

// A thousand ports are one transaction: all there, of both families, and all gone.
func TestAThousandPorts(t *testing.T) {
	h := newHost(t)
	b := restored(t, Config{Pool: -1, Default: Spec{IPv6: true}})
	a, ns := attach(t, b, "web", many(1000)...)
	if len(a.Ports) != 2000 {
		t.Fatalf("%d ports, want 2000", len(a.Ports))
	}
	for _, p := range []int{10000, 10500, 10999} {
		serve(t, ns, "tcp", fmt.Sprintf("0.0.0.0:%d", p))
		reaches(t, "outside", h.outside, "tcp", fmt.Sprintf("%s:%d", uplinkHost, p), outsideIP)
		reaches(t, "this host", nil, "tcp", fmt.Sprintf("127.0.0.1:%d", p), "")
		reaches(t, "the container itself", ns, "tcp", fmt.Sprintf("%s:%d", uplinkHost, p), "")
	}
	leads := func(p netip.Prefix) int { return len(must(b.wall.fw.LeadingTo(b.Table(), p.Addr()))(t)) }
	e := a.Endpoints[0]
	// A hash that grows while it is listed may miss one.
	until(t, "all are there", func() bool { return leads(e.Address) == 1000 && leads(e.Address6) == 1000 })
	if _, err := b.Reserve("other", onDefault(b), []PortRequest{port("", 10999, 80, "tcp")}); err == nil {
		t.Error("a port is had twice")
	}
	if err := b.Release(a); err != nil {
		t.Fatal(err)
	}
	until(t, "all are gone", func() bool { return leads(e.Address) == 0 && leads(e.Address6) == 0 })
	reachesNot(t, "outside", h.outside, "tcp", uplinkHost+":10500")
}

// BenchmarkAThousandPorts is a container's start with so many, and what iptables takes for the rules alone that others need for them, in the
// one transaction that its restore allows.
func BenchmarkAThousandPorts(b *testing.B) {
	b.Run("here", func(b *testing.B) {
		newHost(b)
		h := restored(b, Config{Pool: -1})
		ports := many(1000)
		for b.Loop() {
			a := must(h.Reserve("bench", onDefault(h), ports))(b)
			ns := must(h.Attach(context.Background(), a))(b)
			b.StopTimer()
			ns.Close()
			if err := h.Release(a); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
	})
	for _, program := range []string{"iptables-nft", "iptables-legacy"} {
		b.Run(program, func(b *testing.B) {
			newHost(b)
			path, err := exec.LookPath(program + "-restore")
			if err != nil {
				b.Skipf("needs %s-restore as the peer", program)
			}
			var text bytes.Buffer
			text.WriteString("*nat\n:PORTS -\n")
			for k := range 1000 {
				fmt.Fprintf(&text, "-A PORTS -p tcp --dport %d -j DNAT --to-destination 172.17.0.2:%d\n", 10000+k, 10000+k)
				fmt.Fprintf(&text, "-A PORTS -s 172.17.0.2 -d 172.17.0.2 -p tcp --dport %d -j MASQUERADE\n", 10000+k)
			}
			text.WriteString("COMMIT\n*filter\n:OPEN -\n")
			for k := range 1000 {
				fmt.Fprintf(&text, "-A OPEN -d 172.17.0.2 -p tcp --dport %d -j ACCEPT\n", 10000+k)
			}
			text.WriteString("COMMIT\n")
			rules := bytes.ReplaceAll(text.Bytes(), []byte("-j MASQUERADE"), []byte("-j RETURN")) // of postrouting alone, and as long
			run := func(input []byte, args ...string) {
				cmd := exec.Command(path, args...)
				cmd.Stdin = bytes.NewReader(input)
				if out, err := cmd.CombinedOutput(); err != nil {
					b.Fatalf("%v: %s", err, out)
				}
			}
			empty := []byte("*nat\n:PORTS -\nCOMMIT\n*filter\n:OPEN -\nCOMMIT\n")
			for b.Loop() {
				run(rules, "--noflush")
				b.StopTimer()
				run(empty, "--noflush")
				b.StartTimer()
			}
			run([]byte("*nat\nCOMMIT\n*filter\nCOMMIT\n"))
		})
	}
}

// SCTP is published as the others are, even where the kernel has none to hold the host's port with.
func TestSCTPIsAnElement(t *testing.T) {
	e, err := nft.Publish(netip.MustParseAddrPort("0.0.0.0:3868"), "sctp", netip.MustParseAddrPort("172.17.0.2:3868"))
	if err != nil {
		t.Fatal(err)
	}
	newHost(t)
	b := restored(t, Config{Pool: -1})
	if err := b.update(nft.Change{Family: nft.IPv4, Table: b.Table(), Add: []nft.Map{{Name: publishedAny, Kind: nft.AnyAddress, Elements: []nft.Element{e}}}}); err != nil {
		t.Fatal(err)
	}
	if found := must(b.wall.fw.LeadingTo(b.Table(), netip.MustParseAddr("172.17.0.2")))(t); len(found) != 1 || found[0].Text != "sctp . 3868 : 172.17.0.2 . 3868" {
		t.Errorf("found %v", found)
	}
}
