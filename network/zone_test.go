package network

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// firewalld starts firewalld with a bus of its own, for this network namespace, and puts its firewall-cmd into PATH.
func firewalld(t *testing.T) {
	t.Helper()
	root := filepath.Join(cmp.Or(os.Getenv("BERTH_TEST_CACHE"), "/var/cache/berth-test"), "firewalld")
	bus, err := exec.LookPath("dbus-daemon")
	if _, serr := os.Stat(root + "/usr/sbin/firewalld"); serr != nil || err != nil {
		t.Skip("needs firewalld and dbus-daemon: `make fixtures` unpacks the first")
	}
	dir := t.TempDir()
	const config = `<busconfig><type>system</type><listen>unix:path=DIR/bus</listen><auth>EXTERNAL</auth><policy context="default"><allow own="*"/><allow user="*"/>
<allow send_type="method_call"/><allow send_type="signal"/><allow send_requested_reply="true" send_type="method_return"/><allow send_requested_reply="true" send_type="error"/>
<allow receive_type="method_call"/><allow receive_type="method_return"/><allow receive_type="error"/><allow receive_type="signal"/></policy></busconfig>`
	if err := os.WriteFile(dir+"/bus.conf", []byte(strings.ReplaceAll(config, "DIR", dir)), 0o644); err != nil {
		t.Fatal(err)
	}
	libraries := must(filepath.Glob(root + "/usr/lib/*-linux-gnu"))(t)
	for name, value := range map[string]string{
		"DBUS_SYSTEM_BUS_ADDRESS": "unix:path=" + dir + "/bus", "PYTHONPATH": root + "/usr/lib/python3/dist-packages",
		"GI_TYPELIB_PATH": strings.Join(libraries, ":") + "/girepository-1.0:" + root + "/usr/lib/girepository-1.0", "PATH": dir + ":" + os.Getenv("PATH"),
	} {
		t.Setenv(name, value)
	}
	script := "#!/bin/sh\nLD_LIBRARY_PATH=" + strings.Join(libraries, ":") + " exec /usr/bin/python3 " + root + "/usr/bin/firewall-cmd \"$@\"\n"
	if err := os.WriteFile(dir+"/firewall-cmd", []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	other(t, "cp -a "+root+"/etc/firewalld "+dir+"/etc")
	start := func(env string, name string, args ...string) {
		cmd := exec.Command(name, args...)
		cmd.Env = append(os.Environ(), env)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			cmd.Process.Kill()
			cmd.Wait()
		})
	}
	start("A=", bus, "--config-file="+dir+"/bus.conf", "--nofork", "--nopidfile")
	until(t, "the bus is there", func() bool { _, err := os.Stat(dir + "/bus"); return err == nil })
	t.Cleanup(func() { exec.Command("nft", "delete", "table", "inet", "firewalld").Run() })
	start("LD_LIBRARY_PATH="+strings.Join(libraries, ":"), "/usr/bin/python3", root+"/usr/sbin/firewalld", "--nofork", "--nopid", "--log-file", dir+"/log",
		"--system-config", dir+"/etc", "--default-config", root+"/usr/lib/firewalld")
	untilAfter(t, 5*time.Minute, "firewalld runs", func() bool { text, err := firewallCmd(t.Context(), "--state"); return err == nil && text == "running" })
	untilAfter(t, 5*time.Minute, "firewalld's rules are there", func() bool {
		return exec.Command("nft", "list", "chain", "inet", "firewalld", "filter_FWD_public").Run() == nil
	})
}

