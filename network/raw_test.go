package network

import (
	"net/netip"
	"os"
	"testing"

	"berth/kernel/netlink"
)

// routeLoopback makes ns send packets for 127.0.0.1 over eth0 to via, as a hostile root can: lo loses its
// address, and eth0 may carry loopback destinations.
func routeLoopback(t *testing.T, ns *os.File, via netip.Addr) {
	t.Helper()
	within(t, ns, func() error {
		if err := setSysctl("net/ipv4/conf/eth0/route_localnet", "1"); err != nil {
			return err
		}
		c, err := netlink.Open()
		if err != nil {
			return err
		}
		defer c.Close()
		link, err := c.Link("eth0")
		if err != nil {
			return err
		}
		return c.Apply(
			netlink.RemoveAddress(1, netip.MustParsePrefix("127.0.0.1/8")),
			netlink.AddRoute(link.Index, netip.MustParsePrefix("127.0.0.0/8"), via),
		)
	})
}

// haveLoopback gives eth0 in ns the address 127.0.0.1, so that it can send from it.
func haveLoopback(t *testing.T, ns *os.File) {
	t.Helper()
	within(t, ns, func() error {
		c, err := netlink.Open()
		if err != nil {
			return err
		}
		defer c.Close()
		link, err := c.Link("eth0")
		if err != nil {
			return err
		}
		return c.Apply(netlink.AddAddress(link.Index, netip.MustParsePrefix("127.0.0.1/32")))
	})
}
