package network

import (
	"berth/internal/kerneltest"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"berth/kernel/nft"
)

// published is a world with two containers: web publishes ports, other does not.
type published struct {
	*host
	b          *Host
	web, other *os.File
	webIP      string
	otherIP    string
}

func newPublished(t *testing.T) *published {
	h := newHost(t)
	b := restored(t, Config{})
	w := &published{host: h, b: b}
	ep, ns := attach(t, b, "web",
		port("", 8080, 80, "tcp"), port("127.0.0.1", 8081, 80, "tcp"), port(uplinkHost, 8082, 80, "tcp"),
		port("", 5353, 53, "udp"), port("127.0.0.1", 5354, 53, "udp"))
	w.web, w.webIP = ns, ep.Endpoints[0].Address.Addr().String()
	serve(t, ns, "tcp", "0.0.0.0:80")
	serve(t, ns, "udp", "0.0.0.0:53")
	serve(t, ns, "tcp", "0.0.0.0:9999") // not published
	ep, w.other = attach(t, b, "other")
	w.otherIP = ep.Endpoints[0].Address.Addr().String()
	return w
}

// everyHost runs a test on hosts that differ in what other software switched: bridged packets that pass the
// packet filter or not (br_netfilter), a host that is a router or not.
func everyHost(t *testing.T, test func(*testing.T)) {
	const filter, router = "net/bridge/bridge-nf-call-iptables", "net/ipv4/ip_forward"
	for _, c := range []struct{ filter, router string }{{"0", "0"}, {"1", "0"}, {"1", "1"}} {
		t.Run("bridge filter "+c.filter+", router "+c.router, func(t *testing.T) {
			if getSysctl(filter) == "" && c.filter == "1" {
				t.Skip("needs br_netfilter")
			}
			for name, v := range map[string]string{filter: c.filter, router: c.router} {
				was := getSysctl(name)
				t.Cleanup(func() { setSysctl(name, was) })
				if err := setSysctl(name, v); err != nil {
					t.Fatal(err)
				}
			}
			test(t)
		})
	}
}

func TestPublishedPortsAreReached(t *testing.T) {
	kerneltest.Root(t)
	everyHost(t, func(t *testing.T) {
		w := newPublished(t)
		gateway := subnetOf(w.b).Addr().String()
		for _, c := range []struct {
			who     string
			ns      *os.File
			address string
			as      string // what the container sees
		}{
			{"host", nil, "127.0.0.1", gateway},
			{"host", nil, gateway, gateway},
			{"host", nil, uplinkHost, ""},
			{"outside", w.outside, uplinkHost, outsideIP}, // the source address is kept
			{"neighbour", w.neighbour, lanHost, neighbourIP},
			{"another container", w.other, gateway, gateway},
			{"another container", w.other, uplinkHost, gateway},
			{"the container itself", w.web, gateway, gateway},
			{"the container itself", w.web, uplinkHost, gateway},
		} {
			reaches(t, c.who, c.ns, "tcp", c.address+":8080", c.as)
			reaches(t, c.who, c.ns, "udp", c.address+":5353", c.as)
		}
		reaches(t, "host", nil, "tcp", "127.0.0.1:8081", gateway)
		reaches(t, "host", nil, "udp", "127.0.0.1:5354", gateway)
		reaches(t, "host", nil, "tcp", uplinkHost+":8082", "")
		reaches(t, "outside", w.outside, "tcp", uplinkHost+":8082", outsideIP)
		reaches(t, "another container", w.other, "tcp", uplinkHost+":8082", gateway)
		reaches(t, "another container, directly", w.other, "tcp", w.webIP+":9999", w.otherIP)
		reaches(t, "host, directly", nil, "tcp", w.webIP+":9999", gateway)
	})
}

func TestContainersReachOutside(t *testing.T) {
	w := newPublished(t)
	serve(t, w.outside, "tcp", "0.0.0.0:7")
	serve(t, w.outside, "udp", "0.0.0.0:7")
	serve(t, w.neighbour, "tcp", "0.0.0.0:7")
	serve(t, nil, "tcp", uplinkHost+":7")
	for _, proto := range []string{"tcp", "udp"} {
		reaches(t, "container", w.other, proto, outsideIP+":7", uplinkHost)
	}
	reaches(t, "container", w.other, "tcp", neighbourIP+":7", lanHost)
	reaches(t, "container", w.other, "tcp", uplinkHost+":7", w.otherIP) // a service of the host
	// A published port is the host's own, not everybody's port 8080.
	serve(t, w.outside, "tcp", "0.0.0.0:8080")
	reaches(t, "container", w.other, "tcp", outsideIP+":8080", uplinkHost)
}

