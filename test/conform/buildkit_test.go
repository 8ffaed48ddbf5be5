package conform

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

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
	if _, err := exec.LookPath("docker"); err != nil {
		t.Skip("no docker client is installed")
	}
	plugin := filepath.Join(testengine.Cache(), "cli-plugins/docker-buildx")
	if !exists(plugin) {
		t.Skip("no buildx at ", plugin, ": `make fixtures` builds it there")
	}
	k := &kit{T: t, engine: testengine.Start(t), dir: filepath.Join(t.TempDir(), "project")}
	k.engine.Busybox(t)
	plugins := filepath.Join(k.engine.Exec, "client/cli-plugins")
	if err := os.MkdirAll(plugins, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"docker-buildx", "docker-compose"} {
		if err := os.Symlink(filepath.Join(filepath.Dir(plugin), name), filepath.Join(plugins, name)); err != nil {
			t.Fatal(err)
		}
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

// lacks checks that a text has none of the parts.
func (k *kit) lacks(text string, parts ...string) {
	k.Helper()
	for _, p := range parts {
		if strings.Contains(text, p) {
			k.Errorf("%q in\n%s", p, text)
		}
	}
}

// matches checks that a text has what a regular expression says.
func (k *kit) matches(text, expression string) {
	k.Helper()
	if !regexp.MustCompile(expression).MatchString(text) {
		k.Errorf("no %s in\n%s", expression, text)
	}
}

// read reads a file of the project.
func (k *kit) read(name string) string {
	k.Helper()
	text, err := os.ReadFile(filepath.Join(k.dir, name))
	if err != nil {
		k.Fatal(err)
	}
	return string(text)
}

// TestBuildx builds as `docker build` does by default.
func TestBuildx(t *testing.T) {
	k := newKit(t, map[string]string{
		"Dockerfile": `FROM busybox
ARG VERSION=none
ENV V=$VERSION
COPY . /app/
RUN echo built $VERSION >/b.txt; cat /app/a.txt
LABEL from=file
CMD ["cat", "/app/a.txt", "/b.txt"]
`,
		"a.txt": "first\n", "sub/über.txt": "odd\n", "left.txt": "left out\n", ".dockerignore": "left.txt\n",
	})
	out := k.run("build", "--build-arg", "VERSION=7", "-t", "app", "-t", "app:7", "--label", "who=me", "--iidfile", "../iid", "--metadata-file", "../metadata", ".")
	k.wants(out, "[internal] load build definition from Dockerfile", "transferring context", "[3/3] RUN echo built 7", " first\n", "exporting to image", "naming to docker.io/library/app:7")
	k.wants(k.run("run", "--rm", "app:7"), "first\nbuilt 7\n")
	k.wants(k.run("run", "--rm", "app", "cat", "/app/sub/über.txt"), "odd\n")
	k.lacks(k.run("run", "--rm", "app", "ls", "/app"), "left.txt")
	id := strings.TrimSpace(k.run("images", "-q", "--no-trunc", "app:7"))
	if iid := k.read("../iid"); iid != id {
		t.Errorf("the iidfile has %q, the image is %q", iid, id)
	}
	k.wants(k.read("../metadata"), `"containerimage.digest": "`+id+`"`, `"image.name": "docker.io/library/app:latest,docker.io/library/app:7"`)
	k.wants(k.run("inspect", "-f", "{{.Config.Labels}} {{.Config.Env}}", "app"), "from:file", "who:me", "V=7")

	out = k.run("build", "--build-arg", "VERSION=7", "-t", "app", ".")
	k.lacks(out, " first\n")
	k.write(map[string]string{"left.txt": "still left out\n"})
	k.lacks(k.run("build", "--build-arg", "VERSION=7", "."), " first\n")
	k.write(map[string]string{"a.txt": "other\n"})
	out = k.run("build", "--build-arg", "VERSION=7", ".")
	k.wants(out, " other\n")
	k.matches(out, `\[internal\] load build context\n#[0-9]+ transferring context: 6B `)
	k.write(map[string]string{"a.txt": "first\n"})
	k.wants(k.run("build", "--build-arg", "VERSION=7", "--no-cache", "."), " first\n")
	if got := strings.TrimSpace(k.run("build", "-q", "--build-arg", "VERSION=7", ".")); !strings.HasPrefix(got, "sha256:") {
		t.Errorf("build -q says %q", got)
	}
	k.wants(k.run("buildx", "ls"), "default", "docker", "running", "linux/amd64")
	k.wants(k.run("buildx", "inspect"), "Driver:", "docker", "BuildKit version:")
	k.wants(k.run("buildx", "history", "ls"), "Completed")
	k.wants(k.run("buildx", "du"), "Total:")
	k.wants(k.run("buildx", "prune", "-af"), "Total:")
	k.wants(k.run("build", "--build-arg", "VERSION=7", "."), " first\n")
}

// TestBuildxSays has builds fail, and Dockerfiles checked.
func TestBuildxSays(t *testing.T) {
	k := newKit(t, map[string]string{"Dockerfile": "FROM busybox AS first\nRUN echo before\nRUN echo broken; exit 7\n"})
	out := k.fails("build", ".")
	k.wants(out, "ERROR: process \"/bin/sh -c echo broken; exit 7\" did not complete successfully: exit code: 7", " > [first 3/3] RUN echo broken; exit 7:", "Dockerfile:3", ">>> RUN echo broken; exit 7",
		"failed to solve: process \"/bin/sh -c echo broken; exit 7\" did not complete successfully: exit code: 7")
	k.write(map[string]string{"wrong": "FROM busybox\nRUNN echo before\n", "missing": "FROM busybox\nCOPY nothing /\n", "casing": "FROM busybox as base\nRUN true\n# the end\nFROM base AS end\n"})
	k.wants(k.fails("build", "-f", "wrong", "."), ">>> RUNN echo before", "unknown instruction: RUNN")
	k.wants(k.fails("build", "-f", "missing", "."), ">>> COPY nothing /", "nothing", "not found")
	k.wants(k.fails("build", "-f", "nowhere", "."), "nowhere", "no such file or directory")
	k.wants(k.fails("build", "--target", "nowhere", "."), "nowhere")
	k.wants(k.fails("build", "--check", "-f", "casing", "."), "FromAsCasing", "casing:1")
	k.wants(k.run("build", "--check", "."), "no warnings found")
	k.wants(k.run("build", "--call", "targets", "-f", "casing", "."), "base", "end")
	k.wants(k.run("build", "--call", "outline", "."), "TARGET")
	k.wants(k.run("build", "-f", "casing", "."), "1 warning found", "FromAsCasing")
	k.write(map[string]string{"other": "# syntax=example.com/frontend:1\nFROM busybox\n"})
	k.wants(k.fails("build", "--build-arg", "BUILDKIT_SYNTAX=example.com/frontend:1", "."), "the frontend example.com/frontend:1 is not supported")
}

// TestBuildxBrings has builds ask for secrets, directories and caches, and put out what is no image.
func TestBuildxBrings(t *testing.T) {
	k := newKit(t, map[string]string{
		"Dockerfile": `FROM busybox AS made
RUN --mount=type=secret,id=word,required=true --mount=type=secret,id=other,env=OTHER wc -c </run/secrets/word >/count; echo $OTHER | wc -c >>/count
RUN --mount=type=cache,target=/cache date +%s%N >>/cache/times; wc -l </cache/times >/times
COPY --from=more /from.txt /
COPY a.txt /
FROM scratch
COPY --from=made /count /times /from.txt /a.txt /
`,
		"a.txt": "first\n", "word": "secret word\n", "aside/from.txt": "from aside\n", "aside/left": "left\n", "aside/.dockerignore": "left\n",
	})
	build := func(more ...string) string {
		cmd := k.command(append([]string{"build", "--secret", "id=word,src=word", "--secret", "id=other,env=HIDDEN", "--build-context", "more=aside"}, append(more, ".")...)...)
		cmd.Env = append(cmd.Env, "HIDDEN=hidden word")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	out := build("-o", "out")
	k.lacks(out, "secret word", "hidden word")
	for name, want := range map[string]string{"count": "12\n12\n", "times": "1\n", "from.txt": "from aside\n", "a.txt": "first\n"} {
		if got := k.read("out/" + name); got != want {
			t.Errorf("%s has %q, want %q", name, got, want)
		}
	}
	build("--no-cache", "-o", "type=tar,dest=out.tar")
	list, err := exec.Command("tar", "-xOf", filepath.Join(k.dir, "out.tar"), "times").CombinedOutput()
	if err != nil || string(list) != "2\n" {
		t.Errorf("times of the second build: %q, %v", list, err)
	}
	build("-o", "type=oci,dest=out.oci")
	list, err = exec.Command("tar", "-tf", filepath.Join(k.dir, "out.oci")).CombinedOutput()
	k.wants(string(list), "index.json", "blobs/sha256/")
	if err != nil {
		t.Error(err)
	}
	k.wants(k.fails("build", "--no-cache", "--build-context", "more=aside", "."), "secret word: not found")
}

// TestBuildxBakes builds several things at once: by a bake file, and by docker compose, which bakes.
func TestBuildxBakes(t *testing.T) {
	k := newKit(t, map[string]string{
		"docker-bake.hcl": `group "default" { targets = ["one", "two"] }
target "one" {
  context = "shared"
  tags = ["one"]
  args = { WHO = "first" }
}
target "two" {
  context = "shared"
  tags = ["two"]
  args = { WHO = "second" }
  target = "end"
}
`,
		"shared/Dockerfile": "FROM busybox AS base\nARG WHO\nCOPY a.txt /\nRUN echo $WHO >/who\nFROM base AS end\nRUN echo end >>/who\n",
		"shared/a.txt":      "shared\n",
		"compose.yaml": `name: shop
services:
  web:
    build: {context: shared, target: base, args: {WHO: web}}
    image: shop-web:1
  worker:
    build: {context: shared, args: {WHO: worker}}
`,
	})
	k.run("buildx", "bake")
	k.wants(k.run("run", "--rm", "one", "cat", "/who", "/a.txt"), "first\nend\nshared\n")
	k.wants(k.run("run", "--rm", "two", "cat", "/who", "/a.txt"), "second\nend\nshared\n")
	if !exists(filepath.Join(testengine.Cache(), "cli-plugins/docker-compose")) {
		t.Skip("no docker compose: `make fixtures` builds it")
	}
	k.run("compose", "build")
	k.wants(k.run("run", "--rm", "shop-web:1", "cat", "/who", "/a.txt"), "web\nshared\n")
	k.wants(k.run("run", "--rm", "shop-worker", "cat", "/who", "/a.txt"), "worker\nend\nshared\n")
	cmd := k.command("compose", "build")
	cmd.Env = append(cmd.Env, "COMPOSE_BAKE=false")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("docker compose build without bake: %v\n%s", err, out)
	}
}

// TestOldClientBuilds has a client build that speaks to the engine without buildx, by BuildKit's protocol and by the classic one.
func TestOldClientBuilds(t *testing.T) {
	path := testengine.OldDocker(t)
	k := newKit(t, map[string]string{
		"Dockerfile": "# syntax=docker/dockerfile:1\nFROM busybox AS made\nARG V\nCOPY a.txt /\nRUN --mount=type=secret,id=word,required=true wc -c </run/secrets/word >/count; echo $V >/v\nFROM scratch\nCOPY --from=made /a.txt /count /v /\n",
		"a.txt":      "first\n", "word": "secret word\n",
	})
	old := func(stdin string, env []string, args ...string) (string, error) {
		cmd := k.engine.Command(path, args...)
		cmd.Dir, cmd.Stdin = k.dir, strings.NewReader(stdin)
		cmd.Env = append(append(cmd.Env, "BUILDKIT_PROGRESS=plain"), env...)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	must := func(stdin string, env []string, args ...string) string {
		t.Helper()
		out, err := old(stdin, env, args...)
		if err != nil {
			t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return out
	}
	kit := []string{"DOCKER_BUILDKIT=1"}
	out := must("", kit, "build", "--secret", "id=word,src=word", "--build-arg", "V=3", "-t", "app", "--iidfile", "../iid", ".")
	k.wants(out, "[made 3/3] RUN --mount=type=secret", "exporting to image", "naming to docker.io/library/app")
	k.lacks(out, "secret word")
	if id := strings.TrimSpace(k.run("images", "-q", "--no-trunc", "app")); id != k.read("../iid") {
		t.Errorf("the iidfile has %q, the image is %q", k.read("../iid"), id)
	}
	must("", kit, "build", "--secret", "id=word,src=word", "--build-arg", "V=3", "-o", "out", ".")
	if got := k.read("out/count") + k.read("out/v"); got != "12\n3\n" {
		t.Errorf("the output has %q", got)
	}
	out, err := old("", kit, "build", "--no-cache", ".")
	if err == nil {
		t.Errorf("a build without its secret succeeded:\n%s", out)
	}
	k.wants(out, "secret word: not found")
	k.wants(must("FROM busybox\nRUN echo from stdin\n", kit, "build", "-"), "from stdin")
	tar, err := exec.Command("tar", "-C", filepath.Join(k.dir), "-c", "Dockerfile", "a.txt", "word").Output()
	if err != nil {
		t.Fatal(err)
	}
	must(string(tar), kit, "build", "--secret", "id=word,src=word", "-t", "sent", "-")
	k.wants(must("", nil, "build", "--target", "made", "--secret", "id=word,src=word", "-t", "asis", "."), "naming to docker.io/library/asis")
	k.write(map[string]string{"Dockerfile": "FROM busybox\nCOPY a.txt /\n"})
	k.wants(must("", []string{"DOCKER_BUILDKIT=0"}, "build", "-t", "classic", "."), "Successfully tagged classic:latest")
}

// TestDockerWithoutBuildx has the installed client build that has no plugin.
func TestDockerWithoutBuildx(t *testing.T) {
	k := newKit(t, map[string]string{"Dockerfile": "FROM busybox\nRUN echo built\n"})
	if err := os.RemoveAll(filepath.Join(k.engine.Exec, "client/cli-plugins")); err != nil {
		t.Fatal(err)
	}
	k.wants(k.run("build", "-t", "app", "."), "Successfully tagged app:latest")
	cmd := k.command("build", ".")
	cmd.Env = append(cmd.Env, "DOCKER_BUILDKIT=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	k.wants(string(out), "Successfully built")
}

// TestBuildxForwardsAgents has a program in a build talk to the user's ssh agent.
func TestBuildxForwardsAgents(t *testing.T) {
	agent, err := exec.LookPath("ssh-agent")
	if err != nil {
		t.Skip("no ssh-agent is installed")
	}
	k := newKit(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY list /\nRUN --mount=type=ssh,required=true [\"/list\"]\n"})
	list := exec.Command("go", "build", "-o", filepath.Join(k.dir, "list"), "./testdata/agent")
	list.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := list.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	socket := filepath.Join(k.engine.Exec, "agent.sock")
	running := exec.Command(agent, "-D", "-a", socket)
	if err := running.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		running.Process.Kill()
		running.Wait()
	})
	testengine.Eventually(t, time.Minute, func() error {
		_, err := os.Stat(socket)
		return err
	})
	key := filepath.Join(t.TempDir(), "key")
	for _, args := range [][]string{{"ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "the user's", "-f", key}, {"ssh-add", "-q", key}} {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK="+socket)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	k.wants(k.run("build", "--ssh", "default="+socket, "."), "key the user's")
	k.wants(k.fails("build", "--no-cache", "."), "unset ssh forward key default")
}

// TestBuildxIsLeft has the client go away in the middle of a step: by Ctrl-C and by death.
func TestBuildxIsLeft(t *testing.T) {
	k := newKit(t, map[string]string{"Dockerfile": "FROM busybox\nCOPY a.txt /\nRUN echo begun; exec sleep 86399\n", "a.txt": "first\n"})
	sleeping := func() bool {
		all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, p := range all {
			if text, err := os.ReadFile(p); err == nil && strings.HasPrefix(string(text), "sleep\x0086399") {
				return true
			}
		}
		return false
	}
	for _, signal := range []os.Signal{os.Interrupt, os.Kill} {
		cmd := k.command("build", "-t", "app", ".")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // the plugin is killed with its parent
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		testengine.Eventually(t, time.Minute, func() error {
			if !sleeping() {
				return errors.New("the step has not begun")
			}
			return nil
		})
		if err := syscall.Kill(-cmd.Process.Pid, signal.(syscall.Signal)); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err == nil {
			t.Errorf("%v: the build succeeded", signal)
		}
		testengine.Eventually(t, time.Minute, func() error {
			if sleeping() {
				return errors.New("the step goes on")
			}
			left, err := filepath.Glob(filepath.Join(k.engine.Data, "build", "*", "context-*"))
			if err != nil || len(left) > 0 {
				return fmt.Errorf("files are left: %v %v", left, err)
			}
			return nil
		})
	}
	k.write(map[string]string{"Dockerfile": "FROM busybox\nCOPY a.txt /\nRUN echo done\n"})
	k.matches(k.run("build", "."), `\[2/3\] COPY a\.txt /\n#[0-9]+ CACHED`)
}

// TestBuildxGoesOut has builds begin at an address, push, and share their cache by a registry.
func TestBuildxGoesOut(t *testing.T) {
	k := newKit(t, map[string]string{
		"Dockerfile":     "FROM busybox\nCOPY a.txt /\nRUN ulimit -n >/limit; cat /a.txt; grep there /etc/hosts\n",
		"a.txt":          "first\n",
		"far/Dockerfile": "FROM busybox\nCOPY far.txt /\nRUN cat /far.txt\n", "far/far.txt": "from afar\n",
	})
	address := registry(t)
	out := k.run("build", "--ulimit", "nofile=123:123", "--add-host", "there:10.1.2.3", "-t", address+"/app:1", "--push", "--cache-to", "type=registry,ref="+address+"/app:cache,mode=max",
		"--metadata-file", "../metadata", ".")
	k.wants(out, "pushing", "first", "10.1.2.3")
	k.wants(k.read("../metadata"), `"containerimage.digest": "sha256:`, "application/vnd.oci.image.index.v1+json")
	k.run("rmi", "-f", address+"/app:1")
	k.run("buildx", "prune", "-af")
	k.wants(k.run("run", "--rm", address+"/app:1", "cat", "/limit"), "123\n")
	k.run("rmi", "-f", address+"/app:1")
	out = k.run("build", "--ulimit", "nofile=123:123", "--add-host", "there:10.1.2.3", "--cache-from", "type=registry,ref="+address+"/app:cache", "-t", "again", ".")
	k.wants(out, "[3/3] RUN ulimit -n", "CACHED")
	k.lacks(out, " first\n")
	k.wants(k.run("run", "--rm", "again", "cat", "/limit"), "123\n")

	files := httptest.NewServer(http.FileServer(http.Dir(k.dir)))
	t.Cleanup(files.Close)
	if out, err := exec.Command("tar", "-C", filepath.Join(k.dir, "far"), "-czf", filepath.Join(k.dir, "far.tar.gz"), ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	k.wants(k.run("build", "-t", "far", files.URL+"/far.tar.gz"), "from afar")
	k.wants(k.fails("build", files.URL+"/nowhere.tar.gz"), "404")
}
