package image_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/fault"
	"berth/image"
)

// puzzle is an image whose documents refer to each other by words, so that the fuzzer can change one without the others' digests.
type puzzle struct{ index, manifest, config, layer string }

// solve replaces the words LAYER, CONFIG and MANIFEST by digests, and returns all content and the root.
func (p puzzle) solve() (blobs map[digest.Digest][]byte, root ocispec.Descriptor) {
	blobs = map[digest.Digest][]byte{}
	add := func(s string) digest.Digest {
		d := digest.FromString(s)
		blobs[d] = []byte(s)
		return d
	}
	layer := add(p.layer)
	config := strings.ReplaceAll(p.config, "LAYER", layer.String())
	manifest := p.manifest
	for word, d := range map[string]digest.Digest{"LAYER": layer, "CONFIG": add(config)} {
		manifest = strings.ReplaceAll(manifest, word, d.String())
	}
	if p.index == "" {
		return blobs, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: add(manifest)}
	}
	index := strings.ReplaceAll(p.index, "MANIFEST", add(manifest).String())
	return blobs, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: add(index)}
}

// puzzles seeds a target with whole images.
func puzzles(f *testing.F) {
	plain := string(files{"d/": "", "d/f": "x", ".wh.gone": ""}.tar(f))
	zipped := string(gzipped(f, []byte(plain)))
	arch := image.Host().Architecture
	config := func(diff string) string {
		return `{"os":"linux","architecture":"` + arch + `","rootfs":{"type":"layers","diff_ids":["` + diff + `"]},"history":[{"created_by":"x"}]}`
	}
	manifest := func(kind string, size int) string {
		return fmt.Sprintf(`{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"CONFIG","size":0},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.%s","digest":"LAYER","size":%d}]}`, kind, size)
	}
	index := `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"MANIFEST","size":0,"platform":{"os":"linux","architecture":"` + arch + `"}}]}`
	f.Add("", manifest("tar", len(plain)), config("LAYER"), plain)
	f.Add(index, manifest("tar+gzip", len(zipped)), config(digest.FromString(plain).String()), zipped)
	f.Add(index, `{"schemaVersion":2,"artifactType":"a/b","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"CONFIG","size":2},"layers":[{"mediaType":"text/plain","digest":"LAYER","size":3}]}`, "{}", "abc")
	f.Add("", `{"schemaVersion":1,"name":"a","tag":"b","architecture":"`+arch+`","fsLayers":[{"blobSum":"LAYER"}],"history":[{"v1Compatibility":"{\"id\":\"x\",\"os\":\"linux\"}"}]}`, "", zipped)
	f.Add(`{"schemaVersion":2,"manifests":[]}`, "{}", "null", "")
}

// settle checks what an attempt left: an error has a kind; without an image no content stays, and an image is whole.
func (p *place) settle(t *testing.T, err error) {
	t.Helper()
	if err != nil && fault.Of(err) == "" {
		t.Errorf("an error without a kind: %v", err)
	}
	list, listErr := p.List()
	if listErr != nil {
		t.Fatal(listErr)
	}
	if err != nil && len(list) > 0 {
		t.Errorf("failed by %v, and %d images are here", err, len(list))
	}
	for _, img := range list {
		if err := p.Save(t.Context(), io.Discard, []string{img.ID.String()}, nil); err != nil {
			t.Errorf("what was taken can't be saved: %v", err)
		}
		if _, err := p.Remove(img.ID.String(), image.RemoveOptions{Force: true}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if blobs, layers := p.content(t); blobs+layers > 0 {
		t.Errorf("%d blobs and %d layers are left", blobs, layers)
	}
}

func FuzzPull(f *testing.F) {
	puzzles(f)
	p := newPlace(f)
	p.Limits = image.Limits{Bytes: 4 << 20, Files: 1000}
	f.Fuzz(func(t *testing.T, index, manifest, config, layer string) {
		s := newShop()
		var root ocispec.Descriptor
		s.blobs, root = puzzle{index, manifest, config, layer}.solve()
		_, err := p.Pull(t.Context(), s, root, []reference.Named{name(t, "fuzz:1")}, nil, nil)
		p.settle(t, err)
	})
}

func FuzzLoad(f *testing.F) {
	puzzles(f)
	p := newPlace(f)
	p.Limits = image.Limits{Bytes: 4 << 20, Files: 1000}
	f.Fuzz(func(t *testing.T, index, manifest, config, layer string) {
		blobs, root := puzzle{index, manifest, config, layer}.solve()
		var archive bytes.Buffer
		w := tar.NewWriter(&archive)
		member := func(name string, data []byte) {
			if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data))}); err != nil {
				t.Fatal(err)
			}
			w.Write(data)
		}
		if len(manifest)%2 == 0 { // a docker-archive, whose table is the index
			member("layer.tar", []byte(layer))
			member("config.json", []byte(strings.ReplaceAll(config, "LAYER", digest.FromString(layer).String())))
			if !strings.HasPrefix(index, "[") {
				index = `[{"Config":"config.json","RepoTags":["fuzz:1"],"Layers":["layer.tar"]}]`
			}
			member("manifest.json", []byte(index))
		} else {
			member("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
			for d, data := range blobs {
				member("blobs/sha256/"+d.Encoded(), data)
			}
			member("index.json", fmt.Appendf(nil, `{"schemaVersion":2,"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`, root.MediaType, root.Digest, len(blobs[root.Digest])))
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		_, err := p.Load(t.Context(), &archive, nil, nil)
		p.settle(t, err)
	})
}
