package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/internal/kerneltest"
	"berth/kernel"
	"berth/oci"
)

func TestMain(m *testing.M) {
	oci.InitMain()
	if os.Args[0] == "berth-oci" {
		main()
	}
	kerneltest.Main(m)
}

// bundle makes a directory as an OCI runtime takes it.
func bundle(t *testing.T, change func(*specs.Spec), args ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"rootfs/bin", "rootfs/proc", "rootfs/dev", "rootfs/sys", "rootfs/etc"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("needs busybox-static: ", err)
	}
	if err := os.WriteFile(dir+"/rootfs/bin/busybox", data, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "sleep", "cat", "echo", "id", "true", "tty"} {
		if err := os.Symlink("busybox", dir+"/rootfs/bin/"+name); err != nil {
			t.Fatal(err)
		}
	}
	spec := &specs.Spec{
		Version: specs.Version, Root: &specs.Root{Path: "rootfs"}, Hostname: "box",
		Process: &specs.Process{Args: args, Cwd: "/", Env: []string{"PATH=/bin"}},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		},
		Linux: &specs.Linux{
			CgroupsPath: kerneltest.CgroupParent() + "/" + strings.ReplaceAll(t.Name(), "/", "-"),
			Namespaces:  []specs.LinuxNamespace{{Type: "mount"}, {Type: "pid"}, {Type: "network"}, {Type: "ipc"}, {Type: "uts"}},
		},
		Annotations: map[string]string{"org.example.key": "value"},
	}
	if change != nil {
		change(spec)
	}
	text, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/config.json", text, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// call runs the command line and returns its output and exit code.
func call(t *testing.T, root string, args ...string) (string, string, int) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command("/proc/self/exe", append([]string{"--root", root}, args...)...)
	cmd.Args[0] = "berth-oci"
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// ok is call for what must succeed.
func ok(t *testing.T, root string, args ...string) string {
	t.Helper()
	out, errs, code := call(t, root, args...)
	if code != 0 {
		t.Fatalf("%v: exit code %d: %s", args, code, errs)
	}
	return out
}

