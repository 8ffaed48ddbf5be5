package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/internal/kerneltest"
)

// What `runc spec` and `crun spec` write runs as it is, but for the terminal and the program.
func TestBundlesOfOtherRuntimes(t *testing.T) {
	kerneltest.Root(t)
	for _, name := range []string{"runc", "crun"} {
		t.Run(name, func(t *testing.T) {
			path, err := exec.LookPath(name)
			if err != nil {
				path = "/usr/sbin/" + name
			}
			dir := bundle(t, nil, "true") // for its root
			if err := os.Remove(dir + "/config.json"); err != nil {
				t.Fatal(err)
			}
			write := exec.Command(path, "spec")
			write.Dir = dir
			if out, err := write.CombinedOutput(); err != nil {
				t.Skipf("%s spec: %v: %s", name, err, out)
			}
			var spec specs.Spec
			text, err := os.ReadFile(dir + "/config.json")
			if err == nil {
				err = json.Unmarshal(text, &spec)
			}
			if err != nil {
				t.Fatal(err)
			}
			spec.Process.Terminal = false
			spec.Process.Args = []string{"/bin/busybox", "sh", "-c", "echo to nowhere >/dev/null && busybox head -c 2 /dev/zero | busybox wc -c; busybox touch /x; busybox grep CapEff /proc/self/status; exit 3"}
			spec.Process.Env = []string{"PATH=/bin"}
			spec.Linux.CgroupsPath = kerneltest.CgroupParent() + "/of-" + name
			if text, err = json.Marshal(spec); err == nil {
				err = os.WriteFile(filepath.Join(dir, "config.json"), text, 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
			out, errs, code := call(t, t.TempDir(), "run", "--bundle", dir, "theirs")
			if code != 3 || !strings.Contains(out, "2\n") || !strings.Contains(out, "0000000020000420") || !strings.Contains(errs, "Read-only file system") {
				t.Errorf("exit code %d\n%s%s", code, out, errs)
			}
		})
	}
}
