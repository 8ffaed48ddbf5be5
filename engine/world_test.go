package engine

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/engine/images"
	"berth/internal/kerneltest"
	"berth/network"
	"berth/oci"
	"berth/oci/shim"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/jsonstream"
)

func TestMain(m *testing.M) {
	oci.InitMain()
	if len(os.Args) > 1 && os.Args[1] == "shim" {
		os.Exit(shim.Main(os.Args[2:]))
	}
	kerneltest.Main(m)
}

// world is an engine with roots of its own and an imported busybox.
type world struct {
	t      testing.TB
	config Config
	*Engine
}

// busybox is the layer of a small system: one program under many names.
func busybox(t testing.TB) []byte {
	t.Helper()
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("needs /bin/busybox, from the package busybox-static")
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	put := func(h tar.Header, content string) {
		h.Size = int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, content)
	}
	for _, d := range []string{"bin/", "etc/", "tmp/", "root/", "data/"} {
		put(tar.Header{Name: d, Typeflag: tar.TypeDir, Mode: 0o755}, "")
	}
	put(tar.Header{Name: "bin/busybox", Mode: 0o755}, string(program))
	for _, name := range strings.Fields("sh true false sleep cat echo id hostname ls grep sed kill stty nc touch rm mount wget httpd ps env pwd head dd seq") {
		put(tar.Header{Name: "bin/" + name, Typeflag: tar.TypeSymlink, Linkname: "busybox"}, "")
	}
	put(tar.Header{Name: "bin/data", Mode: 0o644}, "no program")
	put(tar.Header{Name: "data/first", Mode: 0o644}, "from the image")
	put(tar.Header{Name: "etc/passwd", Mode: 0o644}, "root:x:0:0:root:/root:/bin/sh\nguest:x:1000:1000::/tmp:/bin/sh\n")
	put(tar.Header{Name: "etc/group", Mode: 0o644}, "root:x:0:\nwheel:x:10:root\nguest:x:1000:\n")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func newWorld(t testing.TB) *world { return newWorldWith(t, func(*Config) {}) }

func newWorldWith(t testing.TB, change func(*Config)) *world {
	t.Helper()
	kerneltest.Root(t)
	dir := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, config: Config{
		DataRoot: filepath.Join(dir, "data"), ExecRoot: filepath.Join(dir, "exec"), CgroupParent: kerneltest.CgroupParent(),
		OCIPath: exe, Network: network.Config{Pool: -1}, Version: "test", Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	}}
	change(&w.config)
	w.open()
	t.Cleanup(w.end)
	err = w.Images.Import(context.Background(), images.ImportRequest{Source: "-", Repository: "busybox", Changes: []string{`CMD ["sh"]`}}, bytes.NewReader(busybox(t)), func(jsonstream.Message) {})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) open() {
	w.t.Helper()
	e, err := Open(context.Background(), w.config)
	if err != nil {
		w.t.Fatal(err)
	}
	w.Engine = e
}

// end removes all containers and takes the engine down.
func (w *world) end() {
	ctx := context.Background()
	list, err := w.Containers.List(ctx, ListRequest{All: true})
	if err != nil {
		w.t.Error(err)
	}
	for _, s := range list {
		if err := w.Containers.Remove(ctx, s.ID, RemoveOptions{Force: true, Volumes: true}); err != nil {
			w.t.Errorf("remove %s: %v", s.Names, err)
		}
	}
	if err := w.Engine.Cleanup(); err != nil {
		w.t.Error(err)
	}
}

// result is what a foreground run gave.
type result struct {
	code        int
	out, errOut string
}

// create makes a container of busybox; change may be nil.
func (w *world) create(change func(*CreateRequest), args ...string) string {
	w.t.Helper()
	r := CreateRequest{Config: &api.Config{Image: "busybox", Cmd: args}, HostConfig: &api.HostConfig{NetworkMode: "none"}}
	if change != nil {
		change(&r)
	}
	id, _, err := w.Containers.Create(context.Background(), "", r)
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

// start starts it.
func (w *world) start(id string) {
	w.t.Helper()
	if err := w.Containers.Start(context.Background(), id); err != nil {
		w.t.Fatal(err)
	}
}

// attach connects to a container's output and returns the client's end.
func (w *world) attach(id string, r AttachRequest) *net.UnixConn {
	w.t.Helper()
	client, server := socketPair(w.t)
	r.Conn, r.Stdout, r.Stderr = server, true, true
	if err := w.Containers.Attach(context.Background(), id, r); err != nil {
		w.t.Fatal(err)
	}
	return client
}

func socketPair(t testing.TB) (*net.UnixConn, *os.File) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	accepted, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	f, err := accepted.File()
	if err != nil {
		t.Fatal(err)
	}
	return client, f
}

// readFrames splits a client's stream until its end.
func readFrames(t testing.TB, r io.Reader) (out, errOut string) {
	t.Helper()
	var header [8]byte
	for {
		if _, err := io.ReadFull(r, header[:]); err == io.EOF {
			return out, errOut
		} else if err != nil {
			t.Fatal(err)
		}
		text := make([]byte, int(header[4])<<24|int(header[5])<<16|int(header[6])<<8|int(header[7]))
		if _, err := io.ReadFull(r, text); err != nil {
			t.Fatal(err)
		}
		if header[0] == 2 {
			errOut += string(text)
		} else {
			out += string(text)
		}
	}
}

// wait waits for a condition of the field and returns the exit code.
func (w *world) wait(id string, until api.WaitCondition) int {
	w.t.Helper()
	waiter, err := w.Containers.Wait(id, until)
	if err != nil {
		w.t.Fatal(err)
	}
	defer waiter.Close()
	return receive(w.t, waiter)
}

func receive(t testing.TB, waiter *Waiter) int {
	t.Helper()
	select {
	case r := <-waiter.C:
		return int(r.StatusCode)
	case <-time.After(30 * time.Second):
		t.Fatal("no exit within 30 s")
		return -1
	}
}

// run is docker run --rm: create, attach, wait, start.
func (w *world) run(change func(*CreateRequest), args ...string) result {
	w.t.Helper()
	id := w.create(func(r *CreateRequest) {
		r.HostConfig.AutoRemove = true
		if change != nil {
			change(r)
		}
	}, args...)
	client := w.attach(id, AttachRequest{Stream: true, Frames: true})
	waiter, err := w.Containers.Wait(id, api.WaitConditionRemoved)
	if err != nil {
		w.t.Fatal(err)
	}
	defer waiter.Close()
	w.start(id)
	out, errOut := readFrames(w.t, client)
	return result{receive(w.t, waiter), out, errOut}
}
