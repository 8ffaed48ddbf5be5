package builds

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/archive/compress"
	"berth/engine/machine"
	"berth/image"
	"berth/registry"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

var sources = map[string]string{"a": "A", "dir/b": "B", "dir/c": "C", "amd64/x": "for amd64", "arm64/x": "for arm64"}

const simple = `FROM scratch
COPY --chown=7:8 --chmod=640 a /a
COPY dir /dir
ENV V=1
LABEL l=1
CMD ["/a"]
`

// layout reads an archive of an image.
type layout struct {
	*world
	content map[string]string
}

func (w *world) layout(data []byte) layout {
	_, content := w.members(data)
	return layout{w, content}
}

func (l layout) read(d digest.Digest, v any) {
	l.Helper()
	text, ok := l.content["blobs/sha256/"+d.Encoded()]
	if !ok || digest.FromString(text) != d {
		l.Fatalf("blob %s is not there or wrong", d)
	}
	if err := json.Unmarshal([]byte(text), v); err != nil {
		l.Fatal(err)
	}
}

func (l layout) index() (i ocispec.Index) {
	l.Helper()
	if err := json.Unmarshal([]byte(l.content["index.json"]), &i); err != nil {
		l.Fatal(err)
	}
	return i
}

// files are those in a layer, whatever its compression.
func (l layout) files(d digest.Digest) (about map[string]string, kind compress.Kind) {
	l.Helper()
	plain, kind, err := compress.Open(strings.NewReader(l.content["blobs/sha256/"+d.Encoded()]))
	if err != nil {
		l.Fatal(err)
	}
	defer plain.Close()
	data, err := io.ReadAll(plain)
	if err != nil {
		l.Fatal(err)
	}
	about, _ = l.members(data)
	return about, kind
}

func TestOutputs(t *testing.T) {
	w := newWorld(t)
	c := w.client(sources)
	answer := w.built(Options{Text: []byte(simple)}, c,
		Output{Name: "0", Type: "image", Attrs: map[string]string{"name": "one,two:2"}},
		Output{Name: "1", Type: "oci", Attrs: map[string]string{"name": "one", "annotation.k": "v", "annotation-manifest-descriptor.d": "w"}},
		Output{Name: "2", Type: "docker", Attrs: map[string]string{"name": "one"}},
		Output{Name: "3", Type: "tar"},
		Output{Name: "4", Type: "local"},
		Output{Name: "5", Type: "cacheonly"},
	)
	for _, name := range []string{"one", "two:2"} {
		img, err := w.Images.Store.Get(name)
		if err != nil {
			t.Fatal(err)
		}
		if img.Config.Config.Cmd[0] != "/a" || len(img.Layers) != 2 {
			t.Errorf("%s: %+v", name, img.Config)
		}
	}
	if !strings.HasPrefix(answer["containerimage.digest"], "sha256:") || answer["image.name"] != "docker.io/library/one:latest,docker.io/library/two:2" {
		t.Errorf("answer %v", answer)
	}
	about, text := w.members(c.outs["3"].Bytes())
	if !strings.HasPrefix(about["a"], "640 7:8 ") || text["dir/b"] != "B" || text["a"] != "A" {
		t.Errorf("tar: %v", about)
	}
	if c.outs["3"].String() != c.outs["4"].String() {
		t.Error("a directory of one platform is not what the archive has")
	}

	oci := w.layout(c.outs["1"].Bytes())
	at := oci.index().Manifests[0]
	if at.Annotations["io.containerd.image.name"] != "docker.io/library/one:latest" || at.Annotations["d"] != "w" {
		t.Errorf("index %+v", at)
	}
	var m ocispec.Manifest
	oci.read(at.Digest, &m)
	if m.Annotations["k"] != "v" || m.Layers[0].MediaType != ocispec.MediaTypeImageLayerGzip {
		t.Errorf("manifest %+v", m)
	}
	if found, kind := oci.files(m.Layers[0].Digest); kind != compress.Gzip || !strings.HasPrefix(found["a"], "640 7:8 ") {
		t.Errorf("layer %v %v", kind, found)
	}
	if oci.content["manifest.json"] != "" {
		t.Error("an OCI layout has Docker's table")
	}
	config := oci.content["blobs/sha256/"+m.Config.Digest.Encoded()]
	last := -1
	for _, key := range []string{`{"architecture":`, `"config":`, `"created":`, `"history":`, `"os":`, `"rootfs":`} {
		at := strings.Index(config, key)
		if at <= last {
			t.Errorf("%s is not where Docker has it: %s", key, config)
		}
		last = at
	}

	docker := w.layout(c.outs["2"].Bytes())
	var table []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := json.Unmarshal([]byte(docker.content["manifest.json"]), &table); err != nil || table[0].RepoTags[0] != "one:latest" || len(table[0].Layers) != 2 {
		t.Errorf("manifest.json %+v: %v", table, err)
	}
	if m := docker.index().Manifests[0]; m.MediaType != "application/vnd.docker.distribution.manifest.v2+json" {
		t.Errorf("docker's manifest has type %s", m.MediaType)
	}
}

