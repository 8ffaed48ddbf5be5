package engine

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/fault"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	wire "github.com/moby/moby/api/types/network"
)

func (w *world) status(id string) api.ContainerState {
	w.t.Helper()
	d, err := w.Containers.Inspect(w.t.Context(), id, false)
	if err != nil {
		w.t.Fatal(err)
	}
	return d.State.Status
}

// log returns a container's whole output.
func (w *world) log(id string) string {
	w.t.Helper()
	l, _, err := w.Containers.Logs(id, LogsRequest{Stdout: true, Stderr: true, Tail: -1})
	if err != nil {
		w.t.Fatal(err)
	}
	defer l.Close()
	var all strings.Builder
	for {
		line, err := l.Next(w.t.Context())
		if err == io.EOF {
			return all.String()
		}
		if err != nil {
			w.t.Fatal(err)
		}
		all.Write(line.Text)
	}
}

// awaitLog waits until a line has come, and returns the text so far.
func (w *world) awaitLog(id, want string) {
	w.t.Helper()
	l, _, err := w.Containers.Logs(id, LogsRequest{Stdout: true, Stderr: true, Tail: -1, Follow: true})
	if err != nil {
		w.t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	for {
		line, err := l.Next(ctx)
		if err != nil {
			w.t.Fatalf("waiting for %q: %v", want, err)
		}
		if strings.Contains(string(line.Text), want) {
			return
		}
	}
}

func TestStopKillPauseRestart(t *testing.T) {
	w := newWorld(t)
	c := w.Containers
	gentle := w.create(nil, "sh", "-c", "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done")
	w.start(gentle)
	if err := c.Start(t.Context(), gentle); !errors.Is(err, fault.NotModified) {
		t.Errorf("started twice: %v", err)
	}
	w.awaitLog(gentle, "up")
	if err := c.Remove(t.Context(), gentle, RemoveOptions{}); !errors.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "container is running: stop the container before removing or force remove") {
		t.Errorf("removed: %v", err)
	}
	if err := c.Stop(t.Context(), gentle, StopOptions{}); err != nil {
		t.Fatal(err)
	}
	if code := w.wait(gentle, ""); code != 3 || !strings.Contains(w.log(gentle), "bye\n") {
		t.Errorf("code %d, log %q", code, w.log(gentle))
	}
	if err := c.Stop(t.Context(), gentle, StopOptions{}); !errors.Is(err, fault.NotModified) {
		t.Errorf("stopped twice: %v", err)
	}
	if err := c.Kill(t.Context(), gentle, "TERM"); !errors.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "is not running") {
		t.Errorf("killed what does not run: %v", err)
	}

	deaf := w.create(nil, "sleep", "1000")
	w.start(deaf)
	begin := time.Now()
	if err := c.Stop(t.Context(), deaf, StopOptions{}); err != nil {
		t.Fatal(err)
	}
	if code := w.wait(deaf, ""); code != 137 || time.Since(begin) > 9*time.Second {
		t.Errorf("a deaf process 1: code %d after %s", code, time.Since(begin))
	}
	if err := c.Restart(t.Context(), deaf, StopOptions{}); err != nil || w.status(deaf) != api.StateRunning {
		t.Errorf("restart of a stopped one: %v, %s", err, w.status(deaf))
	}
	if err := c.Restart(t.Context(), deaf, StopOptions{}); err != nil || w.status(deaf) != api.StateRunning {
		t.Errorf("restart: %v, %s", err, w.status(deaf))
	}
	if err := c.Pause(t.Context(), deaf); err != nil || w.status(deaf) != api.StatePaused {
		t.Errorf("pause: %v, %s", err, w.status(deaf))
	}
	if err := c.Pause(t.Context(), deaf); !errors.Is(err, fault.Conflict) {
		t.Errorf("paused twice: %v", err)
	}
	if err := c.Unpause(t.Context(), deaf); err != nil || w.status(deaf) != api.StateRunning {
		t.Errorf("unpause: %v, %s", err, w.status(deaf))
	}
	if err := c.Pause(t.Context(), deaf); err != nil {
		t.Error(err)
	}
	if err := c.Kill(t.Context(), deaf, ""); err != nil || w.status(deaf) != api.StateExited {
		t.Errorf("kill of a paused one: %v, %s", err, w.status(deaf))
	}
}

