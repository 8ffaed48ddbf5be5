package conform

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"berth/test/testengine"
)

// kit is the installed docker client with buildx as its plugin, on an engine of its own.
type kit struct {
	*testing.T
	engine *testengine.Engine
	dir    string // the project's
}

// newKit starts an engine with a busybox, and a project of the files given.
func newKit(t *testing.T, files map[string]string) *kit {
	t.Helper()
	docker, err := exec.LookPath("docker")
	if err != nil {
		t.Skip("no docker client is installed")
	}
	plugin := filepath.Join(testengine.Cache(), "cli-plugins/docker-buildx")
	if !exists(plugin) {
		t.Skip("no buildx at ", plugin, ": `make fixtures` builds it there")
	}
	_ = docker
	k := &kit{T: t, engine: testengine.Start(t), dir: t.TempDir()}
	k.engine.Busybox(t)
	plugins := filepath.Join(k.engine.Exec, "client/cli-plugins")
	if err := os.MkdirAll(plugins, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(plugin, filepath.Join(plugins, "docker-buildx")); err != nil {
		t.Fatal(err)
	}
	k.write(files)
	return k
}

func (k *kit) write(files map[string]string) {
	k.Helper()
	for name, text := range files {
		p := filepath.Join(k.dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			k.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			k.Fatal(err)
		}
	}
}

func (k *kit) command(args ...string) *exec.Cmd {
	cmd := k.engine.Command("docker", args...)
	cmd.Dir = k.dir
	cmd.Env = append(cmd.Env, "BUILDKIT_PROGRESS=plain")
	return cmd
}

// run runs docker and gives what it said on both outputs.
func (k *kit) run(args ...string) string {
	k.Helper()
	out, err := k.command(args...).CombinedOutput()
	if err != nil {
		k.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// fails runs docker, which has to fail.
func (k *kit) fails(args ...string) string {
	k.Helper()
	out, err := k.command(args...).CombinedOutput()
	if err == nil {
		k.Fatalf("docker %s succeeded\n%s", strings.Join(args, " "), out)
	}
	return string(out)
}

// wants checks that a text has parts.
func (k *kit) wants(text string, parts ...string) {
	k.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			k.Errorf("no %q in\n%s", p, text)
		}
	}
}

// TestBuildx builds as `docker build` does by default.
func TestBuildx(t *testing.T) {
	k := newKit(t, map[string]string{
		"Dockerfile": "FROM busybox\nARG VERSION=none\nENV V=$VERSION\nCOPY a.txt /a.txt\nRUN echo built $VERSION >/b.txt; cat /a.txt\nLABEL from=file\nCMD [\"cat\", \"/a.txt\", \"/b.txt\"]\n",
		"a.txt":      "first\n", "left.txt": "left out\n", ".dockerignore": "left.txt\n",
	})
	out := k.run("build", "--build-arg", "VERSION=7", "-t", "app", "-t", "app:7", "--label", "who=me", "--iidfile", "iid", ".")
	k.wants(out, "load build definition from Dockerfile", "RUN echo built 7", "first", "naming to")
	k.wants(k.run("run", "--rm", "app:7"), "first\nbuilt 7\n")
	t.Log(out)
	out = k.run("build", "--build-arg", "VERSION=7", "-t", "app", ".")
	k.wants(out, "CACHED")
	t.Log(out)
	t.Log(k.run("buildx", "ls"), k.run("buildx", "inspect"), k.run("buildx", "du"), k.run("buildx", "history", "ls"), k.run("buildx", "prune", "-f"))
	k.write(map[string]string{"Dockerfile": "FROM busybox\nRUN echo before\nRUN echo broken; exit 7\n"})
	t.Log(k.fails("build", "."))
	k.write(map[string]string{"Dockerfile": "FROM busybox\nRUNN echo before\n"})
	t.Log(k.fails("build", "."))
}
