package network

import (
	"fmt"
	"strings"
	"testing"
)

func TestInnerResolv(t *testing.T) {
	for _, c := range []struct {
		name, host string
		o          ResolvOptions
		want       []string // lines after the head, empty ones left out
		asked      string
		dotted     bool
	}{
		{"as the host", "nameserver 10.0.0.1\nsearch a.example\noptions edns0\n", ResolvOptions{},
			[]string{"search a.example", "options edns0 ndots:0", "# ExtServers: [10.0.0.1]", "# Overrides: []", "# Option ndots from: internal"}, "[10.0.0.1]", false},
		{"what only the host reaches", "nameserver 127.0.0.53\nnameserver fe80::1%eth0\nnameserver fd00::1\nnameserver 0.0.0.0\nnameserver x\n", ResolvOptions{},
			[]string{"options ndots:0", "# ExtServers: [host(127.0.0.53) host(fe80::1%eth0) host(fd00::1)]", "# Overrides: []", "# Option ndots from: internal"},
			"[host(127.0.0.53) host(fe80::1%eth0) host(fd00::1)]", false},
		{"IPv6 in the container", "nameserver fd00::1", ResolvOptions{IPv6: true},
			[]string{"options ndots:0", "# ExtServers: [fd00::1]", "# Overrides: []", "# Option ndots from: internal"}, "[fd00::1]", false},
		{"own ones are asked from the container", "nameserver 10.0.0.1\nsearch lan\noptions ndots:2 rotate",
			ResolvOptions{Servers: []string{"127.0.0.1", "127.0.0.11", "1.1.1.1"}, Search: []string{"x", "y"}, Options: []string{"timeout:1"}},
			[]string{"search x y", "options timeout:1 ndots:0", "# ExtServers: [127.0.0.1 1.1.1.1]", "# Overrides: [nameservers search options]", "# Option ndots from: internal"}, "[127.0.0.1 1.1.1.1]", false},
		{"the host's ndots", "nameserver 10.0.0.1\noptions ndots:2", ResolvOptions{},
			[]string{"options ndots:2", "# ExtServers: [10.0.0.1]", "# Overrides: []", "# Option ndots from: host"}, "[10.0.0.1]", true},
		{"one's own ndots, and a wrong one", "nameserver 10.0.0.1\nsearch lan", ResolvOptions{Search: []string{"."}, Options: []string{"ndots:x", "ndots:-1", "ndots:1"}},
			[]string{"options ndots:1", "# ExtServers: [10.0.0.1]", "# Overrides: [search options]", "# Option ndots from: override"}, "[10.0.0.1]", true},
		{"none but its own", "nameserver 10.0.0.1", ResolvOptions{Servers: []string{"127.0.0.11"}},
			[]string{"options ndots:0", "# ExtServers: []", "# Overrides: [nameservers]", "# Option ndots from: internal"}, "[]", false},
		{"no server", "search lan", ResolvOptions{},
			[]string{"search lan", "options ndots:0", "# Used default nameservers.", "# ExtServers: [8.8.8.8 8.8.4.4]", "# Overrides: []", "# Option ndots from: internal"}, "[8.8.8.8 8.8.4.4]", false},
	} {
		in := InnerResolv(c.host, "/etc/resolv.conf", "127.0.0.11", c.o)
		text, ok := strings.CutPrefix(in.Text, resolvHead+"nameserver 127.0.0.11\n")
		if !ok {
			t.Errorf("%s: begins with\n%s", c.name, in.Text)
		}
		text = strings.Replace(text, "\n# Based on host file: '/etc/resolv.conf' (internal resolver)\n", "", 1)
		if got := strings.TrimSpace(text); got != strings.Join(c.want, "\n") {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, got, strings.Join(c.want, "\n"))
		}
		if got := fmt.Sprint(in.Upstreams); got != c.asked || in.Dotted != c.dotted || (in.Warning != "") != strings.Contains(in.Text, "Used default") {
			t.Errorf("%s: asks %s, %v, %q", c.name, got, in.Dotted, in.Warning)
		}
	}
}
