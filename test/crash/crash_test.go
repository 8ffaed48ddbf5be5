// Package crash kills the daemon, at any time, and looks whether a container,
// its log or its exit code noticed. Restart is the only recovery there is.
package crash

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/internal/kerneltest"
	"berth/test/testengine"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

// TestKillWhileTwentyContainersLog: the new daemon lists them, no line of a
// log is missing, and every exit code is right, also of those that ended
// while there was no daemon.
func TestKillWhileTwentyContainersLog(t *testing.T) {
	e := testengine.Start(t)
	e.Busybox(t)
	const n = 20
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			// Even ones end while the daemon is down, odd ones go on until they are told to.
			script := fmt.Sprintf(`i=0; while [ $i -lt 60 ]; do i=$((i+1)); echo line $i; sleep 0.05; done; exit %d`, i+1)
			if i%2 == 1 {
				script = fmt.Sprintf(`trap 'echo end; exit %d' TERM; i=0; while :; do i=$((i+1)); echo line $i; sleep 0.05; done`, i+1)
			}
			if _, err := e.Try("run", "-d", "--name", name(i), "busybox", "sh", "-c", script); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	e.Kill()
	testengine.Eventually(t, time.Minute, func() error { // the even ones end meanwhile
		ended, err := filepath.Glob(e.Exec + "/containers/*/exit.json")
		if err == nil && len(ended) < n/2 {
			err = fmt.Errorf("%d have ended", len(ended))
		}
		return err
	})
	e.Up(t)
	running := e.Run(t, "ps", "--format", "{{.Names}}")
	for i := range n {
		if has := strings.Contains(running, name(i)+"\n"); has != (i%2 == 1) {
			t.Errorf("%s: running is %v\n%s", name(i), has, running)
		}
	}
	for i := range n {
		if i%2 == 1 {
			e.Run(t, "stop", name(i))
		}
		if code := strings.TrimSpace(e.Run(t, "wait", name(i))); code != strconv.Itoa(i+1) {
			t.Errorf("%s: exit code %s, want %d", name(i), code, i+1)
		}
		checkLog(t, e, name(i))
	}
}

func name(i int) string { return fmt.Sprintf("c%02d", i) }

// checkLog finds lines that are missing or doubled.
func checkLog(t *testing.T, e *testengine.Engine, name string) {
	t.Helper()
	want := 1
	for _, line := range strings.Split(strings.TrimSpace(e.Run(t, "logs", name)), "\n") {
		if line == "end" {
			continue
		}
		if line != fmt.Sprintf("line %d", want) {
			t.Errorf("%s: %q stands where line %d belongs", name, line, want)
			return
		}
		want++
	}
	if want < 20 {
		t.Errorf("%s: only %d lines", name, want-1)
	}
}

// TestKillDuringStarts kills the daemon in the middle of starts, again and
// again; BERTH_SOAK=1 makes it hundreds. Whatever the client was told must
// be true afterwards, and nothing may be left of what it was not told.
func TestKillDuringStarts(t *testing.T) {
	rounds := 6
	if os.Getenv("BERTH_SOAK") != "" {
		rounds = 300
	}
	e := testengine.Start(t)
	e.Busybox(t)
	for round := range rounds {
		var mu sync.Mutex
		told := map[string]bool{}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 3 {
					out, err := e.Try("run", "-d", "busybox", "sleep", "300")
					if err == nil {
						mu.Lock()
						told[strings.TrimSpace(out)] = true
						mu.Unlock()
					}
				}
			})
		}
		<-time.After(time.Duration(10+round*7%60) * time.Millisecond)
		e.Kill()
		wg.Wait()
		e.Up(t)
		running := map[string]bool{}
		for _, id := range strings.Fields(e.Run(t, "ps", "-q", "--no-trunc")) {
			running[id] = true
		}
		for id := range told {
			if !running[id] {
				t.Fatalf("round %d: %s was announced and does not run\n%s", round, id, e.Log())
			}
		}
		if all := strings.Fields(e.Run(t, "ps", "-aq")); len(all) > 0 {
			e.Run(t, append([]string{"rm", "-f"}, all...)...)
		}
		checkNothingLeft(t, e, round)
	}
}

// checkNothingLeft waits until no container's process, group or writable layer is there.
func checkNothingLeft(t *testing.T, e *testengine.Engine, round int) {
	t.Helper()
	testengine.Eventually(t, 10*time.Second, func() error {
		if left := processes("sleep\x00300\x00"); len(left) > 0 {
			return fmt.Errorf("round %d: processes %v run without a container", round, left)
		}
		entries, _ := os.ReadDir(e.Exec + "/containers")
		if len(entries) > 0 {
			return fmt.Errorf("round %d: run state of %d containers is left: %v", round, len(entries), entries)
		}
		return nil
	})
}

// processes lists those with this command line.
func processes(command string) (pids []string) {
	entries, _ := os.ReadDir("/proc")
	for _, entry := range entries {
		line, err := os.ReadFile("/proc/" + entry.Name() + "/cmdline")
		if err == nil && bytes.Equal(line, []byte(command)) {
			pids = append(pids, entry.Name())
		}
	}
	return pids
}

// TestKilledSupervisor: the container whose shim was killed is recorded as killed, and its processes are gone.
func TestKilledSupervisor(t *testing.T) {
	e := testengine.Start(t)
	e.Busybox(t)
	id := strings.TrimSpace(e.Run(t, "run", "-d", "busybox", "sleep", "300"))
	pid := strings.TrimSpace(e.Run(t, "inspect", "-f", "{{.State.Pid}}", id))
	shim := parent(t, pid)
	if comm, _ := os.ReadFile("/proc/" + strconv.Itoa(shim) + "/stat"); shim <= 2 || len(comm) == 0 {
		t.Fatalf("the parent of %s is %d", pid, shim)
	}
	p, err := os.FindProcess(shim)
	if err != nil {
		t.Fatal(err)
	}
	p.Kill()
	if code := strings.TrimSpace(e.Run(t, "wait", id)); code != "137" {
		t.Errorf("exit code %s", code)
	}
	testengine.Eventually(t, 10*time.Second, func() error {
		if left := processes("sleep\x00300\x00"); len(left) > 0 {
			return fmt.Errorf("%v still run", left)
		}
		return nil
	})
	e.Run(t, "start", id)
	if got := strings.TrimSpace(e.Run(t, "inspect", "-f", "{{.State.Status}}", id)); got != "running" {
		t.Errorf("after a new start it is %s", got)
	}
}

func parent(t *testing.T, pid string) int {
	t.Helper()
	status, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(status), "\n") {
		if rest, ok := strings.CutPrefix(line, "PPid:"); ok {
			n, _ := strconv.Atoi(strings.TrimSpace(rest))
			return n
		}
	}
	return 0
}
