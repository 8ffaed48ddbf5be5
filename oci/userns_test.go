package oci

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/internal/kerneltest"
	"berth/kernel/namespace"
)

// idsFrom maps 65,536 ids.
func idsFrom(first uint32) []specs.LinuxIDMapping {
	return []specs.LinuxIDMapping{{ContainerID: 0, HostID: first, Size: 65536}}
}

// mapped gives a bundle a user namespace of its own over id-mapped layers: the lowest is lower, which nobody but root may enter.
func mapped(t testing.TB, lower string, first uint32, args ...string) (b *Bundle, upper string) {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"root/diff", "root/work"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	b = newBundle(t, "/nowhere", args...)
	upper = dir + "/root/diff"
	ids := idsFrom(first)
	b.Rootfs = []specs.Mount{{Destination: "/", Type: "overlay", Source: "overlay", UIDMappings: ids, GIDMappings: ids,
		Options: []string{"lowerdir+=" + lower, "upperdir=" + upper, "workdir=" + dir + "/root/work"}}}
	b.Spec.Linux.Namespaces = append(b.Spec.Linux.Namespaces, specs.LinuxNamespace{Type: "user"}, specs.LinuxNamespace{Type: "cgroup"})
	b.Spec.Linux.UIDMappings, b.Spec.Linux.GIDMappings = ids, ids
	return b, upper
}

func owner(t testing.TB, path string) string {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d:%d", st.Uid, st.Gid)
}

// Files of the layers, of the writable directory and of a volume have on disk the owners that the container sees.
func TestIDMappedLayers(t *testing.T) {
	kerneltest.Root(t)
	root := newRoot(t)
	write(t, root, "home/alice/note", "hers", 0o600)
	if err := os.Chown(root+"/home/alice/note", 1000, 1000); err != nil {
		t.Fatal(err)
	}
	volume := t.TempDir()
	host := t.TempDir()
	b, upper := mapped(t, root, 300000, sh(`
		stat -c %u:%g / /bin/busybox /home/alice/note /v /h /dev/null /dev/pts/ptmx /dev/shm
		cat /home/alice/note && echo more >> /home/alice/note && touch /new /v/new && busybox chown 1000:10 /new /v/new && busybox rm /bin/wc && busybox chown -h 7:8 /bin/cat
		cat /proc/self/uid_map; touch /h/x; echo >/dev/null && echo done`)...)
	b.Spec.Mounts = append(b.Spec.Mounts,
		specs.Mount{Destination: "/v", Type: "bind", Source: volume, Options: []string{"rbind", "idmap", "rprivate"}},
		specs.Mount{Destination: "/h", Type: "bind", Source: host, Options: []string{"rbind", "rprivate"}})
	res := runner{}.run(t, b)
	want := "0:0\n0:0\n1000:1000\n0:0\n65534:65534\n0:0\n0:0\n0:0\nhers"
	if !strings.HasPrefix(res.out, want) || !strings.HasSuffix(res.out, "300000      65536\ndone\n") || !strings.Contains(res.err, "/h/x: Permission denied") {
		t.Errorf("%s\n%s\n%+v", res.out, res.err, res.exit)
	}
	for path, want := range map[string]string{
		upper: "0:0", upper + "/new": "1000:10", upper + "/home/alice/note": "1000:1000", upper + "/bin/wc": "0:0", upper + "/bin/cat": "7:8",
		volume + "/new": "1000:10", root + "/home/alice/note": "1000:1000",
	} {
		if got := owner(t, path); got != want {
			t.Errorf("%s belongs to %s on disk, not to %s", path, got, want)
		}
	}
}

// The network namespace was made before the container, and belongs to its user namespace.
func TestOwnsItsNetwork(t *testing.T) {
	kerneltest.Root(t)
	ids := idsFrom(400000)
	netns, err := namespace.NewOwnedNet(ids, ids)
	if err != nil {
		t.Fatal(err)
	}
	defer netns.Close()
	owner, err := namespace.Owner(netns)
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close()
	b, _ := mapped(t, newRoot(t), 400000, "sleep", "1000")
	caps := append([]string{"CAP_NET_ADMIN"}, defaultCaps...)
	b.Spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	p, err := Create(context.Background(), b, Stdio{}, netns)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Delete()
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	init, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", p.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	defer init.Close()
	if same, err := namespace.Same(owner, init); err != nil || !same {
		t.Errorf("the container is in another user namespace than its network (%v)", err)
	}
	res, err := execIn(t, p, b, execSpec(b, sh("echo $$; ls /sys/class/net; busybox ifconfig lo 127.0.0.1 up && busybox ping -c1 -w5 127.0.0.1 | grep -c 'bytes from'")...))
	if err != nil || !strings.Contains(res.out, "lo\n1\n") {
		t.Errorf("%+v, %v", res, err)
	}
	for _, kind := range []string{"pid", "mnt", "ipc", "uts", "net"} {
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", p.Pid(), kind))
		if err != nil {
			t.Fatal(err)
		}
		whose, err := namespace.Owner(ns)
		ns.Close()
		if err != nil {
			t.Fatal(err)
		}
		if same, err := namespace.Same(owner, whose); err != nil || !same {
			t.Errorf("the %s namespace belongs to another user namespace (%v)", kind, err)
		}
		whose.Close()
	}
	p.Signal(9)
	p.Wait()
}

