package ipam

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"berth/fault"
)

var (
	pre  = netip.MustParsePrefix
	addr = netip.MustParseAddr
)

func TestCutSkipsWhatIsTaken(t *testing.T) {
	source := []Source{{pre("10.0.0.0/8"), 24}, {pre("192.168.0.0/30"), 30}}
	for _, c := range []struct {
		name  string
		taken []Use
		want  string
	}{
		{"all free", nil, "10.0.0.0/24"},
		{"the first taken", []Use{{pre("10.0.0.0/24"), "a"}}, "10.0.1.0/24"},
		{"a part of the first", []Use{{pre("10.0.0.128/30"), "a"}}, "10.0.1.0/24"},
		{"a large one over many", []Use{{pre("10.0.0.0/9"), "a"}, {pre("10.128.0.0/24"), "b"}}, "10.128.1.0/24"},
		{"the whole base by a route above it", []Use{{pre("8.0.0.0/5"), "vpn"}}, "192.168.0.0/30"},
	} {
		got, err := Cut(source, c.taken)
		if err != nil || got != pre(c.want) {
			t.Errorf("%s: got %v, %v; want %s", c.name, got, err, c.want)
		}
	}
}

func TestCutSaysWhatIsInTheWay(t *testing.T) {
	_, err := Cut([]Source{{pre("10.0.0.0/8"), 24}}, []Use{{pre("10.0.0.0/8"), "route to 10.0.0.0/8 over tun0"}})
	if !errors.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "route to 10.0.0.0/8 over tun0") || !strings.Contains(err.Error(), "fully subnetted") {
		t.Errorf("got %v", err)
	}
	if _, err := Cut([]Source{{pre("255.255.255.0/24"), 24}}, []Use{{pre("255.255.255.0/24"), "x"}}); err == nil {
		t.Error("the end of all addresses is passed")
	}
}

func TestUsualSourcesAreSound(t *testing.T) {
	for _, s := range Sources() {
		if err := s.Check(); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []Source{{}, {pre("10.0.0.0/24"), 16}, {pre("10.0.0.0/24"), 31}, {pre("fd00::/8"), 127}} {
		if bad.Check() == nil {
			t.Errorf("%v is taken", bad)
		}
	}
}

func TestLocalIsStableAndOwn(t *testing.T) {
	a, b := Local("m", "one"), Local("m", "two")
	if a != Local("m", "one") || a == b || a == Local("n", "one") {
		t.Errorf("%v, %v", a, b)
	}
	if !pre("fd00::/8").Contains(a.Addr()) || a.Bits() != 64 || a != a.Masked() {
		t.Errorf("%v is no subnet of unique local addresses", a)
	}
	if x, y := a.Addr().As16(), b.Addr().As16(); string(x[:6]) != string(y[:6]) {
		t.Errorf("%v and %v are not of one machine", a, b)
	}
}

func TestCompleteFillsInAndRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		in   Pool
		bare bool
		want string // the gateway, or a part of the error
	}{
		{"the first address", Pool{Subnet: pre("10.1.0.0/24")}, false, "10.1.0.1"},
		{"of IPv6", Pool{Subnet: pre("fd00::/64")}, false, "fd00::1"},
		{"in the range", Pool{Subnet: pre("10.1.0.0/24"), Range: pre("10.1.0.128/25")}, false, "10.1.0.128"},
		{"not an auxiliary one", Pool{Subnet: pre("10.1.0.0/24"), Aux: map[string]netip.Addr{"a": addr("10.1.0.1")}}, false, "10.1.0.2"},
		{"its own", Pool{Subnet: pre("10.1.0.0/24"), Gateway: addr("10.1.0.254")}, false, "10.1.0.254"},
		{"none", Pool{Subnet: pre("10.1.0.0/24")}, true, "invalid IP"},
		{"host bits", Pool{Subnet: netip.MustParsePrefix("10.1.0.1/24")}, false, "it should be 10.1.0.0/24"},
		{"gateway elsewhere", Pool{Subnet: pre("10.1.0.0/24"), Gateway: addr("10.2.0.1")}, false, "gateway 10.2.0.1 is not part"},
		{"range elsewhere", Pool{Subnet: pre("10.1.0.0/24"), Range: pre("10.2.0.0/25")}, false, "range of addresses 10.2.0.0/25 is not part"},
		{"range too large", Pool{Subnet: pre("10.1.0.0/24"), Range: pre("10.1.0.0/16")}, false, "is not part"},
		{"aux elsewhere", Pool{Subnet: pre("10.1.0.0/24"), Aux: map[string]netip.Addr{"a": addr("10.2.0.1")}}, false, "auxiliary address 10.2.0.1 (a)"},
		{"too small", Pool{Subnet: pre("10.1.0.0/31")}, false, "no room"},
	} {
		p, err := c.in.Complete(c.bare)
		got := p.Gateway.String()
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestLedgerGivesEachAddressOnce(t *testing.T) {
	p, err := Pool{Subnet: pre("10.1.0.0/29"), Aux: map[string]netip.Addr{"x": addr("10.1.0.3")}}.Complete(false)
	if err != nil {
		t.Fatal(err)
	}
	l := NewLedger(p)
	if err := l.Take(addr("10.1.0.5")); err != nil {
		t.Fatal(err)
	}
	var got []string
	for {
		a, err := l.Next()
		if err != nil {
			if !errors.Is(err, fault.Unavailable) {
				t.Fatal(err)
			}
			break
		}
		got = append(got, a.String())
	}
	if s := strings.Join(got, " "); s != "10.1.0.2 10.1.0.4 10.1.0.6" {
		t.Errorf("got %s", s)
	}
	for a, kind := range map[string]fault.Kind{"10.1.0.1": fault.Conflict, "10.1.0.0": fault.Conflict, "10.1.0.7": fault.Conflict, "10.1.0.3": fault.Conflict, "10.2.0.1": fault.Invalid} {
		if err := l.Take(addr(a)); !errors.Is(err, kind) {
			t.Errorf("%s: %v", a, err)
		}
	}
	l.Free(addr("10.1.0.4"))
	if a, err := l.Next(); err != nil || a != addr("10.1.0.4") {
		t.Errorf("got %v, %v", a, err)
	}
}

func TestLedgerOfIPv6AndOfARange(t *testing.T) {
	p, _ := Pool{Subnet: pre("fd00::/64")}.Complete(false)
	l := NewLedger(p)
	if a, err := l.Next(); err != nil || a != addr("fd00::2") {
		t.Errorf("got %v, %v", a, err)
	}
	p, _ = Pool{Subnet: pre("10.1.0.0/24"), Range: pre("10.1.0.200/30"), Gateway: addr("10.1.0.1")}.Complete(false)
	l = NewLedger(p)
	n := 0
	for a, err := l.Next(); err == nil; a, err = l.Next() {
		if !pre("10.1.0.200/30").Contains(a) {
			t.Errorf("%v is not of the range", a)
		}
		n++
	}
	if n != 4 {
		t.Errorf("%d addresses of 4", n)
	}
	if err := l.Take(addr("10.1.0.9")); err != nil { // asked for, out of the range
		t.Error(err)
	}
}
