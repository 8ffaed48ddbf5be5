// Package projects builds Dockerfiles as people write them, of projects as people have them, and runs what comes of it.
package projects

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"berth/internal/kerneltest"
	"berth/test/testengine"
)

// project is a directory of testdata, and what its image says.
type project struct {
	name    string
	base    string   // what has to be there before: busybox, debian, golang, node
	flags   []string // of build
	run     []string // arguments of run
	want    string   // what it writes
	network bool     // it fetches packages
	prepare func(t *testing.T, e *testengine.Engine, dir string) (flags []string)
}

var all = []project{
	{name: "documents", base: "busybox", want: "port 8080\nstarted by entry\n"},
	{name: "tools", base: "debian", run: []string{"report", "/usr/share/words"}, want: "3 words, the longest is elephant\n"},
	{name: "secrets", base: "busybox", want: "fetched with s3cr3t? no\ncached 1\n", prepare: secret},
	{name: "onbuild", base: "busybox", want: "app of 2 files, TRIGGERED=yes\n", prepare: onbuildBase},
	{name: "stages", base: "busybox", want: "30\n", prepare: stages},
	{name: "sources", base: "busybox", want: "from git: v1\nfrom a tarball\n", prepare: sources},
	{name: "service", base: "golang", want: "Hello, world.\n", network: true},
	{name: "native", base: "debian", want: "crc of berth is 76673da7\n", network: true},
	{name: "web", base: "node", want: "[ 'a', 'b' ] 2\n", network: true},
	{name: "big", base: "busybox", want: "500\n", prepare: big},
}

// TestRealProjects builds each project and runs it, and builds it again, of which nothing is done twice. Those that fetch packages, and the one with 500 MB,
// are part of the soak.
func TestRealProjects(t *testing.T) {
	e := testengine.Start(t)
	bases := map[string]bool{}
	for _, p := range all {
		t.Run(p.name, func(t *testing.T) {
			flags := append([]string{"-t", p.name}, p.flags...)
			if p.network {
				proxy := outside(t)
				flags = append(flags, "--network", "host", "--build-arg", "http_proxy="+proxy, "--build-arg", "https_proxy="+proxy,
					"--secret", "id=certificates,src=/etc/ssl/certs/ca-certificates.crt")
			}
			base(t, e, p.base, bases)
			dir := t.TempDir()
			if out, err := exec.Command("cp", "-a", filepath.Join("testdata", p.name)+"/.", dir).CombinedOutput(); err != nil {
				t.Fatalf("copy the project: %v\n%s", err, out)
			}
			if p.prepare != nil {
				flags = append(flags, p.prepare(t, e, dir)...)
			}
			id, _ := build(t, e, dir, flags...)
			if got := e.Run(t, append([]string{"run", "--rm", p.name}, p.run...)...); got != p.want {
				t.Errorf("it says %q, wanted %q", got, p.want)
			}
			if again, out := build(t, e, dir, flags...); again != id {
				t.Errorf("built again, it is %s and was %s:\n%s", again, id, out)
			}
		})
	}
}

// build builds a directory and gives the image's ID, and what was said.
func build(t *testing.T, e *testengine.Engine, dir string, flags ...string) (id, said string) {
	t.Helper()
	cmd := e.Command("berth", append(append([]string{"build"}, flags...), ".")...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	for k, f := range flags {
		if f == "-t" {
			id = e.Run(t, "image", "inspect", "-f", "{{.Id}}", flags[k+1])
		}
	}
	return id, string(out)
}

// base makes a base image, once.
func base(t *testing.T, e *testengine.Engine, name string, made map[string]bool) {
	t.Helper()
	if made[name] {
		return
	}
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	switch name {
	case "busybox":
		e.Busybox(t)
	case "debian":
		e.Run(t, "import", testengine.DebianTar(t), "debian:latest")
	case "golang":
		base(t, e, "debian", made)
		write("Dockerfile", "FROM debian\nCOPY . /usr/local/go\nENV PATH=/usr/local/go/bin:$PATH GOTOOLCHAIN=local\n")
		write("Dockerfile.dockerignore", "api\ndoc\nmisc\ntest\n**/*_test.go\n**/testdata\n")
		root, err := exec.Command("go", "env", "GOROOT").Output()
		if err != nil {
			t.Skipf("there is no go here to make a base of: %v", err)
		}
		build(t, e, strings.TrimSpace(string(root)), "-t", "golang", "-f", filepath.Join(dir, "Dockerfile"))
	case "node":
		base(t, e, "debian", made)
		script := `set -e; cp -L "$(command -v node)" node; npm=$(readlink -f "$(command -v npm)"); cp -a "${npm%/bin/*}" npm`
		cmd := exec.Command("sh", "-c", script)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Skipf("there is no node here to make a base of: %v\n%s", err, out)
		}
		write("Dockerfile", "FROM debian\nCOPY node /usr/local/bin/\nCOPY npm /usr/local/lib/npm\nRUN ln -s ../lib/npm/bin/npm-cli.js /usr/local/bin/npm && node --version\n")
		build(t, e, dir, "-t", "node")
	}
	made[name] = true
}

// secret gives the build a secret that nothing may keep.
func secret(t *testing.T, _ *testengine.Engine, dir string) []string {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("s3cr3t"), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"--secret", "id=token,src=" + file}
}

// onbuildBase builds the base whose triggers the project is made by.
func onbuildBase(t *testing.T, e *testengine.Engine, dir string) []string {
	build(t, e, dir, "-t", "platform", "-f", "platform.Dockerfile")
	return nil
}

// stages writes a Dockerfile of thirty, each of which adds to the one before or stands beside it.
func stages(t *testing.T, _ *testengine.Engine, dir string) []string {
	var b strings.Builder
	b.WriteString("FROM busybox AS s0\nRUN mkdir /out\n")
	for n := 1; n < 29; n++ {
		from, copied := "busybox", fmt.Sprintf("COPY --from=s%d /out /out\n", n-1)
		if n%3 == 0 {
			from, copied = fmt.Sprintf("s%d", n-1), ""
		}
		fmt.Fprintf(&b, "FROM %s AS s%d\n%sRUN echo %d >/out/%d\n", from, n, copied, n, n)
	}
	b.WriteString("FROM busybox\nCOPY --from=s28 /out /out\nRUN touch /out/last /out/first\nCMD ls /out | wc -l\n")
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	return nil
}

// sources serves a git repository and a tarball.
func sources(t *testing.T, _ *testengine.Engine, dir string) []string {
	kerneltest.Root(t)
	top := t.TempDir()
	script := `set -e; export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org
git init -q -b main lib; cd lib; mkdir docs; echo v1 >version; echo text >docs/manual; git add .; git commit -q -m one; git tag v1; echo v2 >version; git commit -q -a -m two
git update-server-info; cd ..; mkdir tool-1.0; echo 'from a tarball' >tool-1.0/hello; tar -czf tool-1.0.tar.gz tool-1.0`
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = top
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make sources: %v\n%s", err, out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.FileServer(http.Dir(top))}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return []string{"--build-arg", "MIRROR=http://" + l.Addr().String()}
}

// big makes 500 files of a megabyte.
func big(t *testing.T, _ *testengine.Engine, dir string) []string {
	if os.Getenv("BERTH_SOAK") == "" {
		t.Skip("a context of 500 MB is part of the long tests: BERTH_SOAK=1")
	}
	script := `mkdir data; for n in $(seq 500); do head -c 1000000 /dev/urandom >data/$n; done`
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make a big context: %v\n%s", err, out)
	}
	return nil
}
