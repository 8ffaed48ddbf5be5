package conform

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"berth/internal/kerneltest"
	"berth/test/testengine"
)

// classicEngine is an engine that knows the classic POST /build alone, and our client on it.
type classicEngine struct {
	*testing.T
	bin    string
	host   string
	docker bool          // it is Docker
	builds *atomic.Int64 // requests to build that it got
}

// newClassic puts a door before an engine: it counts builds, and what tells our client that the daemon can ask does not get through.
func newClassic(t *testing.T, bin, socket string, docker bool) *classicEngine {
	t.Helper()
	e := &classicEngine{T: t, bin: bin, docker: docker, builds: new(atomic.Int64)}
	door := &httputil.ReverseProxy{
		FlushInterval: -1,
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: "engine"}) },
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}},
		ModifyResponse: func(r *http.Response) error {
			r.Header.Del("Berth-Build")
			return nil
		},
	}
	dir, err := os.MkdirTemp("", "door-")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", dir+"/sock")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/build") {
			e.builds.Add(1)
		}
		door.ServeHTTP(w, r)
	})}
	go server.Serve(l)
	t.Cleanup(func() {
		server.Close()
		os.RemoveAll(dir)
	})
	e.host = "unix://" + dir + "/sock"
	return e
}

// outcome is what a run of our client came to.
type outcome struct {
	out, err string
	code     int
}

// berth runs our client in dir.
func (e *classicEngine) berth(dir, stdin string, args ...string) (o outcome) {
	e.Helper()
	if args[0] == "build" {
		args = append([]string{"build", "--network=none"}, args[1:]...)
	}
	cmd := exec.Command(e.bin+"/berth", args...)
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(stdin)
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+e.host, "DOCKER_CONFIG="+dir+"/none", "FROM_HERE=of the environment")
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		o.code = exit.ExitCode()
	} else if err != nil {
		e.Fatal(err)
	}
	o.out, o.err = out.String(), complaints.String()
	return o
}

// wants builds to a success, and wants words in what was said.
func (e *classicEngine) wants(dir, stdin string, args []string, words ...string) outcome {
	e.Helper()
	o := e.berth(dir, stdin, args...)
	if o.code != 0 {
		e.Fatalf("berth %s: exit code %d\n%s%s", strings.Join(args, " "), o.code, tail(o.out, 2000), o.err)
	}
	for _, w := range words {
		if !strings.Contains(o.out, w) {
			e.Errorf("berth %s does not say %q:\n%s%s", strings.Join(args, " "), w, o.out, o.err)
		}
	}
	return o
}

// files lists what an image has, a name a line.
func (e *classicEngine) files(dir, image string) string {
	e.Helper()
	created := strings.TrimSpace(e.wants(dir, "", []string{"create", "--network=none", image, "true"}).out)
	archive := e.wants(dir, "", []string{"export", created}).out
	e.wants(dir, "", []string{"rm", created})
	list := exec.Command("tar", "-tf", "-")
	list.Stdin = strings.NewReader(archive)
	names, err := list.Output()
	if err != nil {
		e.Fatal(err)
	}
	return "\n" + string(names)
}

// TestBuildsByAnArchive builds by our client with engines that can't ask it back: Debian's docker.io, and a berth of before it could.
func TestBuildsByAnArchive(t *testing.T) {
	kerneltest.Root(t)
	bin := testengine.Programs(t)
	busybox := testengine.BusyboxTar(t)
	t.Run("dockerd", func(t *testing.T) {
		dir, err := os.MkdirTemp("", "others-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			os.RemoveAll(dir)
			removeGroups(kerneltest.CgroupParent() + "/docker")
		})
		o := &others{T: t, dir: dir}
		o.docker("import", "-c", `CMD ["sh"]`, busybox, "busybox")
		e := newClassic(t, bin, "/run/others-docker.sock", true)
		e.builders()
	})
	t.Run("berth", func(t *testing.T) {
		b := testengine.Start(t)
		b.Busybox(t)
		newClassic(t, bin, b.Socket, false).builders()
	})
}

func (e *classicEngine) builders() {
	dir := e.TempDir()
	for name, text := range map[string]string{
		"ctx/Dockerfile": "FROM busybox AS early\nARG N=1\nRUN echo n-is-$N >/n; cat /n\nFROM early AS late\nCOPY . /ctx/\nLABEL of=file\nENV SET=1\n",
		"ctx/kept":       "kept\n", "ctx/left/out": "left\n", "ctx/left/in": "in\n", "ctx/.dockerignore": "left\n!left/in\n",
		"ctx/sub/Other":    "FROM busybox\nCOPY sub/Other /by\nCOPY kept /\n",
		"far/Far":          "FROM busybox\nCOPY . /ctx/\n",
		"plain/file":       "plain\n",
		"bad/Dockerfile":   "FROM busybox\nRUN echo before-the-end; exit 7\n",
		"wrong/Dockerfile": "FROM busybox\nNOSUCH thing\n",
	} {
		p := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(text), 0o644)); err != nil {
			e.Fatal(err)
		}
	}
	e.options(dir)
	e.places(dir)
	e.failures(dir)
	e.refusals(dir)
}

