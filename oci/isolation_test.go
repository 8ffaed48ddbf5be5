package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/fault"
	"berth/internal/kerneltest"
	"berth/kernel/cgroup"
	"berth/kernel/seccomp"
)

func sh(script string) []string { return []string{"sh", "-c", script} }

// The experiment of every introduction to containers: a process of the container has other namespaces than the host's.
func TestNamespacesDiffer(t *testing.T) {
	eachBuilder(t, func(t *testing.T, r runner) {
		b := newBundle(t, newRoot(t), "sleep", "1000")
		b.Spec.Linux.Namespaces = append(b.Spec.Linux.Namespaces, specs.LinuxNamespace{Type: "cgroup"})
		p := r.start(t, b)
		for _, kind := range []string{"ipc", "mnt", "net", "pid", "uts", "cgroup"} {
			host, err := os.Readlink("/proc/self/ns/" + kind)
			if err != nil {
				t.Fatal(err)
			}
			theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", p.Pid(), kind))
			if err != nil || theirs == host || !strings.HasPrefix(theirs, kind+":[") {
				t.Errorf("%s: host %s, container %s, %v", kind, host, theirs, err)
			}
		}
		for _, kind := range []string{"user", "time"} {
			host, _ := os.Readlink("/proc/self/ns/" + kind)
			if theirs, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", p.Pid(), kind)); theirs != host {
				t.Errorf("%s: host %s, container %s", kind, host, theirs)
			}
		}
	})
}

func (r runner) start(t testing.TB, b *Bundle) *Process {
	t.Helper()
	return r.startWith(t, b, Stdio{})
}

func (r runner) startWith(t testing.TB, b *Bundle, s Stdio) *Process {
	t.Helper()
	p, err := create(context.Background(), b, s, nil, r.options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Signal(9)
		if _, err := p.Wait(); err != nil {
			t.Errorf("end of %s: %v", b.ID, err)
		}
		if err := p.Delete(); err != nil {
			t.Error(err)
		}
	})
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestNothingOfTheHostIsMounted(t *testing.T) {
	eachBuilder(t, func(t *testing.T, r runner) {
		b := newBundle(t, newRoot(t), sh("cat /proc/self/mountinfo; ls /; ls -a /proc/self/fd; cat /proc/self/fd/3 2>/dev/null")...)
		res := r.run(t, b)
		var points []string
		for _, line := range strings.Split(res.out, "\n") {
			if f := strings.Fields(line); len(f) > 6 {
				points = append(points, f[4])
			}
		}
		allowed := regexp.MustCompile(`^(/|/proc(/.*)?|/dev(/pts|/mqueue|/shm)?|/sys(/fs/cgroup(/.*)?|/firmware|/devices/virtual/powercap)?)$`)
		for _, p := range points {
			if !allowed.MatchString(p) {
				t.Errorf("%s is mounted in the container", p)
			}
		}
		if points[0] != "/" || !strings.Contains(res.out, "bin\ndev\netc\nproc\nsys\ntmp\n.\n..\n0\n1\n2\n3\n") {
			t.Errorf("the container sees:\n%s", res.out)
		}
		// The host's own table is as before: nothing of the container shows.
		if table, _ := os.ReadFile("/proc/self/mountinfo"); strings.Contains(string(table), b.Spec.Root.Path) {
			t.Errorf("the host sees:\n%s", table)
		}
	})
}

func TestDevices(t *testing.T) {
	eachBuilder(t, func(t *testing.T, r runner) {
		b := newBundle(t, newRoot(t), sh(`for d in null zero full random urandom tty fuse; do stat -c '%n %F %t:%T %a %u' /dev/$d; done
			for l in fd stdin stdout stderr ptmx; do echo $l $(readlink /dev/$l); done; echo x > /dev/null; head -c 4 /dev/zero | wc -c; ls /dev`)...)
		mode := os.FileMode(0o640)
		uid := uint32(1000)
		b.Spec.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229, FileMode: &mode, UID: &uid}}
		const want = `/dev/null character special file 1:3 666 0
/dev/zero character special file 1:5 666 0
/dev/full character special file 1:7 666 0
/dev/random character special file 1:8 666 0
/dev/urandom character special file 1:9 666 0
/dev/tty character special file 5:0 666 0
/dev/fuse character special file a:e5 640 1000
fd /proc/self/fd
stdin /proc/self/fd/0
stdout /proc/self/fd/1
stderr /proc/self/fd/2
ptmx pts/ptmx
4
`
		if res := r.run(t, b); !strings.HasPrefix(res.out, want) {
			t.Errorf("got\n%s%s", res.out, res.err)
		}
	})
}