func stateOfID(t *testing.T, root, id string) state {
	t.Helper()
	var s state
	if err := json.Unmarshal([]byte(ok(t, root, "state", id)), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestLifecycle(t *testing.T) {
	kerneltest.Root(t)
	root := t.TempDir()
	dir := bundle(t, nil, "sleep", "1000")
	pidFile := filepath.Join(t.TempDir(), "pid")
	// As conmon and shims do: the creator's own output must not be held by the container.
	cmd := exec.Command("/proc/self/exe", "--root", root, "create", "--bundle", dir, "--pid-file", pidFile, "box")
	cmd.Args[0] = "berth-oci"
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	s := stateOfID(t, root, "box")
	if pid, _ := os.ReadFile(pidFile); s.Status != "created" || strconv.Itoa(s.Pid) != string(pid) || s.Bundle != dir || s.Annotations["org.example.key"] != "value" {
		t.Errorf("after create: %+v, pid file %s", s, pid)
	}
	if _, errs, code := call(t, root, "create", "--bundle", dir, "box"); code == 0 || !strings.Contains(errs, "exists") {
		t.Errorf("second create: %d %s", code, errs)
	}
	ok(t, root, "start", "box")
	if s = stateOfID(t, root, "box"); s.Status != "running" {
		t.Errorf("after start: %+v", s)
	}
	if _, errs, code := call(t, root, "start", "box"); code == 0 || !strings.Contains(errs, "been started") {
		t.Errorf("second start: %d %s", code, errs)
	}
	if _, errs, code := call(t, root, "delete", "box"); code == 0 || !strings.Contains(errs, "not stopped") {
		t.Errorf("delete of a running container: %d %s", code, errs)
	}
	if out := ok(t, root, "exec", "--env", "A=b", "--cwd", "/etc", "box", "sh", "-c", "echo $A; cd .; echo $PWD; exit 0"); out != "b\n/etc\n" {
		t.Errorf("exec: %s", out)
	}
	if _, _, code := call(t, root, "exec", "box", "sh", "-c", "exit 9"); code != 9 {
		t.Errorf("exec's exit code is %d", code)
	}
	if _, errs, code := call(t, root, "exec", "box", "nope"); code != 127 || !strings.Contains(errs, "executable file not found in $PATH") {
		t.Errorf("exec of nothing: %d %s", code, errs)
	}
	ok(t, root, "pause", "box")
	if s = stateOfID(t, root, "box"); s.Status != "paused" {
		t.Errorf("after pause: %+v", s)
	}
	ok(t, root, "resume", "box")
	if out := ok(t, root, "list"); !strings.Contains(out, "box") || !strings.Contains(out, "running") {
		t.Errorf("list: %s", out)
	}
	if out := ok(t, root, "ps", "--format", "json", "box"); strings.TrimSpace(strings.Trim(strings.TrimSpace(out), "[]")) != strconv.Itoa(s.Pid) {
		t.Errorf("ps: %s, pid %d", out, s.Pid)
	}
	ok(t, root, "kill", "box", "KILL")
	await(t, func() bool { return stateOfID(t, root, "box").Status == "stopped" })
	if _, errs, code := call(t, root, "kill", "box"); code == 0 || !strings.Contains(errs, "container not running") {
		t.Errorf("kill of a stopped container: %d %s", code, errs)
	}
	ok(t, root, "delete", "box")
	if _, errs, code := call(t, root, "state", "box"); code == 0 || !strings.Contains(errs, "does not exist") {
		t.Errorf("state after delete: %d %s", code, errs)
	}
	ok(t, root, "delete", "--force", "box")
	if left, _ := os.ReadDir(root); len(left) != 0 {
		t.Errorf("%v is left", left)
	}
}

// await waits for a condition, ten seconds at most.
func await(t *testing.T, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !holds(); {
		if time.Now().After(deadline) {
			t.Fatal("it did not come")
		}
	}
}

func TestRun(t *testing.T) {
	kerneltest.Root(t)
	root := t.TempDir()
	out, errs, code := call(t, root, "run", "-b", bundle(t, nil, "sh", "-c", "echo hello; exit 5"), "box")
	if out != "hello\n" || code != 5 {
		t.Errorf("run: %d %s%s", code, out, errs)
	}
	log := filepath.Join(t.TempDir(), "log")
	_, _, code = call(t, root, "--log", log, "--log-format", "json", "run", "-b", bundle(t, nil, "nope"), "box")
	var entry struct{ Level, Msg, Time string }
	text, _ := os.ReadFile(log)
	if err := json.Unmarshal(text, &entry); err != nil || code != 127 || entry.Level != "error" || !strings.Contains(entry.Msg, "executable file not found in $PATH") {
		t.Errorf("run of nothing: %d, %s, %v", code, text, err)
	}
	if left, _ := os.ReadDir(root); len(left) != 0 {
		t.Errorf("%v is left", left)
	}
	for _, id := range []string{"", "a/b", "..", "a b"} {
		if _, _, code := call(t, root, "run", "-b", bundle(t, nil, "true"), id); code == 0 {
			t.Errorf("id %q was taken", id)
		}
	}
}

func TestConsoleSocketAndPreservedFiles(t *testing.T) {
	kerneltest.Root(t)
	root, dir := t.TempDir(), t.TempDir()
	where, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer where.Close()
	listener, err := kernel.ListenUnix(where, "console")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	b := bundle(t, func(s *specs.Spec) { s.Process.Terminal = true }, "sh", "-c", "cat <&3; tty")
	kept, err := os.Open(b + "/config.json")
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	cmd := exec.Command("/proc/self/exe", "--root", root, "create", "-b", b, "--console-socket", dir+"/console", "--preserve-fds", "1", "box")
	cmd.Args[0] = "berth-oci"
	cmd.ExtraFiles = []*os.File{kept}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	conn, err := kernel.Accept(listener)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, files, err := kernel.ReceiveFiles(conn, make([]byte, 100))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	defer files[0].Close()
	ok(t, root, "start", "box")
	var out []byte
	buf := make([]byte, 4096)
	for {
		n, err := files[0].Read(buf)
		out = append(out, buf[:n]...)
		if err != nil {
			break
		}
	}
	if text := string(out); !strings.HasPrefix(text, `{"ociVersion"`) || !strings.HasSuffix(text, "/dev/pts/0\r\n") {
		t.Errorf("the terminal showed %s", text)
	}
	ok(t, root, "delete", "-f", "box")
}

func TestStartReportsTheExec(t *testing.T) {
	kerneltest.Root(t)
	root := t.TempDir()
	b := bundle(t, nil, "/bin/broken")
	if err := os.WriteFile(b+"/rootfs/bin/broken", []byte("no program"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", "--root", root, "create", "-b", b, "box")
	cmd.Args[0] = "berth-oci"
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := call(t, root, "start", "box"); code == 0 || !strings.Contains(errs, "exec format error") {
		t.Errorf("start: %d %s", code, errs)
	}
	ok(t, root, "delete", "box")
}

func TestFeaturesAndUsage(t *testing.T) {
	root := t.TempDir()
	var f map[string]any
	if err := json.Unmarshal([]byte(ok(t, root, "features")), &f); err != nil || f["ociVersionMax"] != specs.Version {
		t.Errorf("%v %v", f, err)
	}
	if out := ok(t, root, "--version"); !strings.Contains(out, "spec: ") {
		t.Errorf("version: %s", out)
	}
	if _, errs, code := call(t, root, "frobnicate"); code != 1 || !strings.Contains(errs, "is no command") {
		t.Errorf("%d %s", code, errs)
	}
}
