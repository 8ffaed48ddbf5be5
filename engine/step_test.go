package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/build"
	"berth/build/dockerfile"
	"berth/engine/builds"
	"berth/engine/journal"
	"berth/engine/request"
	"berth/engine/volumes"
	"berth/fault"

	"github.com/distribution/reference"
	wire "github.com/moby/moby/api/types/registry"
)

// builder asks for builds, and is asked back.
type builder struct {
	*world
	context *os.File
	secrets map[string]string
	agents  map[string]func(net.Conn)
}

func newBuilder(w *world) *builder {
	dir, err := os.Open(w.t.TempDir())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { dir.Close() })
	return &builder{world: w, context: dir, secrets: map[string]string{}, agents: map[string]func(net.Conn){}}
}

func (b *builder) Files(_ context.Context, name string, _ []string) (*build.Files, error) {
	return &build.Files{Top: b.context}, nil
}

func (b *builder) Secret(_ context.Context, id string) ([]byte, error) {
	text, ok := b.secrets[id]
	if !ok {
		return nil, fault.New(fault.NotFound, "no secret %s", id)
	}
	return []byte(text), nil
}

func (b *builder) Agent(_ context.Context, id string) (io.ReadWriteCloser, error) {
	serve := b.agents[id]
	if serve == nil {
		return nil, fault.New(fault.NotFound, "no agent %s", id)
	}
	client, server := net.Pipe()
	go serve(server)
	return client, nil
}

func (b *builder) Output(_ context.Context, name string) (io.WriteCloser, error) {
	return nil, fault.New(fault.NotFound, "no output %s", name)
}

func (b *builder) Credentials(context.Context, reference.Named) (wire.AuthConfig, error) {
	return wire.AuthConfig{}, nil
}

// try builds text and gives what its programs wrote; told hears of each piece.
func (b *builder) try(ctx context.Context, text string, args map[string]string, told func(build.Event)) (out string, err error) {
	var mu sync.Mutex
	var all bytes.Buffer
	solved, err := b.Builds.Solve(ctx, builds.Options{Text: []byte(text), Args: args}, b, builds.Teller{
		Plan: func(*dockerfile.Plan) {}, Warn: func(dockerfile.Warning) {},
		Event: func(e build.Event) {
			mu.Lock()
			all.Write(e.Output)
			mu.Unlock()
			if told != nil {
				told(e)
			}
		},
	})
	if err == nil {
		solved.Release()
	}
	mu.Lock()
	defer mu.Unlock()
	return all.String(), err
}

