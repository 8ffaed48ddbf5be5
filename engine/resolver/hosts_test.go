package resolver

import (
	"net/netip"
	"testing"

	"berth/network"
)

func line(address string, names ...string) network.HostEntry {
	return network.HostEntry{Address: netip.MustParseAddr(address), Names: names}
}

func TestStale(t *testing.T) {
	hosts := func(all ...network.HostEntry) string { return network.Hosts(all, nil) }
	now := hosts(line("10.0.0.7", "db", "abc"), line("172.18.0.2", "me"), line("172.19.0.2", "me"))
	for name, c := range map[string]struct {
		is, now string
		want    bool
	}{
		"the same":                {now, now, false},
		"cut":                     {now[:40], now, true},
		"empty":                   {"", now, true},
		"one address less":        {hosts(line("10.0.0.7", "db", "abc"), line("172.18.0.2", "me")), now, true},
		"another address":         {hosts(line("10.0.0.7", "db", "abc"), line("172.20.0.2", "me"), line("172.19.0.2", "me")), now, true},
		"one address more":        {now + "172.20.0.2\tme\n", now, true},
		"a link moved":            {hosts(line("10.0.0.8", "db", "abc"), line("172.18.0.2", "me"), line("172.19.0.2", "me")), now, true},
		"from no network":         {hosts(), now, true},
		"from a network of names": {hosts(line("172.17.0.1", hostName, gatewayName), line("172.17.0.2", "me")), now, true},
		"a line of its own":       {hosts(line("10.0.0.7", "db", "abc"), line("172.18.0.2", "me")) + "10.9.9.9\tmine\n", now, false},
		"all its own":             {"127.0.0.1 localhost\n", now, false},
		"served now":              {"x\n# Based on host file: '/x' (legacy)\n", "# Based on host file: '/x' (internal resolver)\n", true},
		"its own resolv.conf":     {"nameserver 10.0.0.1\n", "# Based on host file: '/x' (internal resolver)\n", false},
	} {
		if got := Stale(c.is, c.now); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
