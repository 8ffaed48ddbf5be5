package build

import (
	"cmp"
	"encoding/json"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/fault"
	"berth/image"
)

// CacheConfigType is the media type of a cache's index, which is BuildKit's. Its steps have other keys than ours: each finds nothing in
// what the other wrote, and neither takes it for something else.
const CacheConfigType = "application/vnd.buildkit.cacheconfig.v0"

// Outcome is what a step came to: the layers after it, the deepest first.
type Outcome struct {
	Key    string // what all that the step could see was hashed to, in hexadecimal
	Layers []image.Layer
	Made   time.Time
}

// cacheConfig is the document (moby/buildkit, cache/remotecache/v1/spec.go).
type cacheConfig struct {
	Layers  []cacheLayer  `json:"layers,omitempty"`
	Records []cacheRecord `json:"records,omitempty"`
}

type cacheLayer struct {
	Blob        digest.Digest     `json:"blob,omitempty"`
	Parent      int               `json:"parent"` // -1: none
	Annotations *layerAnnotations `json:"annotations,omitempty"`
}

type layerAnnotations struct {
	MediaType string        `json:"mediaType,omitempty"`
	DiffID    digest.Digest `json:"diffID,omitempty"`
	Size      int64         `json:"size,omitempty"`
	CreatedAt time.Time     `json:"createdAt"`
}

type cacheRecord struct {
	Results []cacheResult `json:"layers,omitempty"`
	Digest  digest.Digest `json:"digest,omitempty"`
}

// cacheResult names the uppermost layer after a step; -1: there is none.
type cacheResult struct {
	Layer     int       `json:"layer"`
	CreatedAt time.Time `json:"createdAt"`
}

// EncodeCache writes outcomes down, with the layers that they name, each once and after those below it. The same outcomes give the same bytes.
func EncodeCache(all []Outcome) (data []byte, layers []image.Layer, err error) {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b Outcome) int { return cmp.Compare(a.Key, b.Key) })
	all = slices.CompactFunc(all, func(a, b Outcome) bool { return a.Key == b.Key })
	var c cacheConfig
	places := map[digest.Digest]int{} // by chain
	for _, o := range all {
		r := cacheRecord{Digest: digest.NewDigestFromEncoded(digest.SHA256, o.Key)}
		parent := -1
		for k, chain := range image.Chains(o.Layers) {
			at, ok := places[chain]
			if !ok {
				l := o.Layers[k]
				at = len(c.Layers)
				places[chain] = at
				c.Layers = append(c.Layers, cacheLayer{l.Desc.Digest, parent, &layerAnnotations{l.Desc.MediaType, l.DiffID, l.Desc.Size, o.Made}})
				layers = append(layers, l)
			}
			parent = at
		}
		r.Results = []cacheResult{{parent, o.Made}}
		c.Records = append(c.Records, r)
	}
	data, err = json.Marshal(c)
	return data, layers, err
}

// DecodeCache reads outcomes, by key. What other builders wrote into it is passed over.
func DecodeCache(data []byte) (map[string]Outcome, error) {
	var c cacheConfig
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, fault.New(fault.Corrupt, "the cache's index: %w", err)
	}
	return c.outcomes()
}

// maxStacked is how many layers the outcomes of one index may have, those of each counted: a few bytes of it are a whole stack, and what comes from
// elsewhere must not take all memory there is.
const maxStacked = 1 << 19

func (c *cacheConfig) outcomes() (map[string]Outcome, error) {
	all := map[string]Outcome{}
	stacked := 0
	for _, r := range c.Records {
		if r.Digest.Validate() != nil || r.Digest.Algorithm() != digest.SHA256 || len(r.Results) != 1 {
			continue
		}
		o := Outcome{Key: r.Digest.Encoded(), Made: r.Results[0].CreatedAt}
		var err error
		if o.Layers, err = c.below(r.Results[0].Layer); err != nil {
			return nil, err
		}
		if stacked += len(o.Layers); stacked > maxStacked {
			return nil, fault.New(fault.Unsupported, "the cache's index names more than %d layers under its steps", maxStacked)
		}
		all[o.Key] = o
	}
	return all, nil
}

// below lists the layers up to one.
func (c *cacheConfig) below(at int) (layers []image.Layer, err error) {
	for ; at != -1; at = c.Layers[at].Parent {
		if at < 0 || at >= len(c.Layers) || len(layers) > len(c.Layers) {
			return nil, fault.New(fault.Corrupt, "the cache's index names a layer %d that there is not", at)
		}
		l := c.Layers[at]
		if err := l.Blob.Validate(); err != nil {
			return nil, fault.New(fault.Corrupt, "the cache's index has a layer %.100q: %w", l.Blob, err)
		}
		if l.Annotations == nil || l.Annotations.DiffID.Validate() != nil {
			return nil, fault.New(fault.Corrupt, "the cache's index has a layer %s without a digest of its content", l.Blob)
		}
		layers = append(layers, image.Layer{Desc: ocispec.Descriptor{MediaType: l.Annotations.MediaType, Digest: l.Blob, Size: l.Annotations.Size}, DiffID: l.Annotations.DiffID})
	}
	slices.Reverse(layers)
	return layers, nil
}

// EncodeInlineCache writes down those outcomes whose layers an image has, as a field of the image's config.
func EncodeInlineCache(all []Outcome, img []image.Layer) ([]byte, error) {
	places := map[digest.Digest]int{"": -1}
	for k, chain := range image.Chains(img) {
		places[chain] = k
	}
	var records []cacheRecord
	for _, o := range all {
		if at, ok := places[chain(o.Layers)]; ok {
			records = append(records, cacheRecord{[]cacheResult{{at, o.Made}}, digest.NewDigestFromEncoded(digest.SHA256, o.Key)})
		}
	}
	slices.SortFunc(records, func(a, b cacheRecord) int { return cmp.Compare(a.Digest, b.Digest) })
	return json.Marshal(records)
}

// DecodeInlineCache reads outcomes from the field of an image's config. The image's layers are img.
func DecodeInlineCache(data []byte, img []image.Layer) (map[string]Outcome, error) {
	var c cacheConfig
	if err := json.Unmarshal(data, &c.Records); err != nil {
		return nil, fault.New(fault.Corrupt, "the image's cache: %w", err)
	}
	for k, l := range img {
		c.Layers = append(c.Layers, cacheLayer{l.Desc.Digest, k - 1, &layerAnnotations{MediaType: l.Desc.MediaType, DiffID: l.DiffID, Size: l.Desc.Size}})
	}
	return c.outcomes()
}