func TestNamesAndRenames(t *testing.T) {
	w := newWorld(t)
	c := w.Containers
	request := CreateRequest{Config: &api.Config{Image: "busybox"}}
	id, _, err := c.Create(t.Context(), "web", request)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Create(t.Context(), "web", request); !errors.Is(err, fault.Conflict) || !strings.Contains(err.Error(), `The container name "/web" is already in use by container "`+id) {
		t.Errorf("taken: %v", err)
	}
	if _, _, err := c.Create(t.Context(), "x", request); !errors.Is(err, fault.Invalid) {
		t.Errorf("one letter: %v", err)
	}
	if _, _, err := c.Create(t.Context(), "", CreateRequest{Config: &api.Config{Image: "nothing"}}); !errors.Is(err, fault.NotFound) || err.Error() != "No such image: nothing:latest" {
		t.Errorf("no image: %v", err)
	}
	if err := c.Rename(t.Context(), "web", "site"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Inspect(t.Context(), "web", false); !errors.Is(err, fault.NotFound) {
		t.Errorf("old name: %v", err)
	}
	if d, err := c.Inspect(t.Context(), "site", false); err != nil || d.ID != id || d.Name != "/site" {
		t.Errorf("new name: %v", err)
	}
	if err := c.Remove(t.Context(), "site", RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(c.store.Dir(id)); err == nil {
		c.jobs.drain()
		if _, err := os.Stat(c.store.Dir(id)); err == nil {
			t.Error("its directory is left")
		}
	}
}

func TestAttachBeforeStartAndInput(t *testing.T) {
	w := newWorld(t)
	id := w.create(func(r *CreateRequest) { r.Config.OpenStdin, r.Config.StdinOnce = true, true }, "sed", "s/^/got /")
	client := w.attach(id, AttachRequest{Stream: true, Stdin: true, Frames: true, Buffered: []byte("one\n")})
	w.start(id)
	io.WriteString(client, "two\n")
	client.CloseWrite()
	if out, errOut := readFrames(t, client); out != "got one\ngot two\n" || errOut != "" {
		t.Errorf("%q %q", out, errOut)
	}
	w.wait(id, "")
	again := w.attach(id, AttachRequest{Logs: true})
	if text, err := io.ReadAll(again); err != nil || string(text) != "got one\ngot two\n" {
		t.Errorf("replayed: %q, %v", text, err)
	}
}

func TestExec(t *testing.T) {
	w := newWorld(t)
	c := w.Containers
	id := w.create(func(r *CreateRequest) { r.Config.Env = []string{"A=1"}; r.Config.Hostname = "boat" }, "sleep", "1000")
	if _, err := c.ExecCreate(t.Context(), id, api.ExecCreateRequest{Cmd: []string{"true"}}); !errors.Is(err, fault.Conflict) {
		t.Errorf("exec in a container that does not run: %v", err)
	}
	w.start(id)
	run := func(x api.ExecCreateRequest) (string, string, int) {
		t.Helper()
		x.AttachStdout, x.AttachStderr = true, true
		e, err := c.ExecCreate(t.Context(), id, x)
		if err != nil {
			t.Fatal(err)
		}
		client, server := socketPair(t)
		startErr := c.ExecStart(t.Context(), e, ExecStartRequest{Attach: &AttachRequest{Conn: server, Frames: true}})
		out, errOut := readFrames(t, client)
		if startErr != nil {
			errOut = startErr.Error()
		}
		d, err := c.ExecInspect(e)
		if err != nil || d.Running || d.ExitCode == nil {
			t.Fatalf("%+v, %v", d, err)
		}
		if err := c.CheckExec(e); !errors.Is(err, fault.Conflict) {
			t.Errorf("a second start: %v", err)
		}
		return out, errOut, *d.ExitCode
	}
	if out, errOut, code := run(api.ExecCreateRequest{Cmd: []string{"sh", "-c", "hostname; echo $A$B $HOME; pwd; id -u >&2; exit 5"}, Env: []string{"B=2"}, User: "guest", WorkingDir: "/bin"}); out != "boat\n12 /tmp\n/bin\n" || errOut != "1000\n" || code != 5 {
		t.Errorf("%q %q %d", out, errOut, code)
	}
	if _, errOut, code := run(api.ExecCreateRequest{Cmd: []string{"nothing"}}); code != 127 || !strings.Contains(errOut, "executable file not found in $PATH") {
		t.Errorf("%q %d", errOut, code)
	}
	if _, errOut, code := run(api.ExecCreateRequest{Cmd: []string{"true"}, User: "nobody-here"}); code == 0 || !strings.Contains(errOut, "unable to find user nobody-here") {
		t.Errorf("%q %d", errOut, code)
	}
	top, err := c.Top(t.Context(), id, "")
	if err != nil || len(top.Processes) != 1 || !strings.Contains(strings.Join(top.Processes[0], " "), "sleep 1000") || len(top.Titles) != len(top.Processes[0]) {
		t.Errorf("top: %+v, %v", top, err)
	}
}

func TestVolumesAndBinds(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	missing := filepath.Join(dir, "made", "up")
	got := w.run(func(r *CreateRequest) {
		r.HostConfig.Binds = []string{dir + ":/host", missing + ":/made:ro", "named:/data"}
		r.HostConfig.Tmpfs = map[string]string{"/scratch": "size=1m"}
		r.Config.Volumes = map[string]struct{}{"/anon": {}}
	}, "sh", "-c", "cat /data/first; echo; echo kept > /data/second; echo x > /host/file; touch /made/x; touch /anon/x /scratch/x && grep -c scratch /proc/mounts")
	if got.out != "from the image\n1\n" || got.code != 0 || !strings.Contains(got.errOut, "Read-only file system") {
		t.Errorf("%+v", got)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(text) != "x\n" {
		t.Errorf("%q, %v", text, err)
	}
	if vs, err := w.Containers.volumes.Store.List(); err != nil || len(vs) != 1 || vs[0].Name != "named" {
		t.Errorf("volumes left: %v, %v", vs, err)
	}
	got = w.run(func(r *CreateRequest) { r.HostConfig.Binds = []string{"named:/v:ro"} }, "cat", "/v/second")
	if got.out != "kept\n" {
		t.Errorf("%+v", got)
	}
	_, _, err := w.Containers.Create(t.Context(), "", CreateRequest{Config: &api.Config{Image: "busybox"},
		HostConfig: &api.HostConfig{Mounts: []mount.Mount{{Type: mount.TypeBind, Source: "/none/x", Target: "/x"}}}})
	if !errors.Is(err, fault.Invalid) || !strings.HasSuffix(err.Error(), "bind source path does not exist: /none/x") {
		t.Errorf("%v", err)
	}
	user := w.create(func(r *CreateRequest) { r.HostConfig.Binds = []string{"named:/v"} }, "true")
	if err := w.Volumes.Remove(t.Context(), "named", true); !errors.Is(err, fault.Conflict) || err.Error() != "remove named: volume is in use - ["+user+"]" {
		t.Errorf("%v", err)
	}
	if err := w.Containers.Remove(t.Context(), user, RemoveOptions{Volumes: true}); err != nil {
		t.Error(err)
	}
	if vs, err := w.Volumes.List(t.Context(), Filters{"dangling": {"true"}, "name": {"ame"}}); err != nil || len(vs) != 1 || vs[0].Name != "named" {
		t.Errorf("%+v, %v", vs, err)
	}
	if err := w.Volumes.Remove(t.Context(), "named", false); err != nil {
		t.Error(err)
	}
	if _, err := w.Volumes.Inspect(t.Context(), "named"); !errors.Is(err, fault.NotFound) {
		t.Error(err)
	}
}

func TestBridgeAndPorts(t *testing.T) {
	w := newWorld(t)
	port := wire.MustParsePort("80/tcp")
	onBridge := func(r *CreateRequest) { r.HostConfig.NetworkMode = "" }
	id := w.create(func(r *CreateRequest) {
		onBridge(r)
		r.HostConfig.PortBindings = wire.PortMap{port: {{HostPort: "8080"}}}
		r.HostConfig.ExtraHosts = []string{"gate:host-gateway"}
	}, "sh", "-c", "echo hello >/tmp/index.html; exec httpd -f -h /tmp")
	w.start(id)
	d, err := w.Containers.Inspect(t.Context(), id, false)
	if err != nil {
		t.Fatal(err)
	}
	e := d.NetworkSettings.Networks["bridge"]
	if e == nil || !e.IPAddress.IsValid() || e.Gateway != w.Networks.Host.Gateway() || len(d.NetworkSettings.Ports[port]) != 1 || d.NetworkSettings.Ports[port][0].HostPort != "8080" {
		t.Fatalf("%+v", d.NetworkSettings)
	}
	hosts, _ := os.ReadFile(d.HostsPath)
	if !strings.Contains(string(hosts), e.IPAddress.String()+"\t"+id[:12]) || !strings.Contains(string(hosts), e.Gateway.String()+"\tgate") {
		t.Errorf("hosts: %s", hosts)
	}
	got := w.run(onBridge, "sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do wget -q -O - http://"+e.IPAddress.String()+"/ && exit; sleep 0.2; done; exit 1")
	if got.out != "hello\n" {
		t.Errorf("from another container: %+v", got)
	}
	other := w.create(func(r *CreateRequest) {
		onBridge(r)
		r.HostConfig.PortBindings = wire.PortMap{port: {{HostPort: "8080"}}}
	}, "true")
	if err := w.Containers.Start(t.Context(), other); !errors.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "port is already allocated") {
		t.Errorf("taken port: %v", err)
	}
	joined := w.run(func(r *CreateRequest) { r.HostConfig.NetworkMode = api.NetworkMode("container:" + id) }, "wget", "-q", "-O", "-", "http://127.0.0.1/")
	if joined.out != "hello\n" {
		t.Errorf("container network: %+v", joined)
	}
	if n, err := w.Networks.Inspect("bridge"); err != nil || n.Containers[id].IPv4Address.Addr() != e.IPAddress {
		t.Errorf("network: %+v, %v", n, err)
	}
	list, err := w.Containers.List(t.Context(), ListRequest{Filters: Filters{"publish": {"8080"}}})
	if err != nil || len(list) != 1 || list[0].Ports[0].PublicPort != 8080 || list[0].Ports[0].IP != netip.IPv4Unspecified() {
		t.Errorf("%+v, %v", list, err)
	}
	if err := w.Containers.Stop(t.Context(), id, StopOptions{Timeout: new(0)}); err != nil {
		t.Fatal(err)
	}
	w.start(other)
	w.wait(other, "")
}

func TestHelloNeedsNoRegistry(t *testing.T) {
	w := newWorld(t)
	got := w.run(func(r *CreateRequest) { r.Config = &api.Config{Image: "hello-world"} })
	if got.code != 0 || !strings.Contains(got.out, "Hello") {
		t.Errorf("%+v", got)
	}
}
