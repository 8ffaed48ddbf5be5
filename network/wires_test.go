package network

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"berth/fault"
	"berth/kernel/netlink"
	"berth/network/ipam"
)

// onLAN is a network on the wire to the neighbour, which has 203.0.113.2 and is the way to elsewhere.
func onLAN(driver string, options ...string) Spec {
	s := Spec{Name: "lan", Driver: driver, Options: map[string]string{"parent": lan}, Pools: []ipam.Pool{{
		Subnet: netip.MustParsePrefix("203.0.113.0/24"), Range: netip.MustParsePrefix("203.0.113.128/25"), Gateway: netip.MustParseAddr(neighbourIP),
	}}}
	for k := 0; k < len(options); k += 2 {
		s.Options[options[k]] = options[k+1]
	}
	return s
}

// On a wire of the host's, a container is a machine of its own; what two of them are to each other is the mode's to say.
func TestModesOfMacvlan(t *testing.T) {
	for _, x := range []struct {
		mode     string
		together bool // containers reach each other
		one      bool // there is room for one alone
	}{{"bridge", true, false}, {"private", false, false}, {"vepa", false, false}, {"passthru", false, true}} {
		t.Run(x.mode, func(t *testing.T) {
			w := newHost(t)
			h := restored(t, Config{Pool: -1})
			s := create(t, h, onLAN("macvlan", "macvlan_mode", x.mode))
			a := place(t, h, "a", nil, s)
			serve(t, a.ns, "tcp", "0.0.0.0:80")
			serve(t, w.neighbour, "tcp", "0.0.0.0:7")
			reaches(t, "a machine on the wire", w.neighbour, "tcp", a.on(s)+":80", neighbourIP)
			reaches(t, "to a machine on the wire", a.ns, "tcp", neighbourIP+":7", a.on(s))
			// The host itself is no machine of that wire.
			reachesNot(t, "this host", nil, "tcp", a.on(s)+":80")
			if x.one {
				b := must(h.Reserve("b", []Join{{Network: s.ID}}, nil))(t)
				if ns, err := h.Attach(context.Background(), b); err == nil {
					ns.Close()
					t.Error("a second container is on a wire that is handed through to one")
				}
				return
			}
			b := place(t, h, "b", nil, s)
			if x.together {
				reaches(t, "another container", b.ns, "tcp", a.on(s)+":80", b.on(s))
			} else {
				reachesNot(t, "another container", b.ns, "tcp", a.on(s)+":80")
			}
		})
	}
}

