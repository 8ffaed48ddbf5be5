package network

import (
	"berth/internal/kerneltest"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/fault"
	"berth/kernel/namespace"
	"berth/kernel/netlink"
	"berth/kernel/nft"
	"berth/network/ipam"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestPortsAreHeldAndClashesNamed(t *testing.T) {
	newHost(t)
	b := restored(t, Config{Pool: -1})
	other := must(net.Listen("tcp4", "127.0.0.1:8089"))(t)
	defer other.Close()
	must(b.Reserve("first", onDefault(b), []PortRequest{port("", 8080, 80, "tcp"), port("127.0.0.1", 8081, 80, "tcp")}))(t)
	for _, c := range []struct {
		ask  PortRequest
		want string
		kind fault.Kind
	}{
		{port("", 8080, 81, "tcp"), "Bind for 0.0.0.0:8080 failed: port is already allocated", fault.Conflict},
		{port("127.0.0.1", 8080, 81, "tcp"), "Bind for 127.0.0.1:8080 failed: port is already allocated", fault.Conflict},
		{port("", 8081, 81, "tcp"), "Bind for 0.0.0.0:8081 failed: port is already allocated", fault.Conflict},
		{port("", 8089, 80, "tcp"), "failed to bind host port 0.0.0.0:8089/tcp: address already in use", fault.Conflict},
		{port("192.0.2.77", 80, 80, "tcp"), "failed to bind host port 192.0.2.77:80/tcp: cannot assign requested address: 192.0.2.77 is not an address of this host", fault.Invalid},
		{PortRequest{HostPort: 8080, HostPortEnd: 8081, Port: 80}, "Bind for 0.0.0.0:8080-8081 failed: all ports are allocated", fault.Conflict},
		{port("", 90, 90, "dccp"), "publish port 90/dccp: only tcp, udp and sctp ports can be published", fault.Invalid},
		{port("::1", 90, 90, "tcp"), "publish port 90/tcp on ::1: the container has no address of that family; put it on a network with IPv6 (network create --ipv6), or publish it on an address of the other family", fault.Unsupported},
		{port("", 90, 0, "tcp"), "publish port 0/tcp: a container's port is 1 to 65535", fault.Invalid},
		{PortRequest{HostPort: 90, HostPortEnd: 89, Port: 80}, "publish port 80/tcp: host ports 90-89 are no range", fault.Invalid},
	} {
		_, err := b.Reserve("second", onDefault(b), []PortRequest{port("", 8100, 80, "tcp"), c.ask})
		if err == nil || err.Error() != c.want || !errors.Is(err, c.kind) {
			t.Errorf("%+v: %q (%s), want %q (%s)", c.ask, err, fault.Of(err), c.want, c.kind)
		}
	}
	// Other ways to have the same number are no clash, and what failed above holds nothing.
	for _, r := range []PortRequest{port("", 8080, 80, "udp"), port(uplinkHost, 8081, 80, "tcp"), port("", 8100, 80, "tcp")} {
		must(b.Reserve("third", onDefault(b), []PortRequest{r}))(t)
	}
	if l, err := net.Listen("tcp4", "0.0.0.0:8080"); err == nil {
		l.Close()
		t.Error("another program gets a published port")
	}
}

func TestFreePortsAndRanges(t *testing.T) {
	newHost(t)
	b := restored(t, Config{Pool: -1})
	used := map[uint16]bool{}
	for range 50 {
		p := must(b.Reserve("c", onDefault(b), []PortRequest{{Port: 80}}))(t).Ports[0]
		if p.HostPort < firstFree || used[p.HostPort] || p.Proto != "tcp" || p.HostIP != netip.IPv4Unspecified() {
			t.Fatalf("%+v", p)
		}
		used[p.HostPort] = true
	}
	// Who may have any port does not take the one that another of the same container needs.
	last := must(b.Reserve("c", onDefault(b), []PortRequest{{Port: 80}}))(t).Ports[0].HostPort
	if ep, err := b.Reserve("c", onDefault(b), []PortRequest{{Port: 80}, {Port: 81, HostPort: last + 1}}); err != nil || ep.Ports[0].HostPort != last+1 {
		t.Errorf("after %d: %+v, %v", last, ep, err)
	}
	for want := uint16(8000); want <= 8002; want++ {
		p := must(b.Reserve("c", onDefault(b), []PortRequest{{HostPort: 8000, HostPortEnd: 8002, Port: 80}}))(t).Ports[0]
		if p.HostPort != want {
			t.Errorf("port %d of the range, want %d", p.HostPort, want)
		}
	}
}

// A server that has just ended leaves connections in TIME_WAIT; its port is free nevertheless.
func TestPortOfAnEndedServerIsFree(t *testing.T) {
	newHost(t)
	b := restored(t, Config{Pool: -1})
	l := must(net.Listen("tcp4", "127.0.0.1:8070"))(t)
	c := must(net.Dial("tcp4", "127.0.0.1:8070"))(t)
	s := must(l.Accept())(t)
	s.Close() // who closes first waits
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Fatal(n, err)
	}
	c.Close()
	l.Close()
	must(b.Reserve("c", onDefault(b), []PortRequest{port("", 8070, 80, "tcp")}))(t)
}

