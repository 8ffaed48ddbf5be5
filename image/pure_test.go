package image

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/fault"
)

func TestParseName(t *testing.T) {
	for s, want := range map[string]string{
		"ubuntu": "docker.io/library/ubuntu:latest", "ubuntu:16.04": "docker.io/library/ubuntu:16.04", "me/app": "docker.io/me/app:latest",
		"localhost:5000/x": "localhost:5000/x:latest", "ghcr.io/a/b:c": "ghcr.io/a/b:c",
	} {
		if n, err := ParseName(s); err != nil || n.String() != want {
			t.Errorf("%s: got %v, %v", s, n, err)
		}
	}
	for s, words := range map[string]string{
		"ubuntu:16:04":      `did you mean "ubuntu:16.04"?`,
		"host:5/ubuntu:1:2": `did you mean "host:5/ubuntu:1.2"?`,
		"Ubuntu":            "repository name (library/Ubuntu) must be lowercase",
		"":                  "empty",
		"a b":               "blanks",
		"https://x/y":       `leave out the "https://"`,
		"-it":               "options stand before",
		"x:":                "tag",
		"x@sha256:12":       "invalid",
	} {
		_, err := ParseName(s)
		if !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "invalid reference format") || !strings.Contains(err.Error(), words) {
			t.Errorf("%q: got %v, want %q", s, err, words)
		}
	}
}

func TestParsePlatform(t *testing.T) {
	for s, want := range map[string]string{
		"linux/amd64": "linux/amd64", "Linux/x86_64": "linux/amd64", "arm64": "linux/arm64/v8", "linux/arm": "linux/arm/v7", "linux/arm/6": "linux/arm/v6",
		"linux/amd64/v2": "linux/amd64/v2", "windows/amd64": "windows/amd64", "linux": FormatPlatform(Host()),
	} {
		if p, err := ParsePlatform(s); err != nil || FormatPlatform(p) != want {
			t.Errorf("%s: got %s, %v", s, FormatPlatform(p), err)
		}
	}
	for _, s := range []string{"", "/", "linux/", "linux/amd64/v2/x", "a b", "linux/ämd64"} {
		if p, err := ParsePlatform(s); !errors.Is(err, fault.Invalid) {
			t.Errorf("%q: got %v, %v", s, p, err)
		}
	}
}

func TestRank(t *testing.T) {
	parse := func(s string) (p ocispec.Platform) {
		if s != "" {
			p, _ = ParsePlatform(s)
		}
		return p
	}
	for _, c := range []struct {
		want, have string
		exact      bool
		rank       int
	}{
		{"linux/amd64", "linux/amd64", true, 0}, {"linux/amd64", "linux/386", false, 1}, {"linux/amd64", "linux/386", true, -1},
		{"linux/amd64", "linux/amd64/v2", false, -1}, {"linux/amd64/v3", "linux/amd64", false, 2}, {"linux/arm64", "linux/arm64", false, 0},
		{"linux/arm64", "linux/arm/v7", false, 2}, {"linux/arm/v7", "linux/arm/v6", true, 1}, {"linux/arm/v6", "linux/arm/v7", false, -1},
		{"linux/amd64", "windows/amd64", false, -1}, {"linux/amd64", "unknown/unknown", false, -1}, {"linux/amd64", "", true, 2},
	} {
		if got := rank(parse(c.want), parse(c.have), c.exact); got != c.rank {
			t.Errorf("rank(%s, %s, %v) = %d, want %d", c.want, c.have, c.exact, got, c.rank)
		}
	}
}