// options are those that mean the same to every builder.
func (e *classicEngine) options(dir string) {
	e.wants(dir, "", []string{"build", "-t", "one:1", "-t", "two", "--build-arg", "N=5", "--label", "by=flag", "--label", "empty", "--iidfile", "id", "ctx"},
		"Step 1/", "n-is-5\n", "Successfully built ", "Successfully tagged one:1\n", "Successfully tagged two:latest\n")
	id, err := os.ReadFile(filepath.Join(dir, "id"))
	if err != nil || !regexp.MustCompile(`^sha256:[0-9a-f]{64}$`).Match(id) {
		e.Fatalf("--iidfile has %q: %v", id, err)
	}
	got := e.wants(dir, "", []string{"image", "inspect", "-f", "{{.Id}} {{.Config.Labels.of}} {{.Config.Labels.by}} {{len .Config.Labels}}", "one:1", "two"}).out
	if want := strings.Repeat(string(id)+" file flag 3\n", 2); got != want {
		e.Errorf("the images are %q, want %q", got, want)
	}
	names := e.files(dir, "one:1")
	for name, want := range map[string]bool{"ctx/kept": true, "ctx/left/in": true, "ctx/left/out": false, "ctx/Dockerfile": true, "ctx/.dockerignore": true, "n": true} {
		if strings.Contains(names, "\n"+name+"\n") != want {
			e.Errorf("%s is in the image: want %v", name, want)
		}
	}

	again := []string{"build", "--build-arg", "N=5", "--label", "by=flag", "--label", "empty", "ctx"}
	if o := e.wants(dir, "", again, "Using cache"); strings.Contains(o.out, "n-is-5\n") {
		e.Errorf("the second build is not cached:\n%s", o.out)
	}
	if o := e.wants(dir, "", append([]string{"build", "--no-cache"}, again[1:]...), "n-is-5\n"); strings.Contains(o.out, "Using cache") {
		e.Errorf("--no-cache uses the cache:\n%s", o.out)
	}
	o := e.wants(dir, "", append([]string{"build", "-q"}, again[1:]...))
	if !regexp.MustCompile(`^sha256:[0-9a-f]{64}\n$`).MatchString(o.out) || o.err != "" {
		e.Errorf("-q says %q and %q", o.out, o.err)
	}
	e.wants(dir, "", []string{"build", "--build-arg", "N", "--target", "early", "-t", "early", "ctx"}, "n-is-1\n")
	if names := e.files(dir, "early"); strings.Contains(names, "\nctx/") {
		e.Error("--target goes on behind its stage")
	}
	e.wants(dir, "FROM busybox\nARG FROM_HERE\nRUN echo it is $FROM_HERE\n", []string{"build", "--build-arg", "FROM_HERE", "-"}, "it is of the environment\n")
	for _, mode := range []string{"auto", "plain", "rawjson"} {
		e.wants(dir, "", []string{"build", "--progress", mode, "--why", "--load", "--rm=false", "--force-rm", "--compress", "--provenance=false", "--sbom=false", "ctx"}, "Step 1/")
	}
	if o := e.wants(dir, "", []string{"build", "--progress", "quiet", "ctx"}); o.out != "" {
		e.Errorf("--progress quiet says %q", o.out)
	}
	e.wants(dir, "", []string{"build", "--add-host", "a.test:192.0.2.7", "--shm-size", "1m", "-m", "64m", "--cache-from", "one:1", "--cache-from", "type=registry,ref=two", "ctx"}, "Successfully built ")
}

// places are where a Dockerfile and a context can be.
func (e *classicEngine) places(dir string) {
	e.wants(dir, "", []string{"build", "-t", "sub", "-f", "ctx/sub/Other", "ctx"})
	if names := e.files(dir, "sub"); !strings.Contains(names, "\nby\n") || !strings.Contains(names, "\nkept\n") {
		e.Errorf("-f below the context: %s", names)
	}
	for _, from := range []struct{ image, file, stdin, ctx, want string }{
		{"far", "far/Far", "", "ctx", ".dockerignore Dockerfile kept left/ left/in sub/ sub/Other"},
		{"said", "-", "FROM busybox\nCOPY . /ctx/\n", "ctx", ".dockerignore Dockerfile kept left/ left/in sub/ sub/Other"},
		{"bare", "far/Far", "", "plain", "file"},
	} {
		e.wants(dir, from.stdin, []string{"build", "-t", from.image, "-f", from.file, from.ctx})
		var got []string
		for name := range strings.Lines(e.files(dir, from.image)) {
			if rest, ok := strings.CutPrefix(strings.TrimSpace(name), "ctx/"); ok && rest != "" {
				got = append(got, rest)
			}
		}
		if strings.Join(got, " ") != from.want {
			e.Errorf("-f %s %s: the image has %q, want %q", from.file, from.ctx, got, from.want)
		}
	}
	for _, flag := range []string{"-c", "-cz"} {
		archive, err := exec.Command("tar", flag, "-C", dir+"/ctx", ".").Output()
		if err != nil {
			e.Fatal(err)
		}
		e.wants(dir, string(archive), []string{"build", "--no-cache", "-"}, "n-is-1\n", "Successfully built ")
		e.wants(dir, string(archive), []string{"build", "-f", "sub/Other", "-"}, "Successfully built ")
	}
}

