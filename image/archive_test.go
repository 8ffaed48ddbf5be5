package image_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/fault"
	"berth/image"
)

func (p *place) save(t testing.TB, refs ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := p.Save(t.Context(), &b, refs, nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func (p *place) load(t testing.TB, data []byte) []image.Loaded {
	t.Helper()
	// Not seekable, as from a pipe.
	list, err := p.Load(t.Context(), io.MultiReader(bytes.NewReader(data)), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func (p *place) removeAll(t testing.TB) {
	t.Helper()
	list, err := p.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, img := range list {
		if _, err := p.Remove(img.ID.String(), image.RemoveOptions{Force: true}); err != nil {
			t.Fatal(err)
		}
	}
	if blobs, layers := p.content(t); blobs != 0 || layers != 0 {
		t.Fatalf("%d blobs and %d layers are left", blobs, layers)
	}
}

func TestSaveRemoveLoadKeepsTheID(t *testing.T) {
	p := newPlace(t)
	s := newShop()
	foreign := s.image(t, ocispec.Platform{OS: "linux", Architecture: "s390x"}, gzipLayer(t, files{"f": "foreign"}))
	multi := s.index(t, foreign, s.image(t, host, gzipLayer(t, files{"f": "x"}), plainLayer(t, files{"g": "y"})))
	img := p.pull(t, s, multi, "repo/app:1")
	if err := p.Tag("repo/app:1", name(t, "other:2")); err != nil {
		t.Fatal(err)
	}
	single := p.pull(t, s, s.image(t, host, gzipLayer(t, files{"h": "z"})), "single")
	data := p.save(t, "repo/app:1", "other:2", single.ID.String())
	if !bytes.Equal(data, p.save(t, "repo/app:1", "other:2", single.ID.String())) {
		t.Error("saving twice gives different archives")
	}
	p.removeAll(t)
	var got []string
	for _, l := range p.load(t, data) {
		if l.Name == nil {
			got = append(got, l.ID.String())
		} else {
			got = append(got, reference.FamiliarString(l.Name)+" "+l.ID.String())
		}
	}
	want := []string{"repo/app:1 " + img.ID.String(), "other:2 " + img.ID.String(), single.ID.String()}
	if !slices.Equal(got, want) {
		t.Errorf("loaded %q, want %q", got, want)
	}
	loaded, err := p.Get("other:2")
	if err != nil || p.read(t, loaded, "g") != "y" || len(loaded.Sources) != 0 {
		t.Errorf("got %+v, %v", loaded, err)
	}
}

// members takes an archive apart.
func members(t testing.TB, data []byte) (list []member) {
	t.Helper()
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, member{name: h.Name, kind: h.Typeflag, data: content})
	}
}

func TestLoadInAnyOrder(t *testing.T) {
	p := newPlace(t)
	s := newShop()
	root, mine, _ := multi(t, s)
	p.pull(t, s, root, "app:1")
	if _, err := p.Pull(t.Context(), s, root, []reference.Named{name(t, "app:1")}, &ocispec.Platform{OS: "linux", Architecture: "s390x"}, nil); err != nil {
		t.Fatal(err)
	}
	list := members(t, p.save(t, "app:1"))
	for range 10 {
		rand.Shuffle(len(list), func(a, b int) { list[a], list[b] = list[b], list[a] })
		p.removeAll(t)
		p.load(t, archiveOf(t, list...))
		img, err := p.Get("app:1")
		if err != nil || img.ID != root.Digest || img.Manifest.Digest != mine.Digest || p.read(t, img, "f") != "mine" || p.read(t, img, "base") != noise(20_000) {
			t.Errorf("got %+v, %v", img, err)
		}
		if blobs, layers := p.content(t); blobs != len(list)-5 || layers != 2 { // without directories and tables
			t.Errorf("%d blobs and %d layers of %d members", blobs, layers, len(list))
		}
	}
}

// Builders without a daemon name configs by their digest, and layers by it with what compresses them.
func TestLoadWhatBuildersWrite(t *testing.T) {
	one, two := files{"f": "x"}.tar(t), files{"g": "y"}.tar(t)
	config := marshal(t, ocispec.Image{Platform: host, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(one), digest.FromBytes(two)}}})
	id := digest.FromBytes(config)
	first, second := digest.FromBytes(gzipped(t, one)).Encoded()+".tar.gz", digest.FromBytes(gzipped(t, two)).Encoded()+".tar.gz"
	p := newPlace(t)
	p.load(t, archiveOf(t, member{name: id.String(), data: config}, member{name: first, data: gzipped(t, one)}, member{name: second, data: gzipped(t, two)},
		member{name: "manifest.json", data: marshal(t, []tableEntry{{id.String(), []string{"built:1"}, []string{first, second}}})}))
	if img, err := p.Get("built:1"); err != nil || img.ConfigID != id || p.read(t, img, "f")+p.read(t, img, "g") != "xy" {
		t.Errorf("got %+v, %v", img, err)
	}
}

