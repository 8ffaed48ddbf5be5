// Package testengine runs the built programs for tests: a berthd with roots,
// socket and cgroup parent of its own, inside the world that kerneltest made.
//
// It is not a fake: what it starts is what users start. Invariant: Stop, which every
// test's clean-up calls, leaves no process, mount, link or cgroup of the engine behind.
package testengine

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"berth/internal/kerneltest"
)

// Cache is where the Makefile keeps what tests can't make without a network.
func Cache() string {
	if dir := os.Getenv("BERTH_TEST_CACHE"); dir != "" {
		return dir
	}
	return "/var/cache/berth-test"
}

// DebianTar is the root file system that `make fixtures` made; the test skips without it.
func DebianTar(t testing.TB) string {
	t.Helper()
	path := filepath.Join(Cache(), "debian.tar")
	if _, err := os.Stat(path); err != nil {
		t.Skip("no Debian root file system at ", path, ": `make fixtures` makes it with mmdebstrap")
	}
	return path
}

// OldDocker is the docker client of Debian's docker.io package; the test skips without it.
func OldDocker(t testing.TB) string {
	t.Helper()
	path := filepath.Join(Cache(), "docker.io/usr/bin/docker")
	if _, err := os.Stat(path); err != nil {
		t.Skip("no docker client at ", path, ": `make fixtures` unpacks Debian's docker.io there")
	}
	return path
}

var programs = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv("BERTH_TEST_BIN"); dir != "" {
		return dir, nil
	}
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	// The build cache makes this quick, and what is tested is what the sources say.
	top := strings.TrimSpace(string(root))
	dir := filepath.Join(top, "bin")
	for _, name := range []string{"berth", "berthd", "berth-oci", "berth-dns"} {
		build := exec.Command("go", "build", "-tags", "grpcnotrace", "-trimpath", "-ldflags", "-s -w -X main.version=test", "-o", filepath.Join(dir, name), "./cmd/"+name)
		build.Dir = top
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
	}
	return dir, nil
})

// Programs is the directory with the programs under test, built when the sources are newer.
func Programs(t testing.TB) string {
	t.Helper()
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// Engine is one daemon under test and where it keeps things.
type Engine struct {
	Bin    string   // the programs
	Data   string   // --data-root
	Exec   string   // --exec-root
	Host   string   // DOCKER_HOST
	Socket string   // the path in Host
	Args   []string // further arguments of berthd
	cmd    *exec.Cmd

	running atomic.Int64 // the daemon's process, for Break
}

var count struct {
	sync.Mutex
	n int
}

// New prepares an engine's directories without starting it.
func New(t testing.TB, args ...string) *Engine {
	t.Helper()
	kerneltest.Root(t)
	count.Lock()
	count.n++
	run := fmt.Sprintf("/run/e%d", count.n)
	count.Unlock()
	e := &Engine{Bin: Programs(t), Data: filepath.Join(t.TempDir(), "data"), Exec: run, Socket: run + "/berth.sock", Args: args}
	e.Host = "unix://" + e.Socket
	if err := os.MkdirAll(run, 0o711); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Stop(t) })
	return e
}

// Start returns a running engine that is stopped at the test's end.
func Start(t testing.TB, args ...string) *Engine {
	t.Helper()
	e := New(t, args...)
	e.Up(t)
	return e
}

// Fataler ends a test or a script.
type Fataler interface {
	Fatalf(format string, args ...any)
}

// Up starts the daemon and returns when it answers.
func (e *Engine) Up(t Fataler) {
	if err := e.up(); err != nil {
		t.Fatalf("%v", err)
	}
}

func (e *Engine) up() error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	log, err := os.OpenFile(e.LogPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	args := append([]string{"-H", e.Host, "--data-root", e.Data, "--exec-root", e.Exec, "--pidfile", e.Exec + "/berthd.pid",
		"--cgroup-parent", kerneltest.CgroupParent() + "/" + filepath.Base(e.Exec), "-D"}, e.Args...)
	cmd := exec.Command(e.Bin+"/berthd", args...)
	cmd.Env = append(os.Environ(), "BERTH_READY_FD=3")
	cmd.ExtraFiles = []*os.File{w}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return errors.Join(err, w.Close())
	}
	e.cmd = cmd
	e.running.Store(int64(cmd.Process.Pid))
	w.Close()
	word, _ := bufio.NewReader(r).ReadString('\n')
	if strings.TrimSpace(word) != "ready" {
		e.running.Store(0)
		cmd.Wait()
		e.cmd = nil
		return fmt.Errorf("berthd did not start: %q\n%s", word, e.Log())
	}
	return nil
}

// LogPath is the daemon's own log.
func (e *Engine) LogPath() string { return e.Exec + "/berthd.log" }

// Log is what the daemon wrote to its log so far.
func (e *Engine) Log() string {
	data, _ := os.ReadFile(e.LogPath())
	return string(data)
}

// quietLog leaves the debug lines out.
func (e *Engine) quietLog() string {
	if os.Getenv("BERTH_TEST_LOG") != "" {
		return e.Log()
	}
	var kept []string
	for _, line := range strings.Split(e.Log(), "\n") {
		if !strings.Contains(line, "level=DEBUG") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "\n")
}