// failures are of builds that began.
func (e *classicEngine) failures(dir string) {
	if err := os.WriteFile(filepath.Join(dir, "id"), []byte("old"), 0o644); err != nil {
		e.Fatal(err)
	}
	o := e.berth(dir, "", "build", "--iidfile", "id", "bad")
	if !strings.Contains(o.out, "before-the-end\n") || !strings.Contains(o.err, "returned a non-zero code: 7") && !strings.Contains(o.err, "exit code: 7") {
		e.Errorf("a RUN that fails says %q and %q", o.out, o.err)
	}
	if o.code != 7 {
		e.Errorf("a RUN that fails: exit code %d, want 7", o.code)
	}
	if _, err := os.Stat(filepath.Join(dir, "id")); !errors.Is(err, os.ErrNotExist) {
		e.Errorf("a build that failed leaves an ID: %v", err)
	}
	if o := e.berth(dir, "", "build", "-q", "bad"); o.code == 0 || o.out != "" || !strings.Contains(o.err, ": 7") || e.docker && !strings.Contains(o.err, "before-the-end") {
		e.Errorf("a RUN that fails with -q: exit code %d, %q and %q", o.code, o.out, o.err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"wrong"}, "nknown instruction: NOSUCH"}, {[]string{"--target", "nosuch", "ctx"}, "target"}, {[]string{"-f", "nosuch", "ctx"}, "failed to read dockerfile"},
		{[]string{"-t", "UPPER", "ctx"}, "invalid"}, {[]string{"nosuch"}, "not found"},
	} {
		if o := e.berth(dir, "", append([]string{"build"}, c.args...)...); o.code == 0 || !strings.Contains(o.err, c.want) {
			e.Errorf("build %s: exit code %d, want %q in %q", strings.Join(c.args, " "), o.code, c.want, o.err)
		}
	}
	o = e.berth(dir, "", "build", "--squash", "ctx")
	if e.docker && (o.code == 0 || !strings.Contains(o.err, "squash is only supported with experimental mode")) || !e.docker && o.code != 0 {
		e.Errorf("--squash: exit code %d: %s", o.code, o.err)
	}
}

// refusals are of what the classic builder would pass over in silence.
func (e *classicEngine) refusals(dir string) {
	before := e.builds.Load()
	if before == 0 {
		e.Fatal("no build came through the door")
	}
	for _, args := range [][]string{
		{"--secret", "id=x,src=id"}, {"--ssh", "default"}, {"-o", "out"}, {"--output", "type=tar,dest=x.tar"}, {"--build-context", "a=ctx"}, {"--push"}, {"--cache-to", "type=inline"},
		{"--cache-from", "type=local,src=x"}, {"--annotation", "a=b"}, {"--attest", "type=sbom"}, {"--provenance"}, {"--sbom"}, {"--metadata-file", "m"}, {"--allow", "network.host"},
		{"--check"}, {"--call", "outline"}, {"--platform", "linux/amd64,linux/arm64"}, {"--platform", "linux/amd64", "--platform", "linux/arm64"},
	} {
		o := e.berth(dir, "", append(append([]string{"build"}, args...), "ctx")...)
		if name, _, _ := strings.Cut(args[0], "="); o.code == 0 || name != "-o" && !strings.Contains(o.err, name) || !strings.Contains(o.err, "berth") {
			e.Errorf("build %s: exit code %d: %s", strings.Join(args, " "), o.code, o.err)
		}
	}
	for _, args := range [][]string{{"--progress", "nosuch"}, {"-q", "--progress", "plain"}, {"--isolation", "hyperv"}} {
		if o := e.berth(dir, "", append(append([]string{"build"}, args...), "ctx")...); o.code == 0 {
			e.Errorf("build %s is taken", strings.Join(args, " "))
		}
	}
	if n := e.builds.Load() - before; n != 0 {
		e.Errorf("%d builds were asked for that are none", n)
	}
}
