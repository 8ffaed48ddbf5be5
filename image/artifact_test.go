package image_test

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/fault"
	"berth/image"
)

// artifact puts something that is no container image into the shop: a chart, say.
func (s *shop) artifact(t testing.TB, content string) ocispec.Descriptor {
	t.Helper()
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "application/vnd.example.chart"}
	m.SchemaVersion = 2
	m.Config = s.add([]byte("{}"), ocispec.MediaTypeEmptyJSON)
	m.Config.Data = []byte("{}")
	m.Layers = []ocispec.Descriptor{s.add([]byte(content), "application/vnd.example.chart.content")}
	return s.document(t, m, ocispec.MediaTypeImageManifest)
}

// attestation puts what builders say of an image into the shop, as they do: a manifest for no platform.
func (s *shop) attestation(t testing.TB, of ocispec.Descriptor) ocispec.Descriptor {
	t.Helper()
	statement := []byte(`{"statement of":"` + of.Digest + `"}`)
	nowhere := ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	config := ocispec.Image{Platform: nowhere, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(statement)}}}
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest}
	m.SchemaVersion = 2
	m.Config = s.document(t, config, ocispec.MediaTypeImageConfig)
	m.Layers = []ocispec.Descriptor{s.add(statement, "application/vnd.in-toto+json")}
	desc := s.document(t, m, ocispec.MediaTypeImageManifest)
	desc.Platform = &nowhere
	desc.Annotations = map[string]string{"vnd.docker.reference.digest": of.Digest.String(), "vnd.docker.reference.type": "attestation-manifest"}
	return desc
}

// same compares what arrived with what was there.
func (s *stall) same(t testing.TB, from *shop) {
	t.Helper()
	if want := slices.Sorted(maps.Keys(from.blobs)); !slices.Equal(slices.Sorted(maps.Keys(s.blobs)), want) {
		t.Errorf("%s has %v, want %v", s.path, slices.Sorted(maps.Keys(s.blobs)), want)
	}
	for d, data := range s.blobs {
		if !bytes.Equal(data, from.blobs[d]) {
			t.Errorf("%s differs", d)
		}
	}
}

func TestArtifactsPassUnchanged(t *testing.T) {
	for what, make := range map[string]func(*shop) ocispec.Descriptor{
		"a manifest": func(s *shop) ocispec.Descriptor { return s.artifact(t, "chart") },
		"an index":   func(s *shop) ocispec.Descriptor { return s.index(t, s.artifact(t, "one"), s.artifact(t, "two")) },
	} {
		t.Run(what, func(t *testing.T) {
			p := newPlace(t)
			s := newShop()
			root := make(s)
			img := p.pull(t, s, root, "reg.test/chart:1")
			if img.ID != root.Digest || img.Artifact != "application/vnd.example.chart" || img.Chain != "" || img.Size == 0 {
				t.Errorf("got %+v", img)
			}
			if s.times(digest.FromString("{}")) != 0 {
				t.Error("content that the manifest carries was fetched")
			}
			data := p.save(t, "reg.test/chart:1")
			p.removeAll(t)
			p.load(t, data)
			p.reopen(t)
			var m market
			done, _ := p.push(t, m.stall("chart"), "reg.test/chart:1")
			if done.Target.Digest != root.Digest {
				t.Errorf("pushed %+v", done)
			}
			m.stall("chart").same(t, s)
			if _, err := p.GetPlatform("reg.test/chart:1", host); !errors.Is(err, fault.NotFound) {
				t.Errorf("as an image for this machine: %v", err)
			}
		})
	}
}

func TestAttestationsComeWithTheirImage(t *testing.T) {
	p := newPlace(t)
	s := newShop()
	mine := s.image(t, host, gzipLayer(t, files{"f": "x"}))
	root := s.index(t, s.attestation(t, mine), mine)
	img := p.pull(t, s, root, "reg.test/app:1")
	if img.Manifest.Digest != mine.Digest || img.Artifact != "" || p.read(t, img, "f") != "x" {
		t.Errorf("got %+v", img)
	}
	data := p.save(t, "reg.test/app:1")
	p.removeAll(t)
	p.load(t, data)
	var m market
	if done, _ := p.push(t, m.stall("app"), "reg.test/app:1"); done.Target.Digest != root.Digest || done.Index != nil {
		t.Errorf("pushed %+v", done)
	}
	m.stall("app").same(t, s)
	// Those of other platforms do not come, and one that is gone harms nobody.
	p.removeAll(t)
	other := s.image(t, ocispec.Platform{OS: "linux", Architecture: "s390x"}, gzipLayer(t, files{"f": "other"}))
	lost, far := s.attestation(t, mine), s.attestation(t, other)
	root = s.index(t, mine, lost, other, far)
	delete(s.blobs, lost.Digest)
	p.pull(t, s, root, "reg.test/app:2")
	if s.times(far.Digest) != 0 {
		t.Error("what another platform's image is described by was fetched")
	}
}

