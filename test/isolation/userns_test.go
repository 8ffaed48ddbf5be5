package isolation

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"berth/test/testengine"
)

// inUserns starts a container with ids of its own and all that it may have in there, and gives its first process and its root's uid on the host.
func inUserns(t *testing.T, e *testengine.Engine, args ...string) (id, pid string, uid int) {
	t.Helper()
	id = strings.TrimSpace(e.Run(t, append(append([]string{"run", "-d", "--userns", "auto", "--cap-add", "ALL", "--security-opt", "seccomp=unconfined"}, args...), "busybox", "sleep", "1000")...))
	pid = strings.TrimSpace(e.Run(t, "inspect", "-f", "{{.State.Pid}}", id))
	var st syscall.Stat_t
	if err := syscall.Stat("/proc/"+pid, &st); err != nil {
		t.Fatal(err)
	}
	return id, pid, int(st.Uid)
}

// TestRootInsideIsNobodyOutside: two containers' roots are two users of the host that nobody else is, and neither has a right there.
func TestRootInsideIsNobodyOutside(t *testing.T) {
	e := testengine.Start(t)
	e.Busybox(t)
	one, onePid, oneUID := inUserns(t, e)
	_, _, twoUID := inUserns(t, e)
	if oneUID < 100000 || twoUID < oneUID+65536 && oneUID < twoUID+65536 {
		t.Errorf("the roots are %d and %d on the host", oneUID, twoUID)
	}
	if out := e.Run(t, "exec", one, "sh", "-c", "id -u; grep -c 'CapEff:.*ffff' /proc/self/status"); out != "0\n1\n" {
		t.Errorf("inside: %q", out)
	}
	// Each kind of namespace that rights are asked of is the container's own, or owned by what is.
	for _, kind := range []string{"user", "pid", "net", "mnt", "ipc", "uts", "cgroup"} {
		inside, err := os.Readlink("/proc/" + onePid + "/ns/" + kind)
		if err != nil {
			t.Fatal(err)
		}
		if outside, err := os.Readlink("/proc/self/ns/" + kind); err != nil || inside == outside {
			t.Errorf("%s: both are %s (%v)", kind, inside, err)
		}
	}
	// What stands on disk for others to execute must not be within their reach: root's setuid files in a volume are root's there.
	e.Run(t, "run", "--name", "volume", "--userns", "auto", "-v", "data:/data", "busybox", "sh", "-c", "cp /bin/busybox /data/sh && chmod 4755 /data/sh")
	volume := strings.TrimSpace(e.Run(t, "inspect", "-f", "{{(index .Mounts 0).Source}}", "volume"))
	cmd := exec.Command(volume+"/sh", "true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(oneUID), Gid: uint32(oneUID)}}
	if err := cmd.Run(); err == nil {
		t.Error("a user of the host could execute a setuid file in a volume")
	}
	if _, err := os.Stat(volume + "/sh"); err != nil {
		t.Error(err)
	}
}

// TestUsernsCannotTouchTheHost tries, with every capability and no filter, what root of the host could do.
func TestUsernsCannotTouchTheHost(t *testing.T) {
	e := testengine.Start(t)
	e.Busybox(t)
	host := filepath.Join(t.TempDir(), "host")
	if err := os.Mkdir(host, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(host+"/secret", []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(host+"/open", 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(host+"/open", 0o777); err != nil {
		t.Fatal(err)
	}
	id, _, uid := inUserns(t, e, "-v", host+":/host", "--security-opt", "systempaths=unconfined")
	for _, try := range []string{
		"cat /host/secret", "echo x > /host/secret", "chown 0:0 /host/secret", "chmod 777 /host/secret", "rm /host/secret", "mv /host/secret /host/open/",
		"ln /host/secret /host/open/link", "touch /host/new",
		"mknod /dev/sda b 8 0", "mknod /host/open/null c 1 3", "mount -t devtmpfs none /tmp", "mount -t debugfs none /tmp", "mount -t ext4 /dev/null /tmp", "mkdir /host-sys && mount -t sysfs -o rw host /host-sys && echo 1 > /host-sys/kernel/mm/ksm/run",
		"echo core > /proc/sys/kernel/core_pattern", "echo 1 > /proc/sys/vm/drop_caches", "echo h > /proc/sysrq-trigger", "echo -1000 > /proc/1/oom_score_adj",
		"dmesg -c", "insmod /bin/busybox", "swapon /bin/busybox", "ulimit -Hn 1000000", "renice -n -5 -p 1", "chown 70000 /tmp", "echo 1 > /proc/sys/kernel/sysrq",
		"mkdir /cg && mount -t cgroup -o memory none /cg && echo /tmp/x > /cg/release_agent",
	} {
		out := e.Run(t, "exec", id, "sh", "-c", "("+try+") 2>&1 && echo done || true")
		if strings.Contains(out, "done") || strings.Contains(out, "not found") {
			t.Errorf("%s was allowed, or not tried: %s", try, out)
		}
		t.Logf("%s: %s", try, strings.TrimSpace(out))
	}
	// What it may do leaves files of its own number, which are nobody's rights on the host.
	e.Run(t, "exec", id, "sh", "-c", "cp /bin/busybox /host/open/sh && chmod 4755 /host/open/sh")
	var st syscall.Stat_t
	if err := syscall.Stat(host+"/open/sh", &st); err != nil || int(st.Uid) != uid || st.Mode&syscall.S_ISUID == 0 {
		t.Errorf("a setuid file on the host belongs to %d, not to %d (%v)", st.Uid, uid, err)
	}
	if data, err := os.ReadFile(host + "/secret"); err != nil || string(data) != "secret" {
		t.Errorf("%q, %v", data, err)
	}
}

// TestUsernsCannotTouchAnother: what one container writes where both can reach it is closed to the other one's root.
func TestUsernsCannotTouchAnother(t *testing.T) {
	e := testengine.Start(t)
	e.Busybox(t)
	shared := filepath.Join(t.TempDir(), "shared")
	if err := os.Mkdir(shared, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(shared, 0o777); err != nil {
		t.Fatal(err)
	}
	one, onePid, _ := inUserns(t, e, "-v", shared+":/s")
	two, _, _ := inUserns(t, e, "-v", shared+":/s")
	e.Run(t, "exec", one, "sh", "-c", "umask 077; echo mine > /s/mine")
	for _, try := range []string{"cat /s/mine", "echo yours > /s/mine", "chown 0 /s/mine", "chmod 777 /s/mine"} {
		if out := e.Run(t, "exec", two, "sh", "-c", "("+try+") 2>/dev/null && echo done || true"); strings.Contains(out, "done") {
			t.Errorf("%s was allowed", try)
		}
	}
	// Nor has a process with all rights in its own user namespace, in the host's PID namespace, any over another's.
	pid, err := strconv.Atoi(onePid)
	if err != nil {
		t.Fatal(err)
	}
	twoPid := strings.TrimSpace(e.Run(t, "inspect", "-f", "{{.State.Pid}}", two))
	script := fmt.Sprintf("id -u; kill -0 %[1]d && echo killed; readlink /proc/%[1]d/root && echo read; cat /proc/%[1]d/environ && echo environ; true", pid)
	out, err := exec.Command("nsenter", "-t", twoPid, "-U", "-S", "0", "-G", "0", "sh", "-c", script).Output()
	if err != nil || string(out) != "0\n" {
		t.Errorf("from another user namespace: %s (%v)", out, err)
	}
}