func TestChains(t *testing.T) {
	// The example of the OCI image specification: ChainID(A, B) = Digest(ChainID(A) + " " + DiffID(B)).
	a, b := digest.FromString("a"), digest.FromString("b")
	want := []digest.Digest{a, digest.FromString(a.String() + " " + b.String())}
	if got := chains([]digest.Digest{a, b}); !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestParseDocumentRefuses(t *testing.T) {
	d := digest.FromString("x").String()
	layer := fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":1}`, ocispec.MediaTypeImageLayer, d)
	for what, c := range map[string]struct {
		mediaType, text string
		kind            fault.Kind
	}{
		"no JSON":                    {"", `{`, fault.Corrupt},
		"schema 1":                   {"", `{"schemaVersion":1,"fsLayers":[]}`, fault.Unsupported},
		"two in one":                 {"", fmt.Sprintf(`{"config":%s,"layers":[%s],"manifests":[%s]}`, layer, layer, layer), fault.Corrupt},
		"manifest as index":          {ocispec.MediaTypeImageIndex, fmt.Sprintf(`{"config":%s,"layers":[%s]}`, layer, layer), fault.Corrupt},
		"index as manifest":          {ocispec.MediaTypeImageManifest, fmt.Sprintf(`{"manifests":[%s]}`, layer), fault.Corrupt},
		"another type than promised": {ocispec.MediaTypeImageManifest, fmt.Sprintf(`{"mediaType":%q,"manifests":[%s]}`, ocispec.MediaTypeImageIndex, layer), fault.Corrupt},
		"unknown type":               {"text/html", `{}`, fault.Unsupported},
		"no config":                  {ocispec.MediaTypeImageManifest, `{}`, fault.Corrupt},
		"digest that climbs":         {"", `{"manifests":[{"digest":"sha256:../../../etc/passwd","size":1}]}`, fault.Corrupt},
		"negative size":              {"", fmt.Sprintf(`{"manifests":[{"digest":%q,"size":-1}]}`, d), fault.Corrupt},
		"sha512":                     {"", fmt.Sprintf(`{"manifests":[{"digest":%q,"size":1}]}`, digest.SHA512.FromString("x")), fault.Unsupported},
		"10,000 layers":              {"", fmt.Sprintf(`{"config":%s,"layers":[%s]}`, layer, strings.TrimSuffix(strings.Repeat(layer+",", 10_000), ",")), fault.Unsupported},
	} {
		_, err := parseDocument(ocispec.Descriptor{MediaType: c.mediaType, Digest: digest.Digest(d)}, []byte(c.text))
		if !errors.Is(err, c.kind) {
			t.Errorf("%s: got %v of kind %q, want %q", what, err, fault.Of(err), c.kind)
		}
	}
}

func TestParseConfigRefuses(t *testing.T) {
	d := digest.FromString("x")
	for what, c := range map[string]struct {
		configType, layerType, text string
		kind                        fault.Kind
	}{
		"an artifact":       {"application/vnd.cncf.helm.config.v1+json", ocispec.MediaTypeImageLayer, `{}`, fault.Unsupported},
		"no JSON":           {dockerConfig, ocispec.MediaTypeImageLayer, `[`, fault.Corrupt},
		"too few diff IDs":  {dockerConfig, ocispec.MediaTypeImageLayer, `{}`, fault.Corrupt},
		"a bad diff ID":     {dockerConfig, ocispec.MediaTypeImageLayer, `{"rootfs":{"diff_ids":["sha256:x"]}}`, fault.Corrupt},
		"layer of no known": {dockerConfig, "application/vnd.in-toto+json", `{"rootfs":{"diff_ids":["` + d.String() + `"]}}`, fault.Unsupported},
	} {
		m := &document{Config: &ocispec.Descriptor{MediaType: c.configType, Digest: d}, Layers: []ocispec.Descriptor{{MediaType: c.layerType, Digest: d}}}
		if _, err := parseConfig(m, []byte(c.text)); !errors.Is(err, c.kind) {
			t.Errorf("%s: got %v of kind %q, want %q", what, err, fault.Of(err), c.kind)
		}
	}
}

// picture makes an image for the pure parts; when is in hours.
func picture(t *testing.T, when int, labels string, names ...string) *Image {
	t.Helper()
	at := time.Date(2026, 5, 1, when, 0, 0, 0, time.UTC)
	i := &Image{ID: digest.FromString(labels + strings.Join(names, ",") + at.String())}
	i.Config.Created = &at
	i.Config.Config.Labels = map[string]string{}
	for _, l := range strings.Fields(labels) {
		k, v, _ := strings.Cut(l, "=")
		i.Config.Config.Labels[k] = v
	}
	for _, n := range names {
		named, err := ParseName(n)
		if err != nil {
			t.Fatal(err)
		}
		i.Names = append(i.Names, named)
	}
	return i
}

func TestSelect(t *testing.T) {
	pulled := "app@" + digest.FromString("x").String()
	list := []*Image{
		picture(t, 4, "a=1 b=2", "app:1"), picture(t, 3, "a=2", "quay.io/team/app:1", "app:2"), picture(t, 2, "", pulled), picture(t, 1, "b=2"),
	}
	lookup := func(ref string) (*Image, error) {
		for _, i := range list {
			if slices.ContainsFunc(i.Names, func(n reference.Named) bool { return reference.FamiliarString(n) == ref }) {
				return i, nil
			}
		}
		return nil, notFound(ref)
	}
	now := time.Date(2026, 5, 1, 5, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		f    Filter
		want []int
	}{
		{Filter{}, []int{0, 1, 2, 3}},
		{Filter{"dangling": {"true"}}, []int{3}}, {Filter{"dangling": {"0"}}, []int{0, 1, 2}},
		{Filter{"label": {"a"}}, []int{0, 1}}, {Filter{"label": {"a=1"}}, []int{0}}, {Filter{"label": {"a", "b=2"}}, []int{0}}, {Filter{"label!": {"a"}}, []int{2, 3}},
		{Filter{"reference": {"app"}}, []int{0, 1, 2}}, {Filter{"reference": {"app:1"}}, []int{0}}, {Filter{"reference": {"*app*:2", "quay.io/*/*"}}, []int{1}},
		{Filter{"before": {"app:2"}}, []int{2, 3}}, {Filter{"since": {"app:2"}}, []int{0}},
		{Filter{"until": {"2h30m"}}, []int{2, 3}}, {Filter{"until": {"2026-05-01T02:30:00Z"}}, []int{2, 3}}, {Filter{"until": {"1777602600"}}, []int{2, 3}},
		{Filter{"label": {"b"}, "dangling": {"true"}}, []int{3}},
	} {
		got, err := Select(list, c.f, now, lookup)
		var at []int
		for _, i := range got {
			at = append(at, slices.IndexFunc(list, func(o *Image) bool { return o.Created().Equal(i.Created()) }))
		}
		if err != nil || !slices.Equal(at, c.want) {
			t.Errorf("%v: got %v, %v; want %v", c.f, at, err, c.want)
		}
	}
	// What was not asked for is not shown, and the image itself stays as it is.
	got, err := Select(list, Filter{"reference": {"app:2"}}, now, lookup)
	if err != nil || len(got) != 1 || !slices.Equal(got[0].Tags(), []string{"app:2"}) || len(list[1].Names) != 2 {
		t.Errorf("app:2: %v, %v", got, err)
	}
	for _, f := range []Filter{{"nonsense": {"x"}}, {"dangling": {"maybe"}}, {"until": {"yesterday"}}, {"reference": {"["}}} {
		if _, err := Select(list, f, now, lookup); !errors.Is(err, fault.Invalid) {
			t.Errorf("%v: got %v", f, err)
		}
	}
	if _, err := Select(list, Filter{"before": {"nobody"}}, now, lookup); !errors.Is(err, fault.NotFound) {
		t.Errorf("before an unknown image: %v", err)
	}
}

func TestHistory(t *testing.T) {
	img := picture(t, 1, "", "app:1")
	img.DiffIDs = []digest.Digest{"sha256:a", "sha256:b", "sha256:c"}
	at := time.Unix(1000, 0)
	img.Config.History = []ocispec.History{{Created: &at, CreatedBy: "ADD"}, {CreatedBy: "ENV", EmptyLayer: true}, {CreatedBy: "RUN", Comment: "buildkit"}}
	sizes := map[digest.Digest]int64{}
	for i, c := range chains(img.DiffIDs) {
		sizes[c] = int64(i+1) * 10
	}
	created := img.Created().Unix()
	want := []HistoryItem{
		{ID: img.ID.String(), Created: created, Size: 30, Tags: []string{"app:1"}},
		{ID: "<missing>", CreatedBy: "RUN", Comment: "buildkit", Size: 20},
		{ID: "<missing>", CreatedBy: "ENV"},
		{ID: "<missing>", Created: 1000, CreatedBy: "ADD", Size: 10},
	}
	if got := history(img, sizes); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
}

// The digest of the built-in image is part of the product: it changes only when somebody means to.
func FuzzParseLayout(f *testing.F) {
	f.Add([]byte(`{"manifests":[{"digest":"` + digest.FromString("x").String() + `","size":1,"annotations":{"io.containerd.image.name":"a:b"}}]}`))
	f.Add([]byte(`{"manifests":[{"annotations":{"org.opencontainers.image.ref.name":"a/b"}}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := parseLayout(data)
		if err != nil && fault.Of(err) == "" {
			t.Errorf("an error without a kind: %v", err)
		}
		for _, n := range list {
			if n.target.Digest.Validate() != nil {
				t.Errorf("accepted %v", n.target)
			}
			for _, name := range n.names {
				if _, ok := name.(reference.Digested); ok || name == nil {
					t.Errorf("accepted the name %v", name)
				}
			}
		}
	})
}

func FuzzParseArchiveTable(f *testing.F) {
	f.Add([]byte(`[{"Config":"c.json","RepoTags":["a:b"],"Layers":["x/layer.tar"]}]`))
	f.Add([]byte(`[null]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		table, err := parseArchiveTable(data)
		if err != nil && fault.Of(err) == "" {
			t.Errorf("an error without a kind: %v", err)
		}
		for _, a := range table {
			if len(a.Layers) > maxLayers {
				t.Error("too many layers")
			}
			for _, l := range a.Layers {
				if c := clean(l); strings.HasPrefix(c, "/") || strings.HasPrefix(c, "..") {
					t.Errorf("%q becomes %q", l, c)
				}
			}
		}
	})
}

func FuzzParseName(f *testing.F) {
	for _, s := range []string{"ubuntu:16:04", "a/b@sha256:" + strings.Repeat("0", 64), "-x", "https://a", "A"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseName(s)
		switch {
		case err != nil && !errors.Is(err, fault.Invalid):
			t.Errorf("%q: %v", s, err)
		case err == nil:
			if again, err := ParseName(n.String()); err != nil || again.String() != n.String() {
				t.Errorf("%q becomes %q, which becomes %v, %v", s, n, again, err)
			}
		}
	})
}
