// Package conform lets other people's programs judge: the real docker client,
// old and new, on our socket.
package conform

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/internal/kerneltest"
	"berth/test/testengine"

	"github.com/creack/pty"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

// clients returns the docker clients that can be had, by a name for the test.
func clients(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	if path, err := exec.LookPath("docker"); err == nil {
		found["installed"] = path
	}
	if path := filepath.Join(testengine.Cache(), "docker.io/usr/bin/docker"); exists(path) {
		found["debian"] = path
	}
	if len(found) == 0 {
		t.Skip("no docker client: none is installed, and `make fixtures` could not unpack Debian's docker.io")
	}
	return found
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// docker is one client on one engine.
type docker struct {
	*testing.T
	path   string
	engine *testengine.Engine
}

// run runs the client and wants success, and nothing on standard error.
func (d docker) run(args ...string) string {
	d.Helper()
	cmd := d.engine.Command(d.path, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		d.Fatalf("docker %s: %v\n%s%s", strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	if stderr.Len() > 0 {
		d.Errorf("docker %s says on standard error: %s", strings.Join(args, " "), stderr.String())
	}
	return stdout.String()
}

// want is run, and the output must contain each word.
func (d docker) want(words []string, args ...string) string {
	d.Helper()
	out := d.run(args...)
	for _, w := range words {
		if !strings.Contains(out, w) {
			d.Errorf("docker %s: no %q in\n%s", strings.Join(args, " "), w, out)
		}
	}
	return out
}

func TestDockerClient(t *testing.T) {
	for name, path := range clients(t) {
		t.Run(name, func(t *testing.T) {
			e := testengine.Start(t)
			d := docker{t, path, e}
			d.want([]string{"Server", "1.56", "Engine"}, "version")
			d.want([]string{"Storage Driver: overlay2", "Containers: 0", "Cgroup Driver: cgroupfs"}, "info")
			address := registry(t)
			push(t, address, "team/busybox", "1", testengine.BusyboxTar(t))
			d.want([]string{"Downloaded newer image", "Digest: sha256:"}, "pull", address+"/team/busybox:1")
			d.want([]string{"Image is up to date"}, "pull", address+"/team/busybox:1")
			d.run("tag", address+"/team/busybox:1", "busybox:latest")
			d.want([]string{"busybox", "latest"}, "images")
			d.foreground()
			d.background()
			d.terminal()
			d.want([]string{"Untagged: busybox:latest"}, "rmi", "busybox:latest")
		})
	}
}

func (d docker) foreground() {
	d.Helper()
	d.want([]string{"hello\n"}, "run", "--rm", "busybox", "echo", "hello")
	dir := d.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("bound\n"), 0o644); err != nil {
		d.Fatal(err)
	}
	d.want([]string{"bound\n"}, "run", "--rm", "-v", dir+":/mnt", "busybox", "cat", "/mnt/f")
	cmd := d.engine.Command(d.path, "run", "--rm", "-i", "busybox", "sh", "-c", "cat; exit 3")
	cmd.Stdin = strings.NewReader("piped")
	out, _ := cmd.Output()
	if string(out) != "piped" || cmd.ProcessState.ExitCode() != 3 {
		d.Errorf("run -i: %q, exit code %d", out, cmd.ProcessState.ExitCode())
	}
	missing := d.engine.Command(d.path, "run", "--rm", "busybox", "nosuch")
	if out, _ := missing.CombinedOutput(); missing.ProcessState.ExitCode() != 127 {
		d.Errorf("a missing command: exit code %d\n%s", missing.ProcessState.ExitCode(), out)
	}
}

func (d docker) background() {
	d.Helper()
	id := strings.TrimSpace(d.run("run", "-d", "--name", "web", "-p", "127.0.0.1:8099:80", "busybox", "sh", "-c",
		"echo served >/var/www/index.html; echo started; exec httpd -f -h /var/www"))
	testengine.Eventually(d, 20*time.Second, func() error {
		response, err := http.Get("http://127.0.0.1:8099/")
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("status %s", response.Status)
		}
		return nil
	})
	d.want([]string{"web", "127.0.0.1:8099->80/tcp", "Up "}, "ps")
	d.want([]string{id, "172.17."}, "inspect", "web")
	d.want([]string{"172.17."}, "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", "web")
	d.want([]string{"started"}, "logs", "web")
	follow := d.engine.Command(d.path, "logs", "-f", "web")
	var followed bytes.Buffer
	follow.Stdout = &followed
	if err := follow.Start(); err != nil {
		d.Fatal(err)
	}
	d.want([]string{"httpd"}, "exec", "web", "ps")
	d.want([]string{"httpd"}, "top", "web")
	d.want([]string{"web"}, "stop", "-t", "1", "web")
	if err := follow.Wait(); err != nil || !strings.Contains(followed.String(), "started") {
		d.Errorf("logs -f: %v, %q", err, followed.String())
	}
	d.want([]string{"web"}, "start", "web")
	d.want([]string{"web"}, "restart", "-t", "0", "web")
	d.want([]string{"web"}, "kill", "web")
	d.want([]string{"137"}, "wait", "web")
	d.want([]string{"web"}, "rm", "web")
}

func (d docker) terminal() {
	d.Helper()
	d.run("run", "-d", "--name", "tty", "busybox", "sleep", "300")
	for _, args := range [][]string{{"run", "-it", "--rm", "busybox", "sh"}, {"exec", "-it", "tty", "sh"}} {
		cmd := d.engine.Command(d.path, args...)
		f, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 33, Cols: 99})
		if err != nil {
			d.Fatal(err)
		}
		f.WriteString("while [ \"$(stty size)\" != '33 99' ]; do :; done; echo it is $(stty size); exit 4\n")
		var out bytes.Buffer
		out.ReadFrom(f) // ends with an error when the terminal closes, as terminals do
		cmd.Wait()
		f.Close()
		if !strings.Contains(out.String(), "it is 33 99") || cmd.ProcessState.ExitCode() != 4 {
			d.Errorf("%v: exit code %d\n%s", args, cmd.ProcessState.ExitCode(), out.String())
		}
	}
	d.run("rm", "-f", "tty")
}
