package hostile

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/test/testengine"

	"github.com/opencontainers/go-digest"
)

// canaries are files of the host that no image may touch.
type canaries struct{ dir string }

func plant(t testing.TB) canaries {
	t.Helper()
	c := canaries{t.TempDir()}
	if err := os.WriteFile(filepath.Join(c.dir, "canary"), []byte("alive"), 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

// alive checks that the canary is as it was and alone.
func (c canaries) alive(t testing.TB) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(c.dir, "canary"))
	if err != nil || string(data) != "alive" {
		t.Errorf("a file of the host was changed: %q, %v", data, err)
	}
	info, err := os.Lstat(filepath.Join(c.dir, "canary"))
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("a file of the host changed its mode: %v, %v", info.Mode(), err)
	}
	entries, err := os.ReadDir(c.dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("a directory of the host has %v, %v", entries, err)
	}
}

// hostileTrees are archives that try to leave the directory that they are unpacked to. CANARY is a directory of the host.
func hostileTrees(canary string) map[string][]member {
	up := strings.Repeat("../", 20)
	long := member{tar.Header{Typeflag: tar.TypeReg, Name: "owner", Uid: 1 << 33, Mode: 0o644}, ""}
	return map[string][]member{
		"dots":                           {file(up+canary+"/new", "x")},
		"dots in the middle":             {dir("a"), file("a/"+up+canary+"/canary", "dead")},
		"absolute link, file through it": {symlink("l", canary), file("l/new", "x")},
		"relative link, file through it": {symlink("l", up+canary), file("l/canary", "dead")},
		"chain of links":                 {symlink("a", "b"), symlink("b", canary), file("a/canary", "dead")},
		"directory turned into a link":   {dir("d"), file("d/f", "x"), symlink("d", canary), file("d/canary", "dead")},
		"hard link to the outside":       {hardlink("h", canary+"/canary"), file("h", "dead")},
		"hard link by dots":              {hardlink("h", up+canary+"/canary"), file("h", "dead")},
		"hard link through a link":       {symlink("l", canary), hardlink("h", "l/canary"), file("h", "dead")},
		"whiteout through a link":        {symlink("l", canary), file("l/.wh.canary", "")},
		"opaque through a link":          {symlink("l", canary), file("l/.wh..wh..opq", "")},
		"whiteout of dots":               {file(".wh...", "")},
		"the root as a link":             {symlink(".", canary), file("new", "x")},
		"owner of no kind":               {long},
		"device as a directory":          {device("d", 8, 0), file("d/f", "x")},
		"name that is too long":          {file(strings.Repeat("n", 300), "x")},
		"path that is too deep":          {file(strings.Repeat("d/", 4000)+"f", "x")},
	}
}

// giant is an archive whose member claims a size that it doesn't have.
func giant(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "giant", Mode: 0o644, Size: 1 << 50}); err != nil {
		t.Fatal(err)
	}
	w.Write([]byte(strings.Repeat("x", 4096)))
	return b.Bytes()
}

// TestHostileArchives: what can't be unpacked inside its own directory is refused, by import and by load, and nothing stays.
func TestHostileArchives(t *testing.T) {
	e := testengine.Start(t)
	e.Busybox(t)
	c := plant(t)
	path := filepath.Join(t.TempDir(), "in")
	before := settled(t, e)
	try := func(name, words, verb string, data []byte) {
		t.Run(name+", "+verb, func(t *testing.T) {
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			if verb == "import" {
				refused(t, e, 1, words, "import", path, "bad:1")
			} else {
				refused(t, e, 1, words, "load", "-i", path)
			}
			same(t, e, before)
			c.alive(t)
		})
	}
	good, err := os.ReadFile(testengine.BusyboxTar(t))
	if err != nil {
		t.Fatal(err)
	}
	zip := zipped(t, good[:1<<20])
	damaged := bytes.Clone(good)
	copy(damaged[512:], strings.Repeat("\xff\x00", 2000))
	streams := map[string]struct {
		words string
		data  []byte
	}{
		"nothing":             {"empty", nil},
		"text":                {"archive|tar", []byte(strings.Repeat("this is no archive\n", 100))},
		"noise":               {"archive|tar", []byte(random(10_000))},
		"truncated gzip":      {"gzip|truncated|EOF", zip[:len(zip)-100]},
		"gzip of a cut tar":   {"truncated|EOF|cut|ends", zip},
		"gzip with a bad sum": {"gzip|checksum", append(zipped(t, good)[:len(zipped(t, good))-8], 1, 2, 3, 4, 5, 6, 7, 8)},
		"tar with noise":      {"tar|header|archive", damaged},
		"truncated xz":        {"xz|EOF|truncated", []byte("\xfd7zXZ\x00\x00\x04\xe6\xd6\xb4F")},
		"truncated zstd":      {"zstd|EOF|truncated|magic", []byte("\x28\xb5\x2f\xfd\x24\x00")},
		"bzip2 of nothing":    {"bzip2|EOF|truncated", []byte("BZh9xxxxxxxx")},
		"a giant of lies":     {"truncated|EOF|size|large|cut|ends|space", giant(t)},
	}
	for name, s := range streams {
		try(name, s.words, "import", s.data)
		try(name, s.words+"|manifest|layout|neither", "load", s.data)
	}
	for name, members := range hostileTrees(c.dir) {
		data := tarOf(t, members...)
		try(name, "unpack|leaves the directory|file name too long|would replace the root|impossible owner", "import", data)
		try(name, "unpack|leaves the directory|file name too long|would replace the root|impossible owner", "load",
			layout(t, imageOf([]layer{{zipped(t, data), digest.FromBytes(data)}}, nil), "bad:1"))
	}
}