func TestMaskedAndReadonlyPaths(t *testing.T) {
	eachBuilder(t, func(t *testing.T, r runner) {
		root := newRoot(t)
		write(t, root, "etc/secret", "key", 0o600)
		write(t, root, "etc/private/key", "key", 0o600)
		b := newBundle(t, root, sh(`cat /etc/secret; ls /etc/private; wc -c < /proc/keys; wc -c < /proc/timer_list; ls /proc/acpi /proc/scsi /sys/firmware
			for f in /proc/sys/kernel/domainname /proc/sysrq-trigger /sys/kernel/profiling /etc/group; do (echo x > $f); done`)...)
		b.Spec.Linux.MaskedPaths = append(b.Spec.Linux.MaskedPaths, "/etc/secret", "/etc/private", "/no/such/thing", "/etc/group/none")
		b.Spec.Linux.ReadonlyPaths = append(b.Spec.Linux.ReadonlyPaths, "/etc/group")
		res := r.run(t, b)
		if got := strings.Count(res.err, "Read-only file system"); got < 3 {
			t.Errorf("%d of 4 writes were refused: %s", got, res.err)
		}
		if strings.Contains(res.out, "key") || !strings.HasPrefix(res.out, "0\n0\n") {
			t.Errorf("got %s%s", res.out, res.err)
		}
		if data, _ := os.ReadFile(root + "/etc/group"); strings.HasPrefix(string(data), "x") {
			t.Error("a read-only path was written")
		}
	})
}

// status reads the named lines of /proc/self/status as the container's program shows them.
func status(out string, names ...string) map[string]string {
	got := map[string]string{}
	for _, line := range strings.Split(out, "\n") {
		name, value, _ := strings.Cut(line, ":")
		for _, n := range names {
			if n == name {
				got[n] = strings.TrimSpace(value)
			}
		}
	}
	return got
}

func TestCapabilitiesAndFilter(t *testing.T) {
	eachBuilder(t, func(t *testing.T, r runner) {
		const dockers = "00000000a80425fb"
		for _, c := range []struct {
			name             string
			user             string
			nnp              bool
			ambient          []string
			eff, bound, amb  string
			mountIsForbidden bool
		}{
			{"root", "", false, nil, dockers, dockers, "0000000000000000", true},
			{"alice", "alice", false, nil, "0000000000000000", dockers, "0000000000000000", true},
			{"no new privileges", "1000", true, nil, "0000000000000000", dockers, "0000000000000000", true},
			{"ambient", "alice", false, []string{"CAP_NET_BIND_SERVICE"}, "0000000000000400", dockers, "0000000000000400", true},
		} {
			t.Run(c.name, func(t *testing.T) {
				filter, err := seccomp.Default(defaultCaps)
				if err != nil {
					t.Fatal(err)
				}
				b := newBundle(t, newRoot(t), sh("cat /proc/self/status; mount -t tmpfs x /tmp")...)
				b.User, b.Spec.Linux.Seccomp, b.Spec.Process.NoNewPrivileges = c.user, filter, c.nnp
				if c.user == "alice" { // as an engine does it
					if b.Filter, err = CompileFilter(filter); err != nil {
						t.Fatal(err)
					}
					b.Spec.Linux.Seccomp = nil
				}
				b.Spec.Process.Capabilities.Ambient, b.Spec.Process.Capabilities.Inheritable = c.ambient, c.ambient
				res := r.run(t, b)
				got := status(res.out, "CapEff", "CapPrm", "CapBnd", "CapAmb", "Seccomp", "NoNewPrivs")
				nnp := "0"
				if c.nnp {
					nnp = "1"
				}
				for name, want := range map[string]string{"CapEff": c.eff, "CapPrm": c.eff, "CapBnd": c.bound, "CapAmb": c.amb, "Seccomp": "2", "NoNewPrivs": nnp} {
					if got[name] != want {
						t.Errorf("%s is %s, want %s", name, got[name], want)
					}
				}
				if res.exit.Code == 0 {
					t.Error("the container could mount")
				}
			})
		}
	})
}