func TestIndexesInIndexes(t *testing.T) {
	p := newPlace(t)
	s := newShop()
	other := s.image(t, ocispec.Platform{OS: "linux", Architecture: "s390x"}, gzipLayer(t, files{"f": "other"}))
	mine := s.image(t, host, gzipLayer(t, files{"f": "mine"}))
	root := s.index(t, s.index(t, other), s.index(t, s.index(t, mine)))
	if img := p.pull(t, s, root, "app"); p.read(t, img, "f") != "mine" {
		t.Errorf("got %+v", img)
	}
	for range 4 {
		root = s.index(t, root)
	}
	if _, err := p.Pull(t.Context(), s, root, []reference.Named{name(t, "deep")}, nil, nil); !errors.Is(err, fault.Unsupported) {
		t.Errorf("indexes without end: %v", err)
	}
}

// multi is an image for two platforms that share a layer.
func multi(t testing.TB, s *shop) (root, mine, other ocispec.Descriptor) {
	base := gzipLayer(t, files{"base": noise(20_000)})
	mine = s.image(t, host, base, gzipLayer(t, files{"f": "mine"}))
	other = s.image(t, ocispec.Platform{OS: "linux", Architecture: "s390x"}, base, gzipLayer(t, files{"f": "other"}))
	return s.index(t, mine, s.attestation(t, mine), other), mine, other
}

func TestSaveAndLoadPlatforms(t *testing.T) {
	far := ocispec.Platform{OS: "linux", Architecture: "s390x"}
	p := newPlace(t)
	s := newShop()
	root, mine, other := multi(t, s)
	p.pull(t, s, root, "app:1")
	if _, err := p.Pull(t.Context(), s, root, []reference.Named{name(t, "app:1")}, &far, nil); err != nil {
		t.Fatal(err)
	}
	saved := func(platforms ...ocispec.Platform) []byte {
		var b bytes.Buffer
		if err := p.Save(t.Context(), &b, []string{"app:1"}, platforms); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	all, one, both := saved(), saved(far), saved(far, host)
	if err := p.Save(t.Context(), io.Discard, []string{"app:1"}, []ocispec.Platform{{OS: "linux", Architecture: "arm"}}); !errors.Is(err, fault.NotFound) {
		t.Errorf("a platform that is not here: %v", err)
	}
	load := func(data []byte, platforms ...ocispec.Platform) (*image.Image, error) {
		p.removeAll(t)
		list, err := p.Load(t.Context(), io.MultiReader(bytes.NewReader(data)), platforms, nil)
		if err != nil {
			return nil, err
		}
		if len(list) != 1 || list[0].Name.String() != "docker.io/library/app:1" {
			t.Errorf("loaded %v", list)
		}
		return p.Get("app:1")
	}
	if img, err := load(one); err != nil || img.ID != other.Digest || p.read(t, img, "f") != "other" {
		t.Errorf("one platform: %+v, %v", img, err)
	}
	if img, err := load(both); err != nil || img.ID != root.Digest || p.read(t, img, "f") != "mine" {
		t.Errorf("two platforms: %+v, %v", img, err)
	}
	img, err := load(all, far)
	if err != nil || img.ID != root.Digest || img.Manifest.Digest != other.Digest || p.read(t, img, "f") != "other" {
		t.Errorf("one of two: %+v, %v", img, err)
	}
	if p.blobs.Has(mine.Digest) {
		t.Error("the platform that was not asked for is here")
	}
	if _, err := load(all, far, host); err != nil {
		t.Errorf("both: %v", err)
	}
	for _, platform := range []ocispec.Platform{far, host} {
		if _, err := p.GetPlatform("app:1", platform); err != nil {
			t.Errorf("%v is not unpacked: %v", platform, err)
		}
	}
	if _, err := load(one, host); !errors.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "doesn't provide the requested platform") {
		t.Errorf("a platform that the archive lacks: %v", err)
	}
	p.checkNothing(t)
}

func TestSaveARepository(t *testing.T) {
	p := newPlace(t)
	s := newShop()
	p.pull(t, s, s.image(t, host, gzipLayer(t, files{"f": "1"})), "app:1")
	p.pull(t, s, s.image(t, host, gzipLayer(t, files{"f": "2"})), "app:2")
	data := p.save(t, "app")
	p.removeAll(t)
	if list := p.load(t, data); len(list) != 2 {
		t.Errorf("loaded %v", list)
	}
}
