package dns

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"berth/network/names"

	"github.com/miekg/dns"
)

func addresses(all ...string) (list []netip.Addr) {
	for _, a := range all {
		list = append(list, netip.MustParseAddr(a))
	}
	return list
}

// town is a directory with two networks: a has x (both families) and y, b has y and z; asks is on both, first on b.
func town() (*directory, *names.Member) {
	d := newDirectory()
	on := func(network string, at []netip.Addr, called ...string) names.Endpoint {
		return names.Endpoint{NetworkID: "id-" + network, Network: network, Names: called, Addresses: at}
	}
	d.put(names.Member{ID: "x-id", Endpoints: []names.Endpoint{on("a", addresses("10.1.0.1", "fd01::1"), "x", "same", "with.dots")}})
	d.put(names.Member{ID: "y-id", Endpoints: []names.Endpoint{on("a", addresses("10.1.0.2"), "Y", "same"), on("b", addresses("10.2.0.2"), "Y")}})
	d.put(names.Member{ID: "z-id", Endpoints: []names.Endpoint{on("b", addresses("fd02::3"), "z", "same")}})
	d.put(names.Member{ID: "far-id", Endpoints: []names.Endpoint{on("c", addresses("10.3.0.1"), "far")}})
	asks := names.Member{ID: "asks-id", Gateways: addresses("10.2.0.254", "fd02::254"), Endpoints: []names.Endpoint{
		on("b", addresses("10.2.0.9"), "asks"), on("a", addresses("10.1.0.9"), "asks"),
	}}
	asks.Endpoints[1].Links = map[string]string{"Shop": "x", "y": "x-id", "lost": "nobody"}
	d.put(asks)
	return d, d.member("asks-id")
}

func TestFind(t *testing.T) {
	d, asks := town()
	for _, c := range []struct {
		name  string
		six   bool
		want  []netip.Addr
		known bool
	}{
		{"x", false, addresses("10.1.0.1"), true},
		{"X.", true, addresses("fd01::1"), true},
		{"x.a", false, addresses("10.1.0.1"), true},
		{"x.A.", false, addresses("10.1.0.1"), true},
		{"x.b", false, nil, false},
		{"with.dots", false, addresses("10.1.0.1"), true},
		{"with.dots.a", false, addresses("10.1.0.1"), true},
		{"x-id", false, addresses("10.1.0.1"), true},
		{"same", false, addresses("10.1.0.1", "10.1.0.2"), true}, // on b it has no such address
		{"same", true, addresses("fd02::3"), true},               // on b, which is asked first
		{"z", false, nil, true},
		{"y", false, addresses("10.1.0.1"), true}, // a link goes before a name
		{"y.b", false, addresses("10.2.0.2"), true},
		{"shop", false, addresses("10.1.0.1"), true},
		{"SHOP.a", true, addresses("fd01::1"), true},
		{"shop.b", false, nil, false},
		{"lost", false, nil, false},
		{"far", false, nil, false},
		{"far.c", false, nil, false},
		{"host.docker.internal.", false, addresses("10.2.0.254"), true},
		{"gateway.docker.internal", true, addresses("fd02::254"), true},
		{"", false, nil, false},
		{".", false, nil, false},
		{"a", false, nil, false},
		{"..a", false, nil, false},
	} {
		got, known := d.find(asks, c.name, c.six, nil)
		slices.SortFunc(got, netip.Addr.Compare)
		if fmt.Sprint(got) != fmt.Sprint(c.want) || known != c.known {
			t.Errorf("%s, six %v: %v, %v; want %v, %v", c.name, c.six, got, known, c.want, c.known)
		}
	}
	for a, want := range map[string]string{"10.1.0.1": "x.a", "fd02::3": "z.b", "10.2.0.2": "Y.b", "10.3.0.1": "", "10.1.0.7": ""} {
		if got, _ := d.called(asks, netip.MustParseAddr(a)); got != want {
			t.Errorf("%s is called %q, want %q", a, got, want)
		}
	}
}

func TestNothingIsLeftOfThoseWhoAreGone(t *testing.T) {
	d, _ := town()
	m := *d.member("x-id")
	for range 3 {
		d.put(m)
	}
	if got, _ := d.find(d.member("asks-id"), "same", false, nil); len(got) != 2 {
		t.Errorf("after three times the same: %v", got)
	}
	for _, id := range []string{"x-id", "y-id", "z-id", "far-id", "asks-id", "nobody"} {
		d.drop(id)
	}
	if len(d.members) > 0 || len(d.networks) > 0 {
		t.Errorf("left: %v, %v", d.members, d.networks)
	}
}

func TestReversed(t *testing.T) {
	for _, s := range []string{"10.1.0.255", "fd00::1:2", "::"} {
		name, err := dns.ReverseAddr(s)
		if err != nil {
			t.Fatal(err)
		}
		if a, ok := reversed(name); !ok || a != netip.MustParseAddr(s) {
			t.Errorf("%s: %v, %v", name, a, ok)
		}
	}
	for _, name := range []string{"in-addr.arpa.", "1.in-addr.arpa.", "1.2.3.4.5.in-addr.arpa.", "256.1.1.1.in-addr.arpa.", "x.ip6.arpa.", "1.2.3.4.", ".ip6.arpa."} {
		if a, ok := reversed(name); ok {
			t.Errorf("%s: %v", name, a)
		}
	}
}

