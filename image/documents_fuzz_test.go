package image

import (
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/fault"
)

// Digests that seeds are made with.
const (
	someDigest  = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	otherDigest = "sha256:fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"
)

// parsed reads data as the document that a descriptor of the media type names, and fails on what no document may be.
func parsed(t *testing.T, mediaType string, data []byte) *document {
	t.Helper()
	d, err := parseDocument(ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data)}, data)
	if err != nil {
		if fault.Of(err) == "" {
			t.Errorf("an error without a kind: %v", err)
		}
		return nil
	}
	if (d.Manifests == nil) == (d.Config == nil) || len(d.Layers) > maxLayers {
		t.Errorf("accepted %s", data)
	}
	for _, c := range d.children() {
		if c.Digest.Validate() != nil || c.Size < 0 {
			t.Errorf("accepted %v", c)
		}
	}
	return d
}

func FuzzManifest(f *testing.F) {
	const config = `"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"` + someDigest + `","size":7}`
	const layer = `{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"` + otherDigest + `","size":32654}`
	for _, s := range []string{
		`{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `",` + config + `,"layers":[` + layer + `,` + layer + `]}`,
		`{"schemaVersion":2,"mediaType":"` + dockerManifest + `",` + config + `,"layers":[]}`,
		`{"schemaVersion":2,` + config + `,"layers":null,"annotations":{"a":"b"}}`,
		`{"schemaVersion":2,` + config + `,"layers":[` + layer + `],"manifests":[]}`,
		`{"schemaVersion":2,"config":{},"layers":[{"size":-1}]}`,
		`{"schemaVersion":2,"artifactType":"a/b",` + config + `,"layers":[],"subject":` + layer + `}`,
		`{"schemaVersion":2,"schemaVersion":1,` + config + `,"CONFIG":null}`,
		`{"schemaVersion":2,"config":{"digest":"` + someDigest + `","size":1e400},"layers":[]}`,
		`{"schemaVersion":2,"config":{"digest":"` + someDigest + `","size":2,"data":"e30="},"layers":[]}`,
		`{"schemaVersion":1,"name":"a","tag":"b","architecture":"amd64","fsLayers":[{"blobSum":"` + someDigest + `"}],"history":[{"v1Compatibility":"{\"id\":\"x\"}"}],"signatures":[]}`,
	} {
		f.Add(ocispec.MediaTypeImageManifest, []byte(s))
		f.Add(dockerManifest, []byte(s))
		f.Add("", []byte(s))
	}
	f.Fuzz(func(t *testing.T, mediaType string, data []byte) {
		d := parsed(t, mediaType, data)
		if d == nil || d.Config == nil {
			return
		}
		if c, err := parseConfig(d, data); err == nil && len(c.RootFS.DiffIDs) != len(d.Layers) {
			t.Error("config and manifest differ")
		}
	})
}

func FuzzIndex(f *testing.F) {
	for _, platform := range []string{
		`"platform":{"os":"linux","architecture":"amd64"}`, `"platform":{"os":"linux","architecture":"arm64","variant":"v8"}`,
		`"platform":{"os":"unknown","architecture":"unknown"},"annotations":{"vnd.docker.reference.type":"attestation-manifest","vnd.docker.reference.digest":"` + otherDigest + `"}`,
		`"platform":{"os":"windows","architecture":"amd64","os.version":"10.0","os.features":["win32k"]}`, `"platform":null`, `"platform":{}`, `"artifactType":"x/y"`,
	} {
		for _, kind := range []string{ocispec.MediaTypeImageManifest, dockerManifest, ocispec.MediaTypeImageIndex, "a/b"} {
			entry := `{"mediaType":"` + kind + `","digest":"` + someDigest + `","size":500,` + platform + `}`
			f.Add(ocispec.MediaTypeImageIndex, []byte(`{"schemaVersion":2,"mediaType":"`+ocispec.MediaTypeImageIndex+`","manifests":[`+entry+`,`+entry+`]}`))
			f.Add(dockerIndex, []byte(`{"schemaVersion":2,"manifests":[`+entry+`]}`))
		}
	}
	f.Add("", []byte(`{"manifests":[]}`))
	f.Add(ocispec.MediaTypeImageIndex, []byte(`{"schemaVersion":2,"manifests":[{"digest":"sha256:../../x","size":1}]}`))
	f.Fuzz(func(t *testing.T, mediaType string, data []byte) {
		d := parsed(t, mediaType, data)
		if d == nil || d.Manifests == nil {
			return
		}
		for _, m := range d.Manifests {
			if m.Platform == nil {
				continue
			}
			for _, exact := range []bool{true, false} {
				if r := rank(Host(), *m.Platform, exact); r < -1 || r > len(runs(Host())) {
					t.Errorf("%v ranks %d", m.Platform, r)
				}
			}
		}
	})
}

func FuzzConfig(f *testing.F) {
	f.Add(0, []byte(`{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[]}}`))
	f.Add(1, []byte(`{"created":"2026-01-02T03:04:05.123456789Z","author":"a","architecture":"amd64","os":"linux","variant":"v2","config":{"User":"1:2","ExposedPorts":{"80/tcp":{}},
		"Env":["A=b"],"Entrypoint":["/x"],"Cmd":["y"],"Volumes":{"/v":{}},"WorkingDir":"/w","Labels":{"a":"b"},"StopSignal":"9","Healthcheck":{"Test":["NONE"],"Interval":-1},"Shell":["s"],"OnBuild":["RUN x"]},
		"rootfs":{"type":"layers","diff_ids":["`+someDigest+`"]},"history":[{"created":"2026-01-02T03:04:05Z","created_by":"x","comment":"y","empty_layer":true},{}]}`))
	f.Add(2, []byte(`{"rootfs":{"diff_ids":["`+someDigest+`","`+someDigest+`"]}}`))
	f.Add(1, []byte(`{"rootfs":{"diff_ids":["sha512:`+otherDigest[7:]+otherDigest[7:]+`"]}}`))
	f.Add(1, []byte(`{"rootfs":{"type":"layers","diff_ids":["`+someDigest+`"]},"config":null,"history":null}`))
	f.Fuzz(func(t *testing.T, layers int, data []byte) {
		doc := &document{Config: &ocispec.Descriptor{MediaType: dockerConfig, Digest: digest.FromBytes(data), Size: int64(len(data))}}
		for i := range min(max(layers, 0), 10) {
			doc.Layers = append(doc.Layers, ocispec.Descriptor{MediaType: layerTypes[i%len(layerTypes)], Digest: otherDigest, Size: int64(i)})
		}
		c, err := parseConfig(doc, data)
		if err != nil {
			if fault.Of(err) == "" {
				t.Errorf("an error without a kind: %v", err)
			}
			return
		}
		if len(c.RootFS.DiffIDs) != len(doc.Layers) || len(chains(c.RootFS.DiffIDs)) != len(doc.Layers) {
			t.Error("config and manifest differ")
		}
		for _, d := range c.RootFS.DiffIDs {
			if d.Validate() != nil || d.Algorithm() != digest.SHA256 {
				t.Errorf("accepted %q", d)
			}
		}
		normalPlatform(c.Platform)
	})
}
