package hostile

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"berth/test/testengine"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// paper is one document or blob of an image, with the media type under which it is served.
type paper struct {
	media string
	data  []byte
}

// asLayout is a layout whose index.json names the first paper; the others lie beside it.
func asLayout(t testing.TB, papers []paper, name string) []byte {
	t.Helper()
	root := describe(papers[0].media, papers[0].data)
	root.Annotations = map[string]string{"io.containerd.image.name": name}
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{root}}
	index.SchemaVersion = 2
	members := []member{file("oci-layout", `{"imageLayoutVersion":"1.0.0"}`), file("index.json", string(marshal(index)))}
	for _, p := range papers {
		members = append(members, file("blobs/sha256/"+digest.FromBytes(p.data).Encoded(), string(p.data)))
	}
	return tarOf(t, members...)
}

func entry(p paper, more string) string {
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d%s}`, p.media, digest.FromBytes(p.data), len(p.data), more)
}

func indexOf(entries ...string) paper {
	return paper{ocispec.MediaTypeImageIndex, []byte(`{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageIndex + `","manifests":[` + strings.Join(entries, ",") + `]}`)}
}

// TestHostileDocuments: indexes, manifests and configs that lie, that never end, or that mean two things.
func TestHostileDocuments(t *testing.T) {
	e := testengine.Start(t)
	e.Busybox(t)
	base := busyboxLayer(t)
	good := imageOf([]layer{base}, nil)
	config, layerPaper := paper{ocispec.MediaTypeImageConfig, marshal(good.config)}, paper{ocispec.MediaTypeImageLayerGzip, base.data}
	manifest := paper{ocispec.MediaTypeImageManifest, marshal(good.manifest)}
	whole := []paper{manifest, config, layerPaper}
	ours := `,"platform":{"os":"linux","architecture":"` + runtime.GOARCH + `"}`
	text := func(format string, args ...any) []paper {
		return append([]paper{{ocispec.MediaTypeImageManifest, fmt.Appendf(nil, format, args...)}}, whole...)
	}
	configs := func(data string) []paper {
		c := paper{ocispec.MediaTypeImageConfig, []byte(data)}
		return append([]paper{{ocispec.MediaTypeImageManifest, fmt.Appendf(nil, `{"schemaVersion":2,"config":%s,"layers":[%s]}`, entry(c, ""), entry(layerPaper, ""))}, c}, whole...)
	}
	layers := func(n int, distinct bool) []paper {
		c := good.config
		c.RootFS.DiffIDs = nil
		var list []string
		var more []paper
		for i := range n {
			l := layerPaper
			c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, base.diff)
			if distinct && i > 0 {
				plain := tarOf(t, file(fmt.Sprint("f", i), ""))
				l = paper{ocispec.MediaTypeImageLayer, plain}
				c.RootFS.DiffIDs[i] = digest.FromBytes(plain)
				more = append(more, l)
			}
			list = append(list, entry(l, ""))
		}
		cp := paper{ocispec.MediaTypeImageConfig, marshal(c)}
		m := paper{ocispec.MediaTypeImageManifest, fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[%s]}`, ocispec.MediaTypeImageManifest, entry(cp, ""), strings.Join(list, ","))}
		return append([]paper{m, cp, layerPaper}, more...)
	}
	nested := append([]paper{}, whole...)
	for range 6 {
		nested = append([]paper{indexOf(entry(nested[0], ours))}, nested...)
	}
	many := []string{}
	for i := range 10_000 {
		many = append(many, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d,"platform":{"os":"linux","architecture":"arch%d"}}`, ocispec.MediaTypeImageManifest, digest.FromString(fmt.Sprint(i)), 500, i))
	}
	c, l := entry(config, ""), entry(layerPaper, "")
	before := settled(t, e)
	for _, x := range []struct {
		name, words string // no words: it is taken, and runs
		papers      []paper
	}{
		{"10,000 layers", "10000 layers, more than 1024 are not supported", layers(10_000, true)},
		{"one layer 10,000 times", "10000 layers, more than 1024 are not supported", layers(10_000, false)},
		{"600 layers", "", layers(600, true)},
		{"index of 10,000 manifests, none of ours", "no matching manifest|lacks|no image", []paper{indexOf(many...)}},
		{"index of 10,000 manifests, and ours", "", append([]paper{indexOf(append(many, entry(manifest, ours))...)}, whole...)},
		{"the same manifest 5,000 times", "", append([]paper{indexOf(strings.Split(strings.TrimSuffix(strings.Repeat(entry(manifest, ours)+";", 5000), ";"), ";")...)}, whole...)},
		{"indexes in indexes", "levels of indexes", nested},
		{"index of nothing", "no matching manifest|no image|neither", []paper{indexOf()}},
		{"index that names a layer as a manifest", "announced|media type|parse|manifest|invalid", append([]paper{indexOf(`{"mediaType":"` + ocispec.MediaTypeImageManifest + `","digest":"` + digest.FromBytes(base.data).String() + `","size":5` + ours + `}`)}, whole...)},
		{"index with a wrong size of the manifest", "expected|bytes|size", append([]paper{indexOf(strings.Replace(entry(manifest, ours), fmt.Sprintf(`"size":%d`, len(manifest.data)), `"size":10`, 1))}, whole...)},
		{"manifest and index in one", "both|manifests|ambig|index", text(`{"schemaVersion":2,"config":%s,"layers":[%s],"manifests":[%s]}`, c, l, entry(manifest, ""))},
		{"manifest under an index's name", "announced|says it is", text(`{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[%s]}`, ocispec.MediaTypeImageIndex, c, l)},
		{"two lists of layers", "layers", text(`{"schemaVersion":2,"config":%s,"layers":[%s],"layers":[%s,%s]}`, c, l, l, l)},
		{"two spellings of one key", "layers|names", text(`{"schemaVersion":2,"config":%s,"layers":[%s],"LAYERS":[]}`, c, l)},
		{"size of 1e400", "parse manifest", text(`{"schemaVersion":2,"config":{"mediaType":%q,"digest":%q,"size":1e400},"layers":[]}`, config.media, digest.FromBytes(config.data))},
		{"size with a fraction", "parse manifest", text(`{"schemaVersion":2,"config":{"mediaType":%q,"digest":%q,"size":1.5},"layers":[]}`, config.media, digest.FromBytes(config.data))},
		{"deep annotations", "parse manifest", text(`{"schemaVersion":2,"config":%s,"layers":[%s],"x":%s}`, c, l, strings.Repeat("[", 20_000)+strings.Repeat("]", 20_000))},
		{"manifest of 4 MB and a byte", "larger than|more than|4194304|not supported", text(`{"schemaVersion":2,"config":%s,"layers":[%s],"annotations":{"x":"%s"}}`, c, l, strings.Repeat("y", 4<<20))},
		{"config that is deep", "parse image config", configs(`{"rootfs":` + strings.Repeat(`{"a":`, 20_000) + "1" + strings.Repeat("}", 20_000) + `}`)},
		{"config of another shape", "parse image config", configs(`{"rootfs":[],"config":"x"}`)},
		{"config that is a list", "parse image config", configs(`[1,2,3]`)},
		{"config of nothing", "names 0 layers", configs(`null`)},
		{"diff ID that is a path", "digest", configs(`{"os":"linux","architecture":"` + runtime.GOARCH + `","rootfs":{"type":"layers","diff_ids":["sha256:../../../etc"]}}`)},
		{"config with a time that is none", "parse image config", configs(`{"created":"yesterday","rootfs":{"type":"layers","diff_ids":["` + base.diff.String() + `"]}}`)},
		{"config with escapes and a history that doesn't fit", "", configs(`{"os":"linux","architecture":"` + runtime.GOARCH + `","author":"\u001b[2J","config":{"Cmd":["sh"],"Labels":{"\u001b]0;x\u0007":"y"}},"rootfs":{"type":"layers","diff_ids":["` + base.diff.String() + `"]},"history":[{"created_by":"\u001b[31m"},{"empty_layer":true},{},{}]}`)},
	} {
		t.Run(x.name, func(t *testing.T) {
			began := time.Now()
			s, address, stop := serve(t)
			for _, p := range x.papers {
				s.Blob("app", p.data)
				if strings.Contains(p.media, "manifest") || strings.Contains(p.media, "index") {
					s.Manifest("app", "", p.media, p.data)
				}
			}
			s.Manifest("app", "1", x.papers[0].media, x.papers[0].data)
			path := filepath.Join(t.TempDir(), "layout.tar")
			if err := os.WriteFile(path, asLayout(t, x.papers, "app:1"), 0o600); err != nil {
				t.Fatal(err)
			}
			for name, way := range map[string][]string{address + "/app:1": {"pull", "-q", address + "/app:1"}, "app:1": {"load", "-q", "-i", path}} {
				if x.words != "" {
					refused(t, e, 1, x.words, way...)
					e.Try("rmi", "-f", name)
					continue
				}
				if _, err := e.Try(way...); err != nil {
					t.Errorf("berth %v: %v", way, err)
					continue
				}
				if out, err := e.Try("run", "--rm", name, "echo", "well"); out != "well\n" {
					t.Errorf("after %s: %q, %v", way[0], out, err)
				}
				for _, verb := range [][]string{{"history", name}, {"images"}, {"image", "inspect", name}} {
					e.Run(t, verb...)
				}
				e.Run(t, "rmi", "-f", name)
			}
			stop()
			freed(t, e)
			same(t, e, before)
			t.Logf("took %v", time.Since(began).Round(time.Millisecond))
		})
	}
	if peak := memory(t, e); peak > 200<<10 {
		t.Errorf("the daemon took %d KiB for it", peak)
	} else {
		t.Logf("the daemon took %d KiB at most", peak)
	}
	if log := e.Log(); strings.Contains(log, "panic") {
		t.Errorf("a panic:\n%s", log)
	}
}
