package image_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/distribution/reference"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/blob"
	"berth/fault"
	"berth/image"
	"berth/internal/kerneltest"
	"berth/union"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashVar); dir != "" {
		os.Exit(work(dir))
	}
	kerneltest.Main(m)
}

// place is a data root with an image store in it.
type place struct {
	*image.Store
	dir    string
	blobs  *blob.Store
	layers union.Driver
}

// newPlace makes a data root in a directory of the test's own; it needs root, as layers have owners.
func newPlace(t testing.TB) *place {
	t.Helper()
	kerneltest.Root(t)
	return openPlace(t, t.TempDir())
}

func openPlace(t testing.TB, dir string) *place {
	t.Helper()
	p := &place{dir: dir}
	p.open(t)
	t.Cleanup(func() { p.layers.Close() })
	return p
}

func (p *place) open(t testing.TB) {
	t.Helper()
	var err error
	if p.blobs, err = blob.Open(filepath.Join(p.dir, "blobs")); err != nil {
		t.Fatal(err)
	}
	if p.layers, err = union.Open("", filepath.Join(p.dir, "overlay2")); err != nil {
		t.Fatal(err)
	}
	if p.Store, err = image.Open(filepath.Join(p.dir, "images"), p.blobs, p.layers); err != nil {
		t.Fatal(err)
	}
}

// reopen is what a daemon's restart does.
func (p *place) reopen(t testing.TB) {
	t.Helper()
	if err := p.layers.Close(); err != nil {
		t.Fatal(err)
	}
	p.open(t)
}

// content counts blobs and layers.
func (p *place) content(t testing.TB) (blobs, layers int) {
	t.Helper()
	if err := p.blobs.Walk(func(digest.Digest, int64) error { blobs++; return nil }); err != nil {
		t.Fatal(err)
	}
	list, err := p.layers.Layers()
	if err != nil {
		t.Fatal(err)
	}
	return blobs, len(list)
}

// read returns a file out of an image, seen through all its layers.
func (p *place) read(t testing.TB, img *image.Image, name string) string {
	t.Helper()
	id := digest.FromString(t.Name() + name).Encoded()
	root, err := p.layers.Create(id, img.Chain, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.layers.Delete(id)
	var data []byte
	err = union.View(root, func(dir *os.File) error {
		data, err = os.ReadFile(fmt.Sprintf("/proc/thread-self/fd/%d/%s", dir.Fd(), name))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// files is the content of one layer: names and what is in them; a name that ends in / is a directory.
type files map[string]string

func (f files) tar(t testing.TB) []byte {
	t.Helper()
	var names []string
	for n := range f {
		names = append(names, n)
	}
	slices.Sort(names)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, n := range names {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: n, Mode: 0o644, Size: int64(len(f[n])), ModTime: time.Unix(1e9, 0)}
		if n[len(n)-1] == '/' {
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, f[n])
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(data)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zstded(t testing.TB, data []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	return w.EncodeAll(data, nil)
}

// shop is a place of content in memory, a Source that counts.
type shop struct {
	mu      sync.Mutex
	blobs   map[digest.Digest][]byte
	fetched []digest.Digest
	offsets []int64
	// serve may replace the stream of a blob.
	serve func(ctx context.Context, d digest.Digest, offset int64, data []byte) (io.ReadCloser, error)
}

func newShop() *shop { return &shop{blobs: map[digest.Digest][]byte{}} }

func (s *shop) Fetch(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	s.mu.Lock()
	s.fetched = append(s.fetched, desc.Digest)
	s.offsets = append(s.offsets, offset)
	data, ok := s.blobs[desc.Digest]
	s.mu.Unlock()
	if !ok {
		return nil, fault.New(fault.NotFound, "the shop lacks %s", desc.Digest)
	}
	if s.serve != nil {
		if r, err := s.serve(ctx, desc.Digest, offset, data); r != nil || err != nil {
			return r, err
		}
	}
	return io.NopCloser(bytes.NewReader(data[offset:])), nil
}

func (s *shop) times(d digest.Digest) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.fetched {
		if f == d {
			n++
		}
	}
	return n
}

func (s *shop) add(data []byte, mediaType string) ocispec.Descriptor {
	d := digest.FromBytes(data)
	s.blobs[d] = data
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
}

func (s *shop) document(t testing.TB, v any, mediaType string) ocispec.Descriptor {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return s.add(data, mediaType)
}

// layer is one layer of a test image, as it travels and as it is named.
type layer struct {
	blob      []byte
	diffID    digest.Digest
	mediaType string
}

func plainLayer(t testing.TB, f files) layer {
	data := f.tar(t)
	return layer{data, digest.FromBytes(data), ocispec.MediaTypeImageLayer}
}

func gzipLayer(t testing.TB, f files) layer {
	data := f.tar(t)
	return layer{gzipped(t, data), digest.FromBytes(data), ocispec.MediaTypeImageLayerGzip}
}

// image puts an image of the platform into the shop and returns its manifest.
func (s *shop) image(t testing.TB, platform ocispec.Platform, layers ...layer) ocispec.Descriptor {
	t.Helper()
	created := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	config := ocispec.Image{Platform: platform, Created: &created, RootFS: ocispec.RootFS{Type: "layers"}}
	manifest := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest}
	manifest.SchemaVersion = 2
	for i, l := range layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, l.diffID)
		config.History = append(config.History, ocispec.History{Created: &created, CreatedBy: fmt.Sprintf("layer %d", i)})
		manifest.Layers = append(manifest.Layers, s.add(l.blob, l.mediaType))
	}
	config.Config.Labels = map[string]string{"kind": "test", "platform": platform.Architecture}
	manifest.Config = s.document(t, config, ocispec.MediaTypeImageConfig)
	desc := s.document(t, manifest, ocispec.MediaTypeImageManifest)
	desc.Platform = &platform
	return desc
}

func (s *shop) index(t testing.TB, list ...ocispec.Descriptor) ocispec.Descriptor {
	t.Helper()
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: list}
	index.SchemaVersion = 2
	return s.document(t, index, ocispec.MediaTypeImageIndex)
}

func name(t testing.TB, s string) reference.NamedTagged {
	t.Helper()
	n, err := image.ParseName(s)
	if err != nil {
		t.Fatal(err)
	}
	return n.(reference.NamedTagged)
}

func (p *place) pull(t testing.TB, src image.Source, root ocispec.Descriptor, as string) *image.Image {
	t.Helper()
	img, err := p.Pull(t.Context(), src, root, []reference.Named{name(t, as)}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

var host = image.Host()
