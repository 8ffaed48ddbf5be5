package nft_test

import (
	"errors"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"berth/internal/kerneltest"
	"berth/kernel/nft"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

func publish(t testing.TB, host, proto, to string) nft.Element {
	t.Helper()
	e, err := nft.Publish(netip.MustParseAddrPort(host), proto, netip.MustParseAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// every has each part of the language once.
func every(t testing.TB) *nft.Table {
	subnet := netip.MustParsePrefix("172.17.0.0/16")
	return &nft.Table{
		Name: "berth-test",
		Maps: []nft.Map{
			{Name: "at", Kind: nft.AtAddress, Elements: []nft.Element{publish(t, "127.0.0.1:53", "udp", "172.17.0.3:53")}},
			{Name: "any", Kind: nft.AnyAddress, Elements: []nft.Element{publish(t, "0.0.0.0:8080", "tcp", "172.17.0.2:80")}},
			{Name: "links", Kind: nft.LinkName, Elements: []nft.Element{nft.LinkElement("eth0")}},
		},
		Chains: []nft.Chain{
			{Name: "publish", Rules: []nft.Rule{{nft.TranslateAt("at")}, {nft.TranslateAny("any")}}},
			{Name: "prerouting", Hook: "prerouting", Type: "nat", Priority: -100, Rules: []nft.Rule{
				{nft.Destination(netip.MustParsePrefix("127.0.0.0/8")), nft.Return},
				{nft.ToSelf, nft.Jump("publish")},
			}},
			{Name: "postrouting", Hook: "postrouting", Type: "nat", Priority: 100, Rules: []nft.Rule{
				{nft.NotOver("lo"), nft.Over("berth0"), nft.Source(subnet), nft.Translated, nft.Masquerade},
			}},
			{Name: "forward", Hook: "forward", Type: "filter", Rules: []nft.Rule{
				{nft.NotFrom("berth0"), nft.Answer, nft.Accept},
				{nft.From("berth0"), nft.Stray, nft.Drop},
				{nft.FromAny("links"), nft.NotOver("berth0"), nft.Drop},
			}},
		},
	}
}

const printed = `table ip berth-test {
	map at {
		type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
		elements = { 127.0.0.1 . udp . 53 : 172.17.0.3 . 53 }
	}

	map any {
		type inet_proto . inet_service : ipv4_addr . inet_service
		elements = { tcp . 8080 : 172.17.0.2 . 80 }
	}

	set links {
		type ifname
		elements = { "eth0" }
	}

	chain publish {
		dnat ip to ip daddr . meta l4proto . th dport map @at
		dnat ip to meta l4proto . th dport map @any
	}

	chain prerouting {
		type nat hook prerouting priority -100; policy accept;
		ip daddr 127.0.0.0/8 return
		fib daddr type local jump publish
	}

	chain postrouting {
		type nat hook postrouting priority 100; policy accept;
		oifname != "lo" oifname "berth0" ip saddr 172.17.0.0/16 ct status dnat masquerade
	}

	chain forward {
		type filter hook forward priority 0; policy accept;
		iifname != "berth0" ct state established,related accept
		iifname "berth0" ct state invalid drop
		iifname @links oifname != "berth0" drop
	}
}
`

func TestTableIsPrintedAsNftReadsIt(t *testing.T) {
	if got := every(t).String(); got != printed {
		t.Errorf("got\n%s\nwant\n%s", got, printed)
	}
}

func TestPublishRefusesWhatItCantTranslate(t *testing.T) {
	to := netip.MustParseAddrPort("172.17.0.2:80")
	for _, c := range []struct{ host, proto string }{{"[::1]:80", "tcp"}, {"0.0.0.0:80", "sctp"}, {"0.0.0.0:80", ""}} {
		if _, err := nft.Publish(netip.MustParseAddrPort(c.host), c.proto, to); err == nil {
			t.Errorf("%s/%s was accepted", c.host, c.proto)
		}
	}
}

func open(t testing.TB) *nft.Conn {
	t.Helper()
	kerneltest.Root(t)
	c, err := nft.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, name := range []string{"berth-test", "berth-read"} {
			if err := c.Remove(name); err != nil {
				t.Error(err)
			}
		}
		c.Close()
	})
	return c
}

// list prints the kernel's tables by the nft program, an independent reader.
func list(t *testing.T, args ...string) string {
	t.Helper()
	nftPath, err := exec.LookPath("nft")
	if err != nil {
		t.Skip("needs the nft program to read the kernel's rules independently")
	}
	out, err := exec.Command(nftPath, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("nft %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// What we send and what nft makes of our text must be the same rules.
func TestKernelHasWhatIsPrinted(t *testing.T) {
	c := open(t)
	table := every(t)
	if err := c.Replace(table); err != nil {
		t.Fatal(err)
	}
	ours := list(t, "list", "table", "ip", "berth-test")
	table.Name = "berth-read"
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(table.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("nft does not read our text: %v\n%s", err, out)
	}
	theirs := strings.Replace(list(t, "list", "table", "ip", "berth-read"), "berth-read", "berth-test", 1)
	if ours != theirs {
		t.Errorf("sent by us:\n%s\nread by nft from our text:\n%s", ours, theirs)
	}
}

func TestReplaceRemoveExists(t *testing.T) {
	c := open(t)
	for _, step := range []struct {
		do   func() error
		want bool
	}{
		{func() error { return nil }, false},
		{func() error { return c.Replace(every(t)) }, true},
		{func() error { return c.Replace(every(t)) }, true},
		{func() error { return c.Remove("berth-test") }, false},
		{func() error { return c.Remove("berth-test") }, false},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		if got, err := c.Exists("berth-test"); err != nil || got != step.want {
			t.Fatalf("exists %v, %v; want %v", got, err, step.want)
		}
	}
}

func TestUpdateIsAllOrNothing(t *testing.T) {
	c := open(t)
	if err := c.Replace(every(t)); err != nil {
		t.Fatal(err)
	}
	fresh := nft.Map{Name: "any", Kind: nft.AnyAddress, Elements: []nft.Element{publish(t, "0.0.0.0:81", "tcp", "172.17.0.2:81")}}
	missing := nft.Map{Name: "any", Kind: nft.AnyAddress, Elements: []nft.Element{publish(t, "0.0.0.0:99", "tcp", "172.17.0.2:99")}}
	if err := c.Update("berth-test", []nft.Map{fresh}, []nft.Map{missing}); !errors.Is(err, syscall.ENOENT) {
		t.Fatalf("removal of a missing element: %v", err)
	}
	if got := list(t, "list", "map", "ip", "berth-test", "any"); strings.Contains(got, "tcp . 81 ") {
		t.Errorf("half of a failed transaction stands:\n%s", got)
	}
	// The connection works on after a failure.
	if err := c.Update("berth-test", []nft.Map{fresh}, nil); err != nil {
		t.Fatal(err)
	}
	if got := list(t, "list", "map", "ip", "berth-test", "any"); !strings.Contains(got, "tcp . 81 : 172.17.0.2 . 81") {
		t.Errorf("the element is missing:\n%s", got)
	}
	if err := c.Update("berth-test", nil, []nft.Map{fresh}); err != nil {
		t.Fatal(err)
	}
	if got := list(t, "list", "map", "ip", "berth-test", "any"); strings.Contains(got, "tcp . 81 ") {
		t.Errorf("the element stands:\n%s", got)
	}
}

func TestManyElementsAreOneTransaction(t *testing.T) {
	c := open(t)
	table := every(t)
	for port := uint16(1000); port < 5000; port++ {
		e, err := nft.Publish(netip.AddrPortFrom(netip.IPv4Unspecified(), port), "udp", netip.AddrPortFrom(netip.MustParseAddr("172.17.0.2"), port))
		if err != nil {
			t.Fatal(err)
		}
		table.Maps[1].Elements = append(table.Maps[1].Elements, e)
	}
	if err := c.Replace(table); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(list(t, "list", "map", "ip", "berth-test", "any"), "udp"); got != 4000 {
		t.Errorf("%d of 4000 elements", got)
	}
}

func TestBlockersAreFound(t *testing.T) {
	c := open(t)
	list(t, "add table inet other")
	t.Cleanup(func() { list(t, "delete table inet other") })
	list(t, "add chain inet other fw { type filter hook forward priority 0; policy drop; }")
	if got, err := c.Blockers("berth0"); err != nil || len(got) != 1 || got[0] != (nft.Blocker{Family: "inet", Table: "other", Chain: "fw"}) {
		t.Fatalf("%v, %v", got, err)
	}
	list(t, "add rule inet other fw iifname berth0 accept")
	if got, err := c.Blockers("berth0"); err != nil || len(got) != 0 {
		t.Errorf("a chain that names the bridge is no blocker: %v, %v", got, err)
	}
}

func BenchmarkUpdate(b *testing.B) {
	c := open(b)
	if err := c.Replace(every(b)); err != nil {
		b.Fatal(err)
	}
	one := []nft.Map{{Name: "any", Kind: nft.AnyAddress, Elements: []nft.Element{publish(b, "0.0.0.0:81", "tcp", "172.17.0.2:81")}}}
	for b.Loop() {
		if err := errors.Join(c.Update("berth-test", one, nil), c.Update("berth-test", nil, one)); err != nil {
			b.Fatal(err)
		}
	}
}