func TestCompressions(t *testing.T) {
	w := newWorld(t)
	seen := map[string]string{}
	for name, attrs := range map[string]map[string]string{
		"gzip": {}, "gzip9": {"compression": "gzip", "compression-level": "9"}, "zstd": {"compression": "zstd", "force-compression": "true"}, "plain": {"compression": "uncompressed"},
	} {
		for range 2 {
			c := w.client(sources)
			w.built(Options{Text: []byte(simple), Args: map[string]string{"SOURCE_DATE_EPOCH": "1000"}}, c, Output{Type: "oci", Attrs: attrs})
			l := w.layout(c.outs[""].Bytes())
			var m ocispec.Manifest
			l.read(l.index().Manifests[0].Digest, &m)
			_, kind := l.files(m.Layers[0].Digest)
			if want := map[string]compress.Kind{"zstd": compress.Zstd, "plain": compress.None}[name]; kind != want && (want != "" || kind != compress.Gzip) {
				t.Errorf("%s: the layer is %s", name, kind)
			}
			if d := l.index().Manifests[0].Digest.String(); seen[name] == "" {
				seen[name] = d
			} else if seen[name] != d {
				t.Errorf("%s: %s, then %s", name, seen[name], d)
			}
		}
	}
}

func TestPlatforms(t *testing.T) {
	w := newWorld(t)
	both := []ocispec.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64", Variant: "v8"}}
	c := w.client(sources)
	const text = "FROM --platform=$BUILDPLATFORM scratch AS from\nCOPY . /\nFROM scratch\nARG TARGETARCH\nCOPY --from=from $TARGETARCH /\nLABEL arch=$TARGETARCH\n"
	answer := w.built(Options{Text: []byte(text), Platforms: both}, c,
		Output{Name: "0", Type: "image", Attrs: map[string]string{"name": "both", "annotation-index.i": "1", "annotation[linux/arm64].a": "2"}}, Output{Name: "1", Type: "local"}, Output{Name: "2", Type: "oci"})
	if answer["containerimage.config.digest"] != "" {
		t.Error("an index has a config")
	}
	for _, p := range both {
		img, err := w.Images.Store.GetPlatform("both", p)
		if err != nil {
			t.Fatal(err)
		}
		if img.Config.Config.Labels["arch"] != p.Architecture || img.ID.String() != answer["containerimage.digest"] {
			t.Errorf("%s: %+v", p.Architecture, img.Config)
		}
	}
	_, found := w.members(c.outs["1"].Bytes())
	if found["linux_amd64/x"] != "for amd64" || found["linux_arm64_v8/x"] != "for arm64" && found["linux_arm64/x"] != "for arm64" {
		t.Errorf("directories: %v", found)
	}
	w.built(Options{Text: []byte(text), Platforms: both[:1], Args: map[string]string{"BUILDKIT_MULTI_PLATFORM": "1"}}, c, Output{Name: "3", Type: "oci"}, Output{Name: "4", Type: "tar"})
	if m := w.layout(c.outs["3"].Bytes()).index().Manifests[0]; m.MediaType != ocispec.MediaTypeImageIndex {
		t.Errorf("one platform of several is %s", m.MediaType)
	}
	if _, found := w.members(c.outs["4"].Bytes()); found["linux_amd64/x"] == "" {
		t.Errorf("directories: %v", found)
	}
	l := w.layout(c.outs["2"].Bytes())
	var index ocispec.Index
	l.read(l.index().Manifests[0].Digest, &index)
	if len(index.Manifests) != 2 || index.Manifests[0].Platform.Architecture != "amd64" || index.Manifests[1].Platform.Architecture != "arm64" {
		t.Errorf("index %+v", index)
	}
	if _, err := w.try(t.Context(), Options{Text: []byte(text), Platforms: both}, c, Output{Type: "docker"}); err == nil || !strings.Contains(err.Error(), "manifest lists") {
		t.Errorf("docker's archive of two platforms: %v", err)
	}
	if machine.Runs("s390x") {
		t.Log("an emulator of s390x is registered: the refusal is not looked at")
		return
	}
	_, err := w.try(t.Context(), Options{Text: []byte("FROM scratch\nCOPY . /\nRUN [\"/x\"]\n"), Platforms: []ocispec.Platform{{OS: "linux", Architecture: "s390x"}}}, c, Output{Type: "image"})
	if err == nil || !strings.Contains(err.Error(), ":3: RUN for linux/s390x") || !strings.Contains(err.Error(), "qemu-user-static") {
		t.Errorf("RUN for another machine: %v", err)
	}
}

