package network

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"berth/fault"
	"berth/kernel/namespace"
	"berth/kernel/netlink"
	"berth/kernel/nft"
	"berth/network/ipam"
)

func create(t testing.TB, h *Host, s Spec) *Spec {
	t.Helper()
	if !s.IPv6 {
		s.IPv4 = true
	}
	return must(h.Create(context.Background(), s))(t)
}

// member is a container of a test.
type member struct {
	*Attachment
	ns *os.File
}

func place(t testing.TB, h *Host, name string, ports []PortRequest, on ...*Spec) *member {
	t.Helper()
	var joins []Join
	for _, s := range on {
		joins = append(joins, Join{Network: s.ID})
	}
	a := must(h.Reserve(name, joins, ports))(t)
	ns := must(h.Attach(context.Background(), a))(t)
	t.Cleanup(func() { ns.Close() })
	return &member{a, ns}
}

func (m *member) on(s *Spec) string  { return m.On(s.ID).Address.Addr().String() }
func (m *member) on6(s *Spec) string { return m.On(s.ID).Address6.Addr().String() }

func TestNetworksAreApartAndTogether(t *testing.T) {
	w := newHost(t)
	h := restored(t, Config{})
	front, back := create(t, h, Spec{Name: "front"}), create(t, h, Spec{Name: "back"})
	if front.Pools[0].Subnet.Overlaps(back.Pools[0].Subnet) || front.Driver != "bridge" {
		t.Fatalf("%+v, %+v", front, back)
	}
	web := place(t, h, "web", []PortRequest{port("", 8080, 80, "tcp")}, front)
	app := place(t, h, "app", nil, front, back)
	db := place(t, h, "db", nil, back)
	for _, m := range []*member{web, app, db} {
		serve(t, m.ns, "tcp", "0.0.0.0:80")
	}
	serve(t, w.outside, "tcp", "0.0.0.0:7")

	reaches(t, "web to app", web.ns, "tcp", app.on(front)+":80", web.on(front))
	reaches(t, "app to db", app.ns, "tcp", db.on(back)+":80", app.on(back))
	reaches(t, "db to app", db.ns, "tcp", app.on(back)+":80", db.on(back))
	reachesNot(t, "web to db", web.ns, "tcp", db.on(back)+":80")
	reachesNot(t, "db to web", db.ns, "tcp", web.on(front)+":80")
	reachesNot(t, "web to app by the other network", web.ns, "tcp", app.on(back)+":80")
	for _, m := range []*member{web, app, db} {
		reaches(t, "to outside", m.ns, "tcp", outsideIP+":7", uplinkHost)
	}
	// By the host, published ports are everybody's; and who asks is known.
	reaches(t, "db to the published port of web", db.ns, "tcp", uplinkHost+":8080", db.on(back))
	reaches(t, "outside", w.outside, "tcp", uplinkHost+":8080", outsideIP)
	reachesNot(t, "outside, directly", w.outside, "tcp", web.on(front)+":80")
}

