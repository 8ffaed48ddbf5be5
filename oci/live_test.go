package oci

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/fault"
	"berth/internal/kerneltest"
)

func TestMountsComeAndGoWhileItRuns(t *testing.T) {
	kerneltest.Root(t)
	root := newRoot(t)
	if err := os.Symlink("/proc/sys", root+"/link"); err != nil {
		t.Fatal(err)
	}
	b := newBundle(t, root, "sleep", "1000")
	p := sleeper(t, b)
	says := func(script string) string {
		t.Helper()
		r, err := execIn(t, p, b, execSpec(b, "sh", "-c", script))
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(r.out + r.err)
	}
	dir := t.TempDir()
	write(t, dir, "file", "from outside", 0o644)
	bind := func(source, dest string, options ...string) specs.Mount {
		return specs.Mount{Destination: dest, Type: "bind", Source: source, Options: append([]string{"rbind", "rprivate"}, options...)}
	}
	for _, m := range []specs.Mount{
		bind(dir, "/a/b", "ro"), bind(dir+"/file", "/etc/new", "rw"), bind(dir, "/tmp", "rro", "nosuid"),
		{Destination: "/t", Type: "tmpfs", Source: "tmpfs", Options: []string{"nodev", "size=64k"}},
	} {
		if err := MountIn(p.Pid(), m); err != nil {
			t.Errorf("%s: %v", m.Destination, err)
		}
		if there, err := MountedIn(p.Pid(), m.Destination); !there || err != nil {
			t.Errorf("%s: %v, %v", m.Destination, there, err)
		}
	}
	if got := says("cat /a/b/file /etc/new /tmp/file; touch /a/b/x /tmp/x; touch /t/x; stat -c %a /t"); strings.Count(got, "from outside") != 3 || strings.Count(got, "Read-only file system") != 2 || !strings.Contains(got, "1777") {
		t.Errorf("%q", got)
	}
	if got := says("grep -E ' /(t|tmp) ' /proc/mounts"); !strings.Contains(got, "nodev") || !strings.Contains(got, "size=64k") || !strings.Contains(got, "ro,nosuid") {
		t.Errorf("%q", got)
	}
	for _, dest := range []string{"/a/b", "/etc/new", "/tmp", "/t"} {
		if err := UnmountIn(p.Pid(), dest); err != nil {
			t.Errorf("%s: %v", dest, err)
		}
		if err := UnmountIn(p.Pid(), dest); !errors.Is(err, fault.NotFound) {
			t.Errorf("%s once more: %v", dest, err)
		}
	}
	if got := says("ls /a/b /t; grep -c -E ' /(a/b|etc/new|tmp|t) ' /proc/mounts"); !strings.HasSuffix(got, "0") {
		t.Errorf("%q", got)
	}
	for want, m := range map[string]specs.Mount{
		"bind source /nosuch":           bind("/nosuch", "/x"),
		"not a directory":               bind(dir, "/etc/passwd"),
		"a file system of type overlay": {Destination: "/x", Type: "overlay"},
		"id-mapped":                     bind(dir, "/x", "idmap"),
		"not of type proc":              bind(dir, "/proc"),
		"inside /proc":                  {Destination: "/proc/fs", Type: "tmpfs"},
		"mount /proc/1/../sys":          bind(dir, "/proc/1/../sys"),
		"mount /link":                   bind(dir, "/link"),
	} {
		if err := MountIn(p.Pid(), m); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// TestLiveMountsStayInside: whatever links lie in the container, nothing is made or mounted outside of it.
func TestLiveMountsStayInside(t *testing.T) {
	kerneltest.Root(t)
	outside := t.TempDir()
	root := newRoot(t)
	for name, to := range map[string]string{"up": strings.Repeat("../", 30) + outside, "abs": outside, "magic": "/proc/1/root", "self": "/proc/self/fd", "loop": "loop"} {
		if err := os.Symlink(to, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	b := newBundle(t, root, "sleep", "1000")
	b.Spec.Linux.Namespaces = []specs.LinuxNamespace{{Type: "mount"}, {Type: "network"}, {Type: "ipc"}, {Type: "uts"}} // it sees all processes, and their roots
	p := sleeper(t, b)
	lent := t.TempDir()
	write(t, lent, "lent", "", 0o644)
	for _, dest := range []string{"/up/made", "/abs/made", "/magic/made" + outside, "/self/made", "/loop/made", "/../../made", "/proc/1/root" + outside + "/made"} {
		err := MountIn(p.Pid(), specs.Mount{Destination: dest, Type: "bind", Source: lent, Options: []string{"rbind"}})
		there, thereErr := MountedIn(p.Pid(), dest)
		t.Logf("%s: %v; %v, %v", dest, err, there, thereErr)
		if err == nil && !there {
			t.Errorf("%s is mounted somewhere else", dest)
		}
		if err := UnmountIn(p.Pid(), dest); there && err != nil {
			t.Errorf("%s: %v", dest, err)
		}
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
		t.Errorf("outside: %v, %v", left, err)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || strings.Contains(string(mounts), "/made") {
		t.Errorf("our own mounts: %s, %v", mounts, err)
	}
	if _, err := os.Stat(filepath.Join(root, outside, "made")); err != nil {
		t.Errorf("the links lead to a place inside: %v", err)
	}
}
