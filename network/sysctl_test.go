package network

import (
	"net/netip"
	"os"
	"strings"
	"testing"
)

func TestParseSysctl(t *testing.T) {
	for _, c := range []struct {
		text string
		want Sysctl
		err  string
	}{
		{"net.ipv4.conf.IFNAME.log_martians=1", Sysctl{"ipv4", "conf", "log_martians", "1"}, ""},
		{"net.ipv6.neigh.ifname.retrans_time_ms=", Sysctl{"ipv6", "neigh", "retrans_time_ms", ""}, ""},
		{"net.mpls.conf.IFNAME.input=1", Sysctl{"mpls", "conf", "input", "1"}, ""},
		{"", Sysctl{}, "unrecognised network interface sysctl ''"},
		{"net.ipv4.conf.eth0.log_martians=1", Sysctl{}, "unrecognised network interface sysctl 'net.ipv4.conf.eth0.log_martians=1'; represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'"},
		{"net.core.conf.IFNAME.x=1", Sysctl{}, "unrecognised"},
		{"vm.ipv4.conf.IFNAME.x=1", Sysctl{}, "unrecognised"},
		{"net.ipv4.conf.IFNAME.log_martians", Sysctl{}, "to have format name=value"},
		{"net.ipv4.conf.IFNAME.a.b=1", Sysctl{}, "to have format net.X.Y.IFNAME.Z"},
		{"net.ipv4.conf.IFNAME...=1", Sysctl{}, "to have format net.X.Y.IFNAME.Z"},
		{"net.ipv4..IFNAME.x=1", Sysctl{}, "to have format net.X.Y.IFNAME.Z"},
		{"net.ipv4.conf.IFNAME./vm/x=1", Sysctl{}, "to have format net.X.Y.IFNAME.Z"},
	} {
		got, err := ParseSysctl(c.text)
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%q: %+v, %v", c.text, got, err)
		}
	}
}

func TestSysctlsOfAnEndpoint(t *testing.T) {
	h := restored(t, Config{Pool: -1})
	s := create(t, h, Spec{Name: "own", IPv4: true, IPv6: true})
	held := must(h.Reserve("a", []Join{{Network: s.ID, Sysctls: []Sysctl{{"ipv4", "conf", "log_martians", "1"}, {"ipv6", "conf", "hop_limit", "9"}}}}, nil))(t)
	ns := must(h.Attach(t.Context(), held))(t)
	defer ns.Close()
	within(t, ns, func() error {
		for name, want := range map[string]string{"ipv4/conf/eth0/log_martians": "1", "ipv4/conf/all/log_martians": "0", "ipv6/conf/eth0/hop_limit": "9"} {
			got, err := os.ReadFile("/proc/sys/net/" + name)
			if err != nil || strings.TrimSpace(string(got)) != want {
				t.Errorf("%s: %q, %v", name, got, err)
			}
		}
		return nil
	})
	bad := must(h.Reserve("b", []Join{{Network: s.ID, Sysctls: []Sysctl{{"ipv4", "conf", "nosuch", "1"}}}}, nil))(t)
	if ns, err := h.Attach(t.Context(), bad); err == nil || !strings.Contains(err.Error(), "/proc/sys/net/ipv4/conf/eth0/nosuch is not a sysctl file") {
		t.Errorf("%v, %v", ns, err)
	}
}

func TestNoIPv6InAContainer(t *testing.T) {
	h := restored(t, Config{Pool: -1})
	s := create(t, h, Spec{Name: "dual", IPv4: true, IPv6: true})
	wish := netip.MustParseAddr("fe80::42")
	held := must(h.Reserve("a", []Join{{Network: s.ID, NoIPv6: true, LinkLocal: []netip.Addr{wish}}}, []PortRequest{port("", 8080, 80, "tcp")}))(t)
	e := held.On(s.ID)
	if e.Address6.IsValid() || e.Gateway6.IsValid() || len(e.LinkLocal) > 0 || e.needs6() || held.Way(true) != nil || len(held.Ports) != 1 {
		t.Errorf("%+v", held)
	}
	ns := must(h.Attach(t.Context(), held))(t)
	defer ns.Close()
	within(t, ns, func() error {
		if got := getSysctl("net/ipv6/conf/eth0/disable_ipv6"); got != "1" {
			t.Errorf("its link's switch of IPv6: %q", got)
		}
		return nil
	})
}
