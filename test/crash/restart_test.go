package crash

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"berth/test/testengine"
)

// TestKillDuringRestarts kills the daemon while containers crash, wait and are started by their policies. A restart that was due is made by
// the next daemon, what a user stopped rests, and nothing runs that nobody knows of.
func TestKillDuringRestarts(t *testing.T) {
	rounds := 5
	if os.Getenv("BERTH_SOAK") != "" {
		rounds = 100
	}
	e := testengine.Start(t)
	e.Busybox(t)
	const n = 6
	var loops []string
	for k := range n {
		name := "loop" + strconv.Itoa(k)
		loops = append(loops, name)
		policy := []string{"always", "unless-stopped", "on-failure"}[k%3]
		e.Run(t, "run", "-d", "--name", name, "--restart", policy, "--health-cmd", "true", "--health-interval", "20ms", "busybox", "sh", "-c", "echo run; sleep 0.05; exit 1")
	}
	runs := func(name string) int { return strings.Count(e.Run(t, "logs", name), "run\n") }
	for round := range rounds {
		rests := fmt.Sprintf("rests%d", round)
		e.Run(t, "run", "-d", "--name", rests, "--restart", "unless-stopped", "busybox", "sleep", "301")
		before := map[string]int{}
		for _, name := range loops {
			before[name] = runs(name)
		}
		e.Run(t, "stop", "-t", "0", rests)
		<-time.After(time.Duration(round*37%90) * time.Millisecond)
		e.Kill()
		<-time.After(time.Duration(round*53%200) * time.Millisecond) // some end meanwhile
		e.Up(t)
		for _, name := range loops {
			// The longest wait, as none of them is ever steady, grows; a start by hand shortens it again.
			e.Run(t, "start", name)
			testengine.Eventually(t, 20*time.Second, func() error {
				if got := runs(name); got <= before[name] {
					return fmt.Errorf("round %d: %s ran %d times, and %d times before the daemon died", round, name, got, before[name])
				}
				return nil
			})
		}
		if got := strings.TrimSpace(e.Run(t, "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", rests)); got != "exited 137" {
			t.Errorf("round %d: what the user stopped is %s", round, got)
		}
		e.Run(t, "rm", rests)
	}
	for _, name := range loops {
		e.Run(t, "stop", "-t", "0", name)
		if got := strings.TrimSpace(e.Run(t, "inspect", "-f", "{{.State.Status}}", name)); got != "exited" {
			t.Errorf("%s is %s", name, got)
		}
	}
	e.Kill()
	e.Up(t)
	testengine.Eventually(t, 20*time.Second, func() error {
		list := e.Run(t, "ps", "-a", "--format", "{{.Names}} {{.State}}")
		for k, name := range loops { // always comes with the daemon, whoever stopped it; the others rest
			state := map[bool]string{true: "exited", false: ""}[k%3 != 0]
			if state != "" && !strings.Contains(list, name+" "+state+"\n") || state == "" && strings.Contains(list, name+" exited\n") {
				return fmt.Errorf("%s\n%s is not as it should be", list, name)
			}
		}
		return nil
	})
	e.Run(t, append([]string{"rm", "-f"}, loops...)...)
	checkNothingLeft(t, e, rounds)
}

// TestBackoffGoesOn: the daemon dies during the wait for a restart, and the next one waits for the rest of it.
func TestBackoffGoesOn(t *testing.T) {
	e := testengine.Start(t)
	e.Busybox(t)
	e.Run(t, "run", "-d", "--name", "loop", "--restart", "always", "busybox", "false")
	count := func() int {
		n, err := strconv.Atoi(strings.TrimSpace(e.Run(t, "inspect", "-f", "{{.RestartCount}}", "loop")))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	testengine.Eventually(t, 20*time.Second, func() error {
		if n := count(); n < 5 {
			return fmt.Errorf("%d restarts", n)
		}
		return nil
	})
	for range 3 {
		n := count()
		e.Kill()
		e.Up(t)
		if now := count(); now < n {
			t.Errorf("%d restarts became %d", n, now)
		}
		testengine.Eventually(t, 20*time.Second, func() error {
			if state := strings.TrimSpace(e.Run(t, "inspect", "-f", "{{.State.Status}}", "loop")); state != "restarting" && state != "running" {
				return fmt.Errorf("it is %s", state)
			}
			return nil
		})
	}
	n := count()
	testengine.Eventually(t, 60*time.Second, func() error {
		if now := count(); now <= n {
			return fmt.Errorf("still %d restarts", now)
		}
		return nil
	})
	e.Run(t, "rm", "-f", "loop")
}