func TestRightsAreCutToOurs(t *testing.T) {
	eachBuilder(t, func(t *testing.T, r runner) {
		var all []string
		for n := range 41 {
			all = append(all, strings.Fields(allNames)[n])
		}
		b := newBundle(t, newRoot(t), sh("cat /proc/self/status; cat /proc/self/oom_score_adj; ulimit -n; ulimit -Hn; ulimit -c")...)
		b.Spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all}
		score := -500
		b.Spec.Process.OOMScoreAdj = &score
		b.Spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 2000, Hard: 1 << 19}, {Type: "RLIMIT_CORE", Soft: 0, Hard: 0}}
		res := r.run(t, b)
		own, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		if got, want := status(res.out, "CapBnd")["CapBnd"], status(string(own), "CapBnd")["CapBnd"]; got != want {
			t.Errorf("CapBnd is %s, ours %s", got, want)
		}
		lines := strings.Split(strings.TrimSpace(res.out), "\n")
		tail := lines[len(lines)-4:]
		if tail[1] != "2000" || tail[3] != "0" {
			t.Errorf("score and limits are %q", tail)
		}
		if hard, _ := strconv.Atoi(tail[2]); hard < 2000 {
			t.Errorf("hard limit %s", tail[2])
		}
	})
}

const allNames = "CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_KILL CAP_SETGID CAP_SETUID CAP_SETPCAP " +
	"CAP_LINUX_IMMUTABLE CAP_NET_BIND_SERVICE CAP_NET_BROADCAST CAP_NET_ADMIN CAP_NET_RAW CAP_IPC_LOCK CAP_IPC_OWNER CAP_SYS_MODULE CAP_SYS_RAWIO " +
	"CAP_SYS_CHROOT CAP_SYS_PTRACE CAP_SYS_PACCT CAP_SYS_ADMIN CAP_SYS_BOOT CAP_SYS_NICE CAP_SYS_RESOURCE CAP_SYS_TIME CAP_SYS_TTY_CONFIG CAP_MKNOD " +
	"CAP_LEASE CAP_AUDIT_WRITE CAP_AUDIT_CONTROL CAP_SETFCAP CAP_MAC_OVERRIDE CAP_MAC_ADMIN CAP_SYSLOG CAP_WAKE_ALARM CAP_BLOCK_SUSPEND " +
	"CAP_AUDIT_READ CAP_PERFMON CAP_BPF CAP_CHECKPOINT_RESTORE"

func TestSharedNamespaces(t *testing.T) {
	eachBuilder(t, func(t *testing.T, r runner) {
		first := r.start(t, newBundle(t, newRoot(t), "sleep", "1000"))
		b := newBundle(t, newRoot(t), sh("ps -o pid,args | grep -c 'sleep 100[0]'; for k in net ipc pid; do readlink /proc/self/ns/$k; done; hostname")...)
		b.Spec.Hostname = ""
		for i, n := range b.Spec.Linux.Namespaces {
			if n.Type != "mount" {
				name := map[specs.LinuxNamespaceType]string{"network": "net"}[n.Type]
				if name == "" {
					name = string(n.Type)
				}
				b.Spec.Linux.Namespaces[i].Path = fmt.Sprintf("/proc/%d/ns/%s", first.Pid(), name)
			}
		}
		res := r.run(t, b)
		want := "1\n"
		for _, kind := range []string{"net", "ipc", "pid"} {
			link, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", first.Pid(), kind))
			want += link + "\n"
		}
		if res.out != want+"box\n" {
			t.Errorf("got %s%s, want %s", res.out, res.err, want)
		}
	})
}

