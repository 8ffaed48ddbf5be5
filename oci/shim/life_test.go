package shim

import (
	"errors"
	"fmt"
	"io"
	"os"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/fault"
	"berth/internal/record"
	"berth/kernel"
	"berth/kernel/cgroup"
)

// TestLauncherIsReplaced is a new daemon: containers go on, attached clients too, and Wait tells.
func TestLauncherIsReplaced(t *testing.T) {
	old := launcher(t, 1)
	r := request(t, "/bin/sh", "-c", "while read x; do echo got $x; done; exit 3")
	r.OpenStdin, r.StdinOnce = true, true
	a, client := peerOf(t, Attachment{Stdin: true, Stdout: true})
	r.Attach = []Attachment{a}
	s, err := old.Start(deadline(t), r)
	if err != nil {
		t.Fatal(err)
	}
	brief, err := old.Start(deadline(t), request(t, "/bin/sh", "-c", "exit 9"))
	if err != nil {
		t.Fatal(err)
	}
	brief.Close()
	s.Close()
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	write(t, client, "one\n")
	readUntil(t, client, "got one\n")

	l, err := NewLauncher("/proc/self/exe", old.dir, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	ids, err := l.List()
	if err != nil || !slices.Equal(ids, []string{s.ID(), brief.ID()}) {
		t.Errorf("list %v, %v", ids, err)
	}
	again, err := l.Open(s.ID())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { discard(t, l, again) })
	if again.Pid() != s.Pid() || !again.StartedAt().Equal(s.StartedAt()) {
		t.Errorf("found pid %d of %v, want %d of %v", again.Pid(), again.StartedAt(), s.Pid(), s.StartedAt())
	}
	write(t, client, "two\n")
	readUntil(t, client, "got two\n")
	client.Close()
	if exit := wait(t, again); exit.Code != 3 {
		t.Errorf("exit %+v", exit)
	}

	// The other one ended while no launcher was there.
	eventually(t, "the end of the brief one", func() bool {
		exit, err := l.Exit(brief.ID())
		return err == nil && exit.Code == 9
	})
	eventually(t, "its supervisor's end", func() bool {
		s, err := l.Open(brief.ID())
		if err == nil {
			s.Close()
		}
		return errors.Is(err, fault.Unavailable)
	})
	if err := l.Forget(brief.ID()); err != nil {
		t.Error(err)
	}
	if _, err := l.Open(brief.ID()); !errors.Is(err, fault.NotFound) {
		t.Errorf("open what was forgotten: %v", err)
	}
	if _, err := l.Exit(brief.ID()); !errors.Is(err, fault.NotFound) {
		t.Errorf("exit of what was forgotten: %v", err)
	}
}

// TestDaemonIsKilled runs a daemon as a process of its own and kills it: its spares end, its container doesn't.
func TestDaemonIsKilled(t *testing.T) {
	l := launcher(t, 0)
	log := filepath.Join(t.TempDir(), "json.log")
	daemon := osexec.Command("/proc/self/exe", "daemon", l.dir, root(t), log)
	out, err := daemon.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	daemon.Stderr = os.Stderr
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	var pid, spare int
	if _, err := fmt.Fscan(out, &pid, &spare); err != nil {
		t.Fatal(err)
	}
	who, err := identify(spare)
	if err != nil {
		t.Fatal(err)
	}
	daemon.Process.Kill()
	daemon.Wait()
	eventually(t, "the spare's end", func() bool { return !who.alive() })
	s, err := l.Open("orphan")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { discard(t, l, s) })
	lines := len(logLines(t, log))
	eventually(t, "its log goes on", func() bool { return len(logLines(t, log)) > lines })
	if err := s.Signal(deadline(t), 15); err != nil {
		t.Fatal(err)
	}
	if exit := wait(t, s); exit.Code != 4 {
		t.Errorf("exit %+v", exit)
	}
}

// daemonMain is the daemon of TestDaemonIsKilled.
func daemonMain(dir, root, log string) int {
	l, err := NewLauncher("/proc/self/exe", dir, 1)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	b := describe("orphan", root, "/bin/sh", "-c", "trap 'exit 4' TERM; while :; do echo tick; sleep 0.01; done")
	ctx, stop := background()
	defer stop()
	s, err := l.Start(ctx, Request{Bundle: b, Log: Log{Driver: LogJSONFile, Path: log}})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	spare, err := l.spares.take()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(s.Pid(), spare.process.Pid)
	select {} // until killed
}

