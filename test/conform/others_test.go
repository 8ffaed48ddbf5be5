package conform

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"berth/internal/kerneltest"
	"berth/test/testengine"
)

// others are other people's programs that keep and move images, in this test's world.
type others struct {
	*testing.T
	dir     string
	dockerd bool // Debian's docker.io runs
}

func newOthers(t *testing.T) *others {
	t.Helper()
	kerneltest.Root(t)
	for _, name := range []string{"docker-registry", "skopeo", "podman"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip(name, " is not installed: `make packages` installs it")
		}
	}
	// Not t.TempDir: what podman keeps mounted in its store would stand in the way of its removal.
	dir, err := os.MkdirTemp("", "others-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		exec.Command("sh", "-c", "grep -o ' "+dir+"[^ ]*' /proc/self/mounts | sort -r | xargs -r umount -l").Run()
		os.RemoveAll(dir)
	})
	return &others{T: t, dir: dir}
}

// run runs a program to its success and returns what it wrote.
func (o *others) run(program string, args ...string) string {
	o.Helper()
	cmd := exec.Command(program, args...)
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Run(); err != nil {
		o.Fatalf("%s %s: %v\n%s%s", program, strings.Join(args, " "), err, out.String(), complaints.String())
	}
	return strings.TrimSpace(out.String())
}

func (o *others) podman(args ...string) string {
	o.Helper()
	return o.run("podman", append([]string{"--root", o.dir + "/podman", "--runroot", "/run/others-podman", "--cgroup-manager", "cgroupfs", "--events-backend", "file"}, args...)...)
}

// skopeo speaks plain HTTP with registries and keeps manifests as they are.
func (o *others) skopeo(verb string, args ...string) string {
	o.Helper()
	all := []string{"--insecure-policy", verb}
	switch verb {
	case "copy":
		all = append(all, "--src-tls-verify=false", "--dest-tls-verify=false")
		if len(args) > 0 && !strings.HasPrefix(args[len(args)-1], "docker-archive:") {
			all = append(all, "--preserve-digests")
		}
	case "inspect":
		if strings.HasPrefix(args[len(args)-1], "docker:") {
			all = append(all, "--tls-verify=false")
		}
	}
	return o.run("skopeo", append(all, args...)...)
}

// digest is what an image's manifest has, by skopeo's account.
func (o *others) digest(place string) string {
	o.Helper()
	return o.skopeo("inspect", "--format", "{{.Digest}}", place)
}

// docker runs the client of Debian's docker.io on a daemon of the same package, which it starts when first asked.
func (o *others) docker(args ...string) string {
	o.Helper()
	root := filepath.Join(testengine.Cache(), "docker.io")
	socket := "unix:///run/others-docker.sock"
	if !o.dockerd {
		if _, err := os.Stat(root + "/usr/sbin/dockerd"); err != nil {
			o.Skip("no docker.io unpacked at ", root, ": `make fixtures` does it")
		}
		o.dockerd = true
		o.background("dockerd", func() *exec.Cmd {
			cmd := exec.Command(root+"/usr/sbin/dockerd", "-H", socket, "--data-root", o.dir+"/docker", "--exec-root", "/run/others-docker", "--pidfile", "/run/others-docker.pid",
				"--storage-driver", "overlay2", "--iptables=false", "--bridge=none", "--cgroup-parent", kerneltest.CgroupParent()+"/docker")
			cmd.Env = append(os.Environ(), "PATH="+root+"/usr/bin:"+root+"/usr/sbin:/usr/sbin:/sbin:"+os.Getenv("PATH"), "LD_LIBRARY_PATH="+root+"/usr/lib/x86_64-linux-gnu")
			return cmd
		}(), func() error { return exec.Command(root+"/usr/bin/docker", "-H", socket, "version").Run() })
	}
	return o.run(root+"/usr/bin/docker", append([]string{"-H", socket, "--config", o.dir + "/docker-config"}, args...)...)
}

// background runs a program until the test ends, and returns when it is ready.
func (o *others) background(name string, cmd *exec.Cmd, ready func() error) {
	o.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		o.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	o.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			cmd.Process.Kill()
			<-ended
		}
		if o.Failed() {
			o.Logf("%s says:\n%s", name, tail(out.String(), 1500))
		}
	})
	testengine.Eventually(o, 60*time.Second, ready)
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

// registry starts Debian's docker-registry and returns its address; users, in htpasswd's form, make it ask for a password.
func (o *others) registry(users string) string {
	o.Helper()
	dir, err := os.MkdirTemp(o.dir, "registry-")
	if err != nil {
		o.Fatal(err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		o.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	config := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage:\n  filesystem: {rootdirectory: %s/data}\nhttp: {addr: '%s'}\n", dir, address)
	if users != "" {
		config += fmt.Sprintf("auth:\n  htpasswd: {realm: test, path: %s/users}\n", dir)
	}
	if err := errors.Join(os.WriteFile(dir+"/config.yml", []byte(config), 0o600), os.WriteFile(dir+"/users", []byte(users), 0o600)); err != nil {
		o.Fatal(err)
	}
	o.background("docker-registry", exec.Command("docker-registry", "serve", dir+"/config.yml"), func() error {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
		}
		return err
	})
	return address
}

// layered makes an image of three layers in e: files, then others with a deletion and a change, then a large one.
func layered(t *testing.T, e *testengine.Engine, name string) (id string) {
	t.Helper()
	e.Run(t, "import", "-c", `CMD ["cat","/kept","/added"]`, testengine.BusyboxTar(t), name)
	for i, script := range []string{
		"mkdir /d; echo old >/d/gone; echo kept >/kept; echo old >/changed; ln -s kept /link; ln /kept /hard",
		"rm -r /d; echo new >/changed; echo added >/added; dd if=/dev/urandom of=/large bs=1M count=4 2>/dev/null",
	} {
		c := fmt.Sprintf("made-%d", i)
		e.Run(t, "run", "--name", c, "--network", "none", name, "sh", "-c", script)
		e.Run(t, "commit", c, name)
		e.Run(t, "rm", c)
	}
	return imageID(t, e, name)
}

func imageID(t *testing.T, e *testengine.Engine, name string) string {
	t.Helper()
	return strings.TrimSpace(e.Run(t, "image", "inspect", "-f", "{{.Id}}", name))
}

// runs wants that the image is what layered made.
func runs(t *testing.T, e *testengine.Engine, name string) {
	t.Helper()
	script := "cat /kept /added /changed /link /hard; test -e /d && echo not deleted; wc -c </large"
	if out := e.Run(t, "run", "--rm", "--network", "none", name, "sh", "-c", script); out != "kept\nadded\nnew\nkept\nkept\n4194304\n" {
		t.Errorf("image %s has other content: %q", name, out)
	}
}

// forget removes all images, so that what comes next comes as a whole.
func forget(t *testing.T, e *testengine.Engine) {
	t.Helper()
	ids := strings.Fields(e.Run(t, "images", "-q", "--no-trunc"))
	if len(ids) > 0 {
		e.Run(t, append([]string{"rmi", "-f"}, ids...)...)
	}
}