// needIPvlan skips where the kernel has no such links, as a container's start says too.
func needIPvlan(t *testing.T, h *Host, s *Spec) {
	t.Helper()
	a := must(h.Reserve("probe", []Join{{Network: s.ID}}, nil))(t)
	ns, err := h.Attach(context.Background(), a)
	if errors.Is(err, fault.Unsupported) {
		t.Skip("needs a kernel with ipvlan links:", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	ns.Close()
	if err := h.Release(a); err != nil {
		t.Fatal(err)
	}
}

func TestIPvlanIsANeighbour(t *testing.T) {
	for _, flag := range []string{"bridge", "private"} {
		t.Run(flag, func(t *testing.T) {
			w := newHost(t)
			h := restored(t, Config{Pool: -1})
			s := create(t, h, onLAN("ipvlan", "ipvlan_mode", "l2", "ipvlan_flag", flag))
			needIPvlan(t, h, s)
			a, b := place(t, h, "a", nil, s), place(t, h, "b", nil, s)
			serve(t, a.ns, "tcp", "0.0.0.0:80")
			serve(t, w.neighbour, "tcp", "0.0.0.0:7")
			reaches(t, "a machine on the wire", w.neighbour, "tcp", a.on(s)+":80", neighbourIP)
			reaches(t, "to a machine on the wire", b.ns, "tcp", neighbourIP+":7", b.on(s))
			if flag == "bridge" {
				reaches(t, "another container", b.ns, "tcp", a.on(s)+":80", b.on(s))
			} else {
				reachesNot(t, "another container", b.ns, "tcp", a.on(s)+":80")
			}
			wire, mac := must(open(t).Link(lan))(t), ""
			within(t, a.ns, func() error {
				c, err := netlink.Open()
				if err != nil {
					return err
				}
				defer c.Close()
				l, err := c.Link(a.On(s.ID).Interface)
				mac = l.MAC.String()
				return err
			})
			if mac != wire.MAC.String() {
				t.Errorf("the container's hardware address is %s, the wire's %s", mac, wire.MAC)
			}
		})
	}
}

// In the third layer the containers' subnet is nobody's wire: a neighbour needs a route to it by way of the host's address on the wire, and containers
// have none but the link itself.
func TestIPvlanIsARouter(t *testing.T) {
	for _, mode := range []string{"l3", "l3s"} {
		t.Run(mode, func(t *testing.T) {
			w := newHost(t)
			h := restored(t, Config{Pool: -1})
			s := create(t, h, Spec{Name: "lan", Driver: "ipvlan", Options: map[string]string{"parent": lan, "ipvlan_mode": mode},
				Pools: []ipam.Pool{{Subnet: netip.MustParsePrefix("10.9.0.0/24")}}})
			if g := s.Pools[0].Gateway; g.IsValid() {
				t.Errorf("a gateway %s, where nobody is asked", g)
			}
			needIPvlan(t, h, s)
			a, b := place(t, h, "a", nil, s), place(t, h, "b", nil, s)
			serve(t, a.ns, "tcp", "0.0.0.0:80")
			serve(t, w.neighbour, "tcp", "0.0.0.0:7")
			// The neighbour's way to everywhere is the host's address on the wire.
			reaches(t, "a neighbour", w.neighbour, "tcp", a.on(s)+":80", neighbourIP)
			reaches(t, "another container", b.ns, "tcp", a.on(s)+":80", b.on(s))
			reaches(t, "to a neighbour", b.ns, "tcp", neighbourIP+":7", b.on(s))
		})
	}
}

// sctp is a socket of the Stream Control Transmission Protocol in Python's words, as Go has none; a server answers with who asks.
const (
	sctpServer = `import socket, sys
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_STREAM, 132)
s.bind((sys.argv[1], int(sys.argv[2])))
s.listen()
print("ready", flush=True)
while True:
    c, a = s.accept()
    c.sendall((a[0] + "\n").encode())
    c.close()`
	sctpClient = `import socket, sys
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_STREAM, 132)
s.settimeout(float(sys.argv[3]))
s.connect((sys.argv[1], int(sys.argv[2])))
print(s.recv(100).decode(), end="")`
)

func serveSCTP(t *testing.T, ns *os.File, address, port string) {
	t.Helper()
	cmd := exec.Command("python3", "-c", sctpServer, address, port)
	out := must(cmd.StdoutPipe())(t)
	cmd.Stderr = os.Stderr
	within(t, ns, cmd.Start)
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("the server says %q, %v", line, err)
	}
}

func askSCTP(t *testing.T, ns *os.File, address, port string, seconds float64) (seen string, err error) {
	t.Helper()
	within(t, ns, func() error {
		cmd := exec.Command("python3", "-c", sctpClient, address, port, fmt.Sprint(seconds))
		out, cerr := cmd.Output()
		seen, err = strings.TrimSpace(string(out)), cerr
		return nil
	})
	return seen, err
}

func TestPublishedSCTP(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("needs python3 to speak SCTP")
	}
	w := newHost(t)
	h := restored(t, Config{Pool: -1})
	s := create(t, h, Spec{Name: "own", IPv4: true, IPv6: true})
	wish := []PortRequest{port("", 3868, 3868, "sctp")}
	probe, err := h.Reserve("probe", []Join{{Network: s.ID}}, wish)
	if errors.Is(err, fault.Unsupported) {
		if !strings.Contains(err.Error(), "modprobe sctp") {
			t.Errorf("%v", err)
		}
		t.Skip("needs a kernel with SCTP:", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Reserve("second", []Join{{Network: s.ID}}, wish); !errors.Is(err, fault.Conflict) {
		t.Errorf("the same port twice: %v", err)
	}
	if err := h.Release(probe); err != nil {
		t.Fatal(err)
	}
	a, b := place(t, h, "a", wish, s), place(t, h, "b", nil, s)
	serveSCTP(t, a.ns, "0.0.0.0", "3868")
	serveSCTP(t, b.ns, "0.0.0.0", "3868")
	serveSCTP(t, b.ns, "::", "3869")
	for _, x := range []struct {
		who           string
		ns            *os.File
		address, port string
		as            string
	}{
		{"outside", w.outside, uplinkHost, "3868", outsideIP},
		{"a neighbour", w.neighbour, lanHost, "3868", neighbourIP},
		{"a container", b.ns, a.on(s), "3868", b.on(s)},
		{"a container, over IPv6", a.ns, b.on6(s), "3869", a.on6(s)},
		{"this host", nil, a.on(s), "3868", s.Pools[0].Gateway.String()},
	} {
		if seen, err := askSCTP(t, x.ns, x.address, x.port, patience.Seconds()); err != nil || seen != x.as {
			t.Errorf("%s to %s/sctp: seen as %q, want %q, %v", x.who, x.address, seen, x.as, err)
		}
	}
	serveSCTP(t, w.outside, "0.0.0.0", "3868")
	if seen, err := askSCTP(t, b.ns, outsideIP, "3868", patience.Seconds()); err != nil || seen != uplinkHost {
		t.Errorf("a container to outside is seen as %q, want %q, %v", seen, uplinkHost, err)
	}
	if seen, err := askSCTP(t, w.outside, b.on(s), "3868", impatience.Seconds()); err == nil {
		t.Errorf("a port that is not published is reached from outside, seen as %q", seen)
	}
}