func TestNetworkIsMadeAndRemoved(t *testing.T) {
	newHost(t)
	h := restored(t, Config{Pool: -1})
	before := ruleset(t)
	for _, c := range []struct {
		spec Spec
		kind fault.Kind
		want string
	}{
		{Spec{Name: "bridge"}, fault.Conflict, "network with name bridge already exists"},
		{Spec{Name: "host"}, fault.Conflict, "already exists"},
		{Spec{Name: "x", Driver: "weave"}, fault.NotFound, "could not find plugin weave"},
		{Spec{Name: "x", Options: map[string]string{optionICC: "perhaps"}}, fault.Invalid, "true or false"},
		{Spec{Name: "x", Options: map[string]string{optionMTU: "12"}}, fault.Invalid, "a number from 68"},
		{Spec{Name: "x", Options: map[string]string{optionBridge: "a/b"}}, fault.Invalid, "not the name of a link"},
		{Spec{Name: "x", Options: map[string]string{optionGateway4: "tunnel"}}, fault.Invalid, "one of nat"},
		{Spec{Name: "x", Options: map[string]string{optionGateway4: "isolated"}}, fault.Invalid, "internal"},
		{Spec{Name: "x", Options: map[string]string{optionBridge: lan}}, fault.Conflict, "a link lan0 exists and is no bridge"},
		{Spec{Name: "x", Pools: []ipam.Pool{{Subnet: netip.MustParsePrefix("172.17.5.0/24")}}}, fault.Denied, "Pool overlaps with other one on this address space: subnet 172.17.5.0/24 overlaps with the"},
		{Spec{Name: "x", Pools: []ipam.Pool{{Subnet: netip.MustParsePrefix("203.0.113.0/25")}}}, fault.Denied, "address 203.0.113.1/24 of lan0"},
		{Spec{Name: "x", Driver: "macvlan", Options: map[string]string{"parent": "nothere"}}, fault.Invalid, "parent link nothere does not exist"},
		{Spec{Name: "x", Driver: "macvlan", Options: map[string]string{"parent": lan, "macvlan_mode": "x"}}, fault.Invalid, "one of bridge"},
	} {
		c.spec.IPv4 = true
		_, err := h.Create(context.Background(), c.spec)
		if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v (%s), want %q (%s)", c.spec, err, fault.Of(err), c.want, c.kind)
		}
	}
	if after := ruleset(t); after != before {
		t.Errorf("a refused network left rules:\n%s", after)
	}
	if got := h.List(); len(got) != 1 {
		t.Errorf("networks %+v", got)
	}
	s := create(t, h, Spec{Name: "x", Labels: map[string]string{"a": "b"}, Options: map[string]string{optionBridge: "br-x", optionMTU: "1400"}})
	l := must(open(t).Link("br-x"))(t)
	if !l.Up || l.MTU != 1400 || l.Alias != h.cfg.mark(s.ID) {
		t.Errorf("%+v", l)
	}
	on := place(t, h, "c", nil, s)
	if err := h.Remove(s.ID); !errors.Is(err, fault.Denied) || !strings.Contains(err.Error(), "has active endpoints") {
		t.Errorf("removal of a network in use: %v", err)
	}
	if err := h.Release(on.Attachment); err != nil {
		t.Fatal(err)
	}
	if err := h.Remove(s.ID); err != nil {
		t.Fatal(err)
	}
	if err := h.Remove(s.ID); !errors.Is(err, fault.NotFound) {
		t.Errorf("removed twice: %v", err)
	}
	if err := h.Remove(standard(h).ID); !errors.Is(err, fault.Denied) {
		t.Errorf("the default network: %v", err)
	}
	if after := ruleset(t); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
	until(t, "the bridge is gone", gone(t, "br-x"))
	if left := must(os.ReadDir(h.cfg.recordDir()))(t); len(left) != 1 {
		t.Errorf("records %v", left)
	}
}

