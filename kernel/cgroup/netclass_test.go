package cgroup

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/internal/kerneltest"
	"berth/kernel"
)

// TestNetClass mounts the one controller that few machines have mounted, for itself alone.
func TestNetClass(t *testing.T) {
	kerneltest.Root(t)
	dir, name := t.TempDir(), kerneltest.CgroupParent()+"/"+t.Name()
	skipped := ""
	err := kernel.PrivateMounts(func() error {
		if err := unix.Mount("cgroup", dir, "cgroup", 0, "net_cls"); err != nil {
			skipped = err.Error()
			return nil
		}
		defer freeHierarchy(t, dir, groupsOf(t, "net_cls"))
		l := parseLayout([]byte("1 1 0:1 / "+dir+" rw - cgroup cgroup rw,net_cls\n"), []byte("5:net_cls:/\n"), isGroup).located()
		if !l.Supported().NetClass {
			t.Error("net_cls is mounted, and not seen")
		}
		g, warnings, err := l.Create(name, &specs.LinuxResources{Network: &specs.LinuxNetwork{ClassID: ptr(uint32(0x100001))}})
		if err != nil || len(warnings) > 0 {
			return fmt.Errorf("%w %q", err, warnings)
		}
		defer unix.Rmdir(dir + kerneltest.CgroupParent())
		defer g.Delete()
		for _, class := range []uint32{0x100001, 0x20003} {
			if class != 0x100001 {
				if _, err := g.Set(&specs.LinuxResources{Network: &specs.LinuxNetwork{ClassID: &class}}); err != nil {
					return err
				}
			}
			if got, err := read(g.Paths()["net_cls"], "net_cls.classid"); got != fmt.Sprint(class) || err != nil {
				t.Errorf("class %q, %v; want %d", got, err, class)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if skipped != "" {
		t.Skip("needs a net_cls cgroup controller that can be mounted alone: ", skipped)
	}
	if Supported().NetClass != (Load("/x").in("net_cls", 1) != "") {
		t.Error("what this machine's own layout says of net_cls is not so")
	}
}

// groupsOf is how many groups a hierarchy has that carries the controller, removed ones that the kernel still holds among them.
func groupsOf(t *testing.T, controller string) string {
	t.Helper()
	table, err := os.ReadFile("/proc/cgroups")
	if err != nil {
		t.Error(err)
	}
	_, rest, _ := strings.Cut(string(table), "\n"+controller+"\t")
	f := strings.Fields(rest)
	if len(f) < 2 {
		return ""
	}
	return f[1]
}

// freeHierarchy unmounts a hierarchy that had that many groups. One that has more, dying ones, would stay alive without a mount.
func freeHierarchy(t *testing.T, dir, groups string) {
	await(t, "the groups of the hierarchy are gone", func() bool { return groupsOf(t, "net_cls") == groups })
	if err := unix.Unmount(dir, 0); err != nil {
		t.Error(err)
	}
}
