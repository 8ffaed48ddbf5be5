package crash

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

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
	write("exec sleep 314159")
	first := e.Command("berth", "build", "-t", "img", dir)
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	testengine.Eventually(t, time.Minute, func() error {
		if len(processes("sleep\x00314159\x00")) == 0 {
			return fmt.Errorf("the step does not run\n%s", e.Log())
		}
		return nil
	})
	e.Kill()
	if err := first.Wait(); err == nil {
		t.Error("a build whose daemon was killed went well")
	}
	e.Up(t)
	if found := processes("sleep\x00314159\x00"); len(found) > 0 {
		t.Errorf("the step's program is left: %s", found)
	}
	if out := e.Run(t, "system", "fsck"); !strings.Contains(out, "Problems: 0 found") {
		t.Errorf("afterwards: %s", out)
	}
	write("cat /one > two; pwd")
	text, err := e.Command("berth", "build", "--progress", "plain", "-t", "img", dir).CombinedOutput()
	for _, want := range []string{`\[2/4\] RUN echo one > /one\n#\d+ CACHED`, `\[3/4\] WORKDIR /w\n#\d+ CACHED`, `\n#\d+ [0-9.]+ /w\n`} {
		if err != nil || !regexp.MustCompile(want).Match(text) {
			t.Errorf("the next build has no %s: %v\n%s", want, err, text)
		}
	}
	if out := e.Run(t, "run", "--rm", "img", "cat", "two"); out != "one\n" {
		t.Errorf("%q", out)
	}
}