// ruleset is what an independent program reads of the packet filter, in an order of its own.
func ruleset(t testing.TB) string {
	t.Helper()
	program, err := exec.LookPath("nft")
	if err != nil {
		t.Skip("needs the nft program to read the rules independently")
	}
	lines := strings.Split(string(must(exec.Command(program, "list", "ruleset").Output())(t)), "\n")
	for k := range lines { // elements are listed in any order
		words := strings.Fields(strings.ReplaceAll(lines[k], ",", " "))
		slices.Sort(words)
		lines[k] = strings.Join(words, " ")
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func TestNetworksOutliveTheDaemon(t *testing.T) {
	w := newHost(t)
	dir := t.TempDir()
	h := restored(t, Config{Dir: dir})
	one, two := create(t, h, Spec{Name: "one", IPv4: true, IPv6: true}), create(t, h, Spec{Name: "two"})
	web := place(t, h, "web", []PortRequest{port("", 8080, 80, "tcp")}, one, two)
	serve(t, web.ns, "tcp", "0.0.0.0:80")
	rules := ruleset(t)
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	// What a kill in the middle of things may have left.
	c := open(t)
	if err := c.Apply(netlink.NewBridge("br-left", nil, 1500)); err != nil {
		t.Fatal(err)
	}
	left := must(c.Link("br-left"))(t)
	if err := c.Apply(netlink.SetAlias(left.Index, h.cfg.mark("0123")), netlink.Delete(must(c.Link("br-"+two.ID[:12]))(t).Index)); err != nil {
		t.Fatal(err)
	}
	h = bridge(t, Config{Dir: dir})
	kept := web.Attachment.clone()
	if err := h.Restore([]*Attachment{&kept}); err != nil {
		t.Fatal(err)
	}
	if got := ruleset(t); got != rules {
		t.Errorf("before\n%s\nafter\n%s", rules, got)
	}
	until(t, "the bridge of no network is gone", gone(t, "br-left"))
	reaches(t, "outside", w.outside, "tcp", uplinkHost+":8080", outsideIP)
	names := []string{}
	for _, s := range h.List() {
		names = append(names, s.Name)
	}
	if !slices.Equal(names, []string{"bridge", "one", "two"}) {
		t.Errorf("networks %v", names)
	}
	next := place(t, h, "next", nil, one, two)
	if next.on(one) == web.on(one) || next.on(two) == web.on(two) {
		t.Error("addresses are given twice")
	}
	reaches(t, "a new neighbour", next.ns, "tcp", web.on(one)+":80", next.on(one))
}

func TestConnectAndDisconnect(t *testing.T) {
	w := newHost(t)
	h := restored(t, Config{})
	one, two := create(t, h, Spec{Name: "one"}), create(t, h, Spec{Name: "two"})
	closed := create(t, h, Spec{Name: "closed", Internal: true})
	serve(t, w.outside, "tcp", "0.0.0.0:7")
	web := place(t, h, "web", []PortRequest{port("", 8080, 80, "tcp")}, two)
	serve(t, web.ns, "tcp", "0.0.0.0:80")
	other := place(t, h, "other", nil, one)
	shut := place(t, h, "shut", nil, closed)
	ctx := context.Background()

	both := must(h.Connect(ctx, web.Attachment, Join{Network: one.ID, Address: one.Pools[0].Subnet.Addr().Next().Next().Next().Next()}, web.ns))(t)
	if len(both.Endpoints) != 2 || both.On(one.ID).Interface != "eth1" || both.Way(false).NetworkID != one.ID {
		t.Errorf("%+v", both)
	}
	reaches(t, "other", other.ns, "tcp", both.On(one.ID).Address.Addr().String()+":80", other.on(one))
	reaches(t, "outside", w.outside, "tcp", uplinkHost+":8080", outsideIP)
	reaches(t, "web to outside", web.ns, "tcp", outsideIP+":7", uplinkHost)
	if _, err := h.Connect(ctx, both, Join{Network: one.ID}, web.ns); !errors.Is(err, fault.Conflict) {
		t.Errorf("connected twice: %v", err)
	}
	if _, err := h.Connect(ctx, both, Join{Network: closed.ID, Address: netip.MustParseAddr("10.0.0.1")}, web.ns); !errors.Is(err, fault.Invalid) {
		t.Errorf("an address of elsewhere: %v", err)
	}
	if err := h.Remove(one.ID); !errors.Is(err, fault.Denied) {
		t.Errorf("removed under a container: %v", err)
	}
	three := must(h.Connect(ctx, both, Join{Network: closed.ID}, web.ns))(t)
	reaches(t, "shut", shut.ns, "tcp", three.On(closed.ID).Address.Addr().String()+":80", shut.on(closed))

	last := must(h.Disconnect(ctx, three, one.ID, web.ns))(t)
	if last.Way(false).NetworkID != two.ID {
		t.Errorf("%+v", last)
	}
	reaches(t, "outside", w.outside, "tcp", uplinkHost+":8080", outsideIP)
	reaches(t, "web to outside", web.ns, "tcp", outsideIP+":7", uplinkHost)
	reachesNot(t, "other", other.ns, "tcp", both.On(one.ID).Address.Addr().String()+":80")
	if _, err := h.Disconnect(ctx, last, one.ID, web.ns); !errors.Is(err, fault.NotFound) {
		t.Errorf("disconnected twice: %v", err)
	}
	alone := must(h.Disconnect(ctx, last, two.ID, web.ns))(t)
	reachesNot(t, "outside", w.outside, "tcp", uplinkHost+":8080")
	reachesNot(t, "web to outside", web.ns, "tcp", outsideIP+":7")
	reaches(t, "shut", shut.ns, "tcp", alone.On(closed.ID).Address.Addr().String()+":80", shut.on(closed))
	again := must(h.Connect(ctx, alone, Join{Network: two.ID}, web.ns))(t)
	reaches(t, "outside", w.outside, "tcp", uplinkHost+":8080", outsideIP)
	if err := h.Release(again); err != nil {
		t.Fatal(err)
	}
	free(t, "0.0.0.0:8080")
}

func TestInternalNetworkHasNoWayOut(t *testing.T) {
	w := newHost(t)
	h := restored(t, Config{})
	closed, front := create(t, h, Spec{Name: "closed", Internal: true}), create(t, h, Spec{Name: "front"})
	serve(t, w.outside, "tcp", "0.0.0.0:7")
	a := place(t, h, "a", []PortRequest{port("", 8080, 80, "tcp")}, closed)
	b := place(t, h, "b", nil, closed)
	c := place(t, h, "c", nil, front)
	serve(t, a.ns, "tcp", "0.0.0.0:80")
	reaches(t, "a neighbour", b.ns, "tcp", a.on(closed)+":80", b.on(closed))
	reachesNot(t, "a to outside", a.ns, "tcp", outsideIP+":7")
	reachesNot(t, "outside", w.outside, "tcp", uplinkHost+":8080")
	reachesNot(t, "another network", c.ns, "tcp", a.on(closed)+":80")
	// Even with a route of its own making.
	within(t, a.ns, func() error {
		n, err := netlink.Open()
		if err != nil {
			return err
		}
		defer n.Close()
		return n.Apply(netlink.AddDefault(must(n.Link("eth0"))(t).Index, closed.Pools[0].Gateway))
	})
	reachesNot(t, "a to outside by the bridge", a.ns, "tcp", outsideIP+":7")
	if len(a.Ports) != 0 {
		t.Errorf("ports %+v of a network that nobody gets into", a.Ports)
	}
}

func TestContainersApart(t *testing.T) {
	w := newHost(t)
	h := restored(t, Config{})
	s := create(t, h, Spec{Name: "apart", Options: map[string]string{optionICC: "false"}})
	serve(t, w.outside, "tcp", "0.0.0.0:7")
	a := place(t, h, "a", []PortRequest{port("", 8080, 80, "tcp")}, s)
	b := place(t, h, "b", nil, s)
	serve(t, a.ns, "tcp", "0.0.0.0:80")
	reachesNot(t, "a neighbour", b.ns, "tcp", a.on(s)+":80")
	reaches(t, "b to outside", b.ns, "tcp", outsideIP+":7", uplinkHost)
	reaches(t, "outside", w.outside, "tcp", uplinkHost+":8080", outsideIP)
	// Where bridged packets pass the packet filter, a translated one goes from port to port, and isolation has the last word.
	const filter = "net/bridge/bridge-nf-call-iptables"
	was := getSysctl(filter)
	t.Cleanup(func() { setSysctl(filter, was) })
	if err := setSysctl(filter, "0"); err != nil {
		t.Fatal(err)
	}
	reaches(t, "a neighbour by the published port", b.ns, "tcp", uplinkHost+":8080", "")
	reaches(t, "host", nil, "tcp", a.on(s)+":80", "")
}

func TestRoutedNetwork(t *testing.T) {
	w := newHost(t)
	h := restored(t, Config{})
	s := create(t, h, Spec{Name: "routed", Options: map[string]string{optionGateway4: modeRouted}})
	serve(t, w.outside, "tcp", "0.0.0.0:7")
	a := place(t, h, "a", []PortRequest{port("", 8080, 80, "tcp")}, s)
	serve(t, a.ns, "tcp", "0.0.0.0:80")
	serve(t, a.ns, "tcp", "0.0.0.0:81")
	reaches(t, "outside, by the route", w.outside, "tcp", a.on(s)+":80", outsideIP)
	reachesNot(t, "outside, a port that is not published", w.outside, "tcp", a.on(s)+":81")
	reaches(t, "to outside with its own address", a.ns, "tcp", outsideIP+":7", a.on(s))
	if len(a.Ports) != 1 || !a.Ports[0].Direct {
		t.Errorf("ports %+v", a.Ports)
	}
	none := must(h.SetPorts(a.Attachment, nil))(t)
	reachesNot(t, "outside, after it was withdrawn", w.outside, "tcp", a.on(s)+":80")
	must(h.SetPorts(none, []PortRequest{port("", 0, 81, "tcp")}))(t)
	reaches(t, "outside, another one", w.outside, "tcp", a.on(s)+":81", outsideIP)
}

func TestDualStack(t *testing.T) {
	w := newHost(t)
	const host6, outside6 = "2001:db8:1::1", "2001:db8:1::2"
	dual(t, w.outside, uplink, host6, outside6)
	h := restored(t, Config{})
	s := create(t, h, Spec{Name: "dual", IPv4: true, IPv6: true})
	serve6(t, w.outside, "[::]:7")
	a := place(t, h, "a", []PortRequest{port("", 8080, 80, "tcp"), port(host6, 8081, 80, "tcp")}, s)
	b := place(t, h, "b", nil, s)
	serve6(t, a.ns, "[::]:80")
	if !netip.MustParsePrefix("fd00::/8").Contains(a.On(s.ID).Address6.Addr()) || len(a.Ports) != 3 {
		t.Errorf("%+v", a.Attachment)
	}
	for _, c := range []struct {
		who, address, as string
		ns               *os.File
	}{
		{"a neighbour", "[" + a.on6(s) + "]:80", b.on6(s), b.ns},
		{"to outside", "[" + outside6 + "]:7", host6, b.ns},
		{"outside", "[" + host6 + "]:8080", outside6, w.outside},
		{"outside", "[" + host6 + "]:8081", outside6, w.outside},
		{"host", "[" + host6 + "]:8080", "", nil},
		{"itself", "[" + host6 + "]:8080", "", a.ns},
		{"outside, the old family", uplinkHost + ":8080", outsideIP, w.outside},
	} {
		reaches6(t, c.who, c.ns, c.address, c.as)
	}
	if _, err := ask6(w.outside, "["+a.on6(s)+"]:80", impatience); err == nil {
		t.Error("outside reaches a port at the container's own address")
	}
	// ::1 can't be translated: it refuses at once, and clients take 127.0.0.1.
	if _, err := ask6(nil, "[::1]:8080", patience); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("::1: %v", err)
	}
	only := create(t, h, Spec{Name: "only6", IPv6: true})
	x := place(t, h, "x", []PortRequest{port("", 9090, 80, "tcp")}, only)
	serve6(t, x.ns, "[::]:80")
	if x.On(only.ID).Address.IsValid() || len(x.Ports) != 1 {
		t.Errorf("%+v", x.Attachment)
	}
	reaches6(t, "outside", w.outside, "["+host6+"]:9090", outside6)
	if err := h.Cleanup(); err != nil {
		t.Fatal(err)
	}
	if there := must(must(nft.Open())(t).Exists(nft.IPv6, "berth"))(t); there {
		t.Error("the table of IPv6 stands")
	}
}

// dual gives both ends of a link addresses of IPv6.
func dual(t *testing.T, ns *os.File, link, hostIP, ip string) {
	t.Helper()
	add := func(name, own, via string) error {
		c, err := netlink.Open()
		if err != nil {
			return err
		}
		defer c.Close()
		l := must(c.Link(name))(t)
		return c.Apply(netlink.AddAddress(l.Index, netip.PrefixFrom(netip.MustParseAddr(own), 64)), netlink.AddDefault(l.Index, netip.MustParseAddr(via)))
	}
	within(t, nil, func() error { return add(link, hostIP, ip) })
	within(t, ns, func() error { return add("eth0", ip, hostIP) })
}

func serve6(t *testing.T, ns *os.File, address string) {
	t.Helper()
	var l net.Listener
	within(t, ns, func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	})
	done := make(chan struct{})
	go func() { answerConnections(l); close(done) }()
	t.Cleanup(func() { l.Close(); <-done })
}

