package hostile

import (
	"bytes"
	"strings"
	"testing"

	"berth/registry/registrytest"
	"berth/test/testengine"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// random is content that doesn't compress, the same in every run.
func random(n int) string {
	b := make([]byte, n)
	x := uint64(88172645463325252)
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x)
	}
	return string(b)
}

// TestPullOfBadContent: whatever a registry sends, a failed pull says why and leaves nothing.
func TestPullOfBadContent(t *testing.T) {
	e := testengine.Start(t)
	e.Busybox(t)
	first, second := layerOf(t, file("first", random(200_000))), layerOf(t, file("second", random(100_000)))
	good := func() parts { return imageOf([]layer{first, second}, nil) }
	manifest := func(change func(*ocispec.Manifest)) func(*registrytest.Server) {
		return func(s *registrytest.Server) {
			p := good()
			change(&p.manifest)
			p.put(s, "app", "1")
		}
	}
	faults := func(set func(p parts, m digest.Digest) registrytest.Faults) func(*registrytest.Server) {
		return func(s *registrytest.Server) {
			p := good()
			s.SetFaults(set(p, p.put(s, "app", "1")))
		}
	}
	raw := func(media, body string) func(*registrytest.Server) {
		return func(s *registrytest.Server) { s.Manifest("app", "1", media, []byte(body)) }
	}
	before := settled(t, e)
	for _, c := range []struct {
		name  string
		words string
		setup func(*registrytest.Server)
	}{
		{"layer with a turned bit", "digest|checksum|corrupt", faults(func(p parts, _ digest.Digest) registrytest.Faults {
			return registrytest.Faults{Corrupt: []digest.Digest{p.manifest.Layers[0].Digest}}
		})},
		{"config with a turned bit", "digest|corrupt", faults(func(p parts, _ digest.Digest) registrytest.Faults {
			return registrytest.Faults{Corrupt: []digest.Digest{p.manifest.Config.Digest}}
		})},
		{"manifest with a turned bit", "digest|corrupt", faults(func(_ parts, m digest.Digest) registrytest.Faults {
			return registrytest.Faults{Corrupt: []digest.Digest{m}}
		})},
		{"lost layer", "not found|unknown", faults(func(p parts, _ digest.Digest) registrytest.Faults {
			return registrytest.Faults{Missing: []digest.Digest{p.manifest.Layers[1].Digest}}
		})},
		{"lost config", "not found|unknown", faults(func(p parts, _ digest.Digest) registrytest.Faults {
			return registrytest.Faults{Missing: []digest.Digest{p.manifest.Config.Digest}}
		})},
		{"wrong diff ID", "uncompressed it has digest .* but the image's config says", func(s *registrytest.Server) {
			imageOf([]layer{first, {second.data, digest.FromString("another")}}, nil).put(s, "app", "1")
		}},
		{"more diff IDs than layers", "layers", func(s *registrytest.Server) {
			imageOf([]layer{first}, func(i *ocispec.Image) { i.RootFS.DiffIDs = append(i.RootFS.DiffIDs, first.diff) }).put(s, "app", "1")
		}},
		{"layer that is shorter than promised", "size|bytes|EOF|short", manifest(func(m *ocispec.Manifest) { m.Layers[0].Size += 10 })},
		{"layer that is longer than promised", "size|bytes", manifest(func(m *ocispec.Manifest) { m.Layers[0].Size -= 10 })},
		{"negative size", "size|invalid", manifest(func(m *ocispec.Manifest) { m.Layers[0].Size = -1 })},
		{"giant size of the config", "more than 8388608 are not supported", manifest(func(m *ocispec.Manifest) { m.Config.Size = 1 << 40 })},
		{"digest that is a path", "digest", manifest(func(m *ocispec.Manifest) { m.Layers[0].Digest = "sha256:../../../../../etc/passwd" })},
		{"digest of no algorithm", "digest", manifest(func(m *ocispec.Manifest) { m.Layers[0].Digest = "md5:d41d8cd98f00b204e9800998ecf8427e" })},
		{"config that is no JSON", "config|invalid|JSON", manifest(func(m *ocispec.Manifest) { m.Config.Digest, m.Config.Size = m.Layers[0].Digest, m.Layers[0].Size })},
		{"manifest that is no JSON", "manifest|invalid", raw(ocispec.MediaTypeImageManifest, "not json at all")},
		{"empty manifest", "manifest|config|invalid", raw(ocispec.MediaTypeImageManifest, "{}")},
		{"manifest of the first schema", "schema|manifest|support", raw("application/vnd.docker.distribution.manifest.v1+prettyjws", `{"schemaVersion":1,"name":"app","tag":"1","fsLayers":[]}`)},
		{"web page", "manifest|support|media", raw("text/html", "<html>Log in to the hotel's network</html>")},
		{"endless manifest", "large|big|limit|size|MiB|bytes", raw(ocispec.MediaTypeImageManifest, `{"x":"`+strings.Repeat("y", 8<<20)+`"}`)},
		{"deep manifest", "manifest|invalid", raw(ocispec.MediaTypeImageManifest, strings.Repeat("[", 1<<20))},
		{"index without our platform", "no matching manifest|platform", raw(ocispec.MediaTypeImageIndex,
			`{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":10,"digest":"`+digest.FromString("x").String()+`","platform":{"os":"plan9","architecture":"s390x"}}]}`)},
		{"index of a missing manifest", "not found|unknown", raw(ocispec.MediaTypeImageIndex,
			`{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":10,"digest":"`+digest.FromString("x").String()+`"}]}`)},
		{"layer that leaves its tree", "leaves", func(s *registrytest.Server) {
			imageOf([]layer{first, layerOf(t, file("../../../../escaped", "x"))}, nil).put(s, "app", "1")
		}},
		{"unknown tag", `manifest unknown|not found`, func(s *registrytest.Server) { good().put(s, "app", "2") }},
		{"unknown repository", `pull access denied for 127.0.0.1:\d+/app, repository does not exist or may require 'docker login'`, func(*registrytest.Server) {}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, address, stop := serve(t)
			c.setup(s)
			refused(t, e, 1, c.words, "pull", address+"/app:1")
			stop()
			same(t, e, before)
		})
	}
}