// TestShimIsKilled: the engine sees it, and Reap ends what is left.
func TestShimIsKilled(t *testing.T) {
	l := launcher(t, 1)
	r := request(t, "/bin/sh", "-c", "sleep 1000 & echo up; wait")
	a, client := peerOf(t, Attachment{Stdout: true})
	r.Attach = []Attachment{a}
	s, err := l.Start(deadline(t), r)
	if err != nil {
		t.Fatal(err)
	}
	readUntil(t, client, "up\n")
	pids, err := s.Pids(deadline(t))
	if err != nil || len(pids) != 2 {
		t.Fatal(pids, err)
	}
	kill(t, s.state.Shim)
	if _, err := s.Wait(deadline(t)); !errors.Is(err, fault.Unavailable) {
		t.Errorf("wait: %v", err)
	}
	if err := s.Signal(deadline(t), 15); !errors.Is(err, fault.Unavailable) {
		t.Errorf("signal: %v", err)
	}
	if _, err := l.Open(s.ID()); !errors.Is(err, fault.Unavailable) {
		t.Errorf("open: %v", err)
	}
	for range 2 {
		if err := l.Reap(s.ID()); err != nil {
			t.Fatal(err)
		}
	}
	for _, pid := range pids {
		eventually(t, "the container's end", func() bool { _, err := identify(pid); return err != nil })
	}
	for _, dir := range cgroup.Load(r.Bundle.Spec.Linux.CgroupsPath).Paths() {
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("cgroup %s is left", dir)
		}
	}
	if exit, err := l.Exit(s.ID()); err != nil || exit.Code != 137 || exit.Error == "" {
		t.Errorf("exit %+v, %v", exit, err)
	}
	s.Close()
	if err := l.Forget(s.ID()); err != nil {
		t.Error(err)
	}
	if err := l.Reap(s.ID()); !errors.Is(err, fault.NotFound) {
		t.Errorf("reap what was forgotten: %v", err)
	}
}

