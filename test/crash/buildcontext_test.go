package crash

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/test/testengine"
)

// told runs a build that must go well and gives what it says of itself.
func told(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	text, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return string(text)
}

// TestKillWhileFilesAreSent: a client, and a daemon, that dies while it sends or takes files leaves nothing that a later build would take for something else.
func TestKillWhileFilesAreSent(t *testing.T) {
	for _, who := range []string{"client", "daemon"} {
		t.Run(who, func(t *testing.T) {
			e := testengine.Start(t)
			dir := t.TempDir()
			put := func(name, text string) {
				t.Helper()
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			put("Dockerfile", "FROM scratch\nCOPY . /\n")
			put("a", "old")
			put("b", "b")
			settle(t, dir)
			told(t, e.Command("berth", "build", "-o", t.TempDir(), dir))
			put("a", "new")
			endless(t, dir, "huge")
			first := e.Command("berth", "build", dir)
			first.Stdout, first.Stderr = nil, nil
			if err := first.Start(); err != nil {
				t.Fatal(err)
			}
			testengine.Eventually(t, time.Minute, func() error {
				if found, err := filepath.Glob(e.Data + "/build/contexts/*/files/huge"); err != nil || len(found) != 1 {
					return fmt.Errorf("the large file does not come: %v, %w", found, err)
				}
				return nil
			})
			if who == "client" {
				if err := first.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			} else {
				e.Kill()
			}
			if err := first.Wait(); err == nil {
				t.Error("the build went well")
			}
			if who == "daemon" {
				e.Up(t)
			}
			if err := os.Remove(filepath.Join(dir, "huge")); err != nil {
				t.Fatal(err)
			}
			put("huge", "small")
			put("c", "c")
			tree := t.TempDir()
			text := told(t, e.Command("berth", "build", "--progress=plain", "-o", tree, dir))
			if strings.Contains(text, "transferring context: 0B") {
				t.Errorf("nothing was sent: %s", text)
			}
			for name, want := range map[string]string{"a": "new", "b": "b", "c": "c", "huge": "small"} {
				if got, err := os.ReadFile(filepath.Join(tree, name)); err != nil || string(got) != want {
					t.Errorf("%s has %.20q, %v", name, got, err)
				}
			}
			testengine.Eventually(t, time.Minute, func() error {
				if left, err := filepath.Glob(e.Data + "/build/contexts/context-*"); err != nil || len(left) > 0 {
					return fmt.Errorf("left behind: %v, %w", left, err)
				}
				return nil
			})
		})
	}
}

// endless makes a file that takes long to be sent and no room: nothing but a hole.
func endless(t *testing.T, dir, name string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(4<<30), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// settle waits until the files in dir changed long enough ago for their times to tell the next change.
func settle(t *testing.T, dir string) {
	t.Helper()
	testengine.Eventually(t, time.Minute, func() error {
		names, err := os.ReadDir(dir)
		for _, n := range names {
			if i, statErr := n.Info(); statErr != nil || time.Since(i.ModTime()) < 30*time.Millisecond {
				err = errors.Join(err, statErr, fmt.Errorf("%s is new", n.Name()))
			}
		}
		return err
	})
}
