package networks

import (
	"strings"
	"testing"

	"berth/container"

	api "github.com/moby/moby/api/types/container"
	wire "github.com/moby/moby/api/types/network"
)

func TestNoIPv6(t *testing.T) {
	for _, c := range []struct {
		key, value string
		want       bool
	}{
		{"net.ipv6.conf.all.disable_ipv6", "1", true},
		{"net/ipv6/conf/all/disable_ipv6", " 1", true},
		{"net.ipv6.conf.lo.disable_ipv6", "1", true},
		{"net.ipv6.conf.all.disable_ipv6", "0", false},
		{"net.ipv6.conf.default.disable_ipv6", "1", false}, // of links to come that nobody asks IPv6 of
		{"net.ipv6.conf.all.forwarding", "1", false},
	} {
		r := &container.Record{HostConfig: &api.HostConfig{Sysctls: map[string]string{c.key: c.value}}}
		if got := NoIPv6(r); got != c.want {
			t.Errorf("%s=%s: %t", c.key, c.value, got)
		}
	}
}

func TestSysctlsOfAWish(t *testing.T) {
	two := &wire.EndpointSettings{DriverOpts: map[string]string{optionSysctls: "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.ifname.hop_limit=9"}}
	if all, err := sysctls(two); err != nil || len(all) != 2 || all[1].Name != "hop_limit" {
		t.Errorf("%+v, %v", all, err)
	}
	bad := &wire.EndpointSettings{DriverOpts: map[string]string{optionSysctls: "net.ipv4.conf.eth0.log_martians=1"}}
	s := &Service{}
	if err := s.CheckWish("own", bad); err == nil || !strings.HasPrefix(err.Error(), "invalid endpoint settings:\nunrecognised network interface sysctl 'net.ipv4.conf.eth0.log_martians=1'; ") {
		t.Error(err)
	}
}
