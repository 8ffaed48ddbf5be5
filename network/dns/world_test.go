package dns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/internal/kerneltest"
	"berth/kernel/namespace"
	"berth/network/names"

	"github.com/miekg/dns"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 1 && filepath.Base(os.Args[0]) == "berth-dns" { // the program under test
		os.Exit(Main())
	}
	kerneltest.Main(m)
}

// box is a container: a network namespace and a process in it.
type box struct {
	ns   *os.File
	proc *exec.Cmd
}

func newBox(t testing.TB) *box {
	t.Helper()
	ns, err := namespace.NewNet()
	if err != nil {
		t.Fatal(err)
	}
	b := &box{ns: ns}
	b.do(t, func() error {
		if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		b.proc = exec.Command("sleep", "1000")
		return b.proc.Start()
	})
	t.Cleanup(func() { b.end(); ns.Close() })
	return b
}

func (b *box) do(t testing.TB, fn func() error) {
	t.Helper()
	if err := namespace.Do(b.ns, fn); err != nil {
		t.Fatal(err)
	}
}

func (b *box) end() {
	if b.proc != nil {
		b.proc.Process.Kill()
		b.proc.Wait()
		b.proc = nil
	}
}

// conn opens a socket to names.Address inside.
func (b *box) conn(t testing.TB, over string) *dns.Conn {
	t.Helper()
	var c net.Conn
	b.do(t, func() (err error) {
		c, err = net.DialTimeout(over, names.Address+":53", 5*time.Second)
		return err
	})
	return &dns.Conn{Conn: c}
}

// ask has q answered inside.
func (b *box) ask(t testing.TB, over string, q *dns.Msg) (*dns.Msg, error) {
	t.Helper()
	c := b.conn(t, over)
	defer c.Close()
	r, _, err := (&dns.Client{Timeout: 15 * time.Second}).ExchangeWithConn(q, c)
	return r, err
}

// look is ask with a name, and gives the answers in order, after the code unless that is NOERROR.
func (b *box) look(t testing.TB, over, name, kind string) string {
	t.Helper()
	q := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.StringToType[kind])
	r, err := b.ask(t, over, q)
	if err != nil {
		return "error: " + err.Error()
	}
	return said(r)
}

func said(r *dns.Msg) string {
	var all []string
	for _, rr := range r.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			all = append(all, rr.A.String())
		case *dns.AAAA:
			all = append(all, rr.AAAA.String())
		case *dns.PTR:
			all = append(all, rr.Ptr)
		case *dns.TXT:
			all = append(all, strings.Join(rr.Txt, ""))
		default:
			all = append(all, rr.String())
		}
	}
	slices.Sort(all)
	if r.Rcode != dns.RcodeSuccess {
		all = append([]string{dns.RcodeToString[r.Rcode]}, all...)
	}
	return strings.Join(all, " ")
}

// member is a container on one network, by the name "net" and the ID "n1".
func member(id string, address string, called ...string) names.Member {
	m := names.Member{ID: id, Outside: true}
	e := names.Endpoint{NetworkID: "n1", Network: "net", Names: called}
	for _, a := range strings.Fields(address) {
		e.Addresses = append(e.Addresses, netip.MustParseAddr(a))
	}
	m.Endpoints = []names.Endpoint{e}
	return m
}

// program makes this test program berth-dns.
var program = sync.OnceValues(func() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	data, err := os.ReadFile(self)
	if err != nil {
		return "", err
	}
	path := "/run/berth-dns"
	return path, os.WriteFile(path, data, 0o755)
})

// newClient is a daemon with a helper of its own.
func newClient(t testing.TB, dir string) *names.Client {
	t.Helper()
	kerneltest.Root(t)
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	c := names.New(names.Config{Program: path, Dir: dir, Warn: func(text string) { t.Log("warning: ", text) }})
	t.Cleanup(func() {
		if err := c.Quit(); err != nil {
			t.Error(err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if log, _ := os.ReadFile(filepath.Join(dir, "dns.log")); len(log) > 0 {
			t.Errorf("last words: %s", log)
		}
	})
	return c
}

// start is what an engine does.
func start(t testing.TB, c *names.Client, b *box, m names.Member) {
	t.Helper()
	if err := c.Serve(m, b.ns); err != nil {
		t.Fatal(err)
	}
	if err := c.Settle(m.ID, b.proc.Process.Pid, b.ns); err != nil {
		t.Fatal(err)
	}
}

// eventually waits until check is "".
func eventually(t testing.TB, check func() string) {
	t.Helper()
	end := time.Now().Add(60 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		problem := check()
		if problem == "" {
			return
		}
		if <-tick.C; time.Now().After(end) {
			t.Fatal(problem)
		}
	}
}

// listenPacket is in the namespace of the calling thread.
func listenPacket(at string) (net.PacketConn, error) {
	return (&net.ListenConfig{}).ListenPacket(context.Background(), "udp4", at)
}
