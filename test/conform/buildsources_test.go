package conform

import (
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestBuildxElsewhere builds from contexts in other places, with sources that are there, and with contexts that have names.
func TestBuildxElsewhere(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	k := newKit(t, map[string]string{
		"Dockerfile":       "FROM base\nCOPY --from=repository b /\nCOPY --from=file context /\nADD SERVER/p.git#light:sub /one/\nADD SERVER/hello.txt /\n",
		"web/hello.txt":    "hello from afar\n",
		"far/Dockerfile":   "FROM busybox\nCOPY data /\n",
		"far/data":         "from the context\n",
		"work/sub/b":       "deep\n",
		"work/Dockerfile":  "FROM busybox AS last\nCOPY sub/b /\n",
		"local.Dockerfile": "FROM busybox\nCOPY sub/b /other\n",
	})
	web := httptest.NewServer(http.FileServer(http.Dir(filepath.Join(k.dir, "web"))))
	defer web.Close()
	setup := exec.Command("sh", "-ec", `sed -i "s,SERVER,$SERVER," Dockerfile; tar -czf web/context.tar.gz -C far .; cd work; git init -q -b main .; git add .; git commit -qm one; git tag light
git clone -q --bare . ../web/p.git; git -C ../web/p.git update-server-info`)
	setup.Dir = k.dir
	setup.Env = append(setup.Environ(), "SERVER="+web.URL, "HOME="+k.dir, "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b")
	if out, err := setup.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	named := []string{"build", "-t", "named", "--build-context", "base=docker-image://busybox", "--build-context", "repository=" + web.URL + "/p.git#main:sub", "--build-context", "file=" + web.URL + "/hello.txt", "."}
	k.run(named...)
	k.wants(k.run("run", "--rm", "named", "cat", "/b", "/one/b", "/context", "/hello.txt"), "deep\ndeep\nhello from afar\nhello from afar\n")
	k.wants(k.run(named...), "CACHED")
	k.run("build", "-t", "far", web.URL+"/p.git")
	k.wants(k.run("run", "--rm", "far", "cat", "/b"), "deep\n")
	k.run("build", "-t", "far", web.URL+"/context.tar.gz")
	k.wants(k.run("run", "--rm", "far", "cat", "/data"), "from the context\n")
	k.wants(k.run("build", "--call", "targets", web.URL+"/p.git"), "last")
	k.wants(k.fails("build", web.URL+"/nosuch"), "404 Not Found")
	k.wants(k.fails("build", web.URL+"/p.git#nosuch"), "does not contain ref nosuch")

	// An OCI layout of the client's comes by another service.
	k.run("build", "--output", "type=oci,dest=layout.tar", "-f", "far/Dockerfile", "far")
	if out, err := exec.Command("sh", "-ec", "cd "+k.dir+"; mkdir layout; tar -xf layout.tar -C layout").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	k.write(map[string]string{"app": "FROM app\nRUN cat /data >/copy\n"})
	k.run("build", "-t", "app", "-f", "app", "--build-context", "app=oci-layout://layout", ".")
	k.wants(k.run("run", "--rm", "app", "cat", "/copy"), "from the context\n")
}