func TestBridgeAddressAvoidsWhatTheHostHas(t *testing.T) {
	newHost(t)
	c := open(t)
	l := must(c.Link(lan))(t)
	if err := c.Apply(
		netlink.AddAddress(l.Index, netip.MustParsePrefix("172.17.200.1/24")),
		netlink.AddRoute(l.Index, netip.MustParsePrefix("172.18.4.0/24"), netip.MustParseAddr(neighbourIP)),
	); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	b := restored(t, Config{Dir: dir})
	if got := subnetOf(b).String(); got != "172.19.0.1/16" {
		t.Errorf("the bridge has %s", got)
	}
	id := standard(b).ID
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.Apply(netlink.RemoveAddress(l.Index, netip.MustParsePrefix("172.17.200.1/24"))); err != nil {
		t.Fatal(err)
	}
	b = restored(t, Config{Dir: dir})
	if !standard(b).made {
		t.Error("a bridge of ours is taken for somebody else's")
	}
	if got := subnetOf(b).String(); got != "172.19.0.1/16" || standard(b).ID != id {
		t.Errorf("after a restart the bridge has %s and ID %s, had 172.19.0.1/16 and %s", got, standard(b).ID, id)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := Open(context.Background(), Config{Dir: dir, BIP: netip.MustParsePrefix("172.18.0.1/16")})
	if !errors.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "route to 172.18.4.0/24 over lan0") {
		t.Errorf("an occupied --bip: %v", err)
	}
	b = restored(t, Config{Dir: dir, BIP: netip.MustParsePrefix("10.9.8.1/24")})
	if got := subnetOf(b).String(); got != "10.9.8.1/24" {
		t.Errorf("the bridge has %s, asked for 10.9.8.1/24", got)
	}
	if got := must(addresses(standard(b).index))(t); len(got) != 1 {
		t.Errorf("addresses %v", got)
	}
}

