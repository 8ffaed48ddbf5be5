package crash

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/test/testengine"
)

// TestKillDuringARunWithMounts: whoever is killed while a build's program has mounts of every kind, nothing of it runs, is mounted or kept afterwards, and
// what it had locked can be had again.
func TestKillDuringARunWithMounts(t *testing.T) {
	for _, victim := range []string{"client", "daemon", "supervisor"} {
		t.Run(victim, func(t *testing.T) {
			e := testengine.Start(t)
			e.Busybox(t)
			dir := t.TempDir()
			file := func(name, text string) string {
				t.Helper()
				p := filepath.Join(dir, name)
				if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				return p
			}
			text := func(command string) string {
				return "FROM busybox AS tools\nRUN echo tool > /tool\nFROM busybox\n" +
					"RUN --mount=target=/ctx --mount=target=/work,rw --mount=from=tools,target=/tools --mount=from=tools,target=/own,rw --mount=type=tmpfs,target=/mem " +
					"--mount=type=cache,id=c,target=/c,sharing=locked --mount=type=secret,id=s,required --mount=type=secret,id=s,env=S --mount=type=ssh,required " + command + "\n"
			}
			dockerfile := file("Dockerfile", text("echo kept > /c/f; exec sleep 314161"))
			args := []string{"build", "-t", "img", "--secret", "id=s,src=" + file("secret", "a secret"), "--ssh", "default=" + e.Socket, dir}
			// Layers of the first stage and of targets are there before the count.
			e.Run(t, "build", "--target", "tools", dir)
			before := roots(t, e)
			build := e.Command("berth", args...)
			if err := build.Start(); err != nil {
				t.Fatal(err)
			}
			testengine.Eventually(t, time.Minute, func() error {
				if len(processes("sleep\x00314161\x00")) == 0 {
					return fmt.Errorf("the step does not run\n%s", e.Log())
				}
				return nil
			})
			switch victim {
			case "client":
				build.Process.Kill()
			case "daemon":
				e.Kill()
			case "supervisor":
				p, err := os.FindProcess(parent(t, processes("sleep\x00314161\x00")[0]))
				if err != nil {
					t.Fatal(err)
				}
				p.Kill()
			}
			if err := build.Wait(); err == nil {
				t.Error("the build went well")
			}
			if victim == "daemon" {
				e.Up(t)
			}
			testengine.Eventually(t, time.Minute, func() error { return left(e, before) })
			if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(mounts), e.Data) {
				t.Errorf("%v\n%s", err, mounts)
			}
			if out := e.Run(t, "system", "fsck"); !strings.Contains(out, "Problems: 0 found") {
				t.Errorf("afterwards: %s", out)
			}
			if err := os.WriteFile(dockerfile, []byte(text(`cat /c/f /own/tool /run/secrets/s > /said && touch /own/x /work/x`)), 0o600); err != nil {
				t.Fatal(err)
			}
			e.Run(t, args...)
			if out := e.Run(t, "run", "--rm", "img", "cat", "/said"); out != "kept\ntool\na secret" {
				t.Errorf("%q", out)
			}
			e.Run(t, append([]string{"volume", "rm"}, strings.Fields(e.Run(t, "volume", "ls", "-q", "--filter", "label=berth.build.cache=c"))...)...)
		})
	}
}

// roots lists the writable trees that there are.
func roots(t *testing.T, e *testengine.Engine) int {
	t.Helper()
	found, err := os.ReadDir(filepath.Join(e.Data, "layers", "roots"))
	if err != nil {
		t.Fatal(err)
	}
	return len(found)
}

// left says what a build left.
func left(e *testengine.Engine, roots int) error {
	if found := processes("sleep\x00314161\x00"); len(found) > 0 {
		return fmt.Errorf("processes %v run", found)
	}
	for dir, n := range map[string]int{e.Exec + "/containers": 0, e.Exec + "/build": 0, filepath.Join(e.Data, "layers", "roots"): roots} {
		if found, err := os.ReadDir(dir); err != nil || len(found) != n {
			return fmt.Errorf("%s: %v %v", dir, found, err)
		}
	}
	return nil
}