// Pid is the daemon's process.
func (e *Engine) Pid() int { return e.cmd.Process.Pid }

// Kill ends the daemon as a power cut would: SIGKILL.
func (e *Engine) Kill() {
	e.end(syscall.SIGKILL)
}

// Down asks the daemon to end and waits for it; containers go on.
func (e *Engine) Down() {
	e.end(syscall.SIGTERM)
}

// Break ends a daemon that somebody waits for in vain: its log says why, and has what each goroutine was at. It may be called at any time.
func (e *Engine) Break(why string) {
	if log, err := os.OpenFile(e.LogPath(), os.O_APPEND|os.O_WRONLY, 0); err == nil {
		fmt.Fprintln(log, "the test ends the daemon:", why)
		log.Close()
	}
	if pid := e.running.Load(); pid > 0 {
		syscall.Kill(int(pid), syscall.SIGQUIT)
	}
}

func (e *Engine) end(sig os.Signal) {
	if e.cmd != nil {
		e.running.Store(0)
		e.cmd.Process.Signal(sig)
		e.cmd.Wait()
		e.cmd = nil
	}
}

// Stop removes all containers, ends the daemon and lets it clean the host up.
func (e *Engine) Stop(t testing.TB) {
	if e.cmd == nil {
		if err := e.up(); err != nil {
			t.Errorf("start for the clean-up: %v", err)
			return
		}
	}
	if t.Failed() {
		t.Logf("berthd's log, requests left out (all of it: BERTH_TEST_LOG=1):\n%s", e.quietLog())
	}
	if out, err := e.Command("berth", "ps", "-aq").Output(); err == nil && len(bytes.TrimSpace(out)) > 0 {
		ids := strings.Fields(string(out))
		if out, err := e.Command("berth", append([]string{"rm", "-f", "-v"}, ids...)...).CombinedOutput(); err != nil {
			t.Errorf("remove what is left: %v\n%s", err, out)
		}
	}
	e.end(syscall.SIGTERM)
	clean := exec.Command(e.Bin+"/berthd", append([]string{"--cleanup", "--data-root", e.Data, "--exec-root", e.Exec,
		"--cgroup-parent", kerneltest.CgroupParent() + "/" + filepath.Base(e.Exec)}, e.Args...)...)
	if out, err := clean.CombinedOutput(); err != nil {
		t.Errorf("berthd --cleanup: %v\n%s", err, out)
	}
}

// Environ is the environment in which the programs under test find each other and this engine.
func (e *Engine) Environ() []string {
	return append(os.Environ(), "DOCKER_HOST="+e.Host, "BERTH_AUTOSTART=0", "PATH="+e.Bin+":"+os.Getenv("PATH"), "DOCKER_CONFIG="+e.Exec+"/client")
}

// Command prepares a program (berth, docker, …) that talks to this engine.
func (e *Engine) Command(name string, args ...string) *exec.Cmd {
	if !strings.Contains(name, "/") {
		if _, err := os.Stat(filepath.Join(e.Bin, name)); err == nil {
			name = filepath.Join(e.Bin, name)
		}
	}
	cmd := exec.Command(name, args...)
	cmd.Env = e.Environ()
	return cmd
}

// Run runs berth with args and returns its standard output; a failure fails the test.
func (e *Engine) Run(t testing.TB, args ...string) string {
	t.Helper()
	out, err := e.Try(args...)
	if err != nil {
		t.Fatalf("berth %s: %v", strings.Join(args, " "), err)
	}
	return out
}

// Try runs berth with args and returns its standard output; an error carries what stands on standard error.
func (e *Engine) Try(args ...string) (string, error) {
	cmd := e.Command("berth", args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%w\n%s", err, stderr.String())
	}
	return stdout.String(), nil
}

// Busybox imports a busybox image, as busybox:latest.
func (e *Engine) Busybox(t testing.TB) {
	t.Helper()
	tar := BusyboxTar(t)
	e.Run(t, "import", "-c", `CMD ["sh"]`, tar, "busybox:latest")
}

// BusyboxTar makes a root file system of Debian's busybox-static with all its names.
func BusyboxTar(t testing.TB) string {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("busybox is missing: it comes with the package busybox-static")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "busybox.tar")
	script := `set -e; cd "$1"; mkdir -p root/bin root/etc root/tmp root/root root/var/www; chmod 1777 root/tmp
cp "$2" root/bin/busybox; for n in $("$2" --list); do [ "$n" = busybox ] || ln -s busybox "root/bin/$n"; done
echo 'root:x:0:0:root:/root:/bin/sh
user:x:1000:1000:user:/tmp:/bin/sh' >root/etc/passwd
echo 'root:x:0:
wheel:x:10:root
user:x:1000:' >root/etc/group
tar -C root --numeric-owner --owner 0 --group 0 -cf busybox.tar .; rm -rf root`
	if out, err := exec.Command("sh", "-c", script, "sh", dir, busybox).CombinedOutput(); err != nil {
		t.Fatalf("make a busybox root: %v\n%s", err, out)
	}
	return path
}

// Eventually waits until check is nil, at most for limit, and fails with its last error.
func Eventually(t testing.TB, limit time.Duration, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("after %v: %v", limit, err)
		case <-tick.C:
		}
	}
}