func (b *builder) run(text string) string {
	b.t.Helper()
	out, err := b.try(context.Background(), text, nil, nil)
	if err != nil {
		b.t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// contains tells which files below dirs have text in them.
func contains(t *testing.T, text string, dirs ...string) (found []string) {
	t.Helper()
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				if errors.Is(err, fs.ErrNotExist) {
					err = nil
				}
				return err
			}
			data, err := os.ReadFile(p)
			if err == nil && bytes.Contains(data, []byte(text)) {
				found = append(found, p)
			}
			if errors.Is(err, fs.ErrNotExist) {
				err = nil
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}

// TestStepSecrets: a secret is where it was wanted, and nowhere on a disk, not even while it is in use.
func TestStepSecrets(t *testing.T) {
	w := newWorld(t)
	b := newBuilder(w)
	secret := "s3cr3t-" + w.create(nil, "true")
	b.secrets["one"], b.secrets["empty"] = secret, ""
	out, err := b.try(context.Background(), `FROM busybox
RUN --mount=type=secret,id=one --mount=type=secret,id=one,target=/etc/two,mode=0440,uid=1000,gid=10 --mount=type=secret,id=one,target=rel \
    --mount=type=secret,id=one,env=TOKEN --mount=type=secret,id=empty,target=/empty --mount=type=secret,id=none,target=/none --mount=type=secret,id=none,env=NONE \
    exec 2>&1; busybox stat -c '%a %u %g' /run/secrets/one /etc/two; cmp() { [ "$(cat $1)" = "$TOKEN" ] && echo same; }; cmp /run/secrets/one; cmp /etc/two; cmp /rel; \
    [ -f /empty ] && [ ! -e /none ] && [ -z "${NONE+x}" ] && echo as wanted; echo x > /run/secrets/one; echo ready
`, nil, func(e build.Event) {
		if bytes.Contains(e.Output, []byte("ready")) {
			if found := contains(t, secret, w.config.DataRoot, w.config.ExecRoot); len(found) > 0 {
				t.Errorf("while it is in use it lies in %v", found)
			}
		}
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if want := "400 0 0\n440 1000 10\nsame\nsame\nsame\nas wanted\n/bin/sh: can't create /run/secrets/one: Read-only file system\nready\n"; out != want {
		t.Errorf("%s\nwant %s", out, want)
	}
	if found := contains(t, secret, w.config.DataRoot, w.config.ExecRoot); len(found) > 0 {
		t.Errorf("afterwards it lies in %v", found)
	}
	b.secrets["one"] = "another"
	again, err := b.try(context.Background(), "FROM busybox\nRUN --mount=type=secret,id=none,required true\n", nil, nil)
	if err == nil || !strings.Contains(err.Error(), "secret none: not found: give it by --secret id=none,src=FILE") {
		t.Errorf("%v %s", err, again)
	}
	b.secrets["long"] = strings.Repeat("x", 500<<10+1)
	if _, err := b.try(context.Background(), "FROM busybox\nRUN --mount=type=secret,id=long true\n", nil, nil); fault.Of(err) != fault.Invalid {
		t.Errorf("a long one: %v", err)
	}
}

// TestStepByAnotherRuntime: a runtime that is not ours gets mounts that only ours could make.
func TestStepByAnotherRuntime(t *testing.T) {
	program, err := exec.LookPath("runc")
	if err != nil {
		t.Skip("needs the runtime runc, from the package of that name")
	}
	b := newBuilder(newWorldWith(t, func(c *Config) {
		c.Defaults.Runtime, c.Defaults.Runtimes = "theirs", request.Runtimes{"theirs": {Path: program}}
	}))
	b.secrets["s"] = "s3cr3t"
	if err := os.WriteFile(filepath.Join(b.context.Name(), "f"), []byte("context"), 0o600); err != nil {
		t.Fatal(err)
	}
	out := b.run(`FROM busybox
RUN --mount=type=secret,id=s,env=S,target=/s --mount=target=/w,rw --mount=source=f,target=/f --mount=from=busybox,source=data,target=/d --mount=type=cache,target=/c \
    echo $S $(cat /s) $(cat /f /d/first) && touch /w/x /c/x && echo well
`)
	if out != "s3cr3t s3cr3t contextfrom the image\nwell\n" {
		t.Errorf("%q", out)
	}
}

// TestStepAgent: a socket in the container leads to the client's agent, as often as somebody connects, and ends with the step.
func TestStepAgent(t *testing.T) {
	w := newWorld(t)
	b := newBuilder(w)
	serve := func(name string) func(net.Conn) {
		return func(c net.Conn) {
			defer c.Close()
			buf := make([]byte, 5)
			if n, err := io.ReadFull(c, buf); err == nil {
				fmt.Fprintf(c, "%s heard %s", name, buf[:n])
			}
		}
	}
	b.agents["default"], b.agents["other"] = serve("default"), serve("other")
	asked := 0
	out, err := b.try(context.Background(), `FROM busybox
RUN --mount=type=tmpfs,target=/x --mount=type=ssh --mount=type=ssh,id=other,target=/agent,mode=0666,uid=7,gid=8 --mount=type=ssh,id=none,target=/none \
    echo $SSH_AUTH_SOCK; busybox stat -c '%F %a %u %g' $SSH_AUTH_SOCK /agent; [ -e /none ] || echo none; echo ready
RUN [ ! -e /run/buildkit ] && [ ! -e /agent ] && echo gone
`, nil, func(e build.Event) {
		if !bytes.Contains(e.Output, []byte("ready")) {
			return
		}
		sockets, err := filepath.Glob(filepath.Join(w.config.ExecRoot, "build", "agent-*", "agent"))
		if err != nil || len(sockets) != 2 {
			t.Errorf("%v %v", sockets, err)
		}
		answers := map[string]int{}
		for range 2 {
			for _, s := range sockets {
				answers[ask(t, s)]++
				asked++
			}
		}
		if answers["default heard hello"] != 2 || answers["other heard hello"] != 2 {
			t.Errorf("%v", answers)
		}
	})
	if want := "/run/buildkit/ssh_agent.0\nsocket 600 0 0\nsocket 666 7 8\nnone\nready\ngone\n"; out != want || err != nil || asked != 4 {
		t.Errorf("%v, asked %d times\n%s\nwant %s", err, asked, out, want)
	}
	if left, _ := filepath.Glob(filepath.Join(w.config.ExecRoot, "build", "*")); len(left) > 0 {
		t.Errorf("%v are left", left)
	}
	_, err = b.try(context.Background(), "FROM busybox\nRUN --mount=type=ssh,id=none,required true\n", nil, nil)
	if err == nil || !strings.Contains(err.Error(), `no SSH key "none" forwarded from the client`) {
		t.Errorf("%v", err)
	}
}

// ask talks to an agent's socket, whose path may be longer than an address.
func ask(t *testing.T, socket string) string {
	dir, err := os.Open(filepath.Dir(socket))
	if err != nil {
		t.Error(err)
		return ""
	}
	defer dir.Close()
	c, err := net.Dial("unix", fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(socket)))
	if err != nil {
		t.Error(err)
		return ""
	}
	defer c.Close()
	fmt.Fprint(c, "hello")
	answer, err := io.ReadAll(c)
	if err != nil {
		t.Error(err)
	}
	return string(answer)
}

// TestStepCaches: who comes later waits for a locked cache, gets another private one, and shares a shared one; while a build has a cache it can't be removed.
func TestStepCaches(t *testing.T) {
	w := newWorld(t)
	b := newBuilder(w)
	ctx := context.Background()
	text := func(sharing, command string) string {
		return "FROM busybox\nARG N\nRUN --mount=type=cache,id=c-" + sharing + ",target=/c,sharing=" + sharing + " --mount=type=cache,id=a,target=/a " + command + "\n"
	}
	for _, sharing := range []string{"locked", "private", "shared"} {
		t.Run(sharing, func(t *testing.T) {
			inside, waits, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
			var once sync.Once
			go func() {
				_, err := b.try(ctx, text(sharing, "touch /c/first; echo inside; while [ ! -e /a/go-"+sharing+" ]; do sleep 0.05; done; touch /c/last"), nil, func(e build.Event) {
					if bytes.Contains(e.Output, []byte("inside")) {
						once.Do(func() { close(inside) })
					}
				})
				done <- err
			}()
			within(t, inside)
			caches, err := b.Builds.Caches.List(ctx)
			if err != nil {
				t.Fatal(err)
			}
			volumesOf := map[string]string{}
			for _, c := range caches {
				volumesOf[c.ID] = c.Volume
				if c.ID == "c-"+sharing && !c.InUse {
					t.Errorf("%+v", c)
				}
			}
			if err := w.Volumes.Remove(ctx, volumesOf["c-"+sharing], true); fault.Of(err) != fault.Conflict || !strings.Contains(err.Error(), "volume is in use - [build-") {
				t.Errorf("removed while it is in use: %v", err)
			}
			contents := volumes.Contents{Service: w.Volumes}
			if err := contents.Import(ctx, volumesOf["c-"+sharing], bytes.NewReader(nil), true); fault.Of(err) != fault.Conflict {
				t.Errorf("replaced while it is in use: %v", err)
			}
			second := make(chan struct{})
			var out string
			go func() {
				defer close(second)
				var tellErr error
				out, tellErr = b.try(ctx, text(sharing, "ls /c; touch /a/go-"+sharing), map[string]string{"N": "2"}, func(e build.Event) {
					if bytes.Contains(e.Output, []byte("waiting for the cache c-locked, which another step has locked")) {
						close(waits)
					}
				})
				if tellErr != nil {
					t.Error(tellErr)
				}
			}()
			if sharing == "locked" {
				within(t, waits)
				release, err := w.Volumes.Store.Get(volumesOf["a"])
				if err == nil {
					err = os.WriteFile(filepath.Join(release.Path, "go-locked"), nil, 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			within(t, second)
			if err := <-done; err != nil {
				t.Error(err)
			}
			want := map[string]string{"locked": "waiting for the cache c-locked, which another step has locked\nfirst\nlast\n", "private": "", "shared": "first\n"}[sharing]
			if out != want {
				t.Errorf("the second one: %q, want %q", out, want)
			}
			found, err := w.Volumes.List(ctx, journal.Filters{"label": {builds.CacheLabel + "=c-" + sharing}})
			if n := map[string]int{"private": 2}[sharing]; err != nil || len(found) != max(n, 1) {
				t.Errorf("%d volumes, %v", len(found), err)
			}
			for _, v := range found {
				if err := b.Builds.Caches.Remove(ctx, v.Name); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func within(t *testing.T, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(time.Minute):
		t.Fatal("it did not happen within a minute")
	}
}

// TestStepUser: a user is looked up in the step's own tree, and has what was made for him.
func TestStepUser(t *testing.T) {
	b := newBuilder(newWorld(t))
	b.secrets["s"] = "for the guest"
	out := b.run(`FROM busybox
USER guest
RUN --mount=type=secret,id=s,uid=1000 --mount=type=cache,target=/c,uid=1000 --mount=type=tmpfs,target=/t id -u; cat /run/secrets/s; echo; touch /c/x /t/x && echo mine
`)
	if out != "1000\nfor the guest\nmine\n" {
		t.Errorf("%q", out)
	}
}

// TestStepTargets: what mounts go over is no part of the layer, nor is that a directory was looked at.
func TestStepTargets(t *testing.T) {
	b := newBuilder(newWorld(t))
	if err := os.WriteFile(filepath.Join(b.context.Name(), "f"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	out := b.run(`FROM busybox AS empty
RUN --mount=target=/a/b/c/d --mount=source=f,target=/etc/deep/f --mount=type=cache,target=/etc/cache --mount=type=tmpfs,target=/bin/t true
FROM empty AS kept
RUN --mount=target=/a/b/c/d --mount=type=tmpfs,target=/kept/t touch /kept/x /a/x
FROM busybox
RUN --mount=from=empty,target=/m busybox find /m/a /m/etc /m/bin/t 2>&1 | busybox sort
RUN --mount=from=kept,target=/m busybox find /m/a /m/kept | busybox sort
`)
	want := "/m/etc\n/m/etc/group\n/m/etc/passwd\nfind: /m/a: No such file or directory\nfind: /m/bin/t: No such file or directory\n/m/a\n/m/a/x\n/m/kept\n/m/kept/x\n"
	if out != want {
		t.Errorf("%s\nwant %s", out, want)
	}
	// The layers that have the targets go when nobody has a use for them.
	var ids []string
	for _, e := range b.Builds.Builder.Cache.Entries() {
		ids = append(ids, e.ID)
	}
	if err := b.Builds.Builder.Cache.Remove(ids); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Images.Store.Sweep(context.Background()); err != nil {
		t.Fatal(err)
	}
	if left, err := b.Containers.layers.Layers(); err != nil || len(left) != 1 {
		t.Errorf("%d layers are left beside the image's: %v", len(left)-1, err)
	}
}

// TestStepOnNothing: a tree without anything has all that a program needs by mounts.
func TestStepOnNothing(t *testing.T) {
	b := newBuilder(newWorld(t))
	b.secrets["s"] = "text"
	out := b.run(`FROM scratch
RUN --mount=from=busybox,target=/ro --mount=from=busybox,source=/bin,target=/bin --mount=type=secret,id=s --mount=type=cache,target=/c,from=busybox,source=/data \
    --mount=type=tmpfs,target=/tmp echo $(cat /run/secrets/s /ro/data/first /c/first) && echo x > /made && ls /
RUN --mount=from=busybox,source=/bin/busybox,target=/ls ["/ls", "/"]
`)
	if want := "textfrom the imagefrom the image\nbin\nc\ndev\netc\nmade\nproc\nro\nrun\nsys\ntmp\ndev\netc\nls\nmade\nproc\nsys\n"; out != want {
		t.Errorf("%q\nwant %q", out, want)
	}
}

// TestStepMountKeys: what is mounted of a stage counts by its content, and of caches, secrets and agents nothing does.
func TestStepMountKeys(t *testing.T) {
	b := newBuilder(newWorld(t))
	ends := func(what, n string) (kind build.EventKind, reason string) {
		t.Helper()
		_, err := b.try(context.Background(), `FROM busybox AS one
ARG N
RUN echo $N > /other; mkdir /d; echo `+what+` > /d/f
FROM busybox
RUN --mount=from=one,source=/d,target=/d --mount=type=cache,target=/c --mount=type=secret,id=s --mount=type=ssh cat /d/f
`, map[string]string{"N": n}, func(e build.Event) {
			if e.Step != nil && e.Stage.Index == 1 && (e.Kind == build.Began || e.Kind == build.Cached) {
				kind, reason = e.Kind, e.Reason
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		return kind, reason
	}
	if kind, _ := ends("same", "1"); kind != build.Began {
		t.Errorf("at first: %s", kind)
	}
	b.secrets["s"], b.agents["default"] = "another", func(c net.Conn) { c.Close() }
	if kind, reason := ends("same", "2"); kind != build.Cached {
		t.Errorf("of another stage with the same files: %s, %s", kind, reason)
	}
	if kind, reason := ends("other", "2"); kind != build.Began || reason != "files of one at /d changed" {
		t.Errorf("with other files: %s, %q", kind, reason)
	}
}