func TestWhatForwardingWouldExposeIsClosed(t *testing.T) {
	kerneltest.Root(t)
	everyHost(t, func(t *testing.T) {
		w := newPublished(t)
		gateway := subnetOf(w.b).Addr().String()
		serve(t, nil, "tcp", "127.0.0.1:631") // a service of the host for itself
		serve(t, nil, "udp", "127.0.0.1:631")
		reaches(t, "host", nil, "tcp", "127.0.0.1:631", "127.0.0.1")

		// Ports that are bound to the host's loopback or to another address of it.
		for _, c := range []struct {
			who     string
			ns      *os.File
			address string
		}{
			{"outside", w.outside, uplinkHost}, {"neighbour", w.neighbour, lanHost}, {"neighbour", w.neighbour, uplinkHost},
			{"container", w.other, gateway}, {"container", w.other, uplinkHost},
		} {
			reachesNot(t, c.who, c.ns, "tcp", c.address+":8081")
			reachesNot(t, c.who, c.ns, "udp", c.address+":5354")
			reachesNot(t, c.who, c.ns, "tcp", c.address+":631")
		}
		reachesNot(t, "neighbour", w.neighbour, "tcp", lanHost+":8082")

		// Ports that are not published, asked at the container's own address by way of the host.
		for _, ns := range []*os.File{w.outside, w.neighbour} {
			reachesNot(t, "outside", ns, "tcp", w.webIP+":9999")
			reachesNot(t, "outside", ns, "tcp", w.webIP+":80")
			reachesNot(t, "outside", ns, "udp", w.webIP+":53")
		}
	})
}

// A root in a container or a machine on the link may send anything: packets for 127.0.0.1 over the wire, too.
func TestLoopbackDestinationsFromOutsideAreDropped(t *testing.T) {
	w := newPublished(t)
	serve(t, nil, "tcp", "127.0.0.1:631")
	serve(t, nil, "udp", "127.0.0.1:631")
	gateway := subnetOf(w.b).Addr()
	for _, c := range []struct {
		who string
		ns  *os.File
		via netip.Addr
	}{
		{"container", w.other, gateway},
		{"outside", w.outside, netip.MustParseAddr(uplinkHost)},
		{"neighbour", w.neighbour, netip.MustParseAddr(lanHost)},
	} {
		routeLoopback(t, c.ns, c.via)
		for _, address := range []string{"127.0.0.1:631", "127.0.0.1:8080", "127.0.0.1:8081"} {
			reachesNot(t, c.who, c.ns, "tcp", address)
		}
		for _, address := range []string{"127.0.0.1:631", "127.0.0.1:5353", "127.0.0.1:5354"} {
			reachesNot(t, c.who, c.ns, "udp", address)
		}
	}
	// Even where another program opened the host's own links to loopback addresses.
	if err := setSysctl("net/ipv4/conf/all/route_localnet", "1"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { setSysctl("net/ipv4/conf/all/route_localnet", "0") })
	reachesNot(t, "neighbour", w.neighbour, "tcp", "127.0.0.1:8081")
	reachesNot(t, "container", w.other, "tcp", "127.0.0.1:631")
	reachesNot(t, "container", w.other, "tcp", "127.0.0.1:8081")
}

// Servers that trust whoever comes from 127.0.0.1 must not be fooled.
func TestContainersDontSpeakAsTheHostsLoopback(t *testing.T) {
	w := newPublished(t)
	gateway := subnetOf(w.b).Addr()
	routeLoopback(t, w.other, gateway)
	haveLoopback(t, w.other)
	// The kernel itself refuses a sender with one of its own addresses, unless told not to.
	if err := setSysctl("net/ipv4/conf/all/accept_local", "1"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { setSysctl("net/ipv4/conf/all/accept_local", "0") })
	server := must(net.ListenPacket("udp4", gateway.String()+":9"))(t)
	defer server.Close()
	within(t, w.other, func() error {
		for _, from := range []string{"127.0.0.1", w.otherIP} {
			c, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.ParseIP(from)}, server.LocalAddr().(*net.UDPAddr))
			if err != nil {
				return err
			}
			defer c.Close()
			if _, err := c.Write([]byte(from)); err != nil {
				return err
			}
		}
		return nil
	})
	buf := make([]byte, 64)
	server.SetDeadline(time.Now().Add(patience))
	n, _, err := server.ReadFrom(buf)
	if err != nil || string(buf[:n]) != w.otherIP {
		t.Errorf("the first datagram to arrive is that from %s, %v", buf[:n], err)
	}
}