func TestCgroupAndOOM(t *testing.T) {
	eachBuilder(t, func(t *testing.T, r runner) {
		file, group := "/sys/fs/cgroup/memory/memory.limit_in_bytes", ":memory:"
		if cgroup.Detect().Mode == cgroup.V2 {
			file, group = "/sys/fs/cgroup/memory.max", "0::"
		}
		for _, private := range []bool{false, true} {
			b := newBundle(t, newRoot(t), sh("cat /proc/self/cgroup; cat "+file+"; echo 1 > "+file+"; dd if=/dev/zero of=/dev/null bs=64M count=1")...)
			group := group + b.Spec.Linux.CgroupsPath + "\n"
			if private {
				b.Spec.Linux.Namespaces = append(b.Spec.Linux.Namespaces, specs.LinuxNamespace{Type: "cgroup"})
				group = group[:strings.LastIndex(group, ":")] + ":/\n"
			}
			limit := int64(32 << 20)
			b.Spec.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit, Swap: &limit}}
			res := r.run(t, b)
			if !strings.Contains(res.out, group) || !strings.Contains(res.out, fmt.Sprint("\n", limit, "\n")) {
				t.Errorf("private %v: the groups are %s", private, res.out)
			}
			if !strings.Contains(res.err, "Read-only") {
				t.Errorf("private %v: the limit could be written from inside: %s", private, res.err)
			}
			if !res.exit.OOMKilled || res.exit.Code != 137 {
				t.Errorf("private %v: exit is %+v", private, res.exit)
			}
		}
	})
}

func TestMounts(t *testing.T) {
	eachBuilder(t, func(t *testing.T, r runner) {
		host := t.TempDir()
		write(t, host, "file", "data", 0o666)
		os.Mkdir(filepath.Join(host, "dir"), 0o777)
		root := newRoot(t)
		if err := os.Symlink("../../../../../../opt/real", root+"/link"); err != nil {
			t.Fatal(err)
		}
		b := newBundle(t, root, sh("cat /mnt/ro/file /a/b/c; echo x > /mnt/ro/file; echo new > /mnt/rw/made; stat -c %a /tmp /scratch; echo y > /scratch/y; cat /opt/real/file; echo no > /etc/no; grep -c ' /mnt/ro [a-z0-9]* ro' /proc/mounts")...)
		b.Spec.Root.Readonly = true
		bind := func(from, to string, options ...string) specs.Mount {
			return specs.Mount{Type: "bind", Source: from, Destination: to, Options: append([]string{"rbind"}, options...)}
		}
		b.Spec.Mounts = append(b.Spec.Mounts, bind(host, "/mnt/ro", "rro", "rprivate"), bind(host, "/mnt/rw"), bind(host+"/file", "/a/b/c"), bind(host, "/link"),
			specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: "/scratch", Options: []string{"mode=1770", "size=64k", "noexec"}},
			specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: "/tmp"})
		if err := os.Chmod(root+"/tmp", 0o1777); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(root+"/tmp", 0o777|os.ModeSticky); err != nil {
			t.Fatal(err)
		}
		res := r.run(t, b)
		if res.out != "datadata1777\n1770\ndata1\n" || strings.Count(res.err, "Read-only file system") != 2 {
			t.Errorf("got %s%s", res.out, res.err)
		}
		if data, _ := os.ReadFile(host + "/made"); string(data) != "new\n" {
			t.Errorf("the writable bind has %q", data)
		}
		b = newBundle(t, root, "true")
		b.Spec.Mounts = append(b.Spec.Mounts, bind("/no/such/source", "/mnt"))
		if _, err := r.try(t, b); err == nil || !strings.Contains(err.Error(), "/no/such/source") {
			t.Errorf("a missing bind source: %v", err)
		}
	})
}

