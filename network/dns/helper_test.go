package dns

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/kernel"
	"berth/kernel/namespace"
	"berth/network/names"

	"github.com/miekg/dns"
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
	// Changes are seen at once.
	if err := c.Put(member("w000", "172.20.0.9", "site"), web.proc.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if got := db.look(t, "udp", "site", "A") + "," + db.look(t, "udp", "web", "A"); got != "172.20.0.9,SERVFAIL" {
		t.Errorf("after a change: %s", got)
	}
	if err := c.Drop("w000"); err != nil {
		t.Fatal(err)
	}
	if got := db.look(t, "udp", "site", "A"); got != "SERVFAIL" {
		t.Errorf("after its end: %s", got)
	}
	conn := web.conn(t, "udp")
	defer conn.Close()
	if r, _, err := (&dns.Client{Timeout: 100 * time.Millisecond}).ExchangeWithConn(new(dns.Msg).SetQuestion("db.", dns.TypeA), conn); err == nil {
		t.Errorf("a container that is gone was answered: %v", r)
	}
}

// helper is the process that serves dir.
func helper(t testing.TB, dir string) (pid int) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		t.Fatal(err)
	}
	for _, comm := range all {
		if name, _ := os.ReadFile(comm); strings.TrimSpace(string(name)) != "berth-dns" {
			continue
		}
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(comm)))
		log, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/2", n))
		if filepath.Dir(log) == dir && n > pid {
			pid = n
		}
	}
	return pid
}

func kill(t testing.TB, pid int) {
	t.Helper()
	if pid == 0 {
		t.Fatal("there is no process to kill")
	}
	p, err := os.FindProcess(pid)
	if err == nil {
		err = p.Kill()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestAnotherAnswersWhenItIsKilled(t *testing.T) {
	c := newClient(t, "/run/b")
	a, b := newBox(t), newBox(t)
	start(t, c, a, member("a000", "172.20.0.2", "a"))
	start(t, c, b, member("b000", "172.20.0.3", "b"))
	for range 3 {
		kill(t, helper(t, "/run/b"))
		eventually(t, func() string {
			q := new(dns.Msg).SetQuestion("b.", dns.TypeA)
			conn := a.conn(t, "udp")
			defer conn.Close()
			r, _, err := (&dns.Client{Timeout: 100 * time.Millisecond}).ExchangeWithConn(q, conn)
			if err != nil || said(r) != "172.20.0.3" {
				return fmt.Sprint("nobody answers after the kill: ", r, err)
			}
			return ""
		})
	}
	// Who comes while nobody is there has one started.
	kill(t, helper(t, "/run/b"))
	late := newBox(t)
	start(t, c, late, member("l000", "172.20.0.4", "late"))
	if got := late.look(t, "udp", "a", "A"); got != "172.20.0.2" {
		t.Error(got)
	}
}

func TestItOutlivesTheDaemon(t *testing.T) {
	c := newClient(t, "/run/c")
	a, b, ends, half := newBox(t), newBox(t), newBox(t), newBox(t)
	start(t, c, a, member("a000", "172.20.0.2", "a"))
	start(t, c, b, member("b000", "172.20.0.3", "b"))
	start(t, c, ends, member("e000", "172.20.0.4", "ends"))
	if err := c.Serve(member("h000", "172.20.0.5", "half"), half.ns); err != nil {
		t.Fatal(err)
	}
	pid := helper(t, "/run/c")
	if got := a.look(t, "udp", "half", "A"); got != "172.20.0.5" {
		t.Fatal(got)
	}
	if err := c.Close(); err != nil { // as a death closes the connection
		t.Fatal(err)
	}
	if got := a.look(t, "udp", "b", "A"); got != "172.20.0.3" {
		t.Errorf("without a daemon: %s", got)
	}
	// What the daemon didn't get to start is nobody's.
	eventually(t, func() string {
		if got := a.look(t, "udp", "half", "A"); got != "SERVFAIL" {
			return "a container that never started is known: " + got
		}
		return ""
	})
	ends.end()
	eventually(t, func() string {
		if got := a.look(t, "udp", "ends", "A"); got != "SERVFAIL" {
			return "a container that has ended is known: " + got
		}
		return ""
	})
	next := newClient(t, "/run/c")
	err := next.Restore(map[int]names.Member{a.proc.Process.Pid: member("a000", "172.20.0.2", "a2"), b.proc.Process.Pid: member("b000", "172.20.0.3", "b")})
	if err != nil {
		t.Fatal(err)
	}
	if got := b.look(t, "udp", "a2", "A") + " " + a.look(t, "udp", "b", "A"); got != "172.20.0.2 172.20.0.3" {
		t.Errorf("after the daemon's start: %s", got)
	}
	if now := helper(t, "/run/c"); now != pid {
		t.Errorf("process %d took the place of %d, which was there", now, pid)
	}
	// A daemon that has nobody to be served takes all away.
	if err := next.Close(); err != nil {
		t.Fatal(err)
	}
	last := newClient(t, "/run/c")
	if err := last.Restore(nil); err != nil {
		t.Fatal(err)
	}
	if left := inside(a.ns, helper(t, "/run/c")); left != "" {
		t.Error(left)
	}
}

// inside tells which files of a process keep a network namespace; "": none.
func inside(ns *os.File, pid int) string {
	info, err := ns.Stat()
	if err != nil {
		return err.Error()
	}
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	var kept []string
	for _, l := range links {
		target, _ := os.Readlink(l)
		if other, err := os.Stat(l); err == nil && os.SameFile(info, other) {
			kept = append(kept, target)
		}
	}
	return strings.Join(kept, " ")
}

func TestItEndsWhenNobodyNeedsIt(t *testing.T) {
	c := newClient(t, "/run/d")
	a := newBox(t)
	start(t, c, a, member("a000", "172.20.0.2", "a"))
	pid := helper(t, "/run/d")
	a.end()
	eventually(t, func() string {
		fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, l := range fds {
			if target, _ := os.Readlink(l); strings.HasPrefix(target, "net:") || strings.Contains(target, "pidfd") {
				return "it holds " + target
			}
		}
		return ""
	})
	if err := c.Drop("a000"); err != nil { // as the engine does
		t.Fatal(err)
	}
	if err := c.Quit(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d/fd/0", pid)); err == nil {
			return "it lives"
		}
		return ""
	})
}

