package crash

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"berth/test/testengine"
)

// TestKillDuringABuild: what a build's step has running goes with the next start, and the steps that were done are not done again.
func TestKillDuringABuild(t *testing.T) {
	e := testengine.Start(t)
	e.Busybox(t)
	dir := t.TempDir()
	write := func(last string) {
		t.Helper()
		text := "FROM busybox\nRUN echo one > /one\nWORKDIR /w\nRUN " + last + "\n"
		if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("echo begun; exec sleep 314159")
	first := e.Command("berth", "build", "-t", "img", dir)
	out, err := first.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != "begun" {
	}
	if lines.Text() != "begun" {
		t.Fatalf("the step never ran: %v", lines.Err())
	}
	e.Kill()
	if err := first.Wait(); err == nil {
		t.Error("a build whose daemon was killed went well")
	}
	e.Up(t)
	if found, _ := exec.Command("pgrep", "-fx", "sleep 314159").Output(); len(found) > 0 {
		t.Errorf("the step's program is left: %s", found)
	}
	if out := e.Run(t, "system", "fsck"); !strings.Contains(out, "Problems: 0 found") {
		t.Errorf("afterwards: %s", out)
	}
	write("cat /one > two; pwd")
	text := e.Run(t, "build", "-t", "img", dir)
	if strings.Count(text, "Using cache") != 2 || !strings.Contains(text, "\n/w\n") {
		t.Errorf("the next build: %s", text)
	}
	if out := e.Run(t, "run", "--rm", "img", "cat", "two"); out != "one\n" {
		t.Errorf("%q", out)
	}
}