func TestTmpfsStartsWithWhatLiesBeneath(t *testing.T) {
	eachBuilder(t, func(t *testing.T, r runner) {
		root := newRoot(t)
		write(t, root, "var/deep/file", "data", 0o640)
		if err := errors.Join(os.Symlink("/etc/passwd", root+"/var/link"), os.Chown(root+"/var/deep/file", 7, 8), os.Chmod(root+"/var/deep", 0o751)); err != nil {
			t.Fatal(err)
		}
		b := newBundle(t, root, sh("cat /var/deep/file; stat -c ' %a %u %g' /var/deep /var/deep/file; readlink /var/link; echo new > /var/deep/file; stat -f -c %T /var")...)
		b.Spec.Mounts = append(b.Spec.Mounts, specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: "/var", Options: []string{"tmpcopyup", "nosuid"}})
		if res := r.run(t, b); res.out != "data 751 0 0\n 640 7 8\n/etc/passwd\ntmpfs\n" {
			t.Errorf("got %+v", res)
		}
		if data, _ := os.ReadFile(root + "/var/deep/file"); string(data) != "data" {
			t.Errorf("the file beneath has %q", data)
		}
	})
}

func TestOverlayRoot(t *testing.T) {
	eachBuilder(t, func(t *testing.T, r runner) {
		dir := t.TempDir()
		for _, d := range []string{"upper", "work"} {
			if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		b := newBundle(t, "", sh("echo changed > /etc/new; cat /proc/mounts | head -1")...)
		b.Rootfs = []specs.Mount{{Type: "overlay", Source: "overlay", Options: []string{"lowerdir+=" + t.TempDir(), "lowerdir+=" + newRoot(t), "upperdir=" + dir + "/upper", "workdir=" + dir + "/work"}}}
		if res := r.run(t, b); !strings.HasPrefix(res.out, "overlay / overlay rw") || res.exit.Code != 0 {
			t.Errorf("got %+v", res)
		}
		if data, _ := os.ReadFile(dir + "/upper/etc/new"); string(data) != "changed\n" {
			t.Errorf("the upper layer has %q", data)
		}
	})
}

func TestSysctlsAndNames(t *testing.T) {
	eachBuilder(t, func(t *testing.T, r runner) {
		b := newBundle(t, newRoot(t), sh("cat /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/domainname /proc/sys/kernel/hostname")...)
		b.Spec.Linux.Sysctl = map[string]string{"kernel.msgmax": "12345", "net.ipv4.ip_forward": "1"}
		b.Spec.Domainname = "example.org"
		if res := r.run(t, b); res.out != "12345\n1\nexample.org\nbox\n" {
			t.Errorf("got %s", res.out)
		}
		if own, _ := os.ReadFile("/proc/sys/kernel/msgmax"); string(own) == "12345\n" {
			t.Error("the sysctl was set outside")
		}
		b.Spec.Linux.Sysctl = map[string]string{"../../etc/passwd": "x"}
		if _, err := r.try(t, b); err == nil {
			t.Error("a sysctl outside of /proc/sys was written")
		}
	})
}

func TestLeftoversAreKilledWithTheGroup(t *testing.T) {
	eachBuilder(t, func(t *testing.T, r runner) {
		b := newBundle(t, newRoot(t), sh("sleep 1000 & exit 4")...)
		b.Spec.Linux.Namespaces = []specs.LinuxNamespace{{Type: "mount"}} // the host's pid namespace: nobody kills the rest
		b.Spec.Hostname = ""
		if res := r.run(t, b); res.exit.Code != 4 {
			t.Errorf("got %+v", res)
		}
		if _, err := os.Stat("/sys/fs/cgroup/pids" + b.Spec.Linux.CgroupsPath); !os.IsNotExist(err) {
			t.Errorf("the group is left: %v", err)
		}
	})
}

func TestUserNamespace(t *testing.T) {
	kerneltest.Root(t)
	root := newRoot(t)
	for dir := root; dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) {
		os.Chmod(dir, 0o755)
	}
	filepath.Walk(root, func(path string, _ os.FileInfo, _ error) error { return os.Lchown(path, 100000, 100000) })
	b := newBundle(t, root, sh("id -u; cat /proc/self/uid_map; stat -c %u /bin/busybox /dev/null; echo x > /etc/new && grep CapEff /proc/self/status")...)
	b.Spec.Linux.Namespaces = append(b.Spec.Linux.Namespaces, specs.LinuxNamespace{Type: "user"})
	b.Spec.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	b.Spec.Linux.GIDMappings = b.Spec.Linux.UIDMappings
	res := runner{}.run(t, b)
	if f := strings.Fields(res.out); len(f) < 6 || f[0] != "0" || f[2] != "100000" || f[4] != "0" || res.exit.Code != 0 {
		t.Errorf("got %+v", res)
	}
	st, err := os.Stat(root + "/etc/new")
	if err != nil || fmt.Sprint(st.Sys()) == "" {
		t.Fatal(err)
	}
}