// TestPullGoesOnAfterACut: a connection that breaks is taken up where it broke, and a second pull after a failure works.
func TestPullGoesOnAfterACut(t *testing.T) {
	e := testengine.Start(t)
	s, address, _ := serve(t)
	p := imageOf([]layer{busyboxLayer(t)}, nil)
	p.put(s, "app", "1")
	blob := p.manifest.Layers[0].Digest
	s.SetFaults(registrytest.Faults{Corrupt: []digest.Digest{blob}})
	refused(t, e, 1, "digest", "pull", address+"/app:1")
	s.SetFaults(registrytest.Faults{CutAfter: 300_000, Cuts: 2, TooMany: 1, RetryAfter: "0"})
	out := e.Run(t, "pull", address+"/app:1")
	ranges := 0
	for _, r := range s.Requests() {
		if strings.Contains(r, "bytes=") {
			ranges++
		}
	}
	if ranges < 2 {
		t.Errorf("%d requests went on where the one before broke:\n%s\n%s", ranges, strings.Join(s.Requests(), "\n"), out)
	}
	if out := e.Run(t, "run", "--rm", address+"/app:1", "echo", "whole"); out != "whole\n" {
		t.Errorf("the image says %q", out)
	}
	// Another name of the same content costs no further download.
	n := len(s.Requests())
	p.put(s, "app", "again")
	e.Run(t, "pull", address+"/app:again")
	for _, r := range s.Requests()[n:] {
		if strings.Contains(r, "/blobs/") && bytes.Contains([]byte(r), []byte(blob.Encoded())) {
			t.Errorf("fetched again: %s", r)
		}
	}
}

// TestForeignLayersAreNotFetchedFromElsewhere: a manifest can't make the engine call other servers of its host.
func TestForeignLayersAreNotFetchedFromElsewhere(t *testing.T) {
	e := testengine.Start(t)
	e.Busybox(t)
	before := settled(t, e)
	s, address, stop := serve(t)
	victim, other, stopOther := serve(t)
	p := imageOf([]layer{layerOf(t, file("f", "x"))}, nil)
	victim.Blob("app", p.layers[0].data)
	p.manifest.Layers[0].MediaType = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
	p.manifest.Layers[0].URLs = []string{"http://" + other + "/v2/app/blobs/" + p.manifest.Layers[0].Digest.String()}
	s.Blob("app", marshal(p.config))
	s.Manifest("app", "1", ocispec.MediaTypeImageManifest, marshal(p.manifest))
	refused(t, e, 1, ".", "pull", address+"/app:1")
	if asked := victim.Requests(); len(asked) > 0 {
		t.Errorf("the engine asked another server: %v", asked)
	}
	stop()
	stopOther()
	same(t, e, before)
}