// With firewalld on, our bridges are in a zone of ours, so that containers get out and published ports are reached; over its reloads, too.
func TestBridgesJoinAZoneOfFirewalld(t *testing.T) {
	h := newHost(t)
	firewalld(t)
	told := &wordsOf{}
	b := restored(t, Config{Pool: -1, Warn: told.add})
	net := must(b.Create(context.Background(), Spec{Name: "own", IPv4: true}))(t)
	in := func(want ...string) {
		t.Helper()
		for _, where := range [][]string{{"--permanent"}, nil} {
			text := must(firewallCmd(t.Context(), append(where, "--zone="+zone, "--list-interfaces")...))(t)
			if len(strings.Fields(text)) != len(want) {
				t.Errorf("%v: in the zone are %q, want %q", where, text, want)
			}
			for _, w := range want {
				if !strings.Contains(text, w) {
					t.Errorf("%v: %s is not in the zone, only %q", where, w, text)
				}
			}
		}
	}
	in("berth0", b.Link(net.ID))
	_, ns := attach(t, b, "web", port("", 8080, 80, "tcp"))
	serve(t, ns, "tcp", "0.0.0.0:80")
	serve(t, h.outside, "tcp", "0.0.0.0:90")
	passes := func() {
		t.Helper()
		reaches(t, "outside", h.outside, "tcp", uplinkHost+":8080", outsideIP)
		reaches(t, "a container", ns, "tcp", outsideIP+":90", uplinkHost)
	}
	passes()
	if told.has("drops forwarded") {
		t.Errorf("warned %q", told.all)
	}
	must(firewallCmd(t.Context(), "--reload"))(t)
	in("berth0", b.Link(net.ID))
	passes()
	if err := b.Remove(net.ID); err != nil {
		t.Fatal(err)
	}
	in("berth0")
	// Out of the zone, firewalld's refusal is final.
	leaveZone(t.Context(), "berth0")
	throughFirewalld(t, b, h, ns)
}

// throughFirewalld runs the very command that our note about firewalld has, and sees that it helps.
func throughFirewalld(t *testing.T, b *Host, h *host, ns *os.File) {
	t.Helper()
	reachesNot(t, "a container", ns, "tcp", outsideIP+":90")
	reaches(t, "outside", h.outside, "tcp", uplinkHost+":8080", outsideIP) // firewalld accepts what was translated on the way in
	notes := b.Firewalls().Obstacles(standard(b).ID)
	if len(notes) != 1 || !strings.Contains(notes[0], "chain inet firewalld filter_FWD_public") || strings.Contains(notes[0], "published ports") {
		t.Fatalf("notes %q", notes)
	}
	_, remedy, _ := strings.Cut(notes[0], "To let them through: ")
	other(t, strings.Split(remedy, "; ")...)
	reaches(t, "a container", ns, "tcp", outsideIP+":90", uplinkHost)
	reaches(t, "outside", h.outside, "tcp", uplinkHost+":8080", outsideIP)
	if notes := b.Firewalls().Obstacles(standard(b).ID); len(notes) != 0 {
		t.Errorf("let through, and still %q", notes)
	}
}

// One that starts after the engine knows nothing of our bridges: what it drops is told of at the next start of a container.
func TestFirewalldThatComesLaterIsHonouredAndNamed(t *testing.T) {
	h := newHost(t)
	told := &wordsOf{}
	b := restored(t, Config{Pool: -1, Warn: told.add})
	if told.has("firewall") {
		t.Errorf("warned without a cause: %q", told.all)
	}
	firewalld(t)
	_, ns := attach(t, b, "web", port("", 8080, 80, "tcp"))
	serve(t, ns, "tcp", "0.0.0.0:80")
	serve(t, h.outside, "tcp", "0.0.0.0:90")
	// A look at rules that are just being written may find nothing; the next start looks again.
	for n := uint16(1); !told.has("container web", "chain inet firewalld filter_FWD_public", "firewall-cmd --permanent --zone="); n++ {
		if n > 60 {
			t.Fatalf("60 starts were not told of, but %q", told.said())
		}
		<-time.After(goodFor)
		attach(t, b, fmt.Sprintf("web%d", n), port("", 8080+n, 80, "tcp"))
	}
	throughFirewalld(t, b, h, ns)
}
