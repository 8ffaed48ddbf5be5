package image_test

import (
	"fmt"
	"slices"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/image"
)

// TestManifests lists what an index names: here and not here, images, attestations and others.
func TestManifests(t *testing.T) {
	p, s := newPlace(t), newShop()
	mine := s.image(t, host, gzipLayer(t, files{"etc/": "", "etc/mine": "twelve bytes"}), plainLayer(t, files{"b": "four"}))
	other := ocispec.Platform{OS: "linux", Architecture: "s390x"}
	theirs := s.image(t, other, plainLayer(t, files{"etc/theirs": "theirs"}))
	strange := s.add([]byte("{}"), "application/vnd.example.thing")
	broken := s.add([]byte(`{"schemaVersion":2,`), ocispec.MediaTypeImageManifest)
	broken.Platform = &ocispec.Platform{OS: "linux", Architecture: "riscv64"}
	nested := s.index(t, theirs)
	root := s.index(t, mine, s.attestation(t, mine), nested, strange, mine)
	img := p.pull(t, s, root, "all:1")

	show := func(img *image.Image) (lines []string) {
		list, err := image.Manifests(p.Store, img)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range list {
			platform := ""
			if m.Platform != nil {
				platform = image.FormatPlatform(*m.Platform)
			}
			lines = append(lines, fmt.Sprintf("%d %s %v %v %d", m.Kind, platform, m.Available, m.Attests == mine.Digest, m.Unpacked))
			var content int64
			for _, n := range m.Blobs {
				content += n
			}
			if content != m.Content {
				t.Errorf("%s: blobs of %d bytes, and %d altogether", m.Descriptor.Digest, content, m.Content)
			}
		}
		return lines
	}
	me := image.FormatPlatform(host)
	want := []string{"1 " + me + " true false 16", "2  true true 0"}
	if got := show(img); !slices.Equal(got[:2], want) {
		t.Errorf("got %q", got)
	} else if rest := got[2:]; slices.ContainsFunc(rest, func(l string) bool { return l[0] == '1' && l != "1 linux/s390x false false 0" }) {
		t.Errorf("what is not here: %q", rest)
	}

	// An image that is no index is its own only manifest; and one whose other platform is damaged is listed all the same.
	one := p.pull(t, s, mine, "one:1")
	if got := show(one); !slices.Equal(got, want[:1]) {
		t.Errorf("got %q", got)
	}
	if list, err := image.Manifests(p.Store, one); err != nil || list[0].Descriptor.Digest != mine.Digest || list[0].Layers[one.Chain] != 4 {
		t.Errorf("got %+v, %v", list, err)
	}
	damaged := p.pull(t, s, s.index(t, mine, broken), "damaged:1")
	w, err := p.blobs.Create()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	w.Write(s.blobs[broken.Digest])
	if _, err := w.Commit(broken.Digest, broken.Size); err != nil {
		t.Fatal(err)
	}
	if got := show(damaged); !slices.Equal(got, []string{want[0], "1 linux/riscv64 false false 0"}) {
		t.Errorf("got %q", got)
	}
}