func TestSaveUnknownWritesNothing(t *testing.T) {
	p := newPlace(t)
	var b bytes.Buffer
	if err := p.Save(t.Context(), &b, []string{"nobody"}, nil); !errors.Is(err, fault.NotFound) || b.Len() != 0 {
		t.Errorf("got %v and %d bytes", err, b.Len())
	}
	if err := p.Save(t.Context(), &b, nil, nil); !errors.Is(err, fault.Invalid) {
		t.Errorf("saving nothing: %v", err)
	}
}

// member is one entry of a hand-made archive.
type member struct {
	name, link string
	kind       byte
	data       []byte
}

func archiveOf(t testing.TB, list ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range list {
		h := &tar.Header{Name: m.name, Linkname: m.link, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(m.data))}
		if m.kind != 0 {
			h.Typeflag = m.kind
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		w.Write(m.data)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

type tableEntry struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// oldArchive is what a Docker before the content store saved: a directory per layer, the second the same content as the
// first and therefore a link, the third compressed.
func oldArchive(t testing.TB, order ...int) []byte {
	first, third := files{"f": "x"}.tar(t), files{"g": "y"}.tar(t)
	config := marshal(t, ocispec.Image{Platform: host, RootFS: ocispec.RootFS{Type: "layers",
		DiffIDs: []digest.Digest{digest.FromBytes(first), digest.FromBytes(first), digest.FromBytes(third)}}})
	all := []member{
		{name: "aaa/VERSION", data: []byte("1.0")},
		{name: "aaa/layer.tar", data: first},
		{name: "bbb/layer.tar", kind: tar.TypeSymlink, link: "../aaa/layer.tar"},
		{name: "./ccc/layer.tar", data: gzipped(t, third)},
		{name: "config.json", data: config},
		{name: "manifest.json", data: marshal(t, []tableEntry{{"config.json", []string{"old:1", "older:2"}, []string{"aaa/layer.tar", "bbb/layer.tar", "ccc/layer.tar"}}})},
	}
	var list []member
	for _, i := range order {
		list = append(list, all[i])
	}
	return archiveOf(t, list...)
}

func TestLoadOldDockerArchive(t *testing.T) {
	p := newPlace(t)
	var ids []digest.Digest
	for _, data := range [][]byte{
		oldArchive(t, 0, 1, 2, 3, 4, 5), oldArchive(t, 5, 4, 3, 2, 1, 0), gzipped(t, oldArchive(t, 0, 1, 2, 3, 4, 5)), zstded(t, oldArchive(t, 2, 1, 3, 5, 4)),
	} {
		var events []image.Event
		list, err := p.Load(t.Context(), bytes.NewReader(data), nil, func(e image.Event) { events = append(events, e) })
		if err != nil {
			t.Fatal(err)
		}
		if len(list) != 2 || len(events) == 0 || events[0].Status != image.StatusLoading {
			t.Errorf("loaded %v with %v", list, events)
		}
		ids = append(ids, list[0].ID)
		img, err := p.Get("older:2")
		if err != nil || p.read(t, img, "f") != "x" || p.read(t, img, "g") != "y" {
			t.Errorf("got %+v, %v", img, err)
		}
		p.removeAll(t)
	}
	if len(slices.Compact(ids)) != 1 {
		t.Errorf("the same content has the IDs %v", ids)
	}
}

func TestHostileArchives(t *testing.T) {
	layer := files{"f": "x"}.tar(t)
	config := marshal(t, ocispec.Image{Platform: host, RootFS: ocispec.RootFS{DiffIDs: []digest.Digest{digest.FromBytes(layer)}}})
	table := func(config string, layers ...string) []byte {
		return marshal(t, []tableEntry{{config, []string{"app:1"}, layers}})
	}
	good := []member{{name: "c", data: config}, {name: "l", data: layer}, {name: "manifest.json", data: table("c", "l")}}
	layout := member{name: "oci-layout", data: []byte(`{"imageLayoutVersion":"1.0.0"}`)}
	whole := archiveOf(t, good...)
	for what, data := range map[string][]byte{
		"empty":                     {},
		"text":                      []byte(strings.Repeat("no tar at all ", 100)),
		"a root file system":        archiveOf(t, member{name: "etc/passwd", data: []byte("root")}),
		"cut off":                   whole[:2000],
		"gzip cut off":              gzipped(t, whole)[:len(gzipped(t, whole))-30],
		"no layer":                  archiveOf(t, good[0], good[2]),
		"no config":                 archiveOf(t, good[1], good[2]),
		"path out of the archive":   archiveOf(t, good[0], member{name: "manifest.json", data: table("c", "../../../../etc/passwd")}),
		"link out of the archive":   archiveOf(t, good[0], member{name: "l", kind: tar.TypeSymlink, link: "/etc/passwd"}, good[2]),
		"link to itself":            archiveOf(t, good[0], member{name: "l", kind: tar.TypeSymlink, link: "l"}, good[2]),
		"two layers, one diff ID":   archiveOf(t, good[0], good[1], member{name: "manifest.json", data: table("c", "l", "l")}),
		"table is no list":          archiveOf(t, good[0], good[1], member{name: "manifest.json", data: []byte(`{"Config":"c"}`)}),
		"name in capitals":          archiveOf(t, good[0], good[1], member{name: "manifest.json", data: marshal(t, []tableEntry{{"c", []string{"APP"}, []string{"l"}}})}),
		"blob with another digest":  archiveOf(t, member{name: "blobs/sha256/" + digest.FromString("x").Encoded(), data: []byte("y")}),
		"blob that is no digest":    archiveOf(t, member{name: "blobs/sha256/zz", data: []byte("y")}),
		"layout without its images": archiveOf(t, layout, member{name: "index.json", data: []byte(`{"manifests":[{"digest":"` + digest.FromString("x").String() + `","size":1,"mediaType":"` + ocispec.MediaTypeImageManifest + `"}]}`)}),
		"layout of nothing":         archiveOf(t, layout, member{name: "index.json", data: []byte(`{"manifests":[]}`)}),
		"index with a bad digest":   archiveOf(t, layout, member{name: "index.json", data: []byte(`{"manifests":[{"digest":"sha256:../..","size":1}]}`)}),
	} {
		t.Run(what, func(t *testing.T) {
			p := newPlace(t)
			_, err := p.Load(t.Context(), bytes.NewReader(data), nil, nil)
			if k := fault.Of(err); k != fault.Corrupt && k != fault.Invalid {
				t.Errorf("got %v of kind %q", err, k)
			}
			t.Log(err)
			p.checkNothing(t)
		})
	}
}

func TestFailedLoadKeepsTheOldImage(t *testing.T) {
	p := newPlace(t)
	p.load(t, oldArchive(t, 0, 1, 2, 3, 4, 5))
	before, err := p.Get("old:1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Load(t.Context(), bytes.NewReader(oldArchive(t, 4, 5)), nil, nil); err == nil {
		t.Fatal("an archive without layers was loaded")
	}
	// The layers are here, but under names that only the archive could tell.
	if after, err := p.Get("old:1"); err != nil || after.ID != before.ID || p.read(t, after, "f") != "x" {
		t.Errorf("after a failed load: %+v, %v", after, err)
	}
}

func TestImport(t *testing.T) {
	rootfs := files{"etc/": "", "etc/motd": "hello"}.tar(t)
	compress := func(tool string) []byte {
		cmd := exec.Command(tool, "-c")
		cmd.Stdin = bytes.NewReader(rootfs)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v", tool, err)
		}
		return out
	}
	for what, c := range map[string]struct {
		data      []byte
		mediaType string
	}{
		"plain": {rootfs, ocispec.MediaTypeImageLayer},
		"gzip":  {gzipped(t, rootfs), ocispec.MediaTypeImageLayerGzip},
		"zstd":  {zstded(t, rootfs), ocispec.MediaTypeImageLayerZstd},
		"bzip2": {compress("bzip2"), ocispec.MediaTypeImageLayer},
		"xz":    {compress("xz"), ocispec.MediaTypeImageLayer},
	} {
		t.Run(what, func(t *testing.T) {
			p := newPlace(t)
			img, err := p.Import(t.Context(), io.MultiReader(bytes.NewReader(c.data)), image.ImportOptions{
				Ref: name(t, "my/root:1"), Message: "by hand", Changes: []string{`CMD ["sh"]`, "ENV A=b"},
			})
			if err != nil {
				t.Fatal(err)
			}
			if img.Layers[0].MediaType != c.mediaType || img.DiffIDs[0] != digest.FromBytes(rootfs) || p.read(t, img, "etc/motd") != "hello" {
				t.Errorf("got %+v", img)
			}
			if !slices.Equal(img.Config.Config.Cmd, []string{"sh"}) || img.Config.Architecture != host.Architecture || img.Created().IsZero() {
				t.Errorf("config %+v", img.Config)
			}
			if h, err := p.History(img); err != nil || len(h) != 1 || h[0].Comment != "by hand" || h[0].ID != img.ID.String() || h[0].Size != img.Unpacked {
				t.Errorf("history %+v, %v", h, err)
			}
			data := p.save(t, "my/root:1")
			p.removeAll(t)
			if list := p.load(t, data); len(list) != 1 || list[0].ID != img.ID {
				t.Errorf("loaded %v, want %s", list, img.ID)
			}
		})
	}
}

func TestImportOfNonsenseLeavesNothing(t *testing.T) {
	good := files{"f": strings.Repeat("x", 100_000)}.tar(t)
	zip := gzipped(t, good)
	for what, data := range map[string][]byte{
		"nothing": {}, "text": []byte(strings.Repeat("no tar at all ", 1000)), "gzip cut off": zip[:len(zip)-9], "tar cut off": good[:50_000], "bzip2 in name only": []byte("BZh9 is not enough"),
	} {
		t.Run(what, func(t *testing.T) {
			p := newPlace(t)
			_, err := p.Import(t.Context(), bytes.NewReader(data), image.ImportOptions{Ref: name(t, "bad")})
			if k := fault.Of(err); k != fault.Corrupt && k != fault.Invalid {
				t.Errorf("got %v of kind %q", err, k)
			}
			t.Log(err)
			p.checkNothing(t)
		})
	}
}

func TestImportWithABrokenConnection(t *testing.T) {
	p := newPlace(t)
	good := files{"f": strings.Repeat("x", 300_000)}.tar(t)
	_, err := p.Import(t.Context(), io.MultiReader(bytes.NewReader(good[:200_000]), cutOff{}), image.ImportOptions{})
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
	p.checkNothing(t)
}

type cutOff struct{}

func (cutOff) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestImportWithoutNameIsDangling(t *testing.T) {
	p := newPlace(t)
	img, err := p.Import(t.Context(), bytes.NewReader(files{"f": "x"}.tar(t)), image.ImportOptions{})
	if err != nil || !img.Dangling() {
		t.Fatalf("got %+v, %v", img, err)
	}
	if _, err := p.Import(t.Context(), bytes.NewReader(nil), image.ImportOptions{Changes: []string{"RUN true"}}); !errors.Is(err, fault.Invalid) {
		t.Errorf("a change that would run something: %v", err)
	}
}

func TestHello(t *testing.T) {
	p := newPlace(t)
	img, err := p.Hello(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if again, err := p.Hello(t.Context()); err != nil || again != img {
		t.Errorf("a second call makes another image: %v", err)
	}
	for _, ref := range []string{"hello-world", "docker.io/library/hello-world:latest", img.ID.Encoded()[:6]} {
		if got, err := p.Get(ref); err != nil || got.ID != img.ID {
			t.Errorf("%s: %v", ref, err)
		}
	}
	program := filepath.Join(t.TempDir(), "hello")
	if err := os.WriteFile(program, []byte(p.read(t, img, "hello")), 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(program).Output()
	if err != nil || !strings.HasPrefix(string(out), "Hello from berth!\n") {
		t.Errorf("the program says %q, %v", out, err)
	}
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	cmd := exec.Command(program)
	cmd.Stdout = full
	var exit *exec.ExitError
	if err := cmd.Run(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("on a full device the program ends with %v", err)
	}
}

// Whoever brings an image, removes it, pushes it or sweeps meanwhile: what is shown in the end is whole.
func TestLoadPullPushAndRemoveAtOnce(t *testing.T) {
	p := newPlace(t)
	s := newShop()
	root, _, _ := multi(t, s)
	p.pull(t, s, root, "reg.test/app:1")
	data := p.save(t, "reg.test/app:1")
	var m market
	var all sync.WaitGroup
	for _, work := range []func() error{
		func() error {
			_, err := p.Load(t.Context(), bytes.NewReader(data), nil, nil)
			return err
		},
		func() error {
			_, err := p.Load(t.Context(), bytes.NewReader(gzipped(t, data)), nil, nil)
			return err
		},
		func() error {
			_, err := p.Pull(t.Context(), s, root, []reference.Named{name(t, "reg.test/app:1")}, nil, nil)
			return err
		},
		func() error {
			_, err := p.Push(t.Context(), m.stall("app"), name(t, "reg.test/app:1"), nil, nil)
			return errorOtherThan(err, fault.NotFound)
		},
		func() error {
			_, err := p.Remove("reg.test/app:1", image.RemoveOptions{})
			return errorOtherThan(err, fault.NotFound)
		},
		func() error {
			_, err := p.Sweep(t.Context())
			return err
		},
	} {
		all.Go(func() {
			for range 15 {
				if err := work(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	p.reopen(t)
	for _, err := range p.Broken() {
		t.Error(err)
	}
	p.load(t, data)
	if img, err := p.Get("reg.test/app:1"); err != nil || p.read(t, img, "f") != "mine" {
		t.Errorf("got %+v, %v", img, err)
	}
	p.removeAll(t)
}

func errorOtherThan(err error, kind fault.Kind) error {
	if errors.Is(err, kind) {
		return nil
	}
	return err
}
