package script

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"berth/test/testengine"
)

// said waits until a command on a terminal has printed what fits the pattern, and gives all that it printed.
func (b *browser) said(pattern string) string {
	b.Helper()
	want, all := regexp.MustCompile(pattern), ""
	testengine.Eventually(b.T, time.Minute, func() error {
		b.mu.Lock()
		defer b.mu.Unlock()
		all = b.out.String()
		if !want.MatchString(all) {
			return fmt.Errorf("the terminal has no %s:\n%s", pattern, all)
		}
		return nil
	})
	return all
}

// TestWatchBuild looks at a build on a terminal: it is drawn in place, goes on when the terminal gets narrow, and a signal ends it and leaves the
// terminal as it was.
func TestWatchBuild(t *testing.T) {
	e := testengine.Start(t)
	e.Busybox(t)
	dir := t.TempDir()
	write := func(text string) {
		if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("FROM busybox\nRUN echo first\nRUN printf 'at \\033[31mwork\\033[2J\\n'; exec sleep 10000\n")
	b := startOnTerminal(t, e, "build", "-t", "watched", dir)
	b.said(` => => # at work`)
	b.said(`\[\+\] Building [0-9.]+s \([0-9]+/[0-9]+\)`)
	b.resize(12, 30)
	b.said(`\n => \[3/3\] RUN print.{1,9}… +[0-9.]+s`)
	if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	err := b.cmd.Wait()
	if b.mode() != b.before {
		t.Errorf("the terminal's mode was\n%+v, and is\n%+v", b.before, b.mode())
	}
	if b.cmd.ProcessState.Success() {
		t.Errorf("a build that was ended succeeds: %v", err)
	}
	b.mu.Lock()
	all := b.out.String()
	b.mu.Unlock()
	for _, bad := range []string{"\x1b[?", "\x1b[2J"} {
		if strings.Contains(all, bad) {
			t.Errorf("the terminal's state is changed by %q:\n%q", bad, all)
		}
	}

	write("FROM busybox\nRUN echo first\nRUN echo second\n")
	b = startOnTerminal(t, e, "build", "--progress", "tty", "-t", "watched", dir)
	all = b.said(`\[\+\] Building [0-9.]+s \([0-9]+/[0-9]+\) FINISHED`)
	if err := b.cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, all)
	}
	all = b.said(`CACHED \[2/3\] RUN echo first[^\n]*\r\n[^\n]* => \[3/3\] RUN echo second`)
	if !strings.Contains(all, "\x1b[34m") {
		t.Errorf("there is no colour:\n%q", all)
	}
}
