package dns

import (
	"context"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"berth/internal/kerneltest"
	"berth/network/names"

	"github.com/miekg/dns"
)

// upstream is a name server at some address of the host, that behaves as the first label of the name says.
func upstream(t *testing.T, at string) (asked func() []string) {
	t.Helper()
	var seen = make(chan string, 1000)
	handle := func(w dns.ResponseWriter, q *dns.Msg) {
		over := w.LocalAddr().Network()
		name := q.Question[0].Name
		seen <- over + " " + strings.ToLower(name)
		r := new(dns.Msg).SetReply(q)
		text := func(s string) {
			for len(s) > 0 {
				n := min(len(s), 250)
				r.Answer = append(r.Answer, &dns.TXT{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 60}, Txt: []string{s[:n]}})
				s = s[n:]
			}
		}
		kind, _, _ := strings.Cut(strings.ToLower(name), ".")
		switch kind {
		case "silent":
			return
		case "refused":
			r.Rcode = dns.RcodeRefused
		case "broken":
			r.Rcode = dns.RcodeServerFailure
		case "none":
			r.Rcode = dns.RcodeNameError
		case "edns":
			if opt := q.IsEdns0(); opt != nil {
				text(strconv.Itoa(int(opt.UDPSize())))
			} else {
				text("none")
			}
		case "large", "long", "huge":
			text(strings.Repeat("x", map[string]int{"large": 3000, "long": 3000, "huge": 30000}[kind]))
			if over == "udp" && kind != "large" {
				r.Answer, r.Truncated = nil, true
			}
		case "spoofed":
			odd := r.Copy()
			odd.Id++
			odd.Answer = []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: []string{"spoof"}}}
			w.WriteMsg(odd)
			other := new(dns.Msg).SetReply(new(dns.Msg).SetQuestion("other.test.", dns.TypeTXT))
			other.Id = q.Id
			w.WriteMsg(other)
			text("true")
		default:
			text(at)
		}
		r.Compress = true
		w.WriteMsg(r)
	}
	pc, err := net.ListenPacket("udp", at)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: dns.HandlerFunc(handle)}, {Listener: l, Handler: dns.HandlerFunc(handle)}} {
		started, done := make(chan struct{}), make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() { defer close(done); s.ActivateAndServe() }()
		<-started
		t.Cleanup(func() { s.Shutdown(); <-done })
	}
	return func() (all []string) {
		for {
			select {
			case s := <-seen:
				all = append(all, s)
			default:
				return all
			}
		}
	}
}

// wired connects a box to the host, at 10.77.0.2 and 10.77.0.1.
func wired(t *testing.T, b *box) {
	t.Helper()
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
	run("link", "set", "lo", "up")
	run("link", "add", "up0", "type", "veth", "peer", "name", "eth0", "netns", strconv.Itoa(b.proc.Process.Pid))
	run("addr", "add", "10.77.0.1/24", "dev", "up0")
	run("link", "set", "up0", "up")
	t.Cleanup(func() { exec.Command("ip", "link", "del", "up0").Run() })
	b.do(t, func() error {
		run("addr", "add", "10.77.0.2/24", "dev", "eth0")
		run("link", "set", "eth0", "up")
		return nil
	})
}

func server(at string, host bool) names.Server {
	a := netip.MustParseAddrPort(at)
	return names.Server{Address: a.Addr(), Port: a.Port(), Host: host}
}