// TestManyContainers: 200 find each other, one after the other and all at once; it costs little, and nothing is left.
func TestManyContainers(t *testing.T) {
	const count = 200
	c := newClient(t, "/run/e")
	boxes := make([]*box, count)
	for k := range boxes {
		boxes[k] = newBox(t)
	}
	address := func(k int) string { return netip.AddrFrom4([4]byte{172, 20, 1, byte(k)}).String() }
	begin := time.Now()
	for k, b := range boxes {
		start(t, c, b, member(fmt.Sprintf("c%03d", k), address(k), fmt.Sprintf("box%d", k), "all"))
	}
	each := time.Since(begin) / count
	var asking sync.WaitGroup
	for k, b := range boxes {
		asking.Go(func() {
			conn := b.conn(t, "udp")
			defer conn.Close()
			for other := range boxes {
				other = (other + k) % count
				q := new(dns.Msg).SetQuestion(fmt.Sprintf("box%d.", other), dns.TypeA)
				r, _, err := (&dns.Client{Timeout: 10 * time.Second}).ExchangeWithConn(q, conn)
				if err != nil || said(r) != address(other) {
					t.Errorf("box%d asks for box%d: %v, %v", k, other, r, err)
					return
				}
			}
		})
	}
	asking.Wait()
	// The name that all have is more than a packet holds: what fits comes, and all over TCP.
	if r, err := boxes[0].ask(t, "udp", new(dns.Msg).SetQuestion("all.", dns.TypeA)); err != nil || !r.Truncated || len(r.Answer) == 0 || len(r.Answer) == count {
		t.Errorf("200 addresses in one packet: %v", err)
	}
	large := new(dns.Msg).SetQuestion("all.", dns.TypeA)
	large.SetEdns0(4096, false)
	if r, err := boxes[0].ask(t, "udp", large); err != nil || r.Truncated || len(r.Answer) != count || r.IsEdns0() == nil {
		t.Errorf("200 addresses in a large packet: %v", err)
	}
	if r, err := boxes[0].ask(t, "tcp", new(dns.Msg).SetQuestion("all.", dns.TypeA)); err != nil || len(r.Answer) != count {
		t.Errorf("200 addresses over TCP: %v", err)
	}
	pid := helper(t, "/run/e")
	t.Logf("%v for each container; %s", each.Round(10*time.Microsecond), memory(pid))
	before, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil || len(before) < 4*count {
		t.Fatalf("%d files for %d containers", len(before), count)
	}
	for _, b := range boxes {
		b.end()
	}
	eventually(t, func() string {
		if left, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid)); len(left) > 20 {
			return fmt.Sprintf("%d files are left", len(left))
		}
		return ""
	})
	for _, m := range c.Known() {
		if err := c.Drop(m.ID); err != nil {
			t.Fatal(err)
		}
	}
}

