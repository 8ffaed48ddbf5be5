package conform

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"berth/internal/kerneltest"
	"berth/test/testengine"
)

// TestPodmanRunsOnBerthOCI uses berth-oci as another engine's OCI runtime.
func TestPodmanRunsOnBerthOCI(t *testing.T) {
	kerneltest.Root(t)
	if _, err := exec.LookPath("podman"); err != nil {
		t.Skip("podman is not installed")
	}
	dir := t.TempDir()
	parent := kerneltest.CgroupParent() + "/podman"
	podman := func(args ...string) string {
		t.Helper()
		all := append([]string{"--root", dir + "/data", "--runroot", "/run/podman", "--cgroup-manager", "cgroupfs",
			"--events-backend", "file", "--runtime", filepath.Join(testengine.Programs(t), "berth-oci")}, args...)
		out, err := exec.Command("podman", all...).CombinedOutput()
		if err != nil {
			t.Fatalf("podman %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	podman("import", testengine.BusyboxTar(t), "busybox")
	if out := podman("run", "--cgroup-parent", parent, "--rm", "--network", "none", "busybox", "sh", "-c", "echo from $0 as $$", "podman"); !strings.Contains(out, "from podman as 1\n") {
		t.Errorf("run: %q", out)
	}
	podman("run", "--cgroup-parent", parent, "-d", "--network", "none", "--name", "x", "busybox", "sleep", "100")
	if out := podman("exec", "x", "ps"); !strings.Contains(out, "1 root     sleep 100") && !strings.Contains(out, "1 0        sleep 100") {
		t.Errorf("exec: %q", out)
	}
	podman("kill", "x")
	if out := podman("wait", "x"); !strings.Contains(out, "137") {
		t.Errorf("wait: %q", out)
	}
	podman("rm", "-f", "x")
	t.Cleanup(func() {
		for _, top := range []string{"/sys/fs/cgroup/*" + parent, "/sys/fs/cgroup" + parent} {
			groups, _ := filepath.Glob(top)
			for _, g := range groups {
				kerneltest.RemoveCgroup(g)
			}
		}
		// What podman keeps mounted in its store would hide the directory from the clean-up.
		exec.Command("sh", "-c", "grep -o ' "+dir+"[^ ]*' /proc/self/mounts | sort -r | xargs -r umount -l").Run()
		os.RemoveAll(dir)
	})
}
