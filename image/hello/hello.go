// Package hello makes the built-in hello-world image.
//
// It stores nothing and runs nothing. Invariant: the image is the same wherever and whenever it is made.
package hello

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Name is what the image is called.
const Name = "docker.io/library/hello-world:latest"

const message = `Hello from berth!
If you can read this, berth works on this machine.

What happened to bring you these lines:
 1. The client asked the engine to run the image "hello-world", and started
    the engine first if it was not there.
 2. The engine took the image out of its own program: a small one comes built
    in, so no registry and no network was needed.
 3. It unpacked the image's only layer and laid a writable layer over it.
 4. A new process got namespaces of its own (files, processes, network, host
    name), limits, and fewer rights, and then became the program /hello.
 5. /hello wrote this text. Its supervisor passed it on to your terminal and
    is keeping the exit code, which is 0.

Things to try next:
 $ berth ps -a                     the container that has just ended
 $ berth logs $(berth ps -lq)      these lines once more
 $ berth run -it debian bash       a shell in a whole system, from a registry
 $ berth import rootfs.tar my      an image from any root file system
 $ berth help                      all commands

`

// madeAt is when the built-in image says that it was made; a constant, so that its digest is one, too.
func madeAt() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }

// Layout makes the blobs of the built-in image: an index of one small image per architecture.
func Layout() (blobs [][]byte, root ocispec.Descriptor, err error) {
	add := func(v any, mediaType string) ocispec.Descriptor {
		data, ok := v.([]byte)
		if !ok {
			if data, err = json.Marshal(v); err != nil {
				return ocispec.Descriptor{}
			}
		}
		blobs = append(blobs, data)
		return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, platform := range []ocispec.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64", Variant: "v8"}} {
		layer, err := layerOf(platform.Architecture)
		if err != nil {
			return nil, root, err
		}
		layerDesc := add(layer, ocispec.MediaTypeImageLayer)
		manifest := add(ocispec.Manifest{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
			Config: add(config(platform, layerDesc.Digest), ocispec.MediaTypeImageConfig), Layers: []ocispec.Descriptor{layerDesc},
		}, ocispec.MediaTypeImageManifest)
		manifest.Platform = &platform
		index.Manifests = append(index.Manifests, manifest)
	}
	root = add(index, ocispec.MediaTypeImageIndex)
	return blobs, root, err
}

func config(platform ocispec.Platform, diffID digest.Digest) dockerspec.DockerOCIImage {
	at := madeAt()
	var c dockerspec.DockerOCIImage
	c.Created, c.Platform = &at, platform
	c.Config.Cmd = []string{"/hello"}
	c.Config.WorkingDir = "/"
	c.Config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	c.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{diffID}}
	c.History = []ocispec.History{
		{Created: &at, CreatedBy: "COPY hello / # built into berth"},
		{Created: &at, CreatedBy: `CMD ["/hello"]`, EmptyLayer: true},
	}
	return c
}

// layerOf is a tar of the one program.
func layerOf(arch string) ([]byte, error) {
	program := assemble(arch, message)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "hello", Mode: 0o755, Size: int64(len(program)), ModTime: madeAt(), Format: tar.FormatUSTAR})
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(program); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