func TestChooseSubnet(t *testing.T) {
	p := netip.MustParsePrefix
	none := netip.Prefix{}
	for _, c := range []struct {
		asked, had netip.Prefix
		taken      []ipam.Use
		want       string
	}{
		{none, none, nil, "172.17.0.1/16"},
		{none, p("172.20.0.1/16"), nil, "172.20.0.1/16"},
		{none, p("172.20.0.1/16"), []ipam.Use{{Subnet: p("172.20.1.0/24"), What: "x"}}, "172.17.0.1/16"},
		{none, none, []ipam.Use{{Subnet: p("172.16.0.0/12"), What: "x"}}, "192.168.0.1/20"},
		{none, none, []ipam.Use{{Subnet: p("172.16.0.0/12"), What: "x"}, {Subnet: p("192.168.1.0/24"), What: "y"}}, "192.168.16.1/20"},
		{p("10.0.0.254/24"), p("172.20.0.1/16"), nil, "10.0.0.254/24"},
		{p("10.0.0.0/24"), none, nil, "not an address of a host"},
		{p("10.0.0.255/24"), none, nil, "not an address of a host"},
		{p("10.0.0.1/31"), none, nil, "8 to 29 bits"},
		{p("fd00::1/64"), none, nil, "not an IPv4 address"},
		{none, none, []ipam.Use{{Subnet: p("172.16.0.0/12"), What: "route x"}, {Subnet: p("192.168.0.0/16"), What: "y"}}, "such as the route x"},
	} {
		got, err := choose(c.asked, c.had, nil, c.taken)
		if text := fmt.Sprint(got, err); !strings.Contains(text, c.want) {
			t.Errorf("asked %v, had %v, taken %v: %s, want %s", c.asked, c.had, c.taken, text, c.want)
		}
	}
	sources := []ipam.Source{{Base: p("fd00::/48"), Size: 64}, {Base: p("10.30.0.0/16"), Size: 24}}
	for had, want := range map[netip.Prefix]string{none: "10.30.1.1/24", p("172.20.0.1/16"): "172.20.0.1/16"} {
		if got, err := choose(none, had, sources, []ipam.Use{{Subnet: p("10.30.0.0/24"), What: "x"}}); err != nil || got.String() != want {
			t.Errorf("had %v: %v, %v, want %s", had, got, err, want)
		}
	}
	ranged := Config{Default: Spec{Pools: []ipam.Pool{{Range: p("192.168.50.0/24")}}}}
	for had, want := range map[netip.Prefix]netip.Prefix{none: p("192.168.50.1/24"), p("172.20.0.1/16"): p("192.168.50.1/24"), p("192.168.0.1/16"): none} {
		if got := ranged.wantedBIP(had); got != want {
			t.Errorf("a range alone, had %v: %v, want %v", had, got, want)
		}
	}
}

// A daemon that is killed leaves bridge, table and links; the next one takes them over while packets flow.
func TestRestoreAfterAKill(t *testing.T) {
	h := newHost(t)
	dir := t.TempDir()
	b := restored(t, Config{Dir: dir})
	web, ns := attach(t, b, "web", port("", 8080, 80, "tcp"), port("127.0.0.1", 5353, 53, "udp"))
	serve(t, ns, "udp", "0.0.0.0:53")
	stale, staleNS := attach(t, b, "stale", port("", 9090, 80, "tcp"))
	must(b.Reserve("reserved", onDefault(b), []PortRequest{port("", 7070, 80, "tcp")}))(t)
	echo := echoServer(t, ns, "0.0.0.0:80")
	defer echo()

	// The records as the engine has them on disk: of one container, from before its link was known.
	var kept Attachment
	if err := json.Unmarshal(must(json.Marshal(web))(t), &kept); err != nil {
		t.Fatal(err)
	}
	kept.Endpoints[0].Link = ""

	talk := must(net.DialTimeout("tcp4", "127.0.0.1:8080", patience))(t)
	defer talk.Close()
	var outer net.Conn
	within(t, h.outside, func() (err error) {
		outer, err = net.DialTimeout("tcp4", uplinkHost+":8080", patience)
		return err
	})
	defer outer.Close()
	stop := make(chan struct{})
	var chat sync.WaitGroup
	for _, c := range []net.Conn{talk, outer} {
		chat.Go(func() { keepTalking(t, c, stop) })
	}

	if err := b.Close(); err != nil { // a kill does no more
		t.Fatal(err)
	}
	b = bridge(t, Config{Dir: dir})
	if _, err := b.Reserve("early", onDefault(b), nil); !errors.Is(err, fault.Unavailable) {
		t.Errorf("before Restore: %v", err)
	}
	if err := b.Restore([]*Attachment{&kept}); err != nil {
		t.Fatal(err)
	}
	if kept.Endpoints[0].Link != web.Endpoints[0].Link {
		t.Errorf("link %q, want %q", kept.Endpoints[0].Link, web.Endpoints[0].Link)
	}
	until(t, "the link nobody knows is removed", gone(t, stale.Endpoints[0].Link))
	staleNS.Close()
	reaches(t, "outside", h.outside, "tcp", uplinkHost+":8080", "")
	reaches(t, "host", nil, "udp", "127.0.0.1:5353", "")
	close(stop)
	chat.Wait()

	if _, err := b.Reserve("clash", onDefault(b), []PortRequest{port("", 8080, 80, "tcp")}); !errors.Is(err, fault.Conflict) {
		t.Errorf("the restored port is given away: %v", err)
	}
	next := must(b.Reserve("next", onDefault(b), []PortRequest{port("", 9090, 80, "tcp"), port("", 7070, 80, "tcp")}))(t)
	if next.Endpoints[0].Address == web.Endpoints[0].Address {
		t.Error("the restored address is given away")
	}
	if err := b.Release(&kept); err != nil {
		t.Fatal(err)
	}
	if err := b.Release(&kept); err != nil {
		t.Errorf("released twice: %v", err)
	}
	must(b.Reserve("again", onDefault(b), []PortRequest{port("", 8080, 80, "tcp")}))(t)
}

