package conform

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"berth/registry/registrytest"
	"berth/test/testengine"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// guarded is a registry that wants a password (user ann, password right), and finds things.
func guarded(t *testing.T, scheme string) (address string, server *registrytest.Server) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := registrytest.New()
	s.SetAccess(registrytest.Access{Scheme: scheme, Users: map[string]string{"ann": "right"}, Private: []string{"team/app"}})
	s.SetIndex([]registrytest.Result{
		{Name: "team/app", Description: "an application", Stars: 7}, {Name: "app", Description: "the official one", Stars: 100, Official: true},
	})
	server2 := &http.Server{Handler: s}
	go server2.Serve(l)
	t.Cleanup(func() { server2.Close() })
	return l.Addr().String(), s
}

// failing runs the client and wants failure, and each word in what it says.
func (d docker) failing(words []string, args ...string) {
	d.Helper()
	cmd := d.engine.Command(d.path, args...)
	out, err := cmd.CombinedOutput()
	if err == nil {
		d.Errorf("docker %s succeeds:\n%s", strings.Join(args, " "), out)
	}
	for _, w := range words {
		if !strings.Contains(string(out), w) {
			d.Errorf("docker %s: no %q in\n%s", strings.Join(args, " "), w, out)
		}
	}
}

// TestDockerClientImages: every verb of images, by the clients that people have.
func TestDockerClientImages(t *testing.T) {
	for name, path := range clients(t) {
		t.Run(name, func(t *testing.T) {
			t.Setenv("DOCKER_CONFIG", t.TempDir())
			e := testengine.Start(t)
			d := docker{t, path, e}
			d.run("import", "-c", `CMD ["sh"]`, "-c", "LABEL part=base", "-m", "made by hand", testengine.BusyboxTar(t), "box:1")
			d.registries()
			d.archives()
			d.names()
			if name != "debian" { // it knows no OCI manifests
				d.manifests()
			}
		})
	}
}

// registries: login, push, pull, search, logout.
func (d docker) registries() {
	d.Helper()
	for _, scheme := range []string{"bearer", "basic"} {
		address, server := guarded(d.T, scheme)
		app := address + "/team/app"
		d.run("tag", "box:1", app+":1")
		d.run("tag", "box:1", app+":2")
		d.failing(nil, "push", app+":1")
		d.failing([]string{"unauthorized: incorrect username or password"}, "login", "-u", "ann", "-p", "wrong", address)
		login := d.engine.Command(d.path, "login", "-u", "ann", "--password-stdin", address)
		login.Stdin = strings.NewReader("right")
		if out, err := login.CombinedOutput(); err != nil || !strings.Contains(string(out), "Login Succeeded") {
			d.Fatalf("login: %v\n%s", err, out)
		}
		d.want([]string{"The push refers to repository [" + app + "]", "Pushed", "1: digest: sha256:"}, "push", app+":1")
		d.want([]string{"Layer already exists", "2: digest: sha256:"}, "push", "--all-tags", app)
		d.run("tag", "box:1", address+"/team/other:1")
		d.want([]string{"Mounted from team/app"}, "push", address+"/team/other:1")
		want := server.Tag("team/app", "1")
		digests := d.run("image", "inspect", "-f", "{{json .RepoDigests}}", "box:1")
		if !strings.Contains(digests, app+"@"+want.String()) {
			d.Errorf("no digest of the pushed image: %s", digests)
		}
		d.run("rmi", "-f", "box:1", app+":1", app+":2", address+"/team/other:1")
		d.want([]string{"Digest: " + want.String(), "Downloaded newer image for " + app + ":1"}, "pull", app+":1")
		d.want([]string{"1: Pulling from team/app", "2: Pulling from team/app", "Downloaded newer image for " + app}, "pull", "-a", app)
		d.want([]string{app + ":1"}, "pull", "-q", app+":1")
		d.run("pull", app+"@"+want.String())
		d.failing([]string{"not found"}, "pull", app+":none")
		d.run("tag", app+":1", "box:1")
		if scheme == "bearer" { // Docker's index has no other
			d.want([]string{"app", "the official one", "[OK]"}, "search", address+"/app")
			if out := d.run("search", "--filter", "is-official=false", "--format", "{{.Name}} {{.StarCount}}", address+"/app"); out != "team/app 7\n" {
				d.Errorf("search: %q", out)
			}
		}
		d.run("logout", address)
		d.failing(nil, "pull", app+":1")
		d.run("rmi", app+":1", app+":2")
	}
}