func kill(t *testing.T, pid int) {
	t.Helper()
	p, err := os.FindProcess(pid)
	if err == nil {
		err = p.Kill()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestReapSparesStrangers: a pid that was given to another process, or before another boot, is left alone.
func TestReapSparesStrangers(t *testing.T) {
	l := launcher(t, 0)
	stranger := osexec.Command("/bin/sleep", "1000")
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	defer stranger.Wait()
	defer stranger.Process.Kill()
	who, err := identify(stranger.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	boot, err := bootID()
	if err != nil {
		t.Fatal(err)
	}
	earlier := who
	earlier.Start--
	for id, r := range map[string]run{
		"reused": {BootID: boot, Init: earlier},
		"reboot": {BootID: "another", Init: who},
	} {
		dir := filepath.Join(l.dir, id)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := r.save(dir); err != nil {
			t.Fatal(err)
		}
		if err := l.Reap(id); err != nil {
			t.Errorf("%s: %v", id, err)
		}
		if exit, err := l.Exit(id); err != nil || exit.Code != 137 {
			t.Errorf("%s: %+v, %v", id, exit, err)
		}
	}
	if !who.alive() {
		t.Error("a stranger was killed")
	}
	dir := filepath.Join(l.dir, "same")
	if err := errors.Join(os.Mkdir(dir, 0o700), (&run{BootID: boot, Init: who}).save(dir)); err != nil {
		t.Fatal(err)
	}
	if err := l.Reap("same"); err != nil {
		t.Error(err)
	}
	eventually(t, "the end of the one that was meant", func() bool { return !who.alive() })
	for _, top := range []string{"/", "relative", "/a/../.."} {
		if err := (&run{BootID: boot, Cgroup: top}).clear(); !errors.Is(err, fault.Corrupt) {
			t.Errorf("cgroup %q: %v", top, err)
		}
	}
	if err := record.WriteFile(filepath.Join(dir, runFile), []byte("{"), 0o600, false); err != nil {
		t.Fatal(err)
	}
	if err := l.Reap("same"); !errors.Is(err, fault.Corrupt) {
		t.Errorf("broken record: %v", err)
	}
}

// TestSpareDied: a dead one in the pool is passed over.
func TestSpareDied(t *testing.T) {
	l := launcher(t, 1)
	idle := func() (list []*spare) {
		l.spares.mu.Lock()
		defer l.spares.mu.Unlock()
		return slices.Clone(l.spares.idle)
	}
	eventually(t, "a spare", func() bool { return len(idle()) == 1 })
	dead := idle()[0]
	kill(t, dead.process.Pid)
	eventually(t, "its end", func() bool { return kernel.HungUp(dead.conn) })
	s := start(t, l, request(t, "/bin/true"))
	if exit := wait(t, s); exit.Code != 0 || s.state.Shim == dead.process.Pid {
		t.Errorf("%+v by %d", exit, s.state.Shim)
	}
}

func TestManyStarts(t *testing.T) {
	l := launcher(t, 4)
	ctx := deadline(t)
	image := root(t)
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			b := describe(fmt.Sprintf("many%d", i), image, "/bin/sh", "-c", fmt.Sprintf("echo %d; exit %d", i, i))
			a, client := peerOf(t, Attachment{Stdout: true})
			s, err := l.Start(ctx, Request{Bundle: b, Attach: []Attachment{a}})
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			if got, err := io.ReadAll(client); string(got) != fmt.Sprintln(i) {
				t.Errorf("%d: %q, %v", i, got, err)
			}
			if exit, err := s.Wait(ctx); err != nil || exit.Code != i {
				t.Errorf("%d: %+v, %v", i, exit, err)
			}
			if err := l.Forget(s.ID()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if ids, err := l.List(); err != nil || len(ids) != 0 {
		t.Errorf("left: %v, %v", ids, err)
	}
}

// TestLongPaths: a socket's address ends at 108 bytes, a path doesn't.
func TestLongPaths(t *testing.T) {
	kern := launcher(t, 0)
	l, err := NewLauncher("/proc/self/exe", filepath.Join(kern.dir, strings.Repeat("long/", 40)), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := start(t, l, request(t, "/bin/sleep", "1000"))
	again, err := l.Open(s.ID())
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

// TestStartIsBrokenOff: when nobody waits for it any more, nothing of it stays.
func TestStartIsBrokenOff(t *testing.T) {
	l := launcher(t, 1)
	ctx, stop := background()
	stop()
	r := request(t, "/bin/sleep", "1000")
	if s, err := l.Start(ctx, r); err == nil { // the answer was quicker than the look at the context
		err := s.Signal(deadline(t), 9)
		_, waitErr := s.Wait(deadline(t))
		if err := errors.Join(err, waitErr, l.Forget(s.ID())); err != nil {
			t.Error(err)
		}
	}
	if ids, err := l.List(); err != nil || len(ids) != 0 {
		t.Errorf("left: %v, %v", ids, err)
	}
	for _, dir := range cgroup.Load(r.Bundle.Spec.Linux.CgroupsPath).Paths() {
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("cgroup %s is left", dir)
		}
	}
}

// TestLogIsFull: a disk without room costs lines, not the container.
func TestLogIsFull(t *testing.T) {
	l := launcher(t, 1)
	r := request(t, "/bin/sh", "-c", "seq 100; exit 6")
	r.Log.Path = "/dev/full"
	r.OpenStdin = true
	r.Bundle.Spec.Process.Args = []string{"/bin/sh", "-c", "seq 100; read x; exit 6"}
	s := start(t, l, r)
	eventually(t, "the lines are counted", func() bool {
		st, err := s.State(deadline(t))
		return err == nil && st.LostLines == 100
	})
	a, client := peerOf(t, Attachment{Stdin: true})
	if err := s.Attach(deadline(t), a); err != nil {
		t.Fatal(err)
	}
	write(t, client, "\n")
	if exit := wait(t, s); exit.Code != 6 {
		t.Errorf("exit %+v", exit)
	}
}

// TestWaitBeyondTheDeadline: the caller's patience is the caller's.
func TestWaitBeyondTheDeadline(t *testing.T) {
	l := launcher(t, 1)
	s := start(t, l, request(t, "/bin/sleep", "1000"))
	ctx, stop := background()
	time.AfterFunc(10*time.Millisecond, stop)
	if _, err := s.Wait(ctx); !errors.Is(err, ctx.Err()) || err == nil {
		t.Errorf("wait: %v", err)
	}
}
