package build

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/fault"
	"berth/image"
)

func someLayer(name string) image.Layer {
	d := digest.FromString(name)
	return image.Layer{Desc: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromString("packed " + name), Size: int64(len(name))}, DiffID: d}
}

func TestCacheConfigAndBack(t *testing.T) {
	a, b, c := someLayer("a"), someLayer("b"), someLayer("c")
	made := time.Unix(1700000000, 0).UTC()
	want := map[string]Outcome{}
	var all []Outcome
	for text, layers := range map[string][]image.Layer{"nothing": nil, "one": {a}, "two": {a, b}, "other": {a, c}, "again": {a, b}, "twice": {b, b}} {
		o := Outcome{keyOf(text).hash(), layers, made}
		want[o.Key] = o
		all = append(all, o, o)
	}
	data, layers, err := EncodeCache(all)
	if err != nil {
		t.Fatal(err)
	}
	if len(layers) != 5 {
		t.Errorf("%d layers, of 5 chains", len(layers))
	}
	got, err := DecodeCache(data)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	inline, err := EncodeInlineCache(all, []image.Layer{a, b})
	if err != nil {
		t.Fatal(err)
	}
	if got, err = DecodeInlineCache(inline, []image.Layer{a, b}); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"other", "twice"} {
		delete(want, keyOf(text).hash()) // the image has nothing of them
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestSpoiledCacheConfig(t *testing.T) {
	key := digest.FromString("key")
	diffID := digest.FromString("x")
	for what, text := range map[string]string{
		"no JSON":             `{`,
		"a loop":              `{"layers":[{"blob":"` + string(diffID) + `","parent":0,"annotations":{"diffID":"` + string(diffID) + `"}}],"records":[{"digest":"` + string(key) + `","layers":[{"layer":0}]}]}`,
		"no such layer":       `{"records":[{"digest":"` + string(key) + `","layers":[{"layer":3}]}]}`,
		"a negative layer":    `{"records":[{"digest":"` + string(key) + `","layers":[{"layer":-7}]}]}`,
		"a layer's name":      `{"layers":[{"blob":"../../x","parent":-1,"annotations":{"diffID":"` + string(diffID) + `"}}],"records":[{"digest":"` + string(key) + `","layers":[{"layer":0}]}]}`,
		"a layer without all": `{"layers":[{"blob":"` + string(diffID) + `","parent":-1}],"records":[{"digest":"` + string(key) + `","layers":[{"layer":0}]}]}`,
	} {
		if _, err := DecodeCache([]byte(text)); err == nil {
			t.Errorf("%s passes", what)
		}
	}
	// What other builders write: links between steps, results of several inputs, digests that are no keys of ours.
	got, err := DecodeCache([]byte(`{"records":[{"digest":"` + string(key) + `","inputs":[[{"link":1}]]},{"digest":"random:1","layers":[{"layer":0}]},{"chains":[{"layers":[0]}]}]}`))
	if err != nil || len(got) != 0 {
		t.Errorf("got %v, %v", got, err)
	}
}

// TestCachesThatTakeAllMemory has an index of a few megabytes whose steps would have a billion layers.
func TestCachesThatTakeAllMemory(t *testing.T) {
	var c cacheConfig
	for k := range 10_000 {
		d := digest.FromString(fmt.Sprint(k))
		c.Layers = append(c.Layers, cacheLayer{d, k - 1, &layerAnnotations{DiffID: d}})
	}
	for k := range 100_000 {
		c.Records = append(c.Records, cacheRecord{[]cacheResult{{len(c.Layers) - 1, time.Time{}}}, digest.FromString(fmt.Sprint("r", k))})
	}
	data, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := DecodeCache(data); !errors.Is(err, fault.Unsupported) {
		t.Errorf("%d bytes: %v", len(data), err)
	}
}

func FuzzDecodeCache(f *testing.F) {
	data, _, err := EncodeCache([]Outcome{{keyOf("x").hash(), []image.Layer{someLayer("a"), someLayer("b")}, time.Unix(1, 0).UTC()}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"layers":[{"parent":1},{"parent":0}],"records":[{"layers":[{"layer":1}]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := DecodeCache(data)
		if err != nil {
			return
		}
		var all []Outcome
		for key, o := range got {
			if key != o.Key {
				t.Fatalf("%s is under %s", o.Key, key)
			}
			all = append(all, o)
		}
		if _, err := json.Marshal(all); err != nil {
			return // a time that JSON can't write
		}
		again, _, err := EncodeCache(all)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := DecodeCache(again); err != nil || len(back) != len(got) {
			t.Fatalf("%d of %d come back: %v", len(back), len(got), err)
		}
	})
}