// archives: save, load, import, history.
func (d docker) archives() {
	d.Helper()
	id := d.run("image", "inspect", "-f", "{{.Id}}", "box:1")
	archive := filepath.Join(d.TempDir(), "all.tar")
	d.run("tag", "box:1", "example.org/box:1")
	d.run("tag", "box:1", "box:2")
	d.run("save", "-o", archive, "box", "example.org/box:1")
	d.run("rmi", "-f", "box:1", "box:2", "example.org/box:1")
	d.want([]string{"Loaded image: box:1", "Loaded image: box:2", "Loaded image: example.org/box:1"}, "load", "-i", archive)
	data, err := os.ReadFile(archive)
	if err != nil {
		d.Fatal(err)
	}
	load := d.engine.Command(d.path, "load", "-q")
	load.Stdin = bytes.NewReader(data)
	if out, err := load.CombinedOutput(); err != nil || !strings.Contains(string(out), "Loaded image: box:1") {
		d.Errorf("load of standard input: %v\n%s", err, out)
	}
	if again := d.run("image", "inspect", "-f", "{{.Id}}", "box:1"); again != id {
		d.Errorf("the ID was %s and is %s", id, again)
	}
	d.want([]string{"made by hand"}, "history", "--no-trunc", "box:1")
	d.want([]string{"made by hand"}, "image", "inspect", "-f", "{{.Comment}}", "box:1")
	d.want([]string{"diff"}, "image", "inspect", "-f", "{{.GraphDriver.Data.UpperDir}}", "box:1")
}

// names: what ps shows, and what finds containers and images, when names move.
func (d docker) names() {
	d.Helper()
	id := strings.TrimSpace(d.run("image", "inspect", "-f", "{{.Id}}", "box:1"))
	short := strings.TrimPrefix(id, "sha256:")[:12]
	for n, ref := range []string{"box:1", id, short, "box@" + id, "box:1@" + id} {
		name := "c" + string(rune('a'+n))
		d.run("create", "--name", name, ref)
		if got := strings.TrimSpace(d.run("inspect", "-f", "{{.Image}}", name)); got != id {
			d.Errorf("a container of %s is of image %s", ref, got)
		}
		if out := d.run("ps", "-aq", "--filter", "ancestor="+ref); strings.Count(out, "\n") != n+1 {
			d.Errorf("ancestor=%s: %s", ref, out)
		}
	}
	if out := d.run("ps", "-a", "--filter", "name=^ca$", "--format", "{{.Image}}"); out != "box:1\n" {
		d.Errorf("ps shows image %q", out)
	}
	d.run("import", testengine.BusyboxTar(d.T), "box:1") // the name moves away
	if out := d.run("ps", "-a", "--filter", "name=^ca$", "--format", "{{.Image}}"); out != short+"\n" {
		d.Errorf("ps shows image %q after its name moved to another one", out)
	}
	d.failing([]string{"conflict: unable to delete " + short + " (must be forced)"}, "rmi", id)
	d.run("rm", "cb", "cc", "cd", "ce")
	d.want([]string{"Untagged: box:2", "Untagged: example.org/box:1", "Deleted: " + id}, "rmi", "-f", id)
	if out := d.run("ps", "-a", "--format", "{{.Image}}"); out != short+"\n" {
		d.Errorf("ps shows image %q after it was removed", out)
	}
	d.run("rm", "ca")
	d.run("rmi", "box:1")
}