func ask6(ns *os.File, address string, timeout time.Duration) (seen string, err error) {
	within := func() error {
		c, err := net.DialTimeout("tcp", address, timeout)
		if err != nil {
			return err
		}
		defer c.Close()
		seen, err = exchange(c, timeout)
		return err
	}
	if ns == nil {
		err = within()
		return seen, err
	}
	err = namespace.Do(ns, within)
	return seen, err
}

func reaches6(t *testing.T, who string, ns *os.File, address, as string) {
	t.Helper()
	seen, err := ask6(ns, address, patience)
	if err != nil {
		t.Errorf("%s to %s: %v", who, address, err)
	} else if as != "" && seen != as {
		t.Errorf("%s to %s is seen as %s, want %s", who, address, seen, as)
	}
}

func TestMacvlanIsANeighbour(t *testing.T) {
	w := newHost(t)
	h := restored(t, Config{})
	s := create(t, h, Spec{Name: "lan", Driver: "macvlan", Options: map[string]string{"parent": lan}, Pools: []ipam.Pool{{
		Subnet: netip.MustParsePrefix("203.0.113.0/24"), Range: netip.MustParsePrefix("203.0.113.128/25"), Gateway: netip.MustParseAddr(neighbourIP),
	}}})
	front := create(t, h, Spec{Name: "front"})
	a := place(t, h, "a", nil, s)
	b := place(t, h, "b", nil, front, s)
	serve(t, a.ns, "tcp", "0.0.0.0:80")
	serve(t, w.neighbour, "tcp", "0.0.0.0:7")
	reaches(t, "a machine on the wire", w.neighbour, "tcp", a.on(s)+":80", neighbourIP)
	reaches(t, "to a machine on the wire", a.ns, "tcp", neighbourIP+":7", a.on(s))
	reaches(t, "another container on it", b.ns, "tcp", a.on(s)+":80", b.on(s))
	c := place(t, h, "c", nil, front)
	more := must(h.Connect(context.Background(), c.Attachment, Join{Network: s.ID}, c.ns))(t)
	reaches(t, "one that came later", c.ns, "tcp", a.on(s)+":80", more.On(s.ID).Address.Addr().String())
	alone := create(t, h, Spec{Name: "alone", Driver: "macvlan", Internal: true})
	d, e := place(t, h, "d", nil, alone), place(t, h, "e", nil, alone)
	serve(t, d.ns, "tcp", "0.0.0.0:80")
	reaches(t, "a wire to nowhere", e.ns, "tcp", d.on(alone)+":80", e.on(alone))
}

