package hostile

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"berth/registry/registrytest"
	"berth/test/testengine"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// member is one entry of an archive.
type member struct {
	tar.Header
	data string
}

func file(name, data string) member {
	return member{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755, Size: int64(len(data))}, data}
}

func dir(name string) member {
	return member{tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}, ""}
}

func symlink(name, target string) member {
	return member{tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}, ""}
}

func hardlink(name, target string) member {
	return member{tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target, Mode: 0o644}, ""}
}

func device(name string, major, minor int64) member {
	return member{tar.Header{Typeflag: tar.TypeBlock, Name: name, Mode: 0o666, Devmajor: major, Devminor: minor}, ""}
}

func tarOf(t testing.TB, members ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		if err := w.WriteHeader(&m.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(m.data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write(data)
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// layer is an archive as it travels and the digest that it claims to have unpacked.
type layer struct {
	data []byte
	diff digest.Digest
}

func layerOf(t testing.TB, members ...member) layer {
	t.Helper()
	plain := tarOf(t, members...)
	return layer{zipped(t, plain), digest.FromBytes(plain)}
}

// busyboxLayer is the root file system of the tests, as a layer.
func busyboxLayer(t testing.TB) layer {
	t.Helper()
	plain, err := os.ReadFile(testengine.BusyboxTar(t))
	if err != nil {
		t.Fatal(err)
	}
	return layer{zipped(t, plain), digest.FromBytes(plain)}
}

// parts of an image, for those who want to spoil one of them.
type parts struct {
	config   ocispec.Image
	manifest ocispec.Manifest
	layers   []layer
}

// imageOf puts layers together to a good image. change may spoil the config; the manifest is made after it.
func imageOf(layers []layer, change func(*ocispec.Image)) parts {
	p := parts{layers: layers, config: ocispec.Image{
		Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH},
		Config:   ocispec.ImageConfig{Cmd: []string{"sh"}, Env: []string{"PATH=/bin"}},
		RootFS:   ocispec.RootFS{Type: "layers"},
	}}
	for _, l := range layers {
		p.config.RootFS.DiffIDs = append(p.config.RootFS.DiffIDs, l.diff)
	}
	if change != nil {
		change(&p.config)
	}
	p.manifest = ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: describe(ocispec.MediaTypeImageConfig, marshal(p.config)),
	}
	for _, l := range layers {
		p.manifest.Layers = append(p.manifest.Layers, describe(ocispec.MediaTypeImageLayerGzip, l.data))
	}
	return p
}

func describe(media string, data []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: media, Digest: digest.FromBytes(data), Size: int64(len(data))}
}

func marshal(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}

// put publishes the parts as they are, and returns the manifest's digest.
func (p parts) put(s *registrytest.Server, repository, tag string) digest.Digest {
	for _, l := range p.layers {
		s.Blob(repository, l.data)
	}
	s.Blob(repository, marshal(p.config))
	return s.Manifest(repository, tag, ocispec.MediaTypeImageManifest, marshal(p.manifest))
}

// load puts the image of the layers into the engine, by an archive of the layout.
func load(t testing.TB, e *testengine.Engine, name string, change func(*ocispec.Image), layers ...layer) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image.tar")
	if err := os.WriteFile(path, layout(t, imageOf(layers, change), name), 0o600); err != nil {
		t.Fatal(err)
	}
	e.Run(t, "load", "-q", "-i", path)
}

// layout is an archive of an OCI layout.
func layout(t testing.TB, p parts, name string) []byte {
	t.Helper()
	manifest := describe(ocispec.MediaTypeImageManifest, marshal(p.manifest))
	manifest.Annotations = map[string]string{"io.containerd.image.name": name, ocispec.AnnotationRefName: "latest"}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{manifest}}
	members := []member{file("oci-layout", `{"imageLayoutVersion":"1.0.0"}`), file("index.json", string(marshal(index)))}
	for _, data := range append([][]byte{marshal(p.manifest), marshal(p.config)}, p.blobs()...) {
		members = append(members, file("blobs/sha256/"+digest.FromBytes(data).Encoded(), string(data)))
	}
	return tarOf(t, members...)
}

func (p parts) blobs() (all [][]byte) {
	for _, l := range p.layers {
		all = append(all, l.data)
	}
	return all
}

// serve gives a registry an address on loopback. stop ends it, and with it the connections that the engine kept.
func serve(t testing.TB) (s *registrytest.Server, address string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s = registrytest.New()
	server := &http.Server{Handler: s}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return s, l.Addr().String(), func() { server.Close() }
}
