package logs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"berth/test/testengine"
)

// TestSupervisorIsKilled in the middle of a flood, wherever it is: what is left of the log can be read, without a gap and without
// rubbish beside it, and the next run goes on in it.
func TestSupervisorIsKilled(t *testing.T) {
	rounds := 6
	if os.Getenv("BERTH_SOAK") != "" {
		rounds = 100
	}
	e := testengine.Start(t)
	e.Busybox(t)
	e.Run(t, "create", "--name", "flood", "--log-opt", "max-size=100k", "--log-opt", "max-file=4", "busybox", "awk", fmt.Sprintf(payload, 0, 100_000_000))
	path := strings.TrimSpace(e.Run(t, "inspect", "-f", "{{.LogPath}}", "flood"))
	for round := range rounds {
		e.Run(t, "start", "flood")
		shim := parentOf(t, strings.TrimSpace(e.Run(t, "inspect", "-f", "{{.State.Pid}}", "flood")))
		testengine.Eventually(t, time.Minute, func() error { // a few rotations
			if _, err := os.Stat(path + ".2.gz"); err != nil {
				_, err = os.Stat(path + ".3")
				return err
			}
			return nil
		})
		<-time.After(time.Duration(round*7%50) * time.Millisecond) // anywhere in what it does
		if err := syscall.Kill(shim, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if code := strings.TrimSpace(e.Run(t, "wait", "flood")); code != "137" {
			t.Errorf("round %d: exit code %s", round, code)
		}
		checkLeft(t, e, path, round)
	}
}

func parentOf(t *testing.T, pid string) int {
	t.Helper()
	status, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "PPid:")
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil || n < 2 {
		t.Fatalf("parent of %s: %d, %v", pid, n, err)
	}
	return n
}

// checkLeft reads the log: lines follow each other, but where a run begins at 0.
func checkLeft(t *testing.T, e *testengine.Engine, path string, round int) {
	t.Helper()
	out := e.Run(t, "logs", "flood")
	last, lines := -1, 0
	for line := range strings.Lines(out) {
		digits, _, _ := strings.Cut(line, " ")
		n, err := strconv.Atoi(digits)
		if err != nil || lines > 0 && n != last+1 && n != 0 {
			t.Fatalf("round %d: line %q after %d", round, line[:min(len(line), 40)], last)
		}
		last = n
		lines++
	}
	if lines < 100 {
		t.Errorf("round %d: only %d lines are left", round, lines)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range entries {
		if strings.HasSuffix(f.Name(), ".tmp") || strings.HasSuffix(f.Name(), ".new") {
			t.Errorf("round %d: %s is left", round, f.Name())
		}
	}
}