func TestTaggedParentIsMade(t *testing.T) {
	newHost(t)
	h := restored(t, Config{})
	tagged, err := h.Create(context.Background(), Spec{Name: "tagged", IPv4: true, Driver: "macvlan", Options: map[string]string{"parent": lan + ".10"}})
	if errors.Is(err, netlink.ErrNoKind) {
		t.Skip("needs a kernel with VLAN links (8021q)")
	}
	if err != nil {
		t.Fatal(err)
	}
	must(open(t).Link(lan + ".10"))(t)
	if err := h.Remove(tagged.ID); err != nil {
		t.Fatal(err)
	}
	until(t, "the tagged link is gone", gone(t, lan+".10"))
}

func TestIPvlanSaysWhatTheKernelLacks(t *testing.T) {
	newHost(t)
	h := restored(t, Config{})
	s := create(t, h, Spec{Name: "lan", Driver: "ipvlan", Options: map[string]string{"parent": lan}})
	a := must(h.Reserve("a", []Join{{Network: s.ID}}, nil))(t)
	ns, err := h.Attach(context.Background(), a)
	if errors.Is(err, fault.Unsupported) {
		if !strings.Contains(err.Error(), "modprobe ipvlan") {
			t.Errorf("%v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	within(t, ns, func() error {
		c := must(netlink.Open())(t)
		defer c.Close()
		if l := must(c.Link("eth0"))(t); l.Kind != "ipvlan" {
			t.Errorf("%+v", l)
		}
		return nil
	})
}

func TestWishesForAddresses(t *testing.T) {
	newHost(t)
	h := restored(t, Config{})
	s := create(t, h, Spec{Name: "own", IPv4: true, IPv6: true, Pools: []ipam.Pool{
		{Subnet: netip.MustParsePrefix("10.7.0.0/24"), Range: netip.MustParsePrefix("10.7.0.64/26"), Aux: map[string]netip.Addr{"router": netip.MustParseAddr("10.7.0.70")}},
		{Subnet: netip.MustParsePrefix("fd07::/64")},
	}})
	want := Join{Network: s.ID, Address: netip.MustParseAddr("10.7.0.9"), Address6: netip.MustParseAddr("fd07::9"), MAC: "02:aa:bb:cc:dd:ee", Interface: "net7",
		LinkLocal: []netip.Addr{netip.MustParseAddr("169.254.7.7")}}
	a := must(h.Reserve("a", []Join{want}, nil))(t)
	ns := must(h.Attach(context.Background(), a))(t)
	defer ns.Close()
	within(t, ns, func() error {
		c := must(netlink.Open())(t)
		defer c.Close()
		l := must(c.Link("net7"))(t)
		var has []string
		for _, x := range must(netlink.Addresses())(t) {
			if x.Link == l.Index && x.Prefix.Addr().String()[:4] != "fe80" {
				has = append(has, x.Prefix.String())
			}
		}
		slices.Sort(has)
		if l.MAC.String() != want.MAC || !slices.Equal(has, []string{"10.7.0.9/24", "169.254.7.7/16", "fd07::9/64"}) {
			t.Errorf("%+v has %v", l, has)
		}
		return nil
	})
	for _, c := range []struct {
		join Join
		want string
	}{
		{Join{Network: s.ID, Address: want.Address}, "Address already in use"},
		{Join{Network: s.ID, Address: netip.MustParseAddr("10.7.0.70")}, "Address already in use"},
		{Join{Network: s.ID, Address: netip.MustParseAddr("10.8.0.1")}, "no configured subnet"},
		{Join{Network: s.ID, Address6: netip.MustParseAddr("fd08::1")}, "no configured subnet"},
		{Join{Network: s.ID, MAC: "zz"}, "invalid MAC address"},
		{Join{Network: s.ID, Interface: "a/b"}, "can't be the name"},
		{Join{Network: "nowhere"}, "network nowhere not found"},
	} {
		if _, err := h.Reserve("b", []Join{c.join}, nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.join, err, c.want)
		}
	}
	b := must(h.Reserve("b", []Join{{Network: s.ID}}, nil))(t)
	if got := b.Endpoints[0].Address.String(); got != "10.7.0.65/24" { // the gateway is the first of the range
		t.Errorf("the first of the range is %s", got)
	}
}