func TestExecInAUserNamespace(t *testing.T) {
	kerneltest.Root(t)
	root := newRoot(t)
	for dir := root; dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) {
		os.Chmod(dir, 0o755)
	}
	b := newBundle(t, root, "sleep", "1000")
	b.Spec.Linux.Namespaces = append(b.Spec.Linux.Namespaces, specs.LinuxNamespace{Type: "user"})
	b.Spec.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	b.Spec.Linux.GIDMappings = b.Spec.Linux.UIDMappings
	p := runner{}.start(t, b)
	res, err := execIn(t, p, b, execSpec(b, "sh", "-c", "id -u; cat /proc/self/uid_map"))
	if f := strings.Fields(res.out); err != nil || len(f) != 4 || f[0] != "0" || f[2] != "100000" {
		t.Errorf("%+v, %v", res, err)
	}
}

func TestWhatIsNotDoneIsRefused(t *testing.T) {
	b := newBundle(t, "/nowhere", "true")
	b.Spec.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1}}
	if _, err := Create(context.Background(), b, Stdio{}, nil); !errors.Is(err, fault.Unsupported) {
		t.Errorf("time offsets: %v", err)
	}
	b.Spec.Linux.TimeOffsets = nil
	b.Spec.Linux.Namespaces[0] = specs.LinuxNamespace{Type: "mount", Path: "/proc/1/ns/mnt"}
	if _, err := Create(context.Background(), b, Stdio{}, nil); !errors.Is(err, fault.Unsupported) {
		t.Errorf("a mount namespace to be joined: %v", err)
	}
	b.Spec.Linux.Namespaces[0] = specs.LinuxNamespace{Type: "network", Path: "/proc/self/ns/uts"}
	if _, err := Create(context.Background(), b, Stdio{}, nil); !errors.Is(err, fault.Invalid) {
		t.Errorf("a namespace of another kind: %v", err)
	}
}

func TestHooks(t *testing.T) {
	kerneltest.Root(t)
	log := filepath.Join(t.TempDir(), "log")
	hook := func(name string) []specs.Hook {
		return []specs.Hook{{Path: "/bin/busybox", Args: []string{"sh", "-c", "echo " + name + " $(grep -o '\"status\":\"[a-z]*\"') >> " + log}, Env: []string{"PATH=/bin:/usr/bin"}}}
	}
	b := newBundle(t, newRoot(t), "true")
	b.Spec.Hooks = &specs.Hooks{CreateRuntime: hook("createRuntime"), CreateContainer: hook("createContainer"), Poststart: hook("poststart")}
	runner{}.run(t, b)
	data, _ := os.ReadFile(log)
	const want = "createRuntime \"status\":\"creating\"\ncreateContainer \"status\":\"creating\"\npoststart \"status\":\"running\"\n"
	if string(data) != want {
		t.Errorf("hooks wrote %s", data)
	}
	b = newBundle(t, newRoot(t), "true")
	b.Spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/busybox", Args: []string{"false"}}}}
	if _, err := (runner{}).try(t, b); err == nil || !strings.Contains(err.Error(), "hook /bin/busybox") {
		t.Errorf("a failing hook: %v", err)
	}
}

// A root whose mounts are to be shared lies on mounts that are shared too until it is the only one.
func TestSharedRoot(t *testing.T) {
	eachBuilder(t, func(t *testing.T, r runner) {
		b := newBundle(t, newRoot(t), sh("grep ' / / ' /proc/self/mountinfo || grep ' / ' /proc/self/mountinfo | head -1")...)
		b.Spec.Linux.RootfsPropagation = "shared"
		if res := r.run(t, b); res.exit.Code != 0 || !strings.Contains(res.out, "shared:") {
			t.Errorf("%+v", res)
		}
	})
}