// manifests: lists that the client makes by itself, and what the engine makes of them.
func (d docker) manifests() {
	d.Helper()
	address := registry(d.T)
	d.run("import", "-c", `CMD ["sh"]`, testengine.BusyboxTar(d.T), address+"/team/one:amd64")
	d.run("import", "--platform", "linux/arm64", testengine.BusyboxTar(d.T), address+"/team/one:arm64")
	d.run("push", address+"/team/one:amd64")
	d.run("push", address+"/team/one:arm64")
	list := address + "/team/one:all"
	d.run("manifest", "create", "--insecure", list, address+"/team/one:amd64", address+"/team/one:arm64")
	d.run("manifest", "annotate", "--variant", "v8", list, address+"/team/one:arm64")
	d.run("manifest", "push", "--insecure", "-p", list)
	var index ocispec.Index
	if err := json.Unmarshal([]byte(d.run("manifest", "inspect", "--insecure", list)), &index); err != nil || len(index.Manifests) != 2 {
		d.Errorf("the list: %v %+v", err, index)
	}
	d.run("rmi", address+"/team/one:amd64", address+"/team/one:arm64")
	d.run("pull", list)
	d.run("pull", "--platform", "linux/arm64", list)
	d.want([]string{"hello"}, "run", "--rm", "--platform", "linux/amd64", list, "echo", "hello")
	d.run("rmi", list)
}

// TestPythonLibraryImages does the same by Docker's library for Python, as it comes with Debian and as it is newest here.
func TestPythonLibraryImages(t *testing.T) {
	ran := 0
	for _, python := range []string{"/usr/bin/python3", "python3"} {
		if err := exec.Command(python, "-c", "import docker").Run(); err != nil {
			continue
		}
		ran++
		t.Run(strings.ReplaceAll(python, "/", "_"), func(t *testing.T) {
			t.Setenv("DOCKER_CONFIG", t.TempDir())
			e := testengine.Start(t)
			address, _ := guarded(t, "bearer")
			judge(t, e.Command(python, "testdata/images.py", registry(t), address, testengine.BusyboxTar(t)))
		})
	}
	if ran == 0 {
		t.Skip("needs the library for Python: it comes with the package python3-docker")
	}
}

func TestDockerodeImages(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("no node: it comes with the package nodejs")
	}
	modules := filepath.Join(testengine.Cache(), "node_modules")
	if !exists(filepath.Join(modules, "dockerode")) {
		t.Skip("no dockerode below ", modules, ": npm install --prefix ", testengine.Cache(), " dockerode")
	}
	e := testengine.Start(t)
	address, _ := guarded(t, "bearer")
	cmd := e.Command(node, "testdata/images.js", e.Socket, registry(t), address, testengine.BusyboxTar(t))
	cmd.Env = append(cmd.Env, "NODE_PATH="+modules)
	judge(t, cmd)
}

// TestDaemonTransport: skopeo and podman take images from an engine and give it some, in a version of the API that is old enough for any.
func TestDaemonTransport(t *testing.T) {
	skopeo, err := exec.LookPath("skopeo")
	if err != nil {
		t.Skip("no skopeo: it comes with the package skopeo")
	}
	e := testengine.Start(t)
	e.Busybox(t)
	layout := "oci:" + t.TempDir() + ":box"
	for _, args := range [][]string{
		{"inspect", "--daemon-host", e.Host, "docker-daemon:busybox:latest"},
		{"copy", "--insecure-policy", "--src-daemon-host", e.Host, "docker-daemon:busybox:latest", layout},
		{"copy", "--insecure-policy", "--dest-daemon-host", e.Host, layout, "docker-daemon:again:1"},
	} {
		if out, err := e.Command(skopeo, args...).CombinedOutput(); err != nil {
			t.Fatalf("skopeo %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	if out := e.Run(t, "run", "--rm", "again:1", "echo", "again"); out != "again\n" {
		t.Errorf("%q", out)
	}
	podman, err := exec.LookPath("podman")
	if err != nil {
		t.Skip("no podman: it comes with the package podman")
	}
	dir := t.TempDir()
	if err := os.Symlink(e.Socket, "/run/docker.sock"); err != nil { // it can't be told of another
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove("/run/docker.sock") })
	// A configuration without a file, which docker takes for empty, is an error for it.
	pull := e.Command("/usr/bin/env", "-u", "DOCKER_CONFIG", podman, "--root", dir+"/root", "--runroot", dir+"/run", "--storage-driver", "vfs", "pull", "docker-daemon:again:1")
	if out, err := pull.CombinedOutput(); err != nil {
		t.Errorf("podman pull: %v\n%s", err, out)
	}
}
