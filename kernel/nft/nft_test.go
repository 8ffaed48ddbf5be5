package nft_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
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
func every(t testing.TB, f nft.Family) *nft.Table {
	subnet, loopback := netip.MustParsePrefix("172.17.0.0/16"), netip.MustParsePrefix("127.0.0.0/8")
	at, anywhere := publish(t, "127.0.0.1:53", "udp", "172.17.0.3:53"), publish(t, "0.0.0.0:8080", "tcp", "172.17.0.2:80")
	direct, from := netip.MustParseAddrPort("172.17.0.2:443"), netip.MustParseAddr("198.51.100.1")
	if f == nft.IPv6 {
		subnet, loopback = netip.MustParsePrefix("fd00:17::/64"), netip.MustParsePrefix("::1/128")
		at, anywhere = publish(t, "[2001:db8::1]:53", "udp", "[fd00:17::3]:53"), publish(t, "[::]:8080", "sctp", "[fd00:17::2]:80")
		direct, from = netip.MustParseAddrPort("[fd00:17::2]:443"), netip.MustParseAddr("2001:db8::1")
	}
	reachable, err := nft.ReachablePort(direct, "tcp")
	if err != nil {
		t.Fatal(err)
	}
	return &nft.Table{
		Family: f,
		Name:   "berth-test",
		Maps: []nft.Map{
			{Name: "at", Kind: nft.AtAddress, Elements: []nft.Element{at}},
			{Name: "any", Kind: nft.AnyAddress, Elements: []nft.Element{anywhere}},
			{Name: "direct", Kind: nft.Reachable, Elements: []nft.Element{reachable}},
			{Name: "links", Kind: nft.LinkName, Elements: []nft.Element{nft.LinkElement("eth0")}},
			{Name: "into", Kind: nft.LinkVerdict, Elements: []nft.Element{nft.LinkTo("berth0", "into_berth0")}},
			{Name: "outward", Kind: nft.SubnetVerdict, Elements: []nft.Element{nft.SubnetTo(subnet, "outward_berth0")}},
		},
		Chains: []nft.Chain{
			{Name: "user", Theirs: true},
			{Name: "publish", Rules: []nft.Rule{{nft.TranslateAt(f, "at")}, {nft.TranslateAny(f, "any")}}},
			{Name: "into_berth0", Rules: []nft.Rule{{nft.ToReachable(f, "direct"), nft.Accept}, {nft.Drop}}},
			{Name: "outward_berth0", Rules: []nft.Rule{{nft.Over("up0"), nft.SourceAddress(from)}, {nft.Masquerade}}},
			{Name: "prerouting", Hook: "prerouting", Type: "nat", Priority: -100, Rules: []nft.Rule{
				{nft.Destination(loopback), nft.Return},
				{nft.ToSelf, nft.Jump("publish")},
			}},
			{Name: "postrouting", Hook: "postrouting", Type: "nat", Priority: 100, Rules: []nft.Rule{
				{nft.NotOver("lo"), nft.Over("berth0"), nft.Source(subnet), nft.Translated, nft.Masquerade},
				{nft.OverAny("links"), nft.Return},
				{nft.SourceEach(f, "outward")},
			}},
			{Name: "forward", Hook: "forward", Type: "filter", Rules: []nft.Rule{
				{nft.Jump("user")},
				{nft.OverEach("into")},
				{nft.FromEach("into")},
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

	set direct {
		type ipv4_addr . inet_proto . inet_service
		elements = { 172.17.0.2 . tcp . 443 }
	}

	set links {
		type ifname
		elements = { "eth0" }
	}

	map into {
		type ifname : verdict
		elements = { "berth0" : jump into_berth0 }
	}

	map outward {
		type ipv4_addr : verdict
		flags interval
		elements = { 172.17.0.0/16 : jump outward_berth0 }
	}

	chain user {
	}

	chain publish {
		dnat ip to ip daddr . meta l4proto . th dport map @at
		dnat ip to meta l4proto . th dport map @any
	}

	chain into_berth0 {
		ip daddr . meta l4proto . th dport @direct accept
		drop
	}

	chain outward_berth0 {
		oifname "up0" snat to 198.51.100.1
		masquerade
	}

	chain prerouting {
		type nat hook prerouting priority -100; policy accept;
		ip daddr 127.0.0.0/8 return
		fib daddr type local jump publish
	}

	chain postrouting {
		type nat hook postrouting priority 100; policy accept;
		oifname != "lo" oifname "berth0" ip saddr 172.17.0.0/16 ct status dnat masquerade
		oifname @links return
		ip saddr vmap @outward
	}

	chain forward {
		type filter hook forward priority 0; policy accept;
		jump user
		oifname vmap @into
		iifname vmap @into
		iifname != "berth0" ct state established,related accept
		iifname "berth0" ct state invalid drop
		iifname @links oifname != "berth0" drop
	}
}
`

func TestTableIsPrintedAsNftReadsIt(t *testing.T) {
	if got := every(t, nft.IPv4).String(); got != printed {
		t.Errorf("got\n%s\nwant\n%s", got, printed)
	}
}

func TestPublishRefusesWhatItCantTranslate(t *testing.T) {
	to := netip.MustParseAddrPort("172.17.0.2:80")
	for _, c := range []struct{ host, proto string }{{"[::1]:80", "tcp"}, {"0.0.0.0:80", "dccp"}, {"0.0.0.0:80", ""}} {
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
func list(t testing.TB, args ...string) string {
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
	for _, f := range []nft.Family{nft.IPv4, nft.IPv6} {
		table := every(t, f)
		if err := c.Replace(table); err != nil {
			t.Fatal(err)
		}
		ours := list(t, "list", "table", f.String(), "berth-test")
		table.Name = "berth-read"
		cmd := exec.Command("nft", "-f", "-")
		cmd.Stdin = strings.NewReader(table.String())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("nft does not read our text: %v\n%s", err, out)
		}
		theirs := strings.Replace(list(t, "list", "table", f.String(), "berth-read"), "berth-read", "berth-test", 1)
		if ours != theirs {
			t.Errorf("sent by us:\n%s\nread by nft from our text:\n%s", ours, theirs)
		}
	}
}

// What the administrator wrote into his chain stands after all else was written anew.
func TestTheirChainsStay(t *testing.T) {
	c := open(t)
	both := []*nft.Table{every(t, nft.IPv4), every(t, nft.IPv6)}
	if err := c.Replace(both...); err != nil {
		t.Fatal(err)
	}
	fresh := list(t, "list", "ruleset")
	list(t, "add", "rule", "ip", "berth-test", "user", "tcp", "dport", "25", "drop")
	if err := c.Replace(both...); err != nil {
		t.Fatal(err)
	}
	after := list(t, "list", "ruleset")
	if !strings.Contains(after, "tcp dport 25 drop") {
		t.Errorf("the rule has gone:\n%s", after)
	}
	if n, m := strings.Count(after, "\n"), strings.Count(fresh, "\n"); n != m+1 {
		t.Errorf("%d lines were, %d are:\n%s", m, n, after)
	}
}

// A network comes and goes in one step, with its chains and what leads to them.
func TestUpdateAddsAndRemovesChains(t *testing.T) {
	c := open(t)
	if err := c.Replace(every(t, nft.IPv4), every(t, nft.IPv6)); err != nil {
		t.Fatal(err)
	}
	before := list(t, "list", "ruleset")
	lead := []nft.Map{{Name: "into", Kind: nft.LinkVerdict, Elements: []nft.Element{nft.LinkTo("br9", "into_br9")}}}
	add := nft.Change{Table: "berth-test", Add: lead, NewChains: []nft.Chain{{Name: "into_br9", Rules: []nft.Rule{{nft.Drop}}}}}
	remove := nft.Change{Table: "berth-test", Remove: lead, OldChains: []string{"into_br9"}}
	add6, remove6 := add, remove
	add6.Family, remove6.Family = nft.IPv6, nft.IPv6
	if err := c.Update(add, add6); err != nil {
		t.Fatal(err)
	}
	if got := list(t, "list", "ruleset"); strings.Count(got, `"br9" : jump into_br9`) != 2 {
		t.Errorf("got\n%s", got)
	}
	if err := c.Update(remove, remove6); err != nil {
		t.Fatal(err)
	}
	if after := list(t, "list", "ruleset"); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
}

func TestReplaceRemoveExists(t *testing.T) {
	c := open(t)
	for _, step := range []struct {
		do   func() error
		want bool
	}{
		{func() error { return nil }, false},
		{func() error { return c.Replace(every(t, nft.IPv4)) }, true},
		{func() error { return c.Replace(every(t, nft.IPv4)) }, true},
		{func() error { return c.Remove("berth-test") }, false},
		{func() error { return c.Remove("berth-test") }, false},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		if got, err := c.Exists(nft.IPv4, "berth-test"); err != nil || got != step.want {
			t.Fatalf("exists %v, %v; want %v", got, err, step.want)
		}
	}
}

func TestUpdateIsAllOrNothing(t *testing.T) {
	c := open(t)
	if err := c.Replace(every(t, nft.IPv4)); err != nil {
		t.Fatal(err)
	}
	fresh := nft.Map{Name: "any", Kind: nft.AnyAddress, Elements: []nft.Element{publish(t, "0.0.0.0:81", "tcp", "172.17.0.2:81")}}
	missing := nft.Map{Name: "any", Kind: nft.AnyAddress, Elements: []nft.Element{publish(t, "0.0.0.0:99", "tcp", "172.17.0.2:99")}}
	if err := c.Update(nft.Change{Table: "berth-test", Add: []nft.Map{fresh}, Remove: []nft.Map{missing}}); !errors.Is(err, syscall.ENOENT) {
		t.Fatalf("removal of a missing element: %v", err)
	}
	if got := list(t, "list", "map", "ip", "berth-test", "any"); strings.Contains(got, "tcp . 81 ") {
		t.Errorf("half of a failed transaction stands:\n%s", got)
	}
	// The connection works on after a failure.
	if err := c.Update(nft.Change{Table: "berth-test", Add: []nft.Map{fresh}}); err != nil {
		t.Fatal(err)
	}
	if got := list(t, "list", "map", "ip", "berth-test", "any"); !strings.Contains(got, "tcp . 81 : 172.17.0.2 . 81") {
		t.Errorf("the element is missing:\n%s", got)
	}
	if err := c.Update(nft.Change{Table: "berth-test", Remove: []nft.Map{fresh}}); err != nil {
		t.Fatal(err)
	}
	if got := list(t, "list", "map", "ip", "berth-test", "any"); strings.Contains(got, "tcp . 81 ") {
		t.Errorf("the element stands:\n%s", got)
	}
}

func TestManyElementsAreOneTransaction(t *testing.T) {
	c := open(t)
	table := every(t, nft.IPv4)
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
	found, err := c.LeadingTo("berth-test", netip.MustParseAddr("172.17.0.2"))
	found = slices.DeleteFunc(found, func(e nft.Entry) bool { return !strings.HasPrefix(e.Text, "udp") })
	if err != nil || len(found) != 4000 {
		t.Errorf("%d of 4000 elements, %v", len(found), err)
	}
}

// The kernel makes a set's table larger when it is three quarters full, in the background, and a listing that meets this is not whole.
func TestListingIsWholeWhileTheKernelMakesRoom(t *testing.T) {
	c := open(t)
	const full = 6144 // of 8192
	to := netip.MustParseAddr("172.17.0.77")
	element := func(port uint16) nft.Element {
		return publish(t, netip.AddrPortFrom(netip.IPv4Unspecified(), port).String(), "udp", netip.AddrPortFrom(to, port).String())
	}
	for range 8 {
		table := every(t, nft.IPv4)
		for port := uint16(1); len(table.Maps[1].Elements) < full; port++ {
			table.Maps[1].Elements = append(table.Maps[1].Elements, element(port))
		}
		had := len(table.Maps[1].Elements)
		if err := c.Replace(table); err != nil {
			t.Fatal(err)
		}
		if _, err := c.LeadingTo("berth-test", to); err != nil { // what the first elements started is over
			t.Fatal(err)
		}
		one := []nft.Map{{Name: "any", Kind: nft.AnyAddress, Elements: []nft.Element{element(60000)}}}
		if err := c.Update(nft.Change{Table: "berth-test", Add: one}); err != nil {
			t.Fatal(err)
		}
		found, err := c.LeadingTo("berth-test", to)
		if err != nil || len(found) != had { // one of them leads elsewhere
			t.Fatalf("%d of %d elements, %v", len(found), had, err)
		}
		if twice := len(found) - len(slices.Compact(found)); twice > 0 {
			t.Fatalf("%d elements twice", twice)
		}
	}
}

func BenchmarkUpdate(b *testing.B) {
	c := open(b)
	if err := c.Replace(every(b, nft.IPv4)); err != nil {
		b.Fatal(err)
	}
	one := []nft.Map{{Name: "any", Kind: nft.AnyAddress, Elements: []nft.Element{publish(b, "0.0.0.0:81", "tcp", "172.17.0.2:81")}}}
	for b.Loop() {
		if err := errors.Join(c.Update(nft.Change{Table: "berth-test", Add: one}), c.Update(nft.Change{Table: "berth-test", Remove: one})); err != nil {
			b.Fatal(err)
		}
	}
}

func TestWhatLeadsToAnAddressIsListed(t *testing.T) {
	c := open(t)
	if err := c.Replace(every(t, nft.IPv4), every(t, nft.IPv6)); err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string][]nft.Entry{
		"172.17.0.2":  {{"berth-test", "any", "tcp . 8080 : 172.17.0.2 . 80"}, {"berth-test", "direct", "172.17.0.2 . tcp . 443"}},
		"172.17.0.3":  {{"berth-test", "at", "127.0.0.1 . udp . 53 : 172.17.0.3 . 53"}},
		"fd00:17::2":  {{"berth-test", "any", "sctp . 8080 : fd00:17::2 . 80"}, {"berth-test", "direct", "fd00:17::2 . tcp . 443"}},
		"fd00:17::3":  {{"berth-test", "at", "2001:db8::1 . udp . 53 : fd00:17::3 . 53"}},
		"fd00:17::99": nil,
	} {
		got, err := c.LeadingTo("berth-", netip.MustParseAddr(address))
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v; want %v", address, got, err, want)
		}
	}
}

// What a look at other software's rules costs: nothing there, and the layout of a usual host's firewall.
func BenchmarkFilters(b *testing.B) {
	c := open(b)
	if err := c.Replace(every(b, nft.IPv4)); err != nil {
		b.Fatal(err)
	}
	look := func(b *testing.B) {
		for b.Loop() {
			if _, err := c.Filters(func(table string) bool { return table == "berth-test" }); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("none", look)
	b.Run("usual", func(b *testing.B) {
		list(b, "add table inet usual")
		b.Cleanup(func() { list(b, "delete table inet usual") })
		list(b, "add chain inet usual in { type filter hook input priority 0; policy drop; }")
		list(b, "add chain inet usual fw { type filter hook forward priority 0; policy drop; }")
		list(b, "add rule inet usual in ct state vmap { established : accept, related : accept, invalid : drop }")
		for port := range 30 {
			list(b, fmt.Sprintf("add rule inet usual in tcp dport %d accept", 2000+port))
		}
		look(b)
	})
}
