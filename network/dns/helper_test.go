package dns

import (
	"testing"
)

func TestContainersFindEachOther(t *testing.T) {
	c := newClient(t, "/run/a")
	web, db := newBox(t), newBox(t)
	start(t, c, web, member("w000", "172.20.0.2 fd00::2", "Web", "www"))
	start(t, c, db, member("d000", "172.20.0.3", "db", "www"))
	for _, over := range []string{"udp", "tcp"} {
		for _, x := range []struct{ name, kind, want string }{
			{"web", "A", "172.20.0.2"}, {"WEB.", "A", "172.20.0.2"}, {"web.net", "A", "172.20.0.2"}, {"web.NET.", "AAAA", "fd00::2"},
			{"db", "A", "172.20.0.3"}, {"db", "AAAA", ""}, {"db", "TXT", ""}, {"db", "MX", ""}, {"www", "A", "172.20.0.2 172.20.0.3"}, {"www", "AAAA", "fd00::2"},
			{"2.0.20.172.in-addr.arpa", "PTR", "Web.net."}, {"nobody", "A", "SERVFAIL"}, {"web.other", "A", "SERVFAIL"},
		} {
			if got := db.look(t, over, x.name, x.kind); got != x.want {
				t.Errorf("%s %s over %s: %q, want %q", x.name, x.kind, over, got, x.want)
			}
		}
	}
}
