package image_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/fault"
)

// oldManifest puts an image in the form of schema 1 into the shop, signed or not.
func oldManifest(t testing.TB, s *shop, signed bool, layers ...[]byte) ocispec.Descriptor {
	t.Helper()
	var fs, history []string
	for i := len(layers) - 1; i >= 0; i-- { // the newest comes first
		fs = append(fs, fmt.Sprintf(`{"blobSum":%q}`, s.add(layers[i], "").Digest))
		v1 := fmt.Sprintf(`{"id":"%064d","created":"2015-01-0%dT00:00:00Z","container_config":{"Cmd":["/bin/sh","-c","step %d"]}`, i, i+1, i)
		if len(layers[i]) < 50 {
			v1 += `,"throwaway":true`
		}
		if i == len(layers)-1 {
			v1 += `,"author":"ann","architecture":"amd64","os":"linux","config":{"Cmd":["sh"],"Env":["A=b"]}`
		}
		history = append(history, fmt.Sprintf(`{"v1Compatibility":%q}`, v1+"}"))
	}
	body := fmt.Sprintf("{\n   \"schemaVersion\": 1,\n   \"name\": \"old\",\n   \"tag\": \"1\",\n   \"architecture\": \"amd64\",\n   \"fsLayers\": [%s],\n   \"history\": [%s]",
		strings.Join(fs, ","), strings.Join(history, ","))
	payload := body + "\n}"
	if !signed {
		desc := s.add([]byte(payload), "application/vnd.docker.distribution.manifest.v1+json")
		return desc
	}
	protected := fmt.Sprintf(`{"formatLength":%d,"formatTail":%q,"time":"2015-01-01T00:00:00Z"}`, len(body), base64.RawURLEncoding.EncodeToString([]byte("\n}")))
	full := body + fmt.Sprintf(",\n   \"signatures\": [{\"protected\":%q,\"signature\":\"none\"}]\n}", base64.RawURLEncoding.EncodeToString([]byte(protected)))
	d := digest.FromString(payload)
	s.blobs[d] = []byte(full)
	return ocispec.Descriptor{MediaType: "application/vnd.docker.distribution.manifest.v1+prettyjws", Digest: d, Size: int64(len(full))}
}

func TestPullSchema1(t *testing.T) {
	one, two := files{"dir/f": "x"}.tar(t), files{"dir/g": "y"}.tar(t)
	empty := gzipped(t, make([]byte, 1024))
	var ids []digest.Digest
	for _, signed := range []bool{true, false} {
		p := newPlace(t)
		s := newShop()
		root := oldManifest(t, s, signed, gzipped(t, one), empty, gzipped(t, two), gzipped(t, one))
		img := p.pull(t, s, root, "reg.test/old:1")
		ids = append(ids, img.ID)
		if len(img.Layers) != 3 || img.DiffIDs[1] != digest.FromBytes(two) || p.read(t, img, "dir/f")+p.read(t, img, "dir/g") != "xy" {
			t.Errorf("got %+v", img)
		}
		c := img.Config
		if c.Author != "ann" || c.Architecture != "amd64" || len(c.Config.Cmd) != 1 || len(c.History) != 4 || !c.History[1].EmptyLayer || c.History[3].CreatedBy != "/bin/sh -c step 3" {
			t.Errorf("config %+v", c)
		}
		if list := img.Sources; len(list) != 1 || list[0].Digest() != root.Digest {
			t.Errorf("sources %v", list)
		}
		if want := []string{"reg.test/old@" + root.Digest.String()}; !slices.Equal(img.Digests(), want) {
			t.Errorf("digests %v, want %v", img.Digests(), want)
		}
		before := len(s.fetched)
		if again := p.pull(t, s, root, "reg.test/old:2"); again.ID != img.ID || len(s.fetched) != before {
			t.Errorf("pulled again: %s, %d fetched", again.ID, len(s.fetched)-before)
		}
		if got, err := p.Get("reg.test/old@" + root.Digest.String()); err != nil || got.ID != img.ID {
			t.Errorf("by the registry's digest: %v, %v", got, err)
		}
		data := p.save(t, "reg.test/old:1")
		p.removeAll(t)
		p.load(t, data)
		var m market
		if done, _ := p.push(t, m.stall("old"), "reg.test/old:1"); done.Target.Digest != img.ID {
			t.Errorf("pushed %+v", done)
		}
	}
	if ids[0] != ids[1] {
		t.Errorf("the same content became %v", ids)
	}
}

func TestSpoiledSchema1(t *testing.T) {
	layer := gzipped(t, files{"f": "x"}.tar(t))
	for what, spoil := range map[string]func(*shop, *ocispec.Descriptor){
		"other content": func(s *shop, d *ocispec.Descriptor) {
			s.blobs[d.Digest] = bytes.Replace(s.blobs[d.Digest], []byte("step 0"), []byte("step 9"), 1)
		},
		"a lying signature": func(s *shop, d *ocispec.Descriptor) {
			s.blobs[d.Digest] = []byte(`{"signatures":[{"protected":"eyJmb3JtYXRMZW5ndGgiOjk5OX0"}]}`)
		},
		"no JSON":       func(s *shop, d *ocispec.Descriptor) { s.blobs[d.Digest] = []byte(`{`) },
		"another layer": func(s *shop, _ *ocispec.Descriptor) { s.blobs[digest.FromBytes(layer)] = []byte("other") },
		"no layer at all": func(s *shop, d *ocispec.Descriptor) {
			d.MediaType = "application/vnd.docker.distribution.manifest.v1+json"
			*d = s.add([]byte(`{"schemaVersion":1,"fsLayers":[],"history":[]}`), d.MediaType)
		},
	} {
		t.Run(what, func(t *testing.T) {
			p := newPlace(t)
			s := newShop()
			root := oldManifest(t, s, true, layer)
			spoil(s, &root)
			_, err := p.Pull(t.Context(), s, root, []reference.Named{name(t, "old")}, nil, nil)
			if !errors.Is(err, fault.Corrupt) {
				t.Errorf("got %v of kind %q", err, fault.Of(err))
			}
			t.Log(err)
			p.checkNothing(t)
		})
	}
}
