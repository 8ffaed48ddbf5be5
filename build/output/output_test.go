package output

import (
	"maps"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestPackageURL(t *testing.T) {
	for name, want := range map[string]string{
		"busybox":                               "pkg:docker/busybox@latest?platform=linux%2Famd64",
		"registry.example:5000/team/app:1.2":    "pkg:docker/registry.example:5000/team/app@1.2?platform=linux%2Famd64",
		"a/b@sha256:" + strings.Repeat("0", 64): "pkg:docker/a/b?digest=sha256%3A" + strings.Repeat("0", 64) + "&platform=linux%2Famd64",
	} {
		if got, err := PackageURL(name, &ocispec.Platform{OS: "linux", Architecture: "amd64"}); err != nil || got != want {
			t.Errorf("%s: %s %v, want %s", name, got, err, want)
		}
	}
	if _, err := PackageURL("Not A Name", nil); err == nil {
		t.Error("what is no name has a URL")
	}
}

func TestAnnotations(t *testing.T) {
	var f Form
	for option, is := range map[string]bool{
		"annotation.a": true, "annotation-manifest[linux/arm64].b": true, "annotation-index.c.d": true, "annotation-index-descriptor.e": true, "annotation": false, "annotations.x": false, "name": false,
	} {
		a, got, err := ParseAnnotation(option, "v")
		if err != nil || got != is {
			t.Errorf("%s: %v %v", option, got, err)
		}
		if got {
			f.Annotations = append(f.Annotations, a)
		}
	}
	for _, wrong := range []string{"annotation-layer.x", "annotation[linux/arm64/v8/x/y].k"} {
		if _, is, err := ParseAnnotation(wrong, ""); !is || err == nil {
			t.Errorf("%s: %v %v", wrong, is, err)
		}
	}
	keys := func(m map[string]string) string { return strings.Join(slices.Sorted(maps.Keys(m)), " ") }
	arm := &ocispec.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}
	amd := &ocispec.Platform{OS: "linux", Architecture: "amd64"}
	if got := []string{keys(f.pick(onManifest, arm)), keys(f.pick(onManifest, amd)), keys(f.pick(onIndex, nil)), keys(f.pick(onIndexDescriptor, nil)), keys(f.pick(onManifestDescriptor, arm))}; !slices.Equal(got, []string{"a b", "a", "c.d", "e", ""}) {
		t.Errorf("picked %q", got)
	}
}

func TestTouchedNames(t *testing.T) {
	n := names{}
	for _, p := range []string{"a/b/c", "./a/d/", "/e"} {
		n.add(p)
	}
	for dir, want := range map[string]string{"": "a e", "a": "b d", "a/b": "c", "a/d": ""} {
		if got := strings.Join(slices.Sorted(maps.Keys(n[dir])), " "); got != want {
			t.Errorf("%q: %q, want %q", dir, got, want)
		}
	}
}

func TestWhichLayersAreCompressed(t *testing.T) {
	for _, c := range []struct {
		form Form
		have string
		want bool
	}{
		{Form{}, ocispec.MediaTypeImageLayer, false},
		{Form{Compression: Gzip}, ocispec.MediaTypeImageLayer, true},
		{Form{Compression: Gzip}, ocispec.MediaTypeImageLayerZstd, false},
		{Form{Compression: Gzip, Force: true}, ocispec.MediaTypeImageLayerZstd, true},
		{Form{Compression: Uncompressed}, ocispec.MediaTypeImageLayer, false},
		{Form{Compression: Uncompressed}, ocispec.MediaTypeImageLayerGzip, false},
		{Form{Compression: Uncompressed, Force: true}, ocispec.MediaTypeImageLayerGzip, true},
	} {
		if got := c.form.changes(ocispec.Descriptor{MediaType: c.have}); got != c.want {
			t.Errorf("%+v of %s: %v", c.form, c.have, got)
		}
	}
	if (Form{Compression: Gzip, Force: true}).changes(ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, URLs: []string{"https://x.example"}}) {
		t.Error("a layer that lies elsewhere is written anew")
	}
}
