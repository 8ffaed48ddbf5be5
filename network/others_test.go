package network

import (
	"cmp"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// other runs programs of other software, one command line after the other.
func other(t *testing.T, lines ...string) {
	t.Helper()
	for _, l := range lines {
		words := strings.Fields(l)
		if _, err := exec.LookPath(words[0]); err != nil {
			t.Skipf("needs %s to play other software", words[0])
		}
		if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", l, err, out)
		}
	}
}

// wordsOf collects warnings.
type wordsOf struct {
	mu  sync.Mutex
	all []string
}

func (w *wordsOf) add(s string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, s)
}

func (w *wordsOf) said() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.all)
}

func (w *wordsOf) has(parts ...string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(w.all, func(s string) bool {
		return !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(s, p) })
	})
}

// walls are firewalls of other software that let nothing forwarded pass, and how our tools name the chain and the way out.
var walls = []struct {
	name     string
	up, down []string
	chain    string
	let      []string // what the remedy must be, BRIDGE for the link
	onlyIn   bool     // containers get out, nobody gets in
}{
	{name: "policy", up: []string{"nft add table ip other", "nft add chain ip other fw { type filter hook forward priority 0 ; policy drop ; }"},
		down: []string{"nft delete table ip other"}, chain: "(policy of chain ip other fw)",
		let: []string{"nft insert rule ip other fw iifname BRIDGE accept", "nft insert rule ip other fw oifname BRIDGE accept"}},
	{name: "rule", up: []string{"nft add table inet other", "nft add chain inet other checks", "nft add chain inet other fw { type filter hook forward priority 10 ; policy accept ; }",
		"nft add rule inet other fw ct state vmap { established : accept, related : accept, invalid : drop }", "nft add rule inet other fw jump checks",
		"nft add rule inet other checks reject with icmpx admin-prohibited"},
		down: []string{"nft delete table inet other"}, chain: "(a rule of chain inet other checks)",
		let: []string{"nft insert rule inet other fw iifname BRIDGE accept", "nft insert rule inet other fw oifname BRIDGE accept"}},
	{name: "inward only", up: []string{"nft add table ip other", "nft add chain ip other fw { type filter hook forward priority 0 ; policy accept ; }",
		"nft add rule ip other fw iifname up0 ct state new drop"}, onlyIn: true,
		down: []string{"nft delete table ip other"}, chain: "(a rule of chain ip other fw)",
		let: []string{"nft insert rule ip other fw oifname BRIDGE accept"}},
	{name: "iptables-legacy", up: []string{"iptables-legacy -P FORWARD DROP", "iptables-legacy -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"},
		down: []string{"iptables-legacy -F", "iptables-legacy -P FORWARD ACCEPT"}, chain: "(policy of chain FORWARD of iptables-legacy)",
		let: []string{"iptables-legacy -I FORWARD -i BRIDGE -j ACCEPT", "iptables-legacy -I FORWARD -o BRIDGE -j ACCEPT"}},
	{name: "iptables-nft", up: []string{"iptables-nft -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "iptables-nft -A FORWARD -j REJECT"},
		down: []string{"nft delete table ip filter"}, chain: "(a rule of chain ip filter FORWARD)",
		let: []string{"iptables-nft -I FORWARD -i BRIDGE -j ACCEPT", "iptables-nft -I FORWARD -o BRIDGE -j ACCEPT"}},
}

// A firewall's drop is final, whenever it was written; its chain and the command that lets packets through are told, and that command does.
func TestFirewallsOfOthersAreHonouredAndNamed(t *testing.T) {
	for _, wall := range walls {
		for _, before := range []bool{true, false} {
			when := map[bool]string{true: "before", false: "after"}[before]
			t.Run(wall.name+" "+when, func(t *testing.T) {
				h := newHost(t)
				told := &wordsOf{}
				if before {
					other(t, wall.up...)
				}
				b := restored(t, Config{Pool: -1, Warn: told.add})
				if !before {
					if told.has("firewall") {
						t.Errorf("warned without a cause: %q", told.all)
					}
					other(t, wall.up...)
				}
				t.Cleanup(func() { other(t, wall.down...) })
				let := strings.ReplaceAll(strings.Join(wall.let, "\n"), "BRIDGE", standard(b).link)
				if before && !told.has(wall.chain, strings.Split(let, "\n")[0]) {
					t.Errorf("at the engine's start %q", told.all)
				}
				net := must(b.Create(context.Background(), Spec{Name: "own", IPv4: true}))(t)
				own := strings.ReplaceAll(strings.Join(wall.let, "; "), "BRIDGE", b.Link(net.ID))
				notes := b.Firewalls().Obstacles(net.ID)
				if len(notes) != 1 || !strings.Contains(notes[0], wall.chain) || !strings.Contains(notes[0], own) || strings.Contains(notes[0], "nothing outside") == wall.onlyIn {
					t.Errorf("of a new network %q, want %s and %s", notes, wall.chain, own)
				}
				_, ns := attach(t, b, "web", port("", 8080, 80, "tcp"))
				serve(t, ns, "tcp", "0.0.0.0:80")
				serve(t, h.outside, "tcp", "0.0.0.0:90")
				reachesNot(t, "outside", h.outside, "tcp", uplinkHost+":8080")
				if wall.onlyIn {
					reaches(t, "a container", ns, "tcp", outsideIP+":90", "")
				} else {
					reachesNot(t, "a container", ns, "tcp", outsideIP+":90")
				}
				reaches(t, "this host", nil, "tcp", "127.0.0.1:8080", "")
				until(t, "the start is told of", func() bool { return told.has("container web", wall.chain) })
				if notes := b.Firewalls().PortNotes([]string{standard(b).ID}, []PortRequest{port("", 8081, 80, "tcp")}); len(notes) != 1 || !strings.Contains(notes[0], wall.chain) {
					t.Errorf("of a new container %q", notes)
				}
				other(t, strings.Split(let, "\n")...)
				reaches(t, "outside", h.outside, "tcp", uplinkHost+":8080", outsideIP)
				reaches(t, "a container", ns, "tcp", outsideIP+":90", uplinkHost)
				if notes := b.Firewalls().Obstacles(standard(b).ID); len(notes) != 0 {
					t.Errorf("let through, and still %q", notes)
				}
			})
		}
	}
}

// Forwarded packets never pass a chain for input, so a port that it seems to close is open.
func TestFirewallThatFiltersInputAloneIsToldOf(t *testing.T) {
	for _, wall := range []struct {
		name     string
		up, down []string
		chain    string
	}{
		{"nft", []string{"nft add table inet other", "nft add chain inet other in { type filter hook input priority 0 ; policy drop ; }", "nft add rule inet other in iifname lo accept",
			"nft add rule inet other in ct state established,related accept", "nft add rule inet other in tcp dport { 22, 443 } accept"}, []string{"nft delete table inet other"}, "inet other in"},
		{"iptables-legacy", []string{"iptables-legacy -A INPUT -i lo -j ACCEPT", "iptables-legacy -A INPUT -m state --state ESTABLISHED -j ACCEPT", "iptables-legacy -A INPUT -p tcp --dport 443 -j ACCEPT", "iptables-legacy -P INPUT DROP"},
			[]string{"iptables-legacy -P INPUT ACCEPT", "iptables-legacy -F"}, "INPUT of iptables-legacy"},
	} {
		t.Run(wall.name, func(t *testing.T) {
			h := newHost(t)
			told := &wordsOf{}
			t.Cleanup(func() { other(t, wall.down...) })
			other(t, wall.up...)
			b := restored(t, Config{Pool: -1, Warn: told.add})
			on := []string{standard(b).ID}
			for _, quiet := range []PortRequest{port("127.0.0.1", 8080, 80, "tcp"), port("", 443, 80, "tcp")} {
				if notes := b.Firewalls().PortNotes(on, []PortRequest{quiet}); len(notes) != 0 {
					t.Errorf("%+v: %q", quiet, notes)
				}
			}
			_, ns := attach(t, b, "web", port("", 8080, 80, "tcp"))
			serve(t, ns, "tcp", "0.0.0.0:80")
			reaches(t, "outside", h.outside, "tcp", uplinkHost+":8080", outsideIP)
			until(t, "the start is told of", func() bool { return told.has("container web", wall.chain, "8080") })
			notes := b.Firewalls().PortNotes(on, []PortRequest{port("", 8080, 80, "tcp")})
			if len(notes) != 1 || !strings.Contains(notes[0], wall.chain) || !strings.Contains(notes[0], "publish it as 127.0.0.1:8080:80") {
				t.Fatalf("notes %q", notes)
			}
			if again := b.Firewalls().PortNotes(on, []PortRequest{port("", 8080, 80, "tcp")}); len(again) != 0 {
				t.Errorf("told twice: %q", again)
			}
			// The rule of the note does what it says: the outside is not of the example's subnet.
			_, rule, _ := strings.Cut(notes[0], "to let in only some: ")
			other(t, rule)
			reachesNot(t, "outside", h.outside, "tcp", uplinkHost+":8080")
			reaches(t, "this host", nil, "tcp", "127.0.0.1:8080", "")
			// The administrator's rules stay over restarts of the engine, and when the tables are written anew.
			b.mu.Lock()
			err := b.writeTables()
			b.mu.Unlock()
			if err != nil {
				t.Fatal(err)
			}
			if out := must(exec.Command("nft", "list", "chain", "ip", b.Table(), userChain).Output())(t); !strings.Contains(string(out), "192.0.2.0/24") {
				t.Errorf("the user chain is\n%s", out)
			}
			reachesNot(t, "outside", h.outside, "tcp", uplinkHost+":8080")
		})
	}
}

// An administrator's table that is loaded before the engine starts keeps its user chain, and gets the rest.
func TestUserChainMayComeFirst(t *testing.T) {
	h := newHost(t)
	other(t, "nft add table ip berth", "nft add chain ip berth user", "nft add rule ip berth user iifname up0 ct state new drop")
	b := restored(t, Config{Pool: -1})
	_, ns := attach(t, b, "web", port("", 8080, 80, "tcp"))
	serve(t, ns, "tcp", "0.0.0.0:80")
	serve(t, h.outside, "tcp", "0.0.0.0:90")
	reachesNot(t, "outside", h.outside, "tcp", uplinkHost+":8080")
	reaches(t, "a neighbour", h.neighbour, "tcp", lanHost+":8080", neighbourIP)
	reaches(t, "a container", ns, "tcp", outsideIP+":90", uplinkHost)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	again := restored(t, Config{Dir: b.cfg.Dir, Pool: -1})
	if out := must(exec.Command("nft", "list", "chain", "ip", "berth", userChain).Output())(t); !strings.Contains(string(out), `iifname "up0" ct state new drop`) {
		t.Errorf("after a restart the user chain is\n%s", out)
	}
	if err := again.Cleanup(); err != nil {
		t.Fatal(err)
	}
}

// ufw is Debian's program, unpacked: it is installed nowhere, and what it writes are the test's own files.
type ufw struct{ root string }

func newUFW(t *testing.T) ufw {
	t.Helper()
	from := filepath.Join(cmp.Or(os.Getenv("BERTH_TEST_CACHE"), "/var/cache/berth-test"), "ufw")
	if _, err := os.Stat(from + "/usr/sbin/ufw"); err != nil {
		t.Skip("needs ufw: `make fixtures` unpacks it")
	}
	u := ufw{filepath.Join(t.TempDir(), "root")}
	other(t, "cp -a "+from+" "+u.root)
	for _, f := range must(filepath.Glob(u.root + "/usr/share/ufw/*"))(t) { // as its installation does
		if strings.HasSuffix(f, ".rules") || strings.HasSuffix(f, ".conf") {
			other(t, "cp "+f+" "+u.root+"/etc/ufw/")
		}
	}
	return u
}

// run runs a command line of ufw's, such as our notes have.
func (u ufw) run(t *testing.T, line string) {
	t.Helper()
	words := append([]string{u.root + "/usr/sbin/ufw", "--rootdir=" + u.root, "--datadir=" + u.root}, strings.Fields(line)[1:]...)
	cmd := exec.Command("/usr/bin/python3", words...)
	cmd.Env = append(os.Environ(), "PYTHONPATH="+u.root+"/usr/lib/python3/dist-packages")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", line, err, out)
	}
}