// echoServer sends back what it gets, for conversations that last.
func echoServer(t *testing.T, ns *os.File, address string) (stop func()) {
	var l net.Listener
	within(t, ns, func() (err error) {
		l, err = net.Listen("tcp4", address)
		return err
	})
	var done sync.WaitGroup
	done.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(c, c.RemoteAddr())
			done.Go(func() {
				defer c.Close()
				buf := make([]byte, 64)
				for {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					c.Write(buf[:n])
				}
			})
		}
	})
	return func() { l.Close(); done.Wait() }
}

func keepTalking(t *testing.T, c net.Conn, stop chan struct{}) {
	buf := make([]byte, 64)
	c.SetDeadline(time.Now().Add(3 * patience))
	if _, err := c.Read(buf); err != nil {
		t.Error(err)
		return
	}
	for {
		select {
		case <-stop:
			c.Close()
			return
		default:
		}
		if _, err := c.Write([]byte("x")); err != nil {
			t.Error(err)
			return
		}
		if _, err := c.Read(buf); err != nil {
			t.Error(err)
			return
		}
	}
}

func TestCleanupLeavesNothing(t *testing.T) {
	newHost(t)
	before := snapshot(t)
	dir := t.TempDir()
	b := restored(t, Config{Dir: dir})
	attach(t, b, "web", port("", 8080, 80, "tcp"))
	if err := b.Cleanup(); err != nil {
		t.Fatal(err)
	}
	until(t, "links and switches are as before", func() bool { return slices.Equal(before, snapshot(t)) })
	left := slices.DeleteFunc(must(os.ReadDir(dir))(t), func(e os.DirEntry) bool { return e.Name() == "networks" })
	if len(left) > 0 {
		t.Errorf("left in the state directory: %v", left)
	}
	fw := must(nft.Open())(t)
	defer fw.Close()
	if there := must(fw.Exists(nft.IPv4, "berth"))(t); there {
		t.Error("the table stands")
	}
}

// snapshot lists what of the host's network can be seen and written: links and all switches.
func snapshot(t *testing.T) (all []string) {
	t.Helper()
	for _, l := range must(netlink.Links())(t) {
		all = append(all, fmt.Sprintf("link %s up %v", l.Name, l.Up))
	}
	filepath.WalkDir("/proc/sys/net", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, "_count") || strings.Contains(path, "/stable_secret") {
			return nil
		}
		data, _ := os.ReadFile(path)
		all = append(all, path+" "+string(data))
		return nil
	})
	return all
}

// A bridge that the administrator made stays his.
func TestForeignBridgeIsUsedAndKept(t *testing.T) {
	newHost(t)
	c := open(t)
	if err := c.Apply(netlink.NewBridge("br0", nil, 1500)); err != nil {
		t.Fatal(err)
	}
	br := must(c.Link("br0"))(t)
	t.Cleanup(func() { c.Apply(netlink.Delete(br.Index)) })
	if _, err := Open(context.Background(), Config{Dir: t.TempDir(), Bridge: "br0"}); !errors.Is(err, fault.Invalid) {
		t.Errorf("a bridge without an address: %v", err)
	}
	if err := c.Apply(netlink.AddAddress(br.Index, netip.MustParsePrefix("10.1.2.1/24")), netlink.SetUp(br.Index)); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t)
	b := restored(t, Config{Bridge: "br0"})
	_, ns := attach(t, b, "web", port("", 8080, 80, "tcp"))
	serve(t, ns, "tcp", "0.0.0.0:80")
	reaches(t, "host", nil, "tcp", "127.0.0.1:8080", "10.1.2.1")
	if err := b.Cleanup(); err != nil {
		t.Fatal(err)
	}
	until(t, "links and switches are as before", func() bool { return slices.Equal(before, snapshot(t)) })
	if _, err := Open(context.Background(), Config{Dir: t.TempDir(), Bridge: lan}); !errors.Is(err, fault.Conflict) {
		t.Errorf("a link that is no bridge: %v", err)
	}
}