func TestOthersAreAsked(t *testing.T) {
	kerneltest.Root(t)
	c := newClient(t, "/run/g")
	b := newBox(t)
	wired(t, b)
	const far, near, dead = "10.77.0.1:53", "127.0.0.1:5355", "10.77.0.1:99"
	first, second := upstream(t, far), upstream(t, near)
	m := member("a000", "10.77.0.2", "a")
	m.Servers = []names.Server{server(far, false), server(near, true)}
	start(t, c, b, m)
	for _, x := range []struct {
		name, over, want string
		size             uint16 // of EDNS; 0: none
		short            bool
		asked            string // of both servers
	}{
		{name: "plain.test.", want: far, asked: "udp plain.test."},
		{name: "plain.test.", over: "tcp", want: far, asked: "tcp plain.test."},
		{name: "PLAIN.test.", want: far, asked: "udp plain.test."},
		{name: "none.test.", want: "NXDOMAIN", asked: "udp none.test."},
		{name: "refused.test.", want: "REFUSED", asked: "udp refused.test.,udp refused.test."},
		{name: "broken.test.", want: "SERVFAIL", asked: "udp broken.test.,udp broken.test."},
		{name: "edns.test.", want: "none", asked: "udp edns.test."},
		{name: "edns.test.", want: "1232", size: 1232, asked: "udp edns.test."},
		{name: "large.test.", want: strings.Repeat("x", 3000), size: 4096, asked: "udp large.test."},
		{name: "large.test.", short: true, asked: "udp large.test."},
		{name: "long.test.", want: strings.Repeat("x", 3000), size: 4096, asked: "udp long.test.,tcp long.test."},
		{name: "long.test.", short: true, asked: "udp long.test.,tcp long.test."},
		{name: "huge.test.", over: "tcp", want: strings.Repeat("x", 30000), asked: "tcp huge.test."},
		{name: "spoofed.test.", want: "true", asked: "udp spoofed.test."},
		{name: "single.", want: far, asked: "udp single."},
	} {
		q := new(dns.Msg).SetQuestion(x.name, dns.TypeTXT)
		if x.size > 0 {
			q.SetEdns0(x.size, true)
		}
		over := x.over
		if over == "" {
			over = "udp"
		}
		r, err := b.ask(t, over, q)
		if err != nil {
			t.Errorf("%s: %v", x.name, err)
			continue
		}
		got := strings.ReplaceAll(said(r), " ", "")
		if x.short != r.Truncated || !x.short && got != x.want {
			t.Errorf("%s over %s with %d: %.60q, truncated %v; want %.60q", x.name, over, x.size, got, r.Truncated, x.want)
		}
		if asked := strings.Join(append(first(), second()...), ","); asked != x.asked {
			t.Errorf("%s: asked %q, want %q", x.name, asked, x.asked)
		}
	}
	// Nothing of the networks' own names gets out.
	for _, kind := range []string{"A", "AAAA", "MX", "TXT", "HTTPS", "ANY"} {
		b.look(t, "udp", "a", kind)
		b.look(t, "udp", "a.net", kind)
	}
	if out := append(first(), second()...); len(out) > 0 {
		t.Errorf("asked outside: %v", out)
	}
	// One that is silent, or not there, is passed over.
	m.Servers = []names.Server{server(dead, false), server(near, true)}
	put(t, c, b, m)
	if got := b.look(t, "udp", "plain.test", "TXT"); got != near {
		t.Errorf("with a dead server: %s", got)
	}
	m.Servers = []names.Server{server(far, false), server(near, true)}
	put(t, c, b, m)
	trace, err := c.Trace(context.Background(), "a000", "silent.test", "TXT")
	if err != nil || trace.Status != "SERVFAIL" || len(trace.Steps) != 3 || trace.Steps[1].Server != "10.77.0.1" || trace.Steps[2].Server != "host(127.0.0.1)" {
		t.Errorf("with silent servers: %+v, %v", trace, err)
	}
	// With ndots, what has no dot is tried in the search domains before.
	m.Dotted = true
	put(t, c, b, m)
	first()
	if got := b.look(t, "udp", "single", "A"); got != "" || len(first()) > 0 {
		t.Errorf("a name without a dot: %q", got)
	}
	// On internal networks alone, the host's servers are not asked, and others can't be reached: the answer comes at once.
	m.Dotted, m.Outside = false, false
	m.Servers = []names.Server{server("192.0.2.1:53", false), server(near, true)}
	put(t, c, b, m)
	second()
	trace, err = c.Trace(context.Background(), "a000", "plain.test", "A")
	if err != nil || trace.Status != "SERVFAIL" || len(trace.Steps) != 3 || !strings.Contains(trace.Steps[1].Result, "unreachable") ||
		!strings.Contains(trace.Steps[2].Result, "not asked") || len(second()) > 0 {
		t.Errorf("on an internal network: %+v, %v", trace, err)
	}
}

func put(t *testing.T, c *names.Client, b *box, m names.Member) {
	t.Helper()
	if err := c.Put(m, b.proc.Process.Pid); err != nil {
		t.Fatal(err)
	}
}

// A container that asks as much as it can doesn't keep another from its answers, nor itself from those that are known here.
func TestAFloodIsBounded(t *testing.T) {
	kerneltest.Root(t)
	c := newClient(t, "/run/h")
	rude, kind := newBox(t), newBox(t)
	wired(t, rude)
	upstream(t, "10.77.0.1:53")
	m := member("a000", "172.20.0.2", "rude")
	m.Servers = []names.Server{server("10.77.0.1:53", false)}
	start(t, c, rude, m)
	start(t, c, kind, member("b000", "172.20.0.3", "kind"))
	pid := helper(t, "/run/h")
	conn := rude.conn(t, "udp")
	defer conn.Close()
	q, err := new(dns.Msg).SetQuestion("silent.test.", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	for range 5000 {
		conn.Conn.Write(q)
		conn.Conn.Write(q[:11])
		conn.Conn.Write([]byte("no question at all, but long enough"))
	}
	for range streams + 20 { // connections that say nothing
		s := rude.conn(t, "tcp")
		defer s.Close()
	}
	for _, b := range []*box{kind, rude} {
		conn := b.conn(t, "udp")
		eventually(t, func() string { // packets may be lost in the flood
			q := new(dns.Msg).SetQuestion(map[*box]string{kind: "kind.", rude: "rude."}[b], dns.TypeA)
			if _, _, err := (&dns.Client{Timeout: time.Second}).ExchangeWithConn(q, conn); err != nil {
				return err.Error()
			}
			return ""
		})
		conn.Close()
	}
	if fds, _ := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/fd"); len(fds) > questions+streams+50 {
		t.Errorf("%d files are open", len(fds))
	}
	t.Log(memory(pid))
	rude.end() // and what waits goes with it
	eventually(t, func() string {
		if left := inside(rude.ns, pid); left != "" {
			return "it holds " + left
		}
		if fds, _ := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/fd"); len(fds) > 40 {
			return strconv.Itoa(len(fds)) + " files are left"
		}
		return ""
	})
}