// With ufw on, containers get nowhere until it is told to let the network through; its own rules stay as they are.
func TestUFWIsHonouredAndNamed(t *testing.T) {
	for _, before := range []bool{true, false} {
		t.Run(map[bool]string{true: "before", false: "after"}[before], func(t *testing.T) {
			h := newHost(t)
			told := &wordsOf{}
			u := newUFW(t)
			if before {
				u.run(t, "ufw --force enable")
			}
			b := restored(t, Config{Pool: -1, Warn: told.add, Default: Spec{IPv6: true}})
			if !before {
				u.run(t, "ufw --force enable")
			}
			t.Cleanup(func() {
				u.run(t, "ufw --force disable")
				other(t, "iptables -F", "iptables -X", "ip6tables -F", "ip6tables -X")
			})
			rules := func() string { return string(must(exec.Command("iptables", "-S").Output())(t)) }
			had := rules()
			_, ns := attach(t, b, "web", port("", 8080, 80, "tcp"))
			serve(t, ns, "tcp", "0.0.0.0:80")
			serve(t, h.outside, "tcp", "0.0.0.0:90")
			reachesNot(t, "outside", h.outside, "tcp", uplinkHost+":8080")
			reachesNot(t, "a container", ns, "tcp", outsideIP+":90")
			if now := rules(); now != had {
				t.Errorf("ufw's rules were\n%s\nand are\n%s", had, now)
			}
			notes := b.Firewalls().Obstacles(standard(b).ID)
			const remedy = "ufw route allow in on berth0; ufw route allow out on berth0"
			if len(notes) != 1 || !strings.Contains(notes[0], "(policy of chain ip filter FORWARD)") || !strings.Contains(notes[0], remedy) {
				t.Fatalf("notes %q", notes)
			}
			if before { // else the engine's last look may be the one at its start
				until(t, "the start is told of", func() bool { return told.has("container web", remedy) })
			}
			for _, line := range strings.Split(remedy, "; ") {
				u.run(t, line)
			}
			reaches(t, "outside", h.outside, "tcp", uplinkHost+":8080", outsideIP)
			reaches(t, "a container", ns, "tcp", outsideIP+":90", uplinkHost)
			if notes := b.Firewalls().Obstacles(standard(b).ID); len(notes) != 0 {
				t.Errorf("let through, and still %q", notes)
			}
			// What ufw refuses by default is only what is for the host: now the port is open, and that is told.
			on := []string{standard(b).ID}
			until(t, "the new look is used", func() bool {
				notes = b.Firewalls().PortNotes(on, []PortRequest{port("", 8081, 80, "tcp")})
				return len(notes) == 1 && strings.Contains(notes[0], "is reachable from outside, although chain ip filter INPUT")
			})
			// One that ufw lets in is meant to be open.
			u.run(t, "ufw allow 8082/tcp")
			b.Firewalls().Obstacles(on[0])
			if notes = b.Firewalls().PortNotes(on, []PortRequest{port("", 8082, 80, "tcp")}); len(notes) != 0 {
				t.Errorf("of a port that ufw allows: %q", notes)
			}
		})
	}
}
