package layers

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/blob"
	"berth/fault"
	"berth/image"
)

// layout is an OCI layout in the making.
type layout struct {
	t     *testing.T
	files map[string][]byte
	index []ocispec.Descriptor
}

func (l *layout) add(data []byte, mediaType string) ocispec.Descriptor {
	d := digest.FromBytes(data)
	l.files["blobs/sha256/"+d.Encoded()] = data
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
}

func (l *layout) document(v any, mediaType string) ocispec.Descriptor {
	l.t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		l.t.Fatal(err)
	}
	return l.add(data, mediaType)
}

func (l *layout) manifest(name, kind string, config ocispec.Descriptor, layers ...ocispec.Descriptor) {
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: kind, Config: config, Layers: layers}
	m.SchemaVersion = 2
	d := l.document(m, ocispec.MediaTypeImageManifest)
	d.Annotations = map[string]string{"io.containerd.image.name": name}
	l.index = append(l.index, d)
}

func (l *layout) archive() []byte {
	l.t.Helper()
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: l.index}
	index.SchemaVersion = 2
	l.files["index.json"], _ = json.Marshal(index)
	l.files["oci-layout"] = []byte(`{"imageLayoutVersion":"1.0.0"}`)
	return pack(l.t, l.files)
}

func pack(t *testing.T, files map[string][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, data := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(data)), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		w.Write(data)
	}
	w.Close()
	return b.Bytes()
}

// TestExplorer looks into images of a store, of which one is an artifact.
func TestExplorer(t *testing.T) {
	d := driver(t)
	dir := t.TempDir()
	blobs, err := blob.Open(filepath.Join(dir, "blobs"))
	if err != nil {
		t.Fatal(err)
	}
	store, err := image.Open(filepath.Join(dir, "images"), blobs, d)
	if err != nil {
		t.Fatal(err)
	}
	l := &layout{t: t, files: map[string][]byte{}}
	first, second := pack(t, map[string][]byte{"f": []byte("12345"), "gone": []byte("123")}), pack(t, map[string][]byte{"f": []byte("1234567"), ".wh.gone": nil})
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	z.Write(second)
	z.Close()
	when := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	config := ocispec.Image{Platform: image.Host(), Created: &when, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(first), digest.FromBytes(second)}}, History: []ocispec.History{
		{CreatedBy: "FROM nothing", Created: &when, EmptyLayer: true}, {CreatedBy: "COPY f", Created: &when}, {CreatedBy: "ENV A=b", EmptyLayer: true}, {CreatedBy: "RUN rm gone", Comment: "smaller?"},
	}}
	low, high := l.add(first, ocispec.MediaTypeImageLayer), l.add(zipped.Bytes(), ocispec.MediaTypeImageLayerGzip)
	l.manifest("two:1", "", l.document(config, ocispec.MediaTypeImageConfig), low, high)
	config.RootFS.DiffIDs, config.History, config.Config.Env = config.RootFS.DiffIDs[:1], nil, []string{"B=c"}
	l.manifest("one:1", "", l.document(config, ocispec.MediaTypeImageConfig), low)
	l.manifest("thing:1", "application/vnd.example.thing", l.add([]byte("{}"), "application/vnd.oci.empty.v1+json"), l.add([]byte("data"), "text/plain"))
	ctx := context.Background()
	if _, err := store.Load(ctx, bytes.NewReader(l.archive()), nil, nil); err != nil {
		t.Fatal(err)
	}
	e := &Explorer{Images: store, Layers: d}
	got, err := e.Report(ctx, "two:1", nil, 1)
	if err != nil {
		t.Fatal(err)
	}
	img, err := store.Get("two:1")
	if err != nil {
		t.Fatal(err)
	}
	want := &Report{
		ID: img.ID.String(), Platform: img.Platform(), Size: low.Size + high.Size, Unpacked: 15, Shown: Sum{1, 7}, Hidden: 8, Efficiency: 5. / 15,
		Layers: []Layer{
			{Digest: low.Digest, DiffID: low.Digest, Chain: low.Digest, MediaType: low.MediaType, Size: low.Size, Unpacked: 8, CreatedBy: "COPY f", Created: &when, Added: Sum{2, 8}, Hidden: 8},
			{Digest: high.Digest, DiffID: digest.FromBytes(second), Chain: img.Chain, MediaType: high.MediaType, Size: high.Size, Unpacked: 7, CreatedBy: "RUN rm gone", Comment: "smaller?", Changed: Sum{1, 7}, Removed: Sum{1, 3}},
		},
		Largest: []Weight{{Path: "/f", Bytes: 7, Layer: 1}}, Wasteful: []Weight{{Path: "/f", Bytes: 5, Layer: 1, Times: 1}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	var told []string
	var head Comparison
	totals, err := e.Diff(ctx, "one:1", "two:1", nil, func(c Comparison) error { head = c; return nil }, func(d Difference) error {
		told = append(told, string(d.Change)+d.Path)
		return nil
	})
	if err != nil || !cmp.Equal(told, []string{"C/f", "D/gone"}) || totals != (Totals{Removed: Sum{1, 3}, Changed: Sum{1, 7}}) || len(head.Config) != 1 || head.To != img.ID.String() {
		t.Errorf("%q, %+v, %+v, %v", told, totals, head, err)
	}
	other := &ocispec.Platform{OS: "linux", Architecture: "s390x"}
	for name, want := range map[string]fault.Kind{"nosuch": fault.NotFound, "thing:1": fault.Invalid} {
		if _, err := e.Report(ctx, name, nil, 1); fault.Of(err) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := e.Report(ctx, "two:1", other, 1); fault.Of(err) != fault.NotFound {
		t.Errorf("another platform: %v", err)
	}
}