func TestEqualInputGivesEqualDigests(t *testing.T) {
	var first string
	for k := range 2 {
		w := newWorld(t)
		c := w.client(sources)
		for n, name := range []string{"a", "dir/b", "dir"} { // what a checkout at another time is like
			at := time.Unix(int64(1_700_000_000+1000*k+n), 0)
			if err := os.Chtimes(filepath.Join(c.dir.Name(), name), at, at); err != nil {
				t.Fatal(err)
			}
		}
		o := Options{Text: []byte(simple), NoCache: true, Args: map[string]string{"SOURCE_DATE_EPOCH": "1600000000"}, Attest: map[string]string{"provenance": "mode=max"}}
		answer := w.built(o, c, Output{Type: "image", Attrs: map[string]string{"name": "same", "rewrite-timestamp": "true"}}, Output{Name: "tar", Type: "oci", Attrs: map[string]string{"rewrite-timestamp": "true"}})
		if first == "" {
			first = answer["containerimage.digest"]
		} else if d := answer["containerimage.digest"]; d != first {
			t.Errorf("%s, then %s", first, d)
		}
		img, err := w.Images.Store.Get("same")
		if err != nil {
			t.Fatal(err)
		}
		if !img.Created().Equal(time.Unix(1600000000, 0)) {
			t.Errorf("created %s", img.Created())
		}
		for _, h := range img.Config.History {
			if !h.Created.Equal(time.Unix(1600000000, 0)) {
				t.Errorf("history %+v", h)
			}
		}
		l := w.layout(c.outs["tar"].Bytes())
		var index ocispec.Index
		l.read(l.index().Manifests[0].Digest, &index)
		var m ocispec.Manifest
		l.read(index.Manifests[0].Digest, &m)
		for _, layer := range m.Layers {
			found, _ := l.files(layer.Digest)
			for name, about := range found {
				if !strings.HasSuffix(about, " 1600000000") {
					t.Errorf("%s: %s", name, about)
				}
			}
		}
	}
}

