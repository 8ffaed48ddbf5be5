// Package disk tests what the engine says of its data root against du(1), and its repairs against damage done by hand.
package disk

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"berth/engine/disk"
	"berth/internal/kerneltest"
	"berth/registry/registrytest"
	"berth/test/testengine"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

// world is an engine and a registry.
type world struct {
	*testing.T
	e        *testengine.Engine
	registry *registrytest.Server
	address  string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	e := testengine.Start(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := registrytest.New()
	server := &http.Server{Handler: s}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return &world{t, e, s, l.Addr().String()}
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// call speaks the API; what it answers is decoded into out.
func (w *world) call(method, path string, q url.Values, out any) {
	w.Helper()
	w.must(w.try(method, path, q, out))
}

func (w *world) try(method, path string, q url.Values, out any) error {
	body, err := w.stream(method, path, q)
	if err != nil {
		return err
	}
	defer body.Close()
	return json.NewDecoder(body).Decode(out)
}

func (w *world) stream(method, path string, q url.Values) (io.ReadCloser, error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", w.e.Socket)
	}}}
	r, err := http.NewRequest(method, "http://berth"+path+"?"+q.Encode(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		return nil, fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, text)
	}
	return resp.Body, nil
}

// check runs a check and returns what it found.
func (w *world) check(options ...string) (all []disk.Finding, sum disk.Summary) {
	w.Helper()
	q := url.Values{}
	for _, o := range options {
		q.Set(o, "1")
	}
	body, err := w.stream("POST", "/v1.55/system/fsck", q)
	w.must(err)
	defer body.Close()
	d := json.NewDecoder(body)
	for {
		var step struct {
			disk.Checking
			Error string `json:"error"`
		}
		if err := d.Decode(&step); err == io.EOF {
			return all, sum
		} else if err != nil {
			w.Fatal(err)
		}
		switch {
		case step.Error != "":
			w.Fatal(step.Error)
		case step.Finding != nil:
			all = append(all, *step.Finding)
		case step.Summary != nil:
			sum = *step.Summary
		}
	}
}

// du is what du(1) says of the data root.
func (w *world) du() int64 {
	w.Helper()
	out, err := exec.Command("du", "-s", "--block-size=1", w.e.Data).Output()
	w.must(err)
	n, err := strconv.ParseInt(strings.Fields(string(out))[0], 10, 64)
	w.must(err)
	return n
}

// layer is a gzip tar of files of random content, which has an exec bit for none of them.
type layer struct {
	data []byte
	diff digest.Digest
}

func (w *world) layer(seed uint64, files map[string]int) layer {
	w.Helper()
	var plain bytes.Buffer
	tw := tar.NewWriter(&plain)
	for name, size := range files {
		w.must(tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(size)}))
		_, err := io.CopyN(tw, rand.NewChaCha8([32]byte{byte(seed), byte(size), byte(size >> 8), name[0]}), int64(size))
		w.must(err)
	}
	w.must(tw.Close())
	return zipped(w, plain.Bytes())
}

func zipped(w *world, plain []byte) layer {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, err := z.Write(plain)
	w.must(err)
	w.must(z.Close())
	return layer{out.Bytes(), digest.FromBytes(plain)}
}

// busybox is a layer that containers can run on.
func (w *world) busybox() layer {
	w.Helper()
	plain, err := os.ReadFile(testengine.BusyboxTar(w))
	w.must(err)
	return zipped(w, plain)
}

// publish puts an image into the registry and returns its manifest.
func (w *world) publish(repository, tag string, labels map[string]string, layers ...layer) ocispec.Manifest {
	w.Helper()
	config := ocispec.Image{
		Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH},
		Config:   ocispec.ImageConfig{Cmd: []string{"sh"}, Env: []string{"PATH=/bin"}, Labels: labels},
		RootFS:   ocispec.RootFS{Type: "layers"},
	}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	for _, l := range layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, l.diff)
		m.Layers = append(m.Layers, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: w.registry.Blob(repository, l.data), Size: int64(len(l.data))})
	}
	data, err := json.Marshal(config)
	w.must(err)
	m.Config = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: w.registry.Blob(repository, data), Size: int64(len(data))}
	data, err = json.Marshal(m)
	w.must(err)
	w.registry.Manifest(repository, tag, ocispec.MediaTypeImageManifest, data)
	return m
}

// pull publishes an image and pulls it.
func (w *world) pull(repository string, layers ...layer) (name string, m ocispec.Manifest) {
	w.Helper()
	m = w.publish(repository, "1", nil, layers...)
	name = w.address + "/" + repository + ":1"
	w.e.Run(w, "pull", "-q", name)
	return name, m
}

func (w *world) blob(d digest.Digest) string {
	return filepath.Join(w.e.Data, "blobs/sha256", d.Encoded())
}

// diff is the directory of an unpacked layer; chains of one layer have its digest.
func (w *world) diff(chain digest.Digest) string {
	return filepath.Join(w.e.Data, "layers/layers", chain.Encoded(), "diff")
}