// A terminal made by exec, which stays outside of the user namespace, belongs to its user all the same.
func TestExecTerminalInAUserNamespace(t *testing.T) {
	kerneltest.Root(t)
	b, _ := mapped(t, newRoot(t), 500000, "sleep", "1000")
	p := runner{}.start(t, b)
	e := execSpec(b, sh("id -u; stat -c %u:%g $(tty); echo x > $(tty)")...)
	e.User = "alice"
	x, err := Exec(context.Background(), p.Pid(), b, e, Stdio{Console: true})
	if err != nil {
		t.Fatal(err)
	}
	console := x.Console()
	defer console.Close()
	text := make(chan string)
	go func() {
		var all []byte
		buf := make([]byte, 100)
		for {
			n, err := console.Read(buf)
			all = append(all, buf[:n]...)
			if err != nil {
				break
			}
		}
		text <- string(all)
	}()
	exit, err := x.Wait()
	if got := <-text; err != nil || exit.Code != 0 || got != "1000\r\n1000:5\r\nx\r\n" {
		t.Errorf("%q %+v %v", got, exit, err)
	}
}

// Pipes belong to the program's user inside.
func TestPipesInAUserNamespace(t *testing.T) {
	kerneltest.Root(t)
	b, _ := mapped(t, newRoot(t), 500000, sh("echo one > /dev/stdout; echo two > /dev/stderr")...)
	b.User = "alice"
	if res := (runner{}).run(t, b); res.out != "one\n" || res.err != "two\n" {
		t.Errorf("%+v", res)
	}
}

// Its own control groups are shown as to any other container.
func TestGroupsInAUserNamespace(t *testing.T) {
	kerneltest.Root(t)
	show := sh("ls /sys/fs/cgroup; grep -c cgroup /proc/mounts")
	plain := newBundle(t, newRoot(t), show...)
	plain.Spec.Linux.Namespaces = append(plain.Spec.Linux.Namespaces, specs.LinuxNamespace{Type: "cgroup"})
	want := runner{}.run(t, plain)
	b, _ := mapped(t, newRoot(t), 500000, show...)
	if res := (runner{}).run(t, b); res.out != want.out || len(strings.Fields(res.out)) < 3 {
		t.Errorf("%q, without a user namespace %q", res.out, want.out)
	}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err != nil {
		return // v1 has no delegation
	}
	for options, want := range map[string]string{"ro": "65534\n", "rw": "0\n1\n"} {
		b, _ := mapped(t, newRoot(t), 500000, sh("stat -c %u /sys/fs/cgroup; busybox mkdir /sys/fs/cgroup/inner && echo 1")...)
		for i, m := range b.Spec.Mounts {
			if m.Type == "cgroup" {
				b.Spec.Mounts[i].Options = []string{options, "nosuid", "noexec", "nodev"}
			}
		}
		if res := (runner{}).run(t, b); res.out != want {
			t.Errorf("%s: %q, not %q: %s", options, res.out, want, res.err)
		}
	}
}

func TestSwapped(t *testing.T) {
	id := func(on, to, size uint32) specs.LinuxIDMapping {
		return specs.LinuxIDMapping{ContainerID: on, HostID: to, Size: size}
	}
	all := []specs.LinuxIDMapping{id(0, 0, 1<<32-1)}
	two := []specs.LinuxIDMapping{id(0, 5000, 1000), id(1000, 90000, 1000)}
	for _, c := range []struct {
		owner uint32
		user  uint32
		ids   []specs.LinuxIDMapping
		want  []specs.LinuxIDMapping
	}{
		{0, 0, all, all},
		{7, 7, all, all},
		{500, 1000, all, []specs.LinuxIDMapping{id(0, 0, 500), id(500, 1000, 1), id(501, 501, 499), id(1000, 500, 1), id(1001, 1001, 1<<32-1-1001)}},
		{1, 0, all, []specs.LinuxIDMapping{id(0, 1, 1), id(1, 0, 1), id(2, 2, 1<<32-3)}},
		{1000, 0, all, []specs.LinuxIDMapping{id(0, 1000, 1), id(1, 1, 999), id(1000, 0, 1), id(1001, 1001, 1<<32-1-1001)}},
		{0, 0, two, two},
		{1500, 0, two, []specs.LinuxIDMapping{id(0, 90500, 1), id(1, 5001, 999), id(1000, 90000, 500), id(1500, 5000, 1), id(1501, 90501, 499)}},
		{7000, 0, two, []specs.LinuxIDMapping{id(1, 5001, 999), id(1000, 90000, 1000), id(7000, 5000, 1)}},
	} {
		if got := swapped(c.owner, c.user, c.ids); !slices.Equal(got, c.want) {
			t.Errorf("owner %d: %v, want %v", c.owner, got, c.want)
		}
	}
}