// An engine whose records are gone left its bridge: the next one has it, as its own.
func TestBridgeOfAnEngineWithoutRecords(t *testing.T) {
	newHost(t)
	old := must(Open(context.Background(), Config{Dir: t.TempDir(), Pool: -1}))(t)
	if err := errors.Join(old.Restore(nil), old.Close()); err != nil {
		t.Fatal(err)
	}
	b := restored(t, Config{Pool: -1})
	_, ns := attach(t, b, "web", port("", 8080, 80, "tcp"))
	serve(t, ns, "tcp", "0.0.0.0:80")
	reaches(t, "host", nil, "tcp", "127.0.0.1:8080", "172.17.0.1")
	ns.Close()
	if err := b.Cleanup(); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t).Link(defaultBridge); !errors.Is(err, netlink.ErrNoLink) {
		t.Errorf("the bridge after a clean-up: %v", err)
	}
}

func TestSecondEngineIsRefused(t *testing.T) {
	newHost(t)
	restored(t, Config{Pool: -1})
	if _, err := Open(context.Background(), Config{Dir: t.TempDir()}); !errors.Is(err, fault.Conflict) {
		t.Errorf("a second engine on the bridge: %v", err)
	}
	second := restored(t, Config{Bridge: "berth1", Pool: -1})
	if got := subnetOf(second).String(); got != "172.18.0.1/16" {
		t.Errorf("another bridge has %s", got)
	}
}

func TestNoBridge(t *testing.T) {
	kerneltest.Root(t)
	b := restored(t, Config{Bridge: "none"})
	if _, err := b.Reserve("x", []Join{{Network: "y"}}, nil); !errors.Is(err, fault.NotFound) {
		t.Errorf("reserve without a network: %v", err)
	}
	ns := must(b.Loopback(Owner{}))(t)
	defer ns.Close()
	serve(t, ns, "tcp", "127.0.0.1:80")
	reaches(t, "the namespace itself", ns, "tcp", "127.0.0.1:80", "127.0.0.1")
	within(t, ns, func() error {
		links, err := netlink.Links()
		if len(links) != 1 || !links[0].Up {
			t.Errorf("links %+v", links)
		}
		return err
	})
}

