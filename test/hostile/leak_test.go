package hostile

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/test/testengine"

	"github.com/creack/pty"
)

// storm runs containers of every kind, each to its own end. With a daemon that dies meanwhile, failures are as expected.
func storm(t *testing.T, e *testengine.Engine, from, to int, calm bool) {
	expect := func(want int, args ...string) {
		cmd := e.Command("berth", args...)
		out, _ := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); calm && code != want {
			t.Errorf("berth %s: exit code %d, want %d\n%s", strings.Join(args, " "), code, want, out)
		}
	}
	for n := from; n < to; n++ {
		name := fmt.Sprintf("storm%d", n)
		switch n % 10 {
		case 0:
			expect(0, "run", "--rm", "busybox", "true")
		case 1:
			expect(3, "run", "--rm", "-m", "32m", "--pids-limit", "50", "busybox", "sh", "-c", "exit 3")
		case 2:
			expect(127, "run", "--rm", "-p", fmt.Sprint(8000+n, ":80"), "busybox", "nosuch")
		case 3:
			expect(137, "run", "--rm", "busybox", "sh", "-c", "sleep 1000 & kill -9 $!; wait $!")
			expect(0, "run", "--rm", "busybox", "sh", "-c", "sleep 1000 & sleep 1001 & true")
		case 4:
			expect(0, "run", "--rm", "-p", fmt.Sprint(8000+n, ":80"), "-p", fmt.Sprint(8000+n, ":80/udp"), "busybox", "true")
		case 5:
			expect(0, "run", "--rm", "--network", "none", "--read-only", "--tmpfs", "/x", "busybox", "touch", "/x/y")
		case 6:
			cmd := e.Command("berth", "run", "--rm", "-it", "busybox", "tty")
			if f, err := pty.Start(cmd); err == nil {
				buf := make([]byte, 1024)
				for {
					if _, err := f.Read(buf); err != nil {
						break
					}
				}
				f.Close()
				cmd.Wait()
			}
		case 7:
			expect(0, "run", "-d", "--rm", "--name", name, "busybox", "sleep", "1000")
			expect(4, "exec", name, "sh", "-c", "exit 4")
			expect(0, "exec", "-d", name, "sleep", "1002")
			expect(0, "stop", "-t", "0", name)
		case 8:
			expect(0, "run", "-d", "--rm", "--init", "--name", name, "busybox", "sleep", "1000")
			// Somebody who attaches and goes away.
			if out, err := e.Command("berth", "run", "--rm", "--network", "container:"+name, "busybox", "true").CombinedOutput(); err != nil && calm {
				t.Errorf("in another's network: %v\n%s", err, out)
			}
			cmd := e.Command("berth", "logs", "-f", name)
			if cmd.Start() == nil {
				cmd.Process.Kill()
				cmd.Wait()
			}
			expect(0, "kill", name)
		case 9:
			expect(0, "create", "--name", name, "-v", "/x", "busybox", "true")
			expect(0, "start", name)
			expect(0, "rm", "-f", "-v", name)
		}
	}
}

// stormOf runs a storm from several clients at once.
func stormOf(t *testing.T, e *testengine.Engine, first, count int, calm bool) *sync.WaitGroup {
	var wg sync.WaitGroup
	const clients = 5
	for c := range clients {
		wg.Go(func() { storm(t, e, first+c*count/clients, first+(c+1)*count/clients, calm) })
	}
	return &wg
}

// TestNothingLeaks: after a hundred containers of all kinds the host and the daemon are as before.
func TestNothingLeaks(t *testing.T) {
	e := testengine.Start(t)
	e.Busybox(t)
	stormOf(t, e, 0, 50, true).Wait() // fills the pools and meets every path once
	before := settled(t, e)
	for round := range 2 {
		stormOf(t, e, 100*(round+1), 50, true).Wait()
		same(t, e, before)
	}
}

// TestKilledDuringAStorm: kill -9 at any point, ten times; what the last daemon finds after the storm can be removed, and then
// nothing is left.
func TestKilledDuringAStorm(t *testing.T) {
	e := testengine.Start(t)
	e.Busybox(t)
	stormOf(t, e, 0, 50, true).Wait()
	before := settled(t, e)
	for round := range 10 {
		wg := stormOf(t, e, 1000+100*round, 20, false)
		<-time.After(time.Duration(20+round*31) * time.Millisecond)
		e.Kill()
		e.Up(t)
		wg.Wait()
	}
	// Some of them are being removed already, by --rm.
	testengine.Eventually(t, 20*time.Second, func() error {
		ids := strings.Fields(e.Run(t, "ps", "-aq"))
		if len(ids) == 0 {
			return nil
		}
		_, err := e.Try(append([]string{"rm", "-f", "-v"}, ids...)...)
		return fmt.Errorf("%d containers: %w", len(ids), err)
	})
	same(t, e, before)
	if out := e.Run(t, "run", "--rm", "busybox", "echo", "well"); out != "well\n" {
		t.Errorf("after it: %q", out)
	}
	if strings.Contains(e.Log(), "panic") {
		t.Errorf("a panic:\n%s", e.Log())
	}
}

