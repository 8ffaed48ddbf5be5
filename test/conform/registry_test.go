package conform

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"testing"

	"berth/registry/registrytest"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// registry serves on a loopback port until the test ends.
func registry(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: registrytest.New()}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return l.Addr().String()
}

// push puts an image of one layer, the archive at path, into the registry, by the protocol's own verbs.
func push(t *testing.T, address, repository, tag, path string) {
	t.Helper()
	root, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var layer bytes.Buffer
	z := gzip.NewWriter(&layer)
	z.Write(root)
	z.Close()
	base := "http://" + address + "/v2/" + repository
	config, err := json.Marshal(ocispec.Image{
		Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH},
		Config:   ocispec.ImageConfig{Cmd: []string{"sh"}, Env: []string{"PATH=/bin"}},
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(root)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: put(t, base, ocispec.MediaTypeImageConfig, config),
		Layers: []ocispec.Descriptor{put(t, base, ocispec.MediaTypeImageLayerGzip, layer.Bytes())},
	})
	if err != nil {
		t.Fatal(err)
	}
	send(t, http.MethodPut, base+"/manifests/"+tag, ocispec.MediaTypeImageManifest, manifest)
}

// put uploads one blob.
func put(t *testing.T, base, media string, data []byte) ocispec.Descriptor {
	t.Helper()
	d := ocispec.Descriptor{MediaType: media, Digest: digest.FromBytes(data), Size: int64(len(data))}
	at := send(t, http.MethodPost, base+"/blobs/uploads/", "", nil)
	q := at.Query()
	q.Set("digest", d.Digest.String())
	at.RawQuery = q.Encode()
	send(t, http.MethodPut, at.String(), "application/octet-stream", data)
	return d
}

// send makes one request and returns the place that the answer names.
func send(t *testing.T, method, address, media string, data []byte) *url.URL {
	t.Helper()
	request, err := http.NewRequest(method, address, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if media != "" {
		request.Header.Set("Content-Type", media)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode/100 != 2 {
		body, _ := io.ReadAll(response.Body)
		t.Fatalf("%s %s: %s %s", method, address, response.Status, body)
	}
	if at, err := response.Location(); err == nil {
		return at
	}
	return nil
}
