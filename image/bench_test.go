package image_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/image"
	"berth/registry"
	"berth/registry/registrytest"
)

// loopback serves what a shop has as one repository, and returns the name of its tag.
func loopback(t testing.TB, s *shop, root ocispec.Descriptor) (*registrytest.Server, *registry.Client, reference.Named) {
	t.Helper()
	server := registrytest.New()
	for _, data := range s.blobs {
		server.Blob("team/app", data)
	}
	for d, data := range s.blobs {
		if strings.HasPrefix(string(data), `{"schemaVersion"`) {
			mediaType := ocispec.MediaTypeImageManifest
			if strings.Contains(string(data), `"manifests":[`) {
				mediaType = ocispec.MediaTypeImageIndex
			}
			tag := ""
			if d == root.Digest {
				tag = "v1"
			}
			server.Manifest("team/app", tag, mediaType, data)
		}
	}
	web := httptest.NewServer(server)
	client := registry.NewClient(registry.Options{})
	t.Cleanup(func() {
		client.Close()
		web.Close()
	})
	return server, client, name(t, strings.TrimPrefix(web.URL, "http://")+"/team/app:v1")
}

// text is content that compresses to two fifths, about as well as programs do.
func text(seed, n int) string {
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
	b := bytes.Repeat([]byte(" "), n)
	for at := 0; at+40 <= n; at += 100 {
		r.Read(b[at : at+40])
	}
	return string(b)
}

// BenchmarkPull is the pull of limits.md: 10 layers of 20 MB in 740 files each, from loopback. One byte of the tars is one byte of the rate.
func BenchmarkPull(b *testing.B) {
	s := newShop()
	root, total := tenLayers(b, s, gzipLayer)
	_, client, ref := loopback(b, s, root)
	b.SetBytes(int64(total))
	var spent float64
	for b.Loop() {
		b.StopTimer()
		p := newPlace(b)
		b.StartTimer()
		spent -= cpuSeconds(b)
		desc, err := client.Resolve(b.Context(), ref, registry.Auth{})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := p.Pull(b.Context(), client.Repository(ref, registry.Auth{}), desc, []reference.Named{ref}, nil, func(image.Event) {}); err != nil {
			b.Fatal(err)
		}
		spent += cpuSeconds(b)
	}
	b.ReportMetric(spent/float64(b.N), "cpu-s/op")
}

// cpuSeconds is the processor time of this process so far; on a busy machine it tells more than the clock (proc_pid_stat(5):
// fields 14 and 15, in hundredths of a second).
func cpuSeconds(t testing.TB) float64 {
	t.Helper()
	data, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		t.Fatal(err)
	}
	field := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	user, err1 := strconv.Atoi(field[11])
	system, err2 := strconv.Atoi(field[12])
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	return float64(user+system) / 100
}

// tenLayers puts an image of ten layers of 20 MB in 740 files each into the shop.
func tenLayers(b *testing.B, s *shop, make func(testing.TB, files) layer) (root ocispec.Descriptor, total int) {
	var layers []layer
	for i := range 10 {
		f := files{}
		for k := range 740 {
			f[fmt.Sprintf("usr/share/l%d/d%d/f%d", i, k%20, k)] = text(i*1000+k, 27_000)
		}
		l := make(b, f)
		total += len(f.tar(b))
		layers = append(layers, l)
	}
	return s.image(b, host, layers...), total
}

// BenchmarkLoad reads archives of such an image.
func BenchmarkLoad(b *testing.B) {
	for what, make := range map[string]func(testing.TB, files) layer{"plain": plainLayer, "gzip": gzipLayer} {
		b.Run(what, func(b *testing.B) {
			s := newShop()
			root, total := tenLayers(b, s, make)
			p := newPlace(b)
			p.pull(b, s, root, "app")
			data := p.save(b, "app")
			b.SetBytes(int64(total))
			var spent float64
			for b.Loop() {
				b.StopTimer()
				p := newPlace(b)
				b.StartTimer()
				spent -= cpuSeconds(b)
				p.load(b, data)
				spent += cpuSeconds(b)
			}
			b.ReportMetric(spent/float64(b.N), "cpu-s/op")
		})
	}
}
