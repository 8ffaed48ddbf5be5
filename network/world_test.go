package network

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/internal/kerneltest"
	"berth/kernel/namespace"
	"berth/kernel/netlink"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

// host is the test's own namespace in the role of the machine; it has an
// uplink to a machine outside and another link to a neighbour.
type host struct {
	outside, neighbour *os.File
}

const (
	uplink      = "up0"
	uplinkHost  = "198.51.100.1"
	outsideIP   = "198.51.100.2"
	lan         = "lan0"
	lanHost     = "203.0.113.1"
	neighbourIP = "203.0.113.2"
)

func newHost(t testing.TB) *host {
	t.Helper()
	kerneltest.Root(t)
	// The kernel takes the links of a namespace that is gone away in its own time.
	until(t, "links of the test before are gone", func() bool {
		return !slices.ContainsFunc(must(netlink.Links())(t), func(l netlink.Link) bool { return strings.HasPrefix(l.Name, linkPrefix) })
	})
	h := &host{}
	h.outside = h.machine(t, uplink, uplinkHost, outsideIP)
	h.neighbour = h.machine(t, lan, lanHost, neighbourIP)
	// The uplink is the way to everywhere.
	c := open(t)
	l := must(c.Link(uplink))(t)
	if err := c.Apply(netlink.AddDefault(l.Index, netip.MustParseAddr(outsideIP))); err != nil {
		t.Fatal(err)
	}
	return h
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func open(t testing.TB) *netlink.Conn {
	t.Helper()
	c := must(netlink.Open())(t)
	t.Cleanup(func() { c.Close() })
	return c
}

// machine makes a namespace that is linked to the host and routes everything to it.
func (h *host) machine(t testing.TB, link, hostIP, ip string) *os.File {
	t.Helper()
	ns := must(namespace.NewNet())(t)
	c := open(t)
	t.Cleanup(func() {
		if l, err := c.Link(link); err == nil {
			if err := c.Apply(netlink.Delete(l.Index)); err != nil {
				t.Error(err)
			}
		}
		ns.Close()
	})
	if err := c.Apply(netlink.NewVeth(link, "eth0", ns, 1500)); err != nil {
		t.Fatal(err)
	}
	l := must(c.Link(link))(t)
	subnet := func(a string) netip.Prefix { return netip.PrefixFrom(netip.MustParseAddr(a), 24) }
	if err := c.Apply(netlink.AddAddress(l.Index, subnet(hostIP)), netlink.SetUp(l.Index)); err != nil {
		t.Fatal(err)
	}
	within(t, ns, func() error {
		n, err := netlink.Open()
		if err != nil {
			return err
		}
		defer n.Close()
		l, err := n.Link("eth0")
		if err != nil {
			return err
		}
		return n.Apply(netlink.SetUp(1), netlink.SetUp(l.Index), netlink.AddAddress(l.Index, subnet(ip)), netlink.AddDefault(l.Index, netip.MustParseAddr(hostIP)))
	})
	return ns
}

// within runs fn in the namespace; nil is the host's.
func within(t testing.TB, ns *os.File, fn func() error) {
	t.Helper()
	run := fn
	if ns != nil {
		run = func() error { return namespace.Do(ns, fn) }
	}
	if err := run(); err != nil {
		t.Fatal(err)
	}
}

// serve answers every connection or datagram in ns with the asker's address, until the test ends.
func serve(t testing.TB, ns *os.File, proto, address string) {
	t.Helper()
	var closer interface{ Close() error }
	var work func()
	within(t, ns, func() error {
		if proto == "udp" {
			c, err := net.ListenPacket("udp4", address)
			closer, work = c, func() { answerDatagrams(c) }
			return err
		}
		l, err := net.Listen("tcp4", address)
		closer, work = l, func() { answerConnections(l) }
		return err
	})
	var done sync.WaitGroup
	done.Go(work)
	t.Cleanup(func() {
		closer.Close()
		done.Wait()
	})
}

func answerDatagrams(c net.PacketConn) {
	buf := make([]byte, 64)
	for {
		_, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		c.WriteTo([]byte(from.String()+"\n"), from)
	}
}

func answerConnections(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		fmt.Fprintln(c, c.RemoteAddr())
		c.Close()
	}
}