func TestInsideTheNamespace(t *testing.T) {
	newHost(t)
	b := restored(t, Config{})
	ep, ns := attach(t, b, "web")
	within(t, ns, func() error {
		for name, want := range map[string]string{
			"net/ipv4/ping_group_range":           "0\t2147483647",
			"net/ipv4/ip_unprivileged_port_start": "0",
			"net/ipv6/conf/eth0/disable_ipv6":     "1",
			"net/ipv6/conf/lo/disable_ipv6":       "0",
			"net/ipv6/conf/default/disable_ipv6":  "0",
		} {
			if got := getSysctl(name); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
		c := must(netlink.Open())(t)
		defer c.Close()
		eth := must(c.Link("eth0"))(t)
		if !eth.Up || eth.MTU != 1500 || eth.MAC.String() != ep.Endpoints[0].MAC {
			t.Errorf("eth0 %+v, endpoint %+v", eth, ep)
		}
		return nil
	})
	l := must(b.links.Link(ep.Endpoints[0].Link))(t)
	if l.Alias != aliasOf(&ep.Endpoints[0]) || l.Master != standard(b).index {
		t.Errorf("host's end %+v", l)
	}
}

// MTU of the way to everywhere, here of a tunnel, is the containers' too.
func TestMTUFollowsTheDefaultRoute(t *testing.T) {
	newHost(t)
	c := open(t)
	if err := c.Apply(netlink.SetMTU(must(c.Link(uplink))(t).Index, 1380)); err != nil {
		t.Fatal(err)
	}
	b := restored(t, Config{})
	_, ns := attach(t, b, "web")
	within(t, ns, func() error {
		c := must(netlink.Open())(t)
		defer c.Close()
		if l := must(c.Link("eth0"))(t); l.MTU != 1380 {
			t.Errorf("eth0 has MTU %d", l.MTU)
		}
		return nil
	})
	if l := must(c.Link(standard(b).link))(t); l.MTU != 1380 || standard(b).mtu != 1380 {
		t.Errorf("the bridge has MTU %d", l.MTU)
	}
}

func TestParallelAttachAndRelease(t *testing.T) {
	newHost(t)
	b := restored(t, Config{Pool: 3})
	var all sync.WaitGroup
	var mu sync.Mutex
	seen := map[netip.Prefix]bool{}
	for n := range 8 {
		all.Go(func() {
			for range 5 {
				ep, err := b.Reserve(fmt.Sprint("c", n), onDefault(b), []PortRequest{{Port: 80}, {Port: 53, Proto: "udp"}})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if seen[ep.Endpoints[0].Address] {
					t.Errorf("%s is given twice", ep.Endpoints[0].Address)
				}
				seen[ep.Endpoints[0].Address] = true
				mu.Unlock()
				ns, err := b.Attach(context.Background(), ep)
				if err != nil {
					t.Error(err)
					return
				}
				ns.Close()
				mu.Lock()
				delete(seen, ep.Endpoints[0].Address)
				mu.Unlock()
				if err := b.Release(ep); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	until(t, "all links and addresses are free again", func() bool {
		b.mu.Lock()
		taken := b.networks.byName(DefaultName).ledgers[0].Taken()
		b.mu.Unlock()
		return taken == 3 && must(portCount(standard(b).index))(t) == 0
	})
}

func TestAttachTwiceAndUnknown(t *testing.T) {
	newHost(t)
	b := restored(t, Config{})
	ep, _ := attach(t, b, "web")
	if _, err := b.Attach(context.Background(), ep); !errors.Is(err, fault.Conflict) {
		t.Errorf("attached twice: %v", err)
	}
	stranger := *ep
	stranger.ID = "00"
	if _, err := b.Attach(context.Background(), &stranger); !errors.Is(err, fault.NotFound) {
		t.Errorf("attached without a reservation: %v", err)
	}
	// A namespace that somebody keeps loses its link when the endpoint is released.
	if err := b.Release(ep); err != nil {
		t.Fatal(err)
	}
	until(t, "the link is gone", gone(t, ep.Endpoints[0].Link))
}

// The 1,024th container. The ports of the others are plain links, whose other ends die with one namespace.
func TestFullBridgeSaysSo(t *testing.T) {
	h := newHost(t)
	b := restored(t, Config{Pool: -1})
	c := open(t)
	crowd := must(namespace.NewNet())(t)
	defer func() {
		crowd.Close()
		until(t, "the crowd is gone", func() bool { return must(portCount(standard(b).index))(t) <= 1 })
	}()
	first, firstNS := attach(t, b, "first")
	for n := 1; n < netlink.BridgePorts; n++ {
		name := fmt.Sprint("crowd", n)
		if err := c.Apply(netlink.NewVeth(name, name, crowd, 1500)); err != nil {
			t.Fatal(err)
		}
		if err := c.Apply(netlink.SetMaster(must(c.Link(name))(t).Index, standard(b).index)); err != nil {
			t.Fatal(err)
		}
	}
	ep := must(b.Reserve("last", onDefault(b), []PortRequest{port("", 8080, 80, "tcp")}))(t)
	_, err := b.Attach(context.Background(), ep)
	if !errors.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "has all 1023 links") {
		t.Fatalf("container number 1,024: %v", err)
	}
	reachesNot(t, "outside", h.outside, "tcp", uplinkHost+":8080")
	// One that is about to go makes room without being waited for by the caller.
	firstNS.Close()
	if err := b.Release(first); err != nil {
		t.Fatal(err)
	}
	ns := must(b.Attach(context.Background(), ep))(t)
	defer ns.Close()
	serve(t, ns, "tcp", "0.0.0.0:80")
	reaches(t, "outside", h.outside, "tcp", uplinkHost+":8080", "")
}