// A container with an address of its own is started again at once.
func TestAddressIsHadAgainAtOnce(t *testing.T) {
	newHost(t)
	h := restored(t, Config{})
	s := create(t, h, Spec{Name: "own", Pools: []ipam.Pool{{Subnet: netip.MustParsePrefix("10.7.0.0/24")}}})
	wish := []Join{{Network: s.ID, Address: netip.MustParseAddr("10.7.0.9")}}
	for range 3 {
		a := must(h.Reserve("a", wish, nil))(t)
		ns := must(h.Attach(context.Background(), a))(t)
		ns.Close()
		if err := h.Release(a); err != nil {
			t.Fatal(err)
		}
	}
}

// One that starts on no network gets its ports with the first that has a way out.
func TestPortsComeWithTheWayOut(t *testing.T) {
	w := newHost(t)
	h := restored(t, Config{})
	ctx := context.Background()
	closed, front := create(t, h, Spec{Name: "closed", Internal: true}), create(t, h, Spec{Name: "front"})
	web := place(t, h, "web", []PortRequest{port("", 8080, 80, "tcp"), port("", 0, 81, "tcp")})
	serve(t, web.ns, "tcp", "0.0.0.0:80")
	shut := must(h.Connect(ctx, web.Attachment, Join{Network: closed.ID}, web.ns))(t)
	if len(web.Ports)+len(shut.Ports) != 0 {
		t.Errorf("%+v, %+v", web.Ports, shut.Ports)
	}
	free(t, "0.0.0.0:8080")
	open := must(h.Connect(ctx, shut, Join{Network: front.ID}, web.ns))(t)
	if len(open.Ports) != 2 || open.Ports[0].HostPort != 8080 {
		t.Errorf("%+v", open.Ports)
	}
	reaches(t, "outside", w.outside, "tcp", uplinkHost+":8080", outsideIP)
	again := must(h.Disconnect(ctx, open, front.ID, web.ns))(t)
	reachesNot(t, "outside", w.outside, "tcp", uplinkHost+":8080")
	again = must(h.Connect(ctx, again, Join{Network: front.ID}, web.ns))(t)
	if !slices.Equal(again.Ports, open.Ports) {
		t.Errorf("%+v, %+v before", again.Ports, open.Ports)
	}
	reaches(t, "outside", w.outside, "tcp", uplinkHost+":8080", outsideIP)
	if err := h.Release(again); err != nil {
		t.Fatal(err)
	}
	free(t, "0.0.0.0:8080")
}