// TestHostileImageArchives: documents of an archive that name what is not there or not theirs.
func TestHostileImageArchives(t *testing.T) {
	e := testengine.Start(t)
	e.Busybox(t)
	c := plant(t)
	path := filepath.Join(t.TempDir(), "in")
	l := layerOf(t, file("f", "x"))
	p := imageOf([]layer{l}, nil)
	config := string(marshal(p.config))
	docker := func(manifest string, more ...member) []byte {
		return tarOf(t, append([]member{file("manifest.json", manifest), file("config.json", config), file("layer.tar", string(l.data))}, more...)...)
	}
	spoil := func(change func(*parts)) []byte {
		p := imageOf([]layer{l}, nil)
		change(&p)
		return layout(t, p, "bad:1")
	}
	before := settled(t, e)
	for _, x := range []struct {
		name, words string
		data        []byte
	}{
		{"missing config", "the archive lacks", docker(`[{"Config":"nothere.json","RepoTags":["bad:1"],"Layers":["layer.tar"]}]`)},
		{"missing layer", "the archive lacks", docker(`[{"Config":"config.json","RepoTags":["bad:1"],"Layers":["nothere.tar"]}]`)},
		{"config outside", "the archive lacks", docker(`[{"Config":"../../../../../..` + c.dir + `/canary","RepoTags":["bad:1"],"Layers":["layer.tar"]}]`)},
		{"layer outside", "the archive lacks", docker(`[{"Config":"config.json","RepoTags":["bad:1"],"Layers":["` + c.dir + `/canary"]}]`)},
		{"layer is a link to the outside", "the archive lacks", docker(`[{"Config":"config.json","RepoTags":["bad:1"],"Layers":["l"]}]`, symlink("l", c.dir+"/canary"))},
		{"layer is a circle of links", "the archive lacks", docker(`[{"Config":"config.json","RepoTags":["bad:1"],"Layers":["a"]}]`, symlink("a", "b"), symlink("b", "a"))},
		{"too few layers", "layers", docker(`[{"Config":"config.json","RepoTags":["bad:1"],"Layers":[]}]`)},
		{"too many layers", "layers", docker(`[{"Config":"config.json","RepoTags":["bad:1"],"Layers":["layer.tar","layer.tar"]}]`)},
		{"no image", "no image|empty|nothing", docker(`[]`)},
		{"a bad name", "invalid reference|reference", docker(`[{"Config":"config.json","RepoTags":["UPPER:case:1"],"Layers":["layer.tar"]}]`)},
		{"no JSON", "manifest", docker(`[{"Config":`)},
		{"an object for a list", "manifest", docker(`{"Config":"config.json"}`)},
		{"a config that is a layer", "config|layers|JSON", docker(`[{"Config":"layer.tar","RepoTags":["bad:1"],"Layers":["layer.tar"]}]`)},
		{"another layer than the config says", "digest|diff|uncompressed", docker(`[{"Config":"config.json","RepoTags":["bad:1"],"Layers":["other.tar"]}]`, file("other.tar", string(layerOf(t, file("f", "other")).data)))},
		{"blob that is not its name", "the archive lacks sha256:", spoil(func(p *parts) {
			p.layers[0].data = append(bytes.Clone(p.layers[0].data), 0)
			p.manifest.Layers[0].Size++
		})},
		{"missing blob", "missing|not found|not in|lacks|does not", spoil(func(p *parts) { p.layers = nil })},
		{"blob name of dots", "neither manifest.json nor an OCI layout", tarOf(t, file("oci-layout", `{"imageLayoutVersion":"1.0.0"}`), file("blobs/sha256/../../../../../.."+c.dir+"/new", "x"))},
	} {
		t.Run(x.name, func(t *testing.T) {
			if err := os.WriteFile(path, x.data, 0o600); err != nil {
				t.Fatal(err)
			}
			refused(t, e, 1, x.words, "load", "-i", path)
			same(t, e, before)
			c.alive(t)
		})
	}
	// One bad image beside a good one: neither gets a name.
	both := docker(`[{"Config":"config.json","RepoTags":["good:1"],"Layers":["layer.tar"]},{"Config":"config.json","RepoTags":["bad:1"],"Layers":["nothere"]}]`)
	if err := os.WriteFile(path, both, 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, e, 1, ".", "load", "-i", path)
	same(t, e, before)
}
