package builds

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/blob"
	"berth/build"
	"berth/build/dockerfile"
	"berth/engine/files"
	"berth/engine/images"
	"berth/engine/journal"
	"berth/image"
	"berth/internal/kerneltest"
	"berth/registry"
	"berth/registry/registrytest"
	"berth/union"

	"github.com/distribution/reference"
	wire "github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

// world is a service over a data root of its own that can run no programs, and a registry.
type world struct {
	*Service
	*testing.T
	layers union.Driver
	blobs  *blob.Store
	cache  *build.Cache
	server *registrytest.Server
	host   string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	kerneltest.Root(t)
	dir := t.TempDir()
	w := &world{T: t, server: registrytest.New()}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	w.layers, err = union.Open("", filepath.Join(dir, "layers"))
	must(err)
	t.Cleanup(func() { w.layers.Close() })
	w.blobs, err = blob.Open(filepath.Join(dir, "blobs"))
	must(err)
	store, err := image.Open(filepath.Join(dir, "images"), w.blobs, w.layers)
	must(err)
	told, err := journal.Open(filepath.Join(dir, "events"), func(err error) { t.Error(err) })
	must(err)
	t.Cleanup(func() { told.Close() })
	client := registry.NewClient(registry.Options{Backoff: time.Millisecond})
	t.Cleanup(client.Close)
	http := httptest.NewServer(w.server)
	t.Cleanup(http.Close)
	w.host = strings.TrimPrefix(http.URL, "http://")
	w.cache, err = build.OpenCache(filepath.Join(dir, "cache"), store)
	must(err)
	t.Cleanup(func() { w.cache.Close() })
	var mu sync.Mutex
	roots := 0
	w.Service = &Service{
		Dir: filepath.Join(dir, "contexts"),
		Images: &images.Service{
			Store: store, Registry: client, Events: told, Driver: w.layers.Name(), Settle: func() {},
			LayerDirs:  func(chain digest.Digest) []string { return union.Dirs(w.layers, chain) },
			UsedBy:     func(string) (running, stopped []string) { return nil, nil },
			ManifestOf: func(string) digest.Digest { return "" },
		},
		Builder: &build.Builder{
			Images: store, Layers: w.layers, Cache: w.cache, Dir: dir, Log: slog.New(slog.DiscardHandler), Prepare: files.Prepare, Pack: union.Pack,
			NewID: func() string {
				mu.Lock()
				defer mu.Unlock()
				roots++
				return fmt.Sprint("root", roots)
			},
			Run: func(context.Context, build.Program) (int, error) { return 0, errors.New("this test runs no programs") },
			Owner: func(top *os.File, name string) (uid, gid uint32, err error) {
				o, err := files.Owner(&union.Tree{Root: top}, name)
				return o.UID, o.GID, err
			},
		},
	}
	must(w.Service.Open())
	return w
}

// asked is a client that has a directory as the context, and takes outputs into memory.
type asked struct {
	sent
	mu   sync.Mutex
	outs map[string]*bytes.Buffer
	fail func() error // of the next write; nil: all goes well
}

type sink struct {
	*bytes.Buffer
	of *asked
}

func (s sink) Write(p []byte) (int, error) {
	if s.of.fail != nil {
		return 0, s.of.fail()
	}
	return s.Buffer.Write(p)
}

func (sink) Close() error { return nil }

// Output implements Client.
func (a *asked) Output(_ context.Context, name string) (io.WriteCloser, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	b := &bytes.Buffer{}
	a.outs[name] = b
	return sink{b, a}, nil
}

// Credentials implements Client.
func (a *asked) Credentials(context.Context, reference.Named) (wire.AuthConfig, error) {
	return wire.AuthConfig{}, nil
}

// client has files, by name, as a context.
func (w *world) client(files map[string]string) *asked {
	w.Helper()
	dir := w.TempDir()
	for name, text := range files {
		at := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			w.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(text), 0o644); err != nil {
			w.Fatal(err)
		}
	}
	top, err := os.Open(dir)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { top.Close() })
	return &asked{sent: sent{dir: top}, outs: map[string]*bytes.Buffer{}}
}

// quiet hears of a build, and says nothing.
var quiet = Teller{Plan: func(*dockerfile.Plan) {}, Event: func(build.Event) {}, Warn: func(dockerfile.Warning) {}}

// built solves and exports.
func (w *world) built(o Options, c *asked, outputs ...Output) map[string]string {
	w.Helper()
	answer, err := w.try(w.Context(), o, c, outputs...)
	if err != nil {
		w.Fatal(err)
	}
	return answer
}

func (w *world) try(ctx context.Context, o Options, c *asked, outputs ...Output) (map[string]string, error) {
	solved, err := w.Solve(ctx, o, c, quiet)
	if err != nil {
		return nil, err
	}
	defer solved.Release()
	return w.Export(ctx, solved, outputs, c, quiet)
}

// members are the members of an archive, as "mode uid:gid seconds", and their content.
func (w *world) members(data []byte) (about, content map[string]string) {
	w.Helper()
	about, content = map[string]string{}, map[string]string{}
	tr := tar.NewReader(bytes.NewReader(data))
	for {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return about, content
		}
		if err != nil {
			w.Fatal(err)
		}
		text, err := io.ReadAll(tr)
		if err != nil {
			w.Fatal(err)
		}
		about[hdr.Name] = fmt.Sprintf("%o %d:%d %d", hdr.Mode, hdr.Uid, hdr.Gid, hdr.ModTime.Unix())
		content[hdr.Name] = string(text)
	}
}
