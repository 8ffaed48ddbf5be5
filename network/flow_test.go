package network

import (
	"net"
	"testing"

	"berth/kernel/netlink"
)

// Connection tracking remembers where a UDP conversation went. It must find the port's new container at once, though.
func TestUDPConversationFollowsThePort(t *testing.T) {
	newHost(t)
	b := restored(t, Config{})
	first, _ := attach(t, b, "first", port("", 5353, 53, "udp"))
	c := must(net.Dial("udp4", "127.0.0.1:5353"))(t)
	defer c.Close()
	if _, err := exchange(c, patience); err == nil {
		t.Fatal("something answers")
	}
	if err := b.Release(first); err != nil {
		t.Fatal(err)
	}
	ep, ns := attach(t, b, "second", port("", 5353, 53, "udp"))
	serve(t, ns, "udp", "0.0.0.0:53")
	b.background.Wait()
	if _, err := exchange(c, patience); err != nil {
		t.Errorf("the socket that asked the old container does not reach the new one, %s: %v", ep.Endpoints[0].Address, err)
	}
}

// And it must not find the next container that has the address, on a port which that one does not publish.
func TestUDPConversationEndsWithTheContainer(t *testing.T) {
	h := newHost(t)
	b := restored(t, Config{})
	first, ns := attach(t, b, "first", port("", 5353, 53, "udp"))
	var c net.Conn
	within(t, h.outside, func() (err error) {
		c, err = net.Dial("udp4", uplinkHost+":5353")
		return err
	})
	defer c.Close()
	if _, err := exchange(c, patience); err == nil {
		t.Fatal("something answers")
	}
	ns.Close()
	if err := b.Release(first); err != nil {
		t.Fatal(err)
	}
	until(t, "the address is free", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		l := b.networks.byName(DefaultName).ledgers[0]
		if l.Take(first.Endpoints[0].Address.Addr()) != nil {
			return false
		}
		l.Free(first.Endpoints[0].Address.Addr())
		return true
	})
	second, ns := attach(t, b, "second")
	if second.Endpoints[0].Address != first.Endpoints[0].Address {
		t.Fatalf("the second container has %s, not %s", second.Endpoints[0].Address, first.Endpoints[0].Address)
	}
	serve(t, ns, "udp", "0.0.0.0:53")
	if _, err := exchange(c, impatience); err == nil {
		t.Error("an old conversation reaches a port that is not published")
	}
}

// Flows that do not match stay.
func TestForgetFlowsKeepsOthers(t *testing.T) {
	newHost(t)
	restored(t, Config{Pool: -1})
	seen := 0
	count := func(netlink.Flow) bool { seen++; return false }
	serve(t, nil, "udp", "127.0.0.1:7")
	reaches(t, "host", nil, "udp", "127.0.0.1:7", "127.0.0.1")
	for range 2 {
		if err := netlink.ForgetFlows(count); err != nil {
			t.Fatal(err)
		}
	}
	if seen < 2 {
		t.Errorf("%d flows in two looks", seen)
	}
}
