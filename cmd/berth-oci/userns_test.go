package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/internal/kerneltest"
)

// owners gives the owner of a file as the host has it.
func owners(t *testing.T, path string) string {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d:%d", st.Uid, st.Gid)
}

func idMapping(inside, outside, size uint32) []specs.LinuxIDMapping {
	return []specs.LinuxIDMapping{{ContainerID: inside, HostID: outside, Size: size}}
}

// What a mount's own maps, and the options idmap and ridmap, do (runtime-spec, config-linux and config.md "Mounts").
func TestIDMappedMounts(t *testing.T) {
	kerneltest.Root(t)
	source := t.TempDir()
	if err := os.WriteFile(source+"/file", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(source+"/file", 1000, 2000); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(source, 1000, 2000); err != nil {
		t.Fatal(err)
	}
	const script = "busybox stat -c %u:%g /m/file && echo > /m/made && busybox stat -c %u:%g /m/made && busybox rm /m/made; cat /proc/self/uid_map"
	for name, c := range map[string]struct {
		mount  specs.Mount
		user   bool
		want   string
		failed string
	}{
		"without a user namespace": {mount: specs.Mount{Type: "bind", Options: []string{"bind"}, UIDMappings: idMapping(1000, 0, 1), GIDMappings: idMapping(2000, 0, 1)}, want: "0:0\n0:0\n         0          0 4294967295\n"},
		"its own maps":             {mount: specs.Mount{Type: "bind", Options: []string{"rbind", "ridmap"}, UIDMappings: idMapping(1000, 100000, 10), GIDMappings: idMapping(2000, 100000, 10)}, user: true, want: "0:0\n0:0\n         0     100000      65536\n"},
		"the container's":          {mount: specs.Mount{Options: []string{"bind", "idmap"}}, user: true, want: "1000:2000\n"},
		"no maps":                  {mount: specs.Mount{Options: []string{"bind", "idmap"}}, failed: "needs uidMappings and gidMappings"},
		"only users":               {mount: specs.Mount{Options: []string{"bind"}, UIDMappings: idMapping(0, 1, 1)}, failed: "needs uidMappings and gidMappings"},
		"a tmpfs":                  {mount: specs.Mount{Type: "ramfs", Options: []string{}, UIDMappings: idMapping(0, 1, 1), GIDMappings: idMapping(0, 1, 1)}, failed: "its file system (ramfs) can't show owners through a user namespace"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			dir := bundle(t, func(s *specs.Spec) {
				c.mount.Source, c.mount.Destination = source, "/m"
				s.Mounts = append(s.Mounts, c.mount)
				if c.user {
					s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "user"})
					s.Linux.UIDMappings, s.Linux.GIDMappings = idMapping(0, 100000, 65536), idMapping(0, 100000, 65536)
				}
			}, "sh", "-c", script)
			if err := os.Mkdir(dir+"/rootfs/m", 0o755); err != nil {
				t.Fatal(err)
			}
			out, errs, code := call(t, t.TempDir(), "run", "--bundle", dir, "box")
			if c.failed != "" {
				if code == 0 || !strings.Contains(errs, c.failed) {
					t.Errorf("exit code %d: %s", code, errs)
				}
				return
			}
			if !strings.HasPrefix(out, c.want) {
				t.Errorf("%q, not %q: %s", out, c.want, errs)
			}
		})
	}
	if got := owners(t, source+"/file"); got != "1000:2000" {
		t.Errorf("the file belongs to %s now", got)
	}
}

// A container that joins another's user namespace by its path.
func TestJoinsAUserNamespace(t *testing.T) {
	kerneltest.Root(t)
	root := t.TempDir()
	first := bundle(t, func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "user"})
		s.Linux.UIDMappings, s.Linux.GIDMappings = idMapping(0, 100000, 65536), idMapping(0, 200000, 65536)
	}, "sleep", "1000")
	cmd := exec.Command("/proc/self/exe", "--root", root, "create", "--bundle", first, "first") // the container keeps its output, so there is none
	cmd.Args[0] = "berth-oci"
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	ok(t, root, "start", "first")
	pid := stateOfID(t, root, "first").Pid
	path := fmt.Sprintf("/proc/%d/ns/", pid)
	second := bundle(t, func(s *specs.Spec) {
		s.Linux.CgroupsPath += "-second"
		s.Linux.Namespaces = append(s.Linux.Namespaces[:0], specs.LinuxNamespace{Type: "mount"}, specs.LinuxNamespace{Type: "pid"}, specs.LinuxNamespace{Type: "uts"},
			specs.LinuxNamespace{Type: "network", Path: path + "net"}, specs.LinuxNamespace{Type: "user", Path: path + "user"})
	}, "sh", "-c", "cat /proc/self/uid_map /proc/self/gid_map; echo $$; busybox readlink /proc/self/ns/user; busybox readlink /proc/self/ns/net; busybox ip link set lo mtu 1000 && echo may")
	out := ok(t, root, "run", "--bundle", second, "second")
	user, err := os.Readlink(path + "user")
	if err != nil {
		t.Fatal(err)
	}
	net, err := os.Readlink(path + "net")
	if err != nil {
		t.Fatal(err)
	}
	if want := "         0     100000      65536\n         0     200000      65536\n1\n" + user + "\n" + net + "\n"; !strings.HasPrefix(out, want) {
		t.Errorf("%s, not\n%s", out, want)
	}
	ok(t, root, "delete", "--force", "first")
}