const (
	patience   = 60 * time.Second       // for what must arrive, on a machine that is emulated and busy
	impatience = 300 * time.Millisecond // for what must not
)

// ask returns the address that a server at the given one saw of us.
func ask(ns *os.File, proto, address string, timeout time.Duration) (seen string, err error) {
	try := func() error {
		c, err := net.DialTimeout(proto+"4", address, timeout)
		if err != nil {
			return err
		}
		defer c.Close()
		seen, err = exchange(c, timeout)
		return err
	}
	if ns == nil {
		return seen, try()
	}
	return seen, namespace.Do(ns, try)
}

func exchange(c net.Conn, timeout time.Duration) (string, error) {
	c.SetDeadline(time.Now().Add(timeout))
	if c.RemoteAddr().Network() == "udp" {
		if _, err := c.Write([]byte("?")); err != nil {
			return "", err
		}
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	seen, _, _ := net.SplitHostPort(strings.TrimSpace(line))
	return seen, err
}

func reaches(t *testing.T, who string, ns *os.File, proto, address, as string) {
	t.Helper()
	seen, err := ask(ns, proto, address, patience)
	if err != nil {
		t.Errorf("%s to %s/%s: %v", who, address, proto, err)
	} else if as != "" && seen != as {
		t.Errorf("%s to %s/%s is seen as %s, want %s", who, address, proto, seen, as)
	}
}

func reachesNot(t *testing.T, who string, ns *os.File, proto, address string) {
	t.Helper()
	if seen, err := ask(ns, proto, address, impatience); err == nil {
		t.Errorf("%s reaches %s/%s, seen as %s", who, address, proto, seen)
	}
}

// bridge opens a bridge that is cleaned up with the test.
func bridge(t testing.TB, c Config) *Host {
	t.Helper()
	if c.Dir == "" {
		c.Dir = t.TempDir()
	}
	if c.Warn == nil {
		c.Warn = func(s string) { t.Log("warning:", s) }
	}
	b := must(Open(context.Background(), c))(t)
	t.Cleanup(func() {
		b.mu.Lock()
		closed := b.closed
		b.mu.Unlock()
		if closed {
			return
		}
		if err := b.Cleanup(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func restored(t testing.TB, c Config) *Host {
	t.Helper()
	b := bridge(t, c)
	if err := b.Restore(nil); err != nil {
		t.Fatal(err)
	}
	return b
}

// attach reserves and attaches; the namespace ends with the test.
func attach(t testing.TB, b *Host, name string, ports ...PortRequest) (*Attachment, *os.File) {
	t.Helper()
	ep := must(b.Reserve(name, onDefault(b), ports))(t)
	ns := must(b.Attach(context.Background(), ep))(t)
	t.Cleanup(func() { ns.Close() })
	return ep, ns
}

func port(host string, hostPort, containerPort uint16, proto string) PortRequest {
	r := PortRequest{HostPort: hostPort, Port: containerPort, Proto: proto}
	if host != "" {
		r.HostIP = netip.MustParseAddr(host)
	}
	return r
}

// until waits for a condition.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	untilAfter(t, patience, what, ok)
}

// untilAfter is until with a limit of its own.
func untilAfter(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("waited in vain: %s", what)
		case <-tick.C:
		}
	}
}

func gone(t testing.TB, link string) func() bool {
	c := open(t)
	return func() bool {
		_, err := c.Link(link)
		return errors.Is(err, netlink.ErrNoLink)
	}
}

// standard is the default network.
func standard(h *Host) *network {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.networks.byName(DefaultName)
}

func onDefault(h *Host) []Join { return []Join{{Network: standard(h).ID}} }

// subnetOf is the default bridge's own address, with the subnet's length.
func subnetOf(h *Host) netip.Prefix {
	p := standard(h).Pools[0]
	return netip.PrefixFrom(p.Gateway, p.Subnet.Bits())
}