func TestProvenance(t *testing.T) {
	w := newWorld(t)
	c := w.client(sources)
	w.built(Options{Text: []byte(simple)}, c, Output{Type: "image", Attrs: map[string]string{"name": "base"}})
	w.built(Options{Text: []byte("FROM base\nCOPY dir /more\n"), Attest: map[string]string{"provenance": "mode=min,inline-only=true", "sbom": "false"}, Args: map[string]string{"PASSWORD": "hush"}}, c,
		Output{Name: "0", Type: "image", Attrs: map[string]string{"name": "told"}}, Output{Name: "1", Type: "tar"})
	img, err := w.Images.Store.Get("told")
	if err != nil {
		t.Fatal(err)
	}
	list, err := image.Statements(w.Images.Store, img, nil)
	if err != nil || len(list) != 1 {
		t.Fatalf("%v %v", list, err)
	}
	base, err := w.Images.Store.Get("base")
	if err != nil {
		t.Fatal(err)
	}
	text := string(list[0].Content)
	for _, want := range []string{`"https://slsa.dev/provenance/v1"`, img.Manifest.Digest.Encoded(), `"pkg:docker/base@latest?platform=`, base.ID.Encoded(), `"startedOn"`} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in %s", want, text)
		}
	}
	if strings.Contains(text, "hush") {
		t.Error("an argument is in what mode=min tells")
	}
	for kind, want := range map[string]string{"sbom": "no scanner", "other": "there is provenance"} {
		if _, err := w.try(t.Context(), Options{Text: []byte(simple), Attest: map[string]string{kind: ""}}, c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

func TestPush(t *testing.T) {
	w := newWorld(t)
	c := w.client(sources)
	name := w.host + "/team/app"
	answer := w.built(Options{Text: []byte(simple)}, c, Output{Type: "registry", Attrs: map[string]string{"name": name + ":1," + name + ":2"}})
	img, err := w.Images.Store.Get(name + ":1")
	if err != nil {
		t.Fatal(err)
	}
	if img.ID.String() != answer["containerimage.digest"] || img.Layers[0].MediaType != ocispec.MediaTypeImageLayerGzip {
		t.Errorf("here it is %s, %+v", img.ID, img.Layers)
	}
	for _, tag := range []string{":1", ":2"} {
		named, err := image.ParseName(name + tag)
		if err != nil {
			t.Fatal(err)
		}
		if there, err := w.Images.Registry.Resolve(t.Context(), named, registry.Auth{}); err != nil || there.Digest != img.ID {
			t.Errorf("%s there: %v %v", tag, there, err)
		}
	}
	again := w.built(Options{Text: []byte(strings.Replace(simple, "V=1", "V=2", 1))}, c, Output{Type: "image", Attrs: map[string]string{"name": w.host + "/team/other", "push": "true", "push-by-digest": "true", "store": "false"}})
	if _, err := w.Images.Store.Get(w.host + "/team/other"); err == nil {
		t.Error("it is here though it should not be stored")
	}
	named, err := image.ParseName(w.host + "/team/other@" + again["containerimage.digest"])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Images.Registry.Resolve(t.Context(), named, registry.Auth{}); err != nil {
		t.Errorf("by digest: %v", err)
	}
}

func TestNothingIsLeftWhenTheClientGoes(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	c := w.client(sources)
	c.fail = func() error {
		cancel()
		return errors.New("the client is gone")
	}
	w.built(Options{Text: []byte(simple)}, w.client(sources), Output{Type: "oci"}) // which leaves nothing either
	for _, kind := range []string{"oci", "local"} {
		if _, err := w.try(ctx, Options{Text: []byte(simple)}, c, Output{Type: kind}); err == nil {
			t.Errorf("%s: no error", kind)
		}
		ctx, cancel = context.WithCancel(t.Context())
	}
	cancel()
	if err := w.blobs.Walk(func(d digest.Digest, _ int64) error {
		f, err := w.blobs.Open(d)
		if err != nil {
			return err
		}
		defer f.Close()
		_, kind, err := compress.Open(f)
		if kind != compress.None {
			t.Errorf("a compressed layer is left")
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	roots, err := w.layers.Roots()
	if err != nil || len(roots) > 0 {
		t.Errorf("roots %v %v", roots, err)
	}
	var ids []string
	for _, e := range w.cache.Entries() {
		ids = append(ids, e.ID)
	}
	if err := w.cache.Remove(ids); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Images.Store.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := w.blobs.Walk(func(d digest.Digest, _ int64) error {
		t.Errorf("blob %s is left", d)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if layers, err := w.layers.Layers(); err != nil || len(layers) > 0 {
		t.Errorf("layers %v %v", layers, err)
	}
}

func TestWishes(t *testing.T) {
	for _, c := range []struct {
		kind  string
		attrs map[string]string
		want  string // of the error
	}{
		{"image", map[string]string{"name": "a,b:1", "push": "", "unpack": "true", "store": "false"}, ""},
		{"image", map[string]string{"dangling-name-prefix": "moby-dangling"}, ""},
		{"local", map[string]string{"dest": "x", "platform-split": "false", "mode": "delete"}, ""},
		{"oci", map[string]string{"tar": "false", "compression": "zstd", "compression-level": "22"}, ""},
		{"other", nil, `output type "other": there are image,`},
		{"image", map[string]string{"pull": "1"}, `output type image has no option "pull"`},
		{"local", map[string]string{"name": "x"}, `output type local has no option "name"`},
		{"tar", map[string]string{"platform-split": "x"}, "platform-split=x"},
		{"image", map[string]string{"name": "A:b:c"}, "invalid image name"},
		{"image", map[string]string{"compression": "estargz"}, "there are gzip, zstd and uncompressed"},
		{"image", map[string]string{"compression": "gzip", "compression-level": "10"}, "gzip has 0 to 9"},
		{"docker", map[string]string{"compression": "zstd"}, "oci-mediatypes=true"},
		{"registry", nil, "tag is needed when pushing"},
		{"image", map[string]string{"name": "a:1", "push": "true", "push-by-digest": "true"}, "can't push tagged ref"},
		{"image", map[string]string{"annotation-manifests.k": "v"}, "unrecognized annotation type manifests"},
	} {
		err := CheckOutputs([]Output{{Type: c.kind, Attrs: c.attrs}})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s %v: %v, want %q", c.kind, c.attrs, err, c.want)
		}
	}
}