// TestDaemonsInEachOthersWay: two on one data root, a stale pid file, and roots that can't be written.
func TestDaemonsInEachOthersWay(t *testing.T) {
	e := testengine.Start(t)
	e.Busybox(t)
	before := settled(t, e)
	second := func(words string, args ...string) {
		t.Helper()
		cmd := e.Command("berthd", args...)
		done := make(chan struct{})
		stop := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
		defer stop.Stop()
		var out []byte
		go func() { out, _ = cmd.CombinedOutput(); close(done) }()
		<-done
		if cmd.ProcessState.ExitCode() != 1 || !matches(words, string(out)) {
			t.Errorf("berthd %v: exit code %d\n%s", args, cmd.ProcessState.ExitCode(), out)
		}
	}
	dir := t.TempDir()
	with := func(args ...string) []string { return append(args, "--cgroup-parent", ours(e)+"-other") }
	second("in use|another|already|lock", with("-H", "unix://"+dir+"/s", "--data-root", e.Data, "--exec-root", dir+"/x", "--pidfile", dir+"/pid")...)
	second("in use|another|already|lock", with("-H", e.Host, "--data-root", dir+"/d", "--exec-root", dir+"/x", "--pidfile", dir+"/pid", "-b", "none")...)
	second("in use|another|already|lock|running", with("-H", "unix://"+dir+"/s", "--data-root", dir+"/d", "--exec-root", e.Exec, "--pidfile", e.Exec+"/berthd.pid", "-b", "none")...)
	second("make /proc/none: .*; give another --exec-root", with("-H", "unix://"+dir+"/s", "--data-root", dir+"/d", "--exec-root", "/proc/none", "--pidfile", dir+"/pid", "-b", "none")...)
	second("make /proc/none: .*; give another --data-root", with("-H", "unix://"+dir+"/s", "--data-root", "/proc/none", "--exec-root", dir+"/x", "--pidfile", dir+"/pid", "-b", "none")...)
	second("pid|directory|exist", with("-H", "unix://"+dir+"/s", "--data-root", dir+"/d", "--exec-root", dir+"/x", "--pidfile", "/no/such/dir/pid", "-b", "none")...)
	second("whoever reaches this port is root", with("-H", "tcp://192.0.2.7:1", "--data-root", dir+"/d", "--exec-root", dir+"/x", "--pidfile", dir+"/pid", "-b", "none")...)
	same(t, e, before)
	if out := e.Run(t, "run", "--rm", "busybox", "echo", "well"); out != "well\n" {
		t.Errorf("the first says %q", out)
	}
	// A pid file whose process is gone, or is another program, is no obstacle.
	e.Kill()
	for _, pid := range []string{"999999\n", "1\n", "nonsense", ""} {
		if err := os.WriteFile(e.Exec+"/berthd.pid", []byte(pid), 0o644); err != nil {
			t.Fatal(err)
		}
		e.Up(t)
		e.Kill()
	}
	e.Up(t)
}

// TestTerminatedDuringStarts: a daemon that is asked to end while clients start containers leaves what the next can take over.
func TestTerminatedDuringStarts(t *testing.T) {
	e := testengine.Start(t)
	e.Busybox(t)
	before := settled(t, e)
	for round := range 4 {
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() { e.Try("run", "-d", "busybox", "sleep", "1000") })
		}
		<-time.After(time.Duration(5+round*12) * time.Millisecond)
		e.Down()
		e.Up(t)
		wg.Wait()
		for _, c := range list(t, e, "/containers/json?all=1") {
			if c["State"] != "running" && c["State"] != "created" {
				t.Errorf("%v is %v: %v", c["Id"], c["State"], c["Status"])
			}
		}
		if ids := strings.Fields(e.Run(t, "ps", "-aq")); len(ids) > 0 {
			e.Run(t, append([]string{"rm", "-f"}, ids...)...)
		}
	}
	same(t, e, before)
}