// memory is what a process takes, of /proc/PID/status.
func memory(pid int) string {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	var out []string
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, "VmRSS") || strings.HasPrefix(line, "RssAnon") || strings.HasPrefix(line, "Threads") {
			out = append(out, strings.Join(strings.Fields(line), " "))
		}
	}
	return strings.Join(out, ", ")
}

// A container's own name server on all addresses, on both protocols, doesn't get in the way.
func TestAContainerMayServeNamesItself(t *testing.T) {
	c := newClient(t, "/run/f")
	b := newBox(t)
	var own *dns.Server
	b.do(t, func() error {
		conn, err := listenPacket("0.0.0.0:53")
		own = &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
			w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeNameError))
		})}
		return err
	})
	served := make(chan error, 1)
	go func() { served <- own.ActivateAndServe() }()
	start(t, c, b, member("a000", "172.20.0.2", "a"))
	if got := b.look(t, "udp", "a", "A"); got != "172.20.0.2" {
		t.Errorf("ours: %s", got)
	}
	var r *dns.Msg
	b.do(t, func() error {
		conn, err := dns.DialTimeout("udp", "127.0.0.1:53", time.Second)
		if err != nil {
			return err
		}
		defer conn.Close()
		r, _, err = new(dns.Client).ExchangeWithConn(new(dns.Msg).SetQuestion("a.", dns.TypeA), conn)
		return err
	})
	if r.Rcode != dns.RcodeNameError {
		t.Errorf("the container's own: %v", r)
	}
	own.PacketConn.Close()
	<-served
	// Nothing is tracked in its namespace for this.
	if err := namespace.Do(b.ns, func() error {
		out, err := exec.Command("sh", "-c", "cat /proc/thread-self/net/nf_conntrack 2>/dev/null | wc -l").Output()
		if strings.TrimSpace(string(out)) != "0" {
			t.Errorf("connections are tracked: %s", out)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// One of another release is asked to end, and the next serves all.
func TestAnotherReleaseMakesRoom(t *testing.T) {
	c := newClient(t, "/run/i")
	a := newBox(t)
	dir, err := os.Open("/run/i")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	old, err := kernel.ListenUnix(dir, "dns.sock")
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan string, 1)
	go func() {
		defer old.Close()
		sock, err := kernel.Accept(old)
		if err != nil {
			told <- err.Error()
			return
		}
		conn := names.NewConn(sock)
		defer conn.Close()
		r := &names.Request{}
		err = conn.Send(names.Hello{Version: names.Version + 1})
		if err == nil {
			_, err = conn.Receive(r)
		}
		if err == nil {
			err = conn.Send(&names.Answer{})
		}
		told <- fmt.Sprint(r.Op, err)
	}()
	start(t, c, a, member("a000", "172.20.0.2", "a"))
	if got := <-told; got != names.OpQuit+"<nil>" {
		t.Errorf("the other was told %s", got)
	}
	if got := a.look(t, "udp", "a", "A"); got != "172.20.0.2" {
		t.Error(got)
	}
}

// A cluster in a container writes the gateway's address into resolv.conf in place of ours, for itself and for machines within it, after it has
// saved and restored the rules of iptables.
func TestOthersAddressesLeadHereToo(t *testing.T) {
	c := newClient(t, "/run/also")
	node, pod := newBox(t), newBox(t)
	const gateway = "172.20.0.1"
	shell := func(b *box, lines ...string) {
		t.Helper()
		b.do(t, func() error {
			for _, l := range lines {
				if out, err := exec.Command("sh", "-c", l).CombinedOutput(); err != nil {
					return fmt.Errorf("%s: %w: %s", l, err, out)
				}
			}
			return nil
		})
	}
	shell(node, "ip link add eth0 type bridge", "ip address add 172.20.0.2/16 dev eth0", "ip link set eth0 up", "ip route add default via "+gateway,
		fmt.Sprintf("ip link add pod type veth peer name eth0 netns /proc/%d/ns/net", pod.proc.Process.Pid), "ip address add 10.244.0.1/24 dev pod", "ip link set pod up",
		"echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet")
	shell(pod, "ip address add 10.244.0.2/24 dev eth0", "ip link set eth0 up", "ip route add default via 10.244.0.1")
	m := member("n000", "172.20.0.2", "node")
	m.Also = []netip.Addr{netip.MustParseAddr(gateway)}
	start(t, c, node, m)
	ask := func(b *box, over, at string) string {
		t.Helper()
		var got string
		b.do(t, func() error {
			r, _, err := (&dns.Client{Net: over, Timeout: 15 * time.Second}).Exchange(new(dns.Msg).SetQuestion("node.", dns.TypeA), at+":53")
			if err != nil {
				got = "error: " + err.Error()
			} else {
				got = said(r)
			}
			return nil
		})
		return got
	}
	all := func(when string) {
		t.Helper()
		for _, over := range []string{"udp", "tcp"} {
			for _, x := range []struct {
				who string
				b   *box
				at  string
			}{{"the node", node, names.Address}, {"the node", node, gateway}, {"a machine within it", pod, gateway}} {
				if got := ask(x.b, over, x.at); got != "172.20.0.2" {
					t.Errorf("%s: %s at %s over %s: %q", when, x.who, x.at, over, got)
				}
			}
		}
	}
	all("at first")
	for _, iptables := range []string{"iptables-legacy", "iptables-nft"} {
		if _, err := exec.LookPath(iptables); err != nil {
			t.Logf("without %s", iptables)
			continue
		}
		shell(node, iptables+"-save | "+iptables+"-restore", iptables+" -t nat -A POSTROUTING -j ACCEPT", iptables+" -t nat -F", iptables+" -F")
		all("after " + iptables)
	}
	// Who has none any more, and who gets one.
	m.Also = nil
	if err := c.Put(m, node.proc.Process.Pid); err != nil {
		t.Fatal(err)
	}
	shell(node, "! nft list table ip berth_dns | grep -q 'type nat'")
	if got := ask(node, "udp", names.Address); got != "172.20.0.2" {
		t.Error(got)
	}
	m.Also = []netip.Addr{netip.MustParseAddr(gateway)}
	if err := c.Put(m, node.proc.Process.Pid); err != nil {
		t.Fatal(err)
	}
	all("in the end")
}

// The one who answers may be killed between the two orders of a start.
func TestStartGoesOnWithAnother(t *testing.T) {
	c := newClient(t, "/run/twice")
	a := newBox(t)
	m := member("a000", "172.20.0.2", "a")
	if err := c.Serve(m, a.ns); err != nil {
		t.Fatal(err)
	}
	was := helper(t, "/run/twice")
	kill(t, was)
	eventually(t, func() string { // another is started, and not told of who hasn't started
		if now := helper(t, "/run/twice"); now == 0 || now == was {
			return "nobody else is started"
		}
		return ""
	})
	if err := c.Settle(m.ID, a.proc.Process.Pid, a.ns); err != nil {
		t.Fatal(err)
	}
	if got := a.look(t, "udp", "a", "A"); got != "172.20.0.2" {
		t.Error(got)
	}
}