func BenchmarkCreateNetwork(b *testing.B) {
	newHost(b)
	h := restored(b, Config{Pool: -1})
	for b.Loop() {
		s := create(b, h, Spec{Name: "x"})
		b.StopTimer()
		if err := h.Remove(s.ID); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

// The default network as flags of the daemon make it.
func TestDefaultNetworkAsConfigured(t *testing.T) {
	w := newHost(t)
	dual(t, w.outside, uplink, "2001:db8:1::1", "2001:db8:1::2")
	dir := t.TempDir()
	c := Config{
		Dir: dir, BIP: netip.MustParsePrefix("10.1.0.1/24"), Sources: []ipam.Source{{Base: netip.MustParsePrefix("10.10.0.0/16"), Size: 24}},
		Default: Spec{IPv6: true, Options: map[string]string{optionICC: "false"}, Pools: []ipam.Pool{
			{Range: netip.MustParsePrefix("10.1.0.128/25")}, {Subnet: netip.MustParsePrefix("fd01::/64")},
		}},
		Options: map[string]map[string]string{"bridge": {optionBinding4: "127.0.0.1", optionMTU: "1400"}},
	}
	h := restored(t, c)
	a := must(h.Reserve("a", onDefault(h), []PortRequest{port("", 8080, 80, "tcp")}))(t)
	ns := must(h.Attach(context.Background(), a))(t)
	defer ns.Close()
	e := a.Endpoints[0]
	if e.Address.String() != "10.1.0.128/24" || e.Gateway.String() != "10.1.0.1" || e.Address6.String() != "fd01::2/64" || e.Gateway6.String() != "fd01::1" {
		t.Errorf("%+v", e)
	}
	serve(t, ns, "tcp", "0.0.0.0:80")
	reaches(t, "host", nil, "tcp", "127.0.0.1:8080", "")
	reachesNot(t, "outside", w.outside, "tcp", uplinkHost+":8080")
	other := create(t, h, Spec{Name: "other", Options: map[string]string{optionMTU: "1300"}})
	if other.Pools[0].Subnet.String() != "10.10.0.0/24" || other.Options[optionMTU] != "1300" || other.Options[optionBinding4] != "127.0.0.1" {
		t.Errorf("%+v", other)
	}
	if l := must(open(t).Link(defaultBridge))(t); l.MTU != 1400 {
		t.Errorf("%+v", l)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	c.Default, c.BIP = Spec{}, netip.Prefix{}
	h = restored(t, c)
	if s, _ := h.Default(); s.IPv6 || s.Pools[0].Gateway.String() != "10.1.0.1" {
		t.Errorf("%+v", s)
	}
}

// An engine without a default network writes nothing until it has another one.
func TestNetworksWithoutADefaultOne(t *testing.T) {
	w := newHost(t)
	before := ruleset(t)
	h := restored(t, Config{Bridge: "none"})
	if got := ruleset(t); got != before {
		t.Errorf("written without need:\n%s", got)
	}
	serve(t, w.outside, "tcp", "0.0.0.0:7")
	front := create(t, h, Spec{Name: "front"})
	web := place(t, h, "web", []PortRequest{port("", 8080, 80, "tcp")}, front)
	serve(t, web.ns, "tcp", "0.0.0.0:80")
	reaches(t, "outside", w.outside, "tcp", uplinkHost+":8080", outsideIP)
	reaches(t, "web to outside", web.ns, "tcp", outsideIP+":7", uplinkHost)
	restored(t, Config{Bridge: "none"}) // a second one
}