func TestHostStaysNoRouter(t *testing.T) {
	h := newHost(t)
	serve(t, h.outside, "tcp", "0.0.0.0:7")
	b := restored(t, Config{})
	for _, link := range []string{uplink, lan, standard(b).link} {
		if got := getSysctl(forwardSwitch(link)); got != "1" {
			t.Errorf("%s does not forward", link)
		}
	}
	if got := getSysctl("net/ipv4/ip_forward"); got != "0" {
		t.Errorf("ip_forward is %s", got)
	}
	reachesNot(t, "neighbour through the host", h.neighbour, "tcp", outsideIP+":7")
	// A link that comes later gets its switch too.
	late := h.machine(t, "late0", "192.0.2.1", "192.0.2.2")
	until(t, "the new link forwards", func() bool { return getSysctl(forwardSwitch("late0")) == "1" })
	_, ns := attach(t, b, "web", port("", 8080, 80, "tcp"))
	serve(t, ns, "tcp", "0.0.0.0:80")
	reaches(t, "machine on a new link", late, "tcp", "192.0.2.1:8080", "192.0.2.2")
	reachesNot(t, "machine on a new link through the host", late, "tcp", outsideIP+":7")
	if err := b.Cleanup(); err != nil {
		t.Fatal(err)
	}
	for _, link := range []string{uplink, lan, "late0"} {
		if got := getSysctl(forwardSwitch(link)); got != "0" {
			t.Errorf("%s forwards after Cleanup", link)
		}
	}
}

// Where the administrator wants a router, nothing of it is taken away.
func TestRouterStaysRouter(t *testing.T) {
	h := newHost(t)
	serve(t, h.outside, "tcp", "0.0.0.0:7")
	b := restored(t, Config{})
	t.Cleanup(func() { setSysctl("net/ipv4/ip_forward", "0") })
	if err := setSysctl("net/ipv4/ip_forward", "1"); err != nil { // while we run
		t.Fatal(err)
	}
	until(t, "the neighbour is routed", func() bool {
		_, err := ask(h.neighbour, "tcp", outsideIP+":7", impatience)
		return err == nil
	})
	if err := b.Cleanup(); err != nil {
		t.Fatal(err)
	}
	reaches(t, "neighbour through the host", h.neighbour, "tcp", outsideIP+":7", neighbourIP)
	if got := getSysctl(forwardSwitch(lan)); got != "1" {
		t.Error("Cleanup took the administrator's forwarding away")
	}
}

// Reloading a firewall often means flushing all tables, ours too.
func TestTableIsWrittenAnewWhenItIsGone(t *testing.T) {
	h := newHost(t)
	b := restored(t, Config{})
	_, ns := attach(t, b, "first", port("", 8080, 80, "tcp"))
	serve(t, ns, "tcp", "0.0.0.0:80")
	gone, goneNS := attach(t, b, "gone", port("", 8082, 80, "tcp"))
	fw := must(nft.Open())(t)
	defer fw.Close()
	if err := fw.Remove(b.Table()); err != nil {
		t.Fatal(err)
	}
	goneNS.Close()
	if err := b.Release(gone); err != nil {
		t.Errorf("release without a table: %v", err)
	}
	_, ns = attach(t, b, "second", port("127.0.0.1", 8081, 80, "tcp"))
	serve(t, ns, "tcp", "0.0.0.0:80")
	reaches(t, "host", nil, "tcp", "127.0.0.1:8081", "")
	reaches(t, "outside", h.outside, "tcp", uplinkHost+":8080", outsideIP)
	serve(t, h.outside, "tcp", "0.0.0.0:7")
	reaches(t, "container", ns, "tcp", outsideIP+":7", uplinkHost)
}

// Two engines, each with a bridge, on a host that is no router: neither confines the other, and the one that stays keeps its forwarding.
func TestTwoBridgesLetEachOtherBe(t *testing.T) {
	h := newHost(t)
	serve(t, h.outside, "tcp", "0.0.0.0:7")
	first, second := restored(t, Config{}), restored(t, Config{Bridge: "berth1"})
	_, a := attach(t, first, "a", port("", 8080, 80, "tcp"))
	hidden, b := attach(t, second, "b", port("", 8081, 80, "tcp"))
	serve(t, a, "tcp", "0.0.0.0:80")
	serve(t, b, "tcp", "0.0.0.0:80")
	serve(t, b, "tcp", "0.0.0.0:9999")
	check := func(ns *os.File, port string) {
		t.Helper()
		reaches(t, "container", ns, "tcp", outsideIP+":7", uplinkHost)
		reaches(t, "outside", h.outside, "tcp", uplinkHost+":"+port, outsideIP)
	}
	check(a, "8080")
	check(b, "8081")
	reaches(t, "container of the other bridge", a, "tcp", uplinkHost+":8081", "")
	reachesNot(t, "container of the other bridge", a, "tcp", hidden.Endpoints[0].Address.Addr().String()+":9999")
	reachesNot(t, "neighbour through the host", h.neighbour, "tcp", outsideIP+":7")
	if err := first.Cleanup(); err != nil {
		t.Fatal(err)
	}
	until(t, "the second bridge has its answers again", func() bool { return getSysctl(forwardSwitch(uplink)) == "1" })
	check(b, "8081")
	reachesNot(t, "neighbour through the host", h.neighbour, "tcp", outsideIP+":7")
}
