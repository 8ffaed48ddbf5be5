package netlink_test

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"berth/internal/kerneltest"
	"berth/kernel"
	"berth/kernel/netlink"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

func open(t testing.TB) *netlink.Conn {
	t.Helper()
	kerneltest.Root(t)
	c, err := netlink.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func apply(t testing.TB, c *netlink.Conn, changes ...netlink.Change) {
	t.Helper()
	if err := c.Apply(changes...); err != nil {
		t.Fatal(err)
	}
}

func link(t testing.TB, c *netlink.Conn, name string) netlink.Link {
	t.Helper()
	l, err := c.Link(name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// home is this process's own namespace, as a veth's peer wants one named.
func home(t testing.TB) *os.File {
	t.Helper()
	f, err := os.Open("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestBridgeAndVeth(t *testing.T) {
	c := open(t)
	mac := []byte{2, 0x42, 1, 2, 3, 4}
	apply(t, c, netlink.NewBridge("br0", mac, 1300), netlink.SetAliasOf("br0", "a remark"), netlink.NewVeth("v0", "v1", home(t), 1400))
	br, v := link(t, c, "br0"), link(t, c, "v0")
	t.Cleanup(func() { apply(t, c, netlink.Delete(v.Index), netlink.Delete(br.Index)) })
	apply(t, c, netlink.SetUp(br.Index), netlink.SetUp(v.Index), netlink.SetAlias(v.Index, "x"), netlink.SetMAC(v.Index, []byte{2, 0, 0, 0, 0, 9}),
		netlink.SetMTU(v.Index, 1300), netlink.SetMaster(v.Index, br.Index), netlink.SetHairpin(v.Index))
	br, v = link(t, c, "br0"), link(t, c, "v0")
	if br.Kind != "bridge" || br.Alias != "a remark" || br.MAC.String() != "02:42:01:02:03:04" || !br.Up || br.Master != 0 {
		t.Errorf("bridge %+v", br)
	}
	if v.Kind != "veth" || v.Alias != "x" || v.MTU != 1300 || !v.Up || v.Master != br.Index || v.MAC.String() != "02:00:00:00:00:09" {
		t.Errorf("veth %+v", v)
	}
	mode, err := os.ReadFile("/sys/class/net/v0/brport/hairpin_mode")
	if err != nil || strings.TrimSpace(string(mode)) != "1" {
		t.Errorf("hairpin mode %q, %v", mode, err)
	}
	all, err := netlink.Links()
	if err != nil || len(all) < 4 {
		t.Errorf("%d links, %v", len(all), err)
	}
	apply(t, c, netlink.SetMaster(v.Index, 0))
	if v = link(t, c, "v0"); v.Master != 0 {
		t.Errorf("still attached: %+v", v)
	}
}

// One packet of changes: those that fail are named, the others stand.
func TestApplyTriesAllAndNamesFailures(t *testing.T) {
	c := open(t)
	err := c.Apply(netlink.NewBridge("br0", nil, 0), netlink.NewBridge("br0", nil, 0), netlink.Delete(99999), netlink.NewBridge("br1", nil, 0))
	if !errors.Is(err, fs.ErrExist) || !errors.Is(err, netlink.ErrNoLink) {
		t.Errorf("errors are lost: %v", err)
	}
	for _, want := range []string{"make bridge br0: ", "delete link 99999: "} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q has no %q", err, want)
		}
	}
	apply(t, c, netlink.Delete(link(t, c, "br0").Index), netlink.Delete(link(t, c, "br1").Index))
	if _, err := c.Link("br0"); !errors.Is(err, netlink.ErrNoLink) {
		t.Errorf("a link that is gone: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := errors.Join(c.Close()); err != nil {
		t.Errorf("closed twice: %v", err)
	}
	if err := c.Apply(netlink.SetUp(1)); err == nil {
		t.Error("a closed connection works")
	}
}

func TestAddressesAndRoutes(t *testing.T) {
	c := open(t)
	apply(t, c, netlink.NewBridge("br0", nil, 0))
	br := link(t, c, "br0")
	t.Cleanup(func() { apply(t, c, netlink.Delete(br.Index)) })
	p := netip.MustParsePrefix
	apply(t, c, netlink.SetUp(br.Index), netlink.AddAddress(br.Index, p("10.1.0.1/24")), netlink.AddAddress(br.Index, p("fd01::1/64")),
		netlink.AddRoute(br.Index, p("10.2.0.0/16"), netip.MustParseAddr("10.1.0.9")), netlink.AddDefault(br.Index, netip.MustParseAddr("10.1.0.8")))
	addresses, err := netlink.Addresses()
	for _, want := range []string{"10.1.0.1/24", "fd01::1/64"} {
		if err != nil || !slices.Contains(addresses, netlink.Address{Link: br.Index, Prefix: p(want)}) {
			t.Errorf("%s is not among %v, %v", want, addresses, err)
		}
	}
	routes, err := netlink.Routes()
	for _, want := range []netlink.Route{
		{Link: br.Index, To: p("10.1.0.0/24")},
		{Link: br.Index, To: p("10.2.0.0/16"), Gateway: netip.MustParseAddr("10.1.0.9")},
		{Link: br.Index, To: p("0.0.0.0/0"), Gateway: netip.MustParseAddr("10.1.0.8")},
	} {
		if err != nil || !slices.Contains(routes, want) {
			t.Errorf("%+v is not among %+v, %v", want, routes, err)
		}
	}
	apply(t, c, netlink.RemoveAddress(br.Index, p("10.1.0.1/24")))
	if addresses, _ = netlink.Addresses(); slices.Contains(addresses, netlink.Address{Link: br.Index, Prefix: p("10.1.0.1/24")}) {
		t.Error("the address stands")
	}
}

func TestWatchSeesAddressesAndSwitches(t *testing.T) {
	c := open(t)
	apply(t, c, netlink.NewBridge("br0", nil, 0))
	br := link(t, c, "br0")
	t.Cleanup(func() { apply(t, c, netlink.Delete(br.Index)) })
	w, err := netlink.OpenWatch()
	if err != nil {
		t.Fatal(err)
	}
	next := func(want netlink.Event) {
		t.Helper()
		for {
			events, err := w.Next()
			if err != nil {
				t.Fatalf("no %+v: %v", want, err)
			}
			if slices.Contains(events, want) {
				return
			}
		}
	}
	apply(t, c, netlink.AddAddress(br.Index, netip.MustParsePrefix("10.1.0.1/24")))
	next(netlink.Event{Link: br.Index})
	for _, v := range []string{"1", "0"} {
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte(v), 0); err != nil {
			t.Fatal(err)
		}
		next(netlink.Event{Forwarding: true, Link: netlink.AllLinks})
	}
	var waiting sync.WaitGroup
	waiting.Go(func() {
		for {
			if _, err := w.Next(); err != nil {
				if !errors.Is(err, os.ErrClosed) {
					t.Errorf("a closed watch: %v", err)
				}
				return
			}
		}
	})
	w.Close()
	waiting.Wait()
}

func TestConnIsSafeForManyGoroutines(t *testing.T) {
	c := open(t)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				if l, err := c.Link("lo"); err != nil || l.Index != 1 {
					t.Errorf("%+v, %v", l, err)
				}
				if err := c.Apply(netlink.SetUp(1), netlink.Delete(99999)); !errors.Is(err, netlink.ErrNoLink) {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

func TestHoldPort(t *testing.T) {
	kerneltest.Root(t)
	a := netip.MustParseAddrPort("127.0.0.1:8080")
	f, err := kernel.HoldPort("tcp", a)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kernel.HoldPort("tcp", netip.MustParseAddrPort("0.0.0.0:8080")); !errors.Is(err, kernel.ErrPortInUse) {
		t.Errorf("held twice: %v", err)
	}
	if _, err := kernel.HoldPort("udp", netip.MustParseAddrPort("192.0.2.1:80")); !errors.Is(err, kernel.ErrNotLocal) {
		t.Errorf("an address of another host: %v", err)
	}
	f.Close()
	if f, err = kernel.HoldPort("tcp", a); err != nil {
		t.Fatalf("given up: %v", err)
	}
	f.Close()
}
