package isolation

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"berth/test/testengine"
)

// breakout builds the program that tries to get out, unless it was built beforehand for a machine without Go.
func breakout(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("BERTH_TEST_BIN"); dir != "" {
		return dir
	}
	dir := t.TempDir()
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, "breakout"), "./breakout")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return dir
}

// hostCanary is a file at the top of the host's tree as this world sees it, which nobody inside may reach.
func hostCanary(t *testing.T) {
	t.Helper()
	const path = "/canary-of-the-host"
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(path) })
}

// TestNothingGetsOut runs the program in containers of each kind, made by both builders: a working directory below /proc is what
// only the re-executed one does.
func TestNothingGetsOut(t *testing.T) {
	dir := breakout(t)
	hostCanary(t)
	e := testengine.Start(t, "--add-runtime=runc=runc")
	e.Busybox(t)
	mount := dir + ":/breakout:ro"
	for name, args := range map[string][]string{
		"direct":          {"run", "--rm", "-v", mount, "busybox", "/breakout/breakout"},
		"re-executed":     {"run", "--rm", "-v", mount, "-w", "/proc", "busybox", "/breakout/breakout"},
		"with init":       {"run", "--rm", "-v", mount, "--init", "busybox", "/breakout/breakout"},
		"a user":          {"run", "--rm", "-v", mount, "-u", "1000", "busybox", "/breakout/breakout"},
		"no capabilities": {"run", "--rm", "-v", mount, "--cap-drop", "ALL", "busybox", "/breakout/breakout"},
		"a terminal":      {"run", "--rm", "-t", "-v", mount, "busybox", "/breakout/breakout"},
		// What runc itself lets through is left out.
		"runc": {"run", "--rm", "--runtime", "runc", "-v", mount, "busybox", "/breakout/breakout", "make a cgroup", "/dev/net/tun"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := exec.LookPath("runc"); name == "runc" && err != nil {
				t.Skip("runc is not installed")
			}
			out, err := e.Command("berth", args...).CombinedOutput()
			check(t, string(out), err)
		})
	}
	t.Run("exec", func(t *testing.T) {
		e.Run(t, "run", "-d", "--name", "home", "-v", mount, "busybox", "sleep", "1000")
		out, err := e.Command("berth", "exec", "home", "/breakout/breakout").CombinedOutput()
		check(t, string(out), err)
	})
	// The same tries are let through where a user asks for it: they can fail.
	t.Run("privileged", func(t *testing.T) {
		out, err := e.Command("berth", "run", "--rm", "--privileged", "-v", mount, "busybox", "/breakout/breakout", "unmount /proc/sys", "unmount a mask", "pivot_root", "vhangup").CombinedOutput()
		if err == nil {
			t.Fatalf("nothing was let through:\n%s", out)
		}
		for _, through := range []string{"mount tmpfs", "sysctl kernel/core_pattern", "unshare mounts", "/dev/kmsg", "fsopen"} {
			if !strings.Contains(string(out), "ESCAPED "+through) {
				t.Errorf("%s is refused to a privileged container", through)
			}
		}
	})
}

func check(t *testing.T, out string, err error) {
	t.Helper()
	if err == nil && strings.Contains(out, " 0 escaped") {
		return
	}
	var got []string
	for _, line := range strings.Split(out, "\n") {
		if !strings.HasPrefix(line, "refused") {
			got = append(got, line)
		}
	}
	t.Errorf("%v:\n%s", err, strings.Join(got, "\n"))
}

// TestTheHostsProcessesAreNotReached: who sees the host's processes can neither trace them nor use their roots or files.
func TestTheHostsProcessesAreNotReached(t *testing.T) {
	hostCanary(t)
	e := testengine.Start(t)
	e.Busybox(t)
	pid := e.Run(t, "run", "--rm", "--pid", "host", "busybox", "sh", "-c", "cat /proc/self/stat | cut -d' ' -f4")
	script := `for p in /proc/[0-9]*; do
		case $(cat $p/comm 2>/dev/null) in berthd*|berth-shim*)
			ls $p/root/canary-of-the-host 2>/dev/null && echo root of $p
			readlink $p/fd/0 && echo files of $p
			cat $p/environ >/dev/null 2>&1 && echo environment of $p
			echo x 2>/dev/null >$p/mem && echo memory of $p
			seen=yes ;;
		esac
	done; echo seen=$seen`
	if out := e.Run(t, "run", "--rm", "--pid", "host", "busybox", "sh", "-c", script); strings.TrimSpace(out) != "seen=yes" {
		t.Errorf("reached (the parent is %s):\n%s", strings.TrimSpace(pid), out)
	}
	// Signals need no more than a user's rights, so they are let through by design, as in the field.
}