func TestRead(t *testing.T) {
	good, err := new(dns.Msg).SetQuestion("x.", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	change := func(f func(b []byte) []byte) []byte { return f(bytes.Clone(good)) }
	for name, c := range map[string]struct {
		raw  []byte
		code int // of what is said; -1: nothing, -2: it is understood
	}{
		"a question":       {good, -2},
		"nothing":          {nil, -1},
		"short":            {good[:11], -1},
		"an answer":        {change(func(b []byte) []byte { b[2] |= 0x80; return b }), -1},
		"an update":        {change(func(b []byte) []byte { b[2] |= dns.OpcodeUpdate << 3; return b }), dns.RcodeNotImplemented},
		"no question":      {change(func(b []byte) []byte { b[5] = 0; return b[:12] }), dns.RcodeFormatError},
		"two questions":    {change(func(b []byte) []byte { b[5] = 2; return append(b, b[12:]...) }), dns.RcodeFormatError},
		"cut":              {good[:14], dns.RcodeFormatError},
		"a loop of labels": {change(func(b []byte) []byte { b[12], b[13] = 0xc0, 12; return b }), dns.RcodeFormatError},
		"a cut record":     {change(func(b []byte) []byte { b[7] = 1; return append(b, 0, 0, 1) }), dns.RcodeFormatError},
	} {
		q, refuse := read(c.raw, false)
		switch {
		case c.code == -2 && q == nil, c.code == -1 && (q != nil || refuse != nil):
			t.Errorf("%s: %v, %v", name, q, refuse)
		case c.code >= 0 && (len(refuse) < 12 || int(refuse[3]&0xf) != c.code || refuse[2]&0x80 == 0 || refuse[0] != c.raw[0] || refuse[1] != c.raw[1]):
			t.Errorf("%s: %v", name, refuse)
		}
	}
}

// TestOtherTypesOfNamesThatAreHere are none, and nobody outside hears of them.
func TestOtherTypesOfNamesThatAreHere(t *testing.T) {
	d, asks := town()
	for _, c := range []struct {
		name  string
		kind  uint16
		known bool
	}{
		{"x.", dns.TypeSRV, true},
		{"x.", dns.TypeMX, true},
		{"_http._tcp.x.", dns.TypeSRV, true},
		{"_http._tcp.X.a.", dns.TypeSRV, true},
		{"_443._tcp.shop.", dns.TypeTLSA, true},
		{"_http._tcp.host.docker.internal.", dns.TypeSRV, true},
		{"_http._tcp.far.", dns.TypeSRV, false},
		{"_http._tcp.x.b.", dns.TypeSRV, false},
		{"_http._tcp.", dns.TypeSRV, false},
		{"_.", dns.TypeSRV, false},
		{"tcp.x.", dns.TypeSRV, false},
	} {
		raw, err := new(dns.Msg).SetQuestion(c.name, c.kind).Pack()
		if err != nil {
			t.Fatal(err)
		}
		q, _ := read(raw, false)
		out := d.local(asks, q, nil)
		if (out != nil) != c.known {
			t.Errorf("%s %d: answered here: %v", c.name, c.kind, out != nil)
		}
		r := new(dns.Msg)
		if out != nil && (r.Unpack(out) != nil || r.Rcode != dns.RcodeSuccess || len(r.Answer) > 0) {
			t.Errorf("%s %d: %v", c.name, c.kind, r)
		}
	}
}

// FuzzQuestion has a packet of a container's, and what a server outside says to it.
func FuzzQuestion(f *testing.F) {
	q := new(dns.Msg).SetQuestion("same.a.", dns.TypeA)
	q.SetEdns0(1232, true)
	raw, err := q.Pack()
	if err != nil {
		f.Fatal(err)
	}
	r := new(dns.Msg).SetReply(q)
	r.Answer = []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: "same.a.", Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: []string{"x"}}}
	said, err := r.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw, said, false)
	f.Add(raw, append(said, make([]byte, 2000)...), true)
	f.Add([]byte{1, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 12, 0, 1}, []byte{}, false)
	d, asks := town()
	f.Fuzz(func(t *testing.T, raw, said []byte, tcp bool) {
		q, refuse := read(raw, tcp)
		if q == nil {
			if refuse != nil && (len(refuse) < 12 || refuse[2]&0x80 == 0) {
				t.Fatalf("refused by %v", refuse)
			}
			return
		}
		for _, out := range [][]byte{d.local(asks, q, func(names.Step) {}), q.answer(nil), refusal(raw, dns.RcodeServerFailure)} {
			if out != nil && (len(out) > q.room || !q.answeredBy(out)) {
				t.Fatalf("%d bytes where %d fit: %v to %v", len(out), q.room, out, raw)
			}
		}
		if q.answeredBy(said) {
			if out := q.fit(said); len(out) > q.room {
				t.Fatalf("%d bytes where %d fit", len(out), q.room)
			}
		}
	})
}
