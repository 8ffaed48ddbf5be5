package link

import (
	"errors"
	"net/netip"
	"testing"

	"berth/fault"

	"github.com/google/go-cmp/cmp"
	wire "github.com/moby/moby/api/types/network"
)

func TestParse(t *testing.T) {
	for s, want := range map[string]Link{"db": {"db", "db"}, "db:store": {"db", "store"}, "/db:/web/store": {"db", "store"}, "0a1b:x-y": {"0a1b", "x-y"}, "db:/store": {"db", "store"}} {
		if got, err := Parse(s); err != nil || got != want {
			t.Errorf("%s: %+v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", ":", "db:", ":x", "a:b:c", "a:b/c", "a:/", "a://b"} {
		if l, err := Parse(s); !errors.Is(err, fault.Invalid) {
			t.Errorf("%q: %+v, %v", s, l, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("db:store")
	f.Add("/db:/web/store")
	f.Fuzz(func(t *testing.T, s string) {
		l, err := Parse(s)
		if err != nil {
			return
		}
		if again, err := Parse(l.Shown(l.Container, "p")); err != nil || again.Alias != l.Alias {
			t.Errorf("%q: %+v, then %+v, %v", s, l, again, err)
		}
	})
}

func TestTarget(t *testing.T) {
	x := Target{
		Alias: "my-db", Name: "pg", Hostname: "0a1b", Parent: "web", Address: netip.MustParseAddr("172.17.0.2"),
		Ports: []wire.Port{wire.MustParsePort("5432/tcp"), wire.MustParsePort("53/udp")}, Env: []string{"A=1", "PATH=/x", "HOME=/", "LONE"},
	}
	want := []string{
		"MY_DB_PORT=udp://172.17.0.2:53",
		"MY_DB_PORT_53_UDP=udp://172.17.0.2:53", "MY_DB_PORT_53_UDP_ADDR=172.17.0.2", "MY_DB_PORT_53_UDP_PORT=53", "MY_DB_PORT_53_UDP_PROTO=udp",
		"MY_DB_PORT_5432_TCP=tcp://172.17.0.2:5432", "MY_DB_PORT_5432_TCP_ADDR=172.17.0.2", "MY_DB_PORT_5432_TCP_PORT=5432", "MY_DB_PORT_5432_TCP_PROTO=tcp",
		"MY_DB_NAME=/web/my-db", "MY_DB_ENV_A=1",
	}
	if diff := cmp.Diff(want, x.Variables()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"my-db", "0a1b", "pg"}, x.Host().Names); diff != "" {
		t.Error(diff)
	}
	if x.Alias = "pg"; len(x.Host().Names) != 2 {
		t.Errorf("the name twice: %v", x.Host().Names)
	}
}
