package build

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"berth/blob"
	"berth/image"
	"berth/internal/kerneltest"
	"berth/union"
)

// ground is a data root with images and a build cache.
type ground struct {
	dir    string
	blobs  *blob.Store
	layers union.Driver
	images *image.Store
	cache  *Cache
}

func newGround(t testing.TB) *ground {
	t.Helper()
	kerneltest.Root(t)
	g := &ground{dir: t.TempDir()}
	g.open(t)
	t.Cleanup(func() { g.close(t) })
	return g
}

func (g *ground) open(t testing.TB) {
	t.Helper()
	var err error
	if g.blobs, err = blob.Open(filepath.Join(g.dir, "blobs")); err != nil {
		t.Fatal(err)
	}
	if g.layers, err = union.Open("", filepath.Join(g.dir, "layers")); err != nil {
		t.Fatal(err)
	}
	if g.images, err = image.Open(filepath.Join(g.dir, "images"), g.blobs, g.layers); err != nil {
		t.Fatal(err)
	}
	if g.cache, err = OpenCache(filepath.Join(g.dir, "cache"), g.images); err != nil {
		t.Fatal(err)
	}
}

func (g *ground) close(t testing.TB) {
	t.Helper()
	if err := g.cache.Close(); err != nil {
		t.Error(err)
	}
	if err := g.layers.Close(); err != nil {
		t.Error(err)
	}
}

// layer makes one that has a file of that name.
func (g *ground) layer(t testing.TB, d *image.Draft, below []image.Layer, name string) image.Layer {
	t.Helper()
	l, err := d.Layer(t.Context(), below, func(_ context.Context, w io.Writer) error {
		tw := tar.NewWriter(w)
		if err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(name)), ModTime: time.Unix(1, 0)}); err != nil {
			return err
		}
		if _, err := io.WriteString(tw, name); err != nil {
			return err
		}
		return tw.Close()
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func keyOf(text string) *key {
	return &key{place: "stage 1 RUN", parts: map[string]string{"command": text}}
}

func TestUsesSurviveARestart(t *testing.T) {
	g := newGround(t)
	d := g.images.Draft()
	l := g.layer(t, d, nil, "one")
	k := keyOf("x")
	made := time.Now().UTC().Add(-time.Hour)
	if err := g.cache.keep(k, nil, l, made); err != nil {
		t.Fatal(err)
	}
	d.Release()
	for range 3 {
		d := g.images.Draft()
		if _, at, ok := g.cache.find(k, nil, d); !ok || !at.Equal(made) {
			t.Fatalf("found %v, made at %v", ok, at)
		}
		d.Release()
		g.close(t)
		g.open(t)
	}
	list := g.cache.Entries()
	if len(list) != 1 || list[0].Uses != 3 || !list[0].Used.After(made) {
		t.Errorf("after restarts: %+v", list)
	}
	// A torn line, and many of one entry, which become one.
	f, err := os.OpenFile(filepath.Join(g.dir, "cache", "uses"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range 200 {
		fmt.Fprintf(f, "%s %d 1\n", k.hash(), list[0].Used.UnixNano())
	}
	fmt.Fprintf(f, "%s 12", k.hash()[:20])
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		g.close(t)
		g.open(t)
		if list := g.cache.Entries(); len(list) != 1 || list[0].Uses != 203 {
			t.Errorf("after 200 more: %+v", list)
		}
	}
}

func TestEntriesGoWithTheirLayers(t *testing.T) {
	g := newGround(t)
	d := g.images.Draft()
	one := g.layer(t, d, nil, "one")
	two := g.layer(t, d, []image.Layer{one}, "two")
	for name, l := range map[string]image.Layer{"kept": {}, "lost": two} {
		if err := g.cache.keep(keyOf(name), []image.Layer{one}, l, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	d.Release()
	if err := g.layers.Remove(chain([]image.Layer{one, two})); err != nil { // by force: the cache holds it
		t.Fatal(err)
	}
	d = g.images.Draft()
	defer d.Release()
	if _, _, ok := g.cache.find(keyOf("lost"), []image.Layer{one}, d); ok {
		t.Error("a result without its layer was found")
	}
	g.close(t)
	g.open(t)
	if list := g.cache.Entries(); len(list) != 1 || list[0].ID != keyOf("kept").hash() {
		t.Errorf("after a restart: %+v", list)
	}
	if err := os.WriteFile(filepath.Join(g.dir, "cache", keyOf("kept").hash()+".json"), []byte(`{"Place":"x","Pa`), 0o600); err != nil {
		t.Fatal(err)
	}
	g.close(t)
	g.open(t)
	if list := g.cache.Entries(); len(list) != 0 {
		t.Errorf("a torn entry: %+v", list)
	}
}

func BenchmarkOpenCache(b *testing.B) {
	g := newGround(b)
	d := g.images.Draft()
	var below []image.Layer
	for n := range 10 {
		below = append(below, g.layer(b, d, below, fmt.Sprint(n)))
	}
	for n := range 10000 {
		k := keyOf(fmt.Sprint(n))
		for e := range 20 {
			k.parts[fmt.Sprint("env NAME", e)] = "some value that is not short"
		}
		if err := g.cache.keep(k, below[:n%9], below[n%9], time.Now()); err != nil {
			b.Fatal(err)
		}
	}
	d.Release()
	for b.Loop() {
		g.close(b)
		g.open(b)
	}
	if n := len(g.cache.Entries()); n != 10000 {
		b.Fatal(n)
	}
}
