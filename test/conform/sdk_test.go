package conform

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/test/testengine"
)

// judge runs a program that checks the engine by itself, and says "done" at its end.
func judge(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// A stream that never ends is a failure to be told, not to be waited for.
	stuck := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	defer stuck.Stop()
	err := cmd.Wait()
	if err != nil || !strings.HasSuffix(strings.TrimSpace(out.String()), "done") {
		t.Errorf("%v: %v\n%s", cmd.Args, err, out.String())
	}
}

// withImages starts an engine that has busybox, and a registry that has it too.
func withImages(t *testing.T) (e *testengine.Engine, pullable string) {
	t.Helper()
	e = testengine.Start(t)
	e.Busybox(t)
	address := registry(t)
	push(t, address, "team/busybox", "1", testengine.BusyboxTar(t))
	return e, address + "/team/busybox:1"
}

func TestPythonLibrary(t *testing.T) {
	const python = "/usr/bin/python3" // Debian's, which sees Debian's packages
	if err := exec.Command(python, "-c", "import docker").Run(); err != nil {
		t.Skip("needs the library for Python: it comes with the package python3-docker")
	}
	e, image := withImages(t)
	judge(t, e.Command(python, "testdata/sdk.py", image))
}

func TestDockerode(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("no node: it comes with the package nodejs")
	}
	modules := filepath.Join(testengine.Cache(), "node_modules")
	if !exists(filepath.Join(modules, "dockerode")) {
		t.Skip("no dockerode below ", modules, ": npm install --prefix ", testengine.Cache(), " dockerode")
	}
	e, image := withImages(t)
	cmd := e.Command(node, "testdata/sdk.js", e.Socket, image)
	cmd.Env = append(cmd.Env, "NODE_PATH="+modules)
	judge(t, cmd)
}

// TestTestcontainers runs what Java's and Go's test suites run most.
func TestTestcontainers(t *testing.T) {
	program := filepath.Join(testengine.Cache(), "testcontainers")
	if !exists(program) {
		t.Skip("no program at ", program, ": `make fixtures` builds it of testdata/testcontainers")
	}
	e := testengine.Start(t)
	e.Busybox(t)
	cmd := e.Command(program)
	cmd.Env = append(cmd.Env, "TESTCONTAINERS_RYUK_DISABLED=true") // its helper is an image to pull
	judge(t, cmd)
}

// TestOldVersions speaks every version of the API that brought or took something, by each docker client there is.
func TestOldVersions(t *testing.T) {
	for name, path := range clients(t) {
		t.Run(name, func(t *testing.T) {
			e := testengine.Start(t)
			e.Busybox(t)
			address := registry(t)
			for _, v := range []string{"1.24", "1.25", "1.30", "1.35", "1.40", "1.41", "1.43", "1.44", "1.47", "1.49"} {
				t.Setenv("DOCKER_API_VERSION", v)
				d := docker{t, path, e}
				d.want([]string{"ersion: ", v}, "version")
				d.want([]string{"Storage Driver: overlay2"}, "info")
				// Not run -d: below 1.30 the client then follows events, and sometimes says that it broke that off itself.
				d.run("create", "--name", "old", "-p", "127.0.0.1::80", "-v", "/tmp:/t", "-m", "64m", "busybox", "sleep", "100")
				d.want([]string{"old"}, "start", "old")
				d.want([]string{"old", "->80/tcp"}, "ps")
				d.want([]string{"172.17."}, "inspect", "-f", "{{.NetworkSettings.Networks.bridge.IPAddress}}", "old")
				d.want([]string{"hi"}, "exec", "old", "echo", "hi")
				d.want([]string{"sleep 100"}, "top", "old")
				d.want([]string{"old"}, "stop", "-t", "0", "old")
				d.want([]string{"137"}, "wait", "old")
				d.want([]string{"old"}, "rm", "old")
				d.want([]string{"[sh] map[]"}, "inspect", "-f", "{{.Config.Cmd}} {{.Config.Labels}}", "busybox")
				d.want([]string{"busybox"}, "images")
				d.images(address+"/old/box:"+v, filepath.Join(t.TempDir(), "box.tar"))
				d.run("events", "--since", "1m", "--until", "0s") // the client cuts to whole seconds
			}
		})
	}
}

// images sends an image round: to a registry and to an archive.
func (d docker) images(name, archive string) {
	d.Helper()
	d.run("tag", "busybox", name)
	d.want([]string{"digest: sha256:"}, "push", name)
	d.run("save", "-o", archive, name)
	d.want([]string{"Untagged: " + name}, "rmi", name)
	d.want([]string{"Loaded image: " + name}, "load", "-i", archive)
	d.want([]string{"Image is up to date for " + name}, "pull", name)
	d.want([]string{"Imported from"}, "history", name)
	d.run("rmi", name)
}
