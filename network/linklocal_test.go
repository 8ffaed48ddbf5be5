package network

import (
	"net/netip"
	"slices"
	"testing"

	"berth/kernel/netlink"
	"berth/network/ipam"
)

// The default network may have the subnet that every link has addresses of already, and another one after a restart.
func TestDefaultNetworkOfLinkLocalAddresses(t *testing.T) {
	newHost(t)
	dir := t.TempDir()
	open := func(subnet string) (*Host, []string) {
		h := restored(t, Config{Dir: dir, Default: Spec{IPv6: true, Pools: []ipam.Pool{{Subnet: netip.MustParsePrefix(subnet)}}}})
		index := standard(h).index
		var all []string
		for _, a := range must(netlink.Addresses())(t) {
			if a.Link == index && a.Prefix.Addr().Is6() {
				all = append(all, a.Prefix.String())
			}
		}
		return h, all
	}
	for _, c := range []struct{ subnet, has, hasNot string }{
		{"fe80::/64", "fe80::1/64", ""},
		{"fe80::/64", "fe80::1/64", ""},
		{"fe80:1237::/32", "fe80:1237::1/32", ""}, // fe80::1 stays: it may be the link's own
		{"fe80:1238::/64", "fe80:1238::1/64", "fe80:1237::1/32"},
		{"fd00:17::/64", "fd00:17::1/64", "fe80:1238::1/64"},
	} {
		h, all := open(c.subnet)
		if !slices.Contains(all, c.has) || slices.Contains(all, c.hasNot) {
			t.Errorf("%s: the bridge has %v", c.subnet, all)
		}
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
	}
	h, _ := open("fe80::/64")
	s, _ := h.Get(h.ID(DefaultName))
	a, b := place(t, h, "a", nil, &s), place(t, h, "b", nil, &s)
	serve6(t, a.ns, "[::]:80")
	reaches6(t, "a neighbour", b.ns, "["+a.on6(&s)+"%eth0]:80", "")
}
