package oci

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/internal/kerneltest"
)

// TestRootOnADisk: a root may lie on a disk that the container's group may not open, neither then nor when it runs, also in a user namespace.
func TestRootOnADisk(t *testing.T) {
	eachBuilder(t, func(t *testing.T, r runner) { rootOnADisk(t, r, false) })
	t.Run("user namespace", func(t *testing.T) { rootOnADisk(t, runner{}, true) })
}

func rootOnADisk(t *testing.T, r runner, apart bool) {
	at := kerneltest.Disk(t, "ext4", 64<<20, nil, "")
	if out, err := exec.Command("cp", "-a", newRoot(t)+"/.", at).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	disk, numbers := diskAt(t, at)
	b := newBundle(t, "", sh("head -1 /proc/mounts; echo changed >/etc/new; cat /etc/new; mknod /tmp/disk b "+numbers+"; head -c 1 /tmp/disk")...)
	root := specs.Mount{Destination: "/", Type: "ext4", Source: disk}
	b.Spec.Linux.Resources = &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}}
	if apart {
		ids := idsFrom(100000)
		root.UIDMappings, root.GIDMappings = ids, ids
		b.Spec.Linux.Namespaces = append(b.Spec.Linux.Namespaces, specs.LinuxNamespace{Type: "user"})
		b.Spec.Linux.UIDMappings, b.Spec.Linux.GIDMappings = ids, ids
	}
	b.Rootfs = []specs.Mount{root}
	res := r.run(t, b)
	if !strings.HasPrefix(res.out, disk+" / ext4 rw") || !strings.HasSuffix(res.out, "\nchanged\n") || res.exit.Code == 0 {
		t.Errorf("%+v", res)
	}
	if data, err := os.ReadFile(filepath.Join(at, "etc/new")); string(data) != "changed\n" {
		t.Errorf("the disk has %q, %v", data, err)
	}
}

// diskAt finds the disk that is mounted at a place, and its numbers as mknod takes them.
func diskAt(t *testing.T, at string) (disk, numbers string) {
	t.Helper()
	list, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(list)) {
		before, after, _ := strings.Cut(line, " - ")
		if f, g := strings.Fields(before), strings.Fields(after); len(f) > 4 && len(g) > 1 && f[4] == at {
			return g[1], strings.Replace(f[2], ":", " ", 1)
		}
	}
	t.Fatalf("nothing is mounted at %s", at)
	return "", ""
}
