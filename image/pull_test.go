package image_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/fault"
	"berth/image"
)

func TestPull(t *testing.T) {
	p := newPlace(t)
	s := newShop()
	zst := files{"etc/": "", "etc/motd": "third"}.tar(t)
	root := s.image(t, host,
		gzipLayer(t, files{"etc/": "", "etc/motd": "first", "etc/gone": "x"}),
		plainLayer(t, files{"etc/motd": "second", "etc/.wh.gone": ""}),
		layer{zstded(t, zst), digest.FromBytes(zst), ocispec.MediaTypeImageLayerZstd})
	var events []image.Event
	img, err := p.Pull(t.Context(), s, root, []reference.Named{name(t, "app:1")}, nil, func(e image.Event) { events = append(events, e) })
	if err != nil {
		t.Fatal(err)
	}
	if img.ID != root.Digest || img.Manifest.Digest != root.Digest || len(img.DiffIDs) != 3 || img.Size <= 0 {
		t.Errorf("image %+v", img)
	}
	if !slices.Equal(img.Tags(), []string{"app:1"}) || !slices.Equal(img.Digests(), []string{"app@" + root.Digest.String()}) {
		t.Errorf("names %v", img.Names)
	}
	if got := p.read(t, img, "etc/motd"); got != "third" {
		t.Errorf("the top layer's file says %q", got)
	}
	checkWords(t, events, img.Layers[0].Digest.Encoded()[:12], []string{
		image.StatusPulling, image.StatusVerifying, image.StatusDownloaded, image.StatusExtracting, image.StatusComplete,
	})
	p.reopen(t)
	again, err := p.Get("app:1")
	if err != nil || again.ID != img.ID || again.Size != img.Size || again.Chain != img.Chain {
		t.Errorf("after a restart: %+v, %v", again, err)
	}
}

// checkWords compares the status words of one layer, measures left out.
func checkWords(t *testing.T, events []image.Event, id string, want []string) {
	t.Helper()
	var got []string
	for _, e := range events {
		if e.ID == id && e.Status != image.StatusDownload && !slices.Contains(got, e.Status) {
			got = append(got, e.Status)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("layer %s went through %q, want %q", id, got, want)
	}
}

func TestPullFetchesOnlyWhatIsMissing(t *testing.T) {
	p := newPlace(t)
	s := newShop()
	base := gzipLayer(t, files{"base": "x"})
	one := s.image(t, host, base)
	two := s.image(t, host, base, gzipLayer(t, files{"more": "y"}))
	p.pull(t, s, one, "one")
	p.pull(t, s, one, "one")
	var events []image.Event
	if _, err := p.Pull(t.Context(), s, two, []reference.Named{name(t, "two")}, nil, func(e image.Event) { events = append(events, e) }); err != nil {
		t.Fatal(err)
	}
	if n := s.times(digest.FromBytes(base.blob)); n != 1 {
		t.Errorf("the shared layer was fetched %d times", n)
	}
	if n := s.times(one.Digest); n != 1 {
		t.Errorf("the manifest was fetched %d times", n)
	}
	checkWords(t, events, digest.FromBytes(base.blob).Encoded()[:12], []string{image.StatusExists})
}

func TestPullLayerThatIsUnpackedButWasCompressedOtherwise(t *testing.T) {
	p := newPlace(t)
	s := newShop()
	data := files{"f": "same"}.tar(t)
	gz := layer{gzipped(t, data), digest.FromBytes(data), ocispec.MediaTypeImageLayerGzip}
	plain := layer{data, digest.FromBytes(data), ocispec.MediaTypeImageLayer}
	p.pull(t, s, s.image(t, host, gz), "gz")
	var events []image.Event
	img, err := p.Pull(t.Context(), s, s.image(t, host, plain), nil, nil, func(e image.Event) { events = append(events, e) })
	if err != nil {
		t.Fatal(err)
	}
	checkWords(t, events, img.Layers[0].Digest.Encoded()[:12], []string{image.StatusPulling, image.StatusVerifying, image.StatusDownloaded, image.StatusComplete})
	if _, layers := p.content(t); layers != 1 {
		t.Errorf("%d unpacked layers for one content", layers)
	}
	if !p.blobs.Has(digest.FromBytes(plain.blob)) || p.read(t, img, "f") != "same" {
		t.Error("the second form of the layer is not here")
	}
}

func TestPullRepeatedLayer(t *testing.T) {
	p := newPlace(t)
	s := newShop()
	l := gzipLayer(t, files{"f": "x"})
	img := p.pull(t, s, s.image(t, host, l, l, l), "thrice")
	if n := s.times(digest.FromBytes(l.blob)); n != 1 {
		t.Errorf("one blob was fetched %d times", n)
	}
	if got := p.read(t, img, "f"); got != "x" {
		t.Errorf("got %q", got)
	}
}

func TestPullPlatforms(t *testing.T) {
	p := newPlace(t)
	s := newShop()
	other := ocispec.Platform{OS: "linux", Architecture: "s390x"}
	layerOf := func(text string) layer { return gzipLayer(t, files{"which": text}) }
	attestation := s.image(t, ocispec.Platform{OS: "unknown", Architecture: "unknown"}, layerOf("no image"))
	index := s.index(t, attestation, s.image(t, other, layerOf("other")), s.image(t, host, layerOf("host")))
	img := p.pull(t, s, index, "multi")
	if img.ID != index.Digest || img.Manifest.Digest == index.Digest || p.read(t, img, "which") != "host" {
		t.Errorf("the host's platform was not chosen: %+v", img)
	}
	foreign, err := p.Pull(t.Context(), s, index, []reference.Named{name(t, "multi")}, &other, nil)
	if err != nil || foreign.Platform().Architecture != "s390x" || p.read(t, foreign, "which") != "other" {
		t.Fatalf("the named platform was not pulled: %+v, %v", foreign, err)
	}
	if now, err := p.Get("multi"); err != nil || now.Platform().Architecture != host.Architecture {
		t.Errorf("with both here, the host's counts: %+v, %v", now, err)
	}
	if got, err := p.GetPlatform("multi", other); err != nil || got.Chain != foreign.Chain {
		t.Errorf("GetPlatform: %+v, %v", got, err)
	}
	windows := ocispec.Platform{OS: "windows", Architecture: "amd64"}
	if _, err := p.GetPlatform("multi", windows); !errors.Is(err, fault.NotFound) {
		t.Errorf("GetPlatform of what is not here: %v", err)
	}
	_, err = p.Pull(t.Context(), s, index, nil, &windows, nil)
	if !errors.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "no matching manifest for windows/amd64 in the manifest list entries") {
		t.Errorf("pull of a platform that the index lacks: %v", err)
	}
}

func TestPullNewerLeavesTheOldDangling(t *testing.T) {
	p := newPlace(t)
	s := newShop()
	old := p.pull(t, s, s.image(t, host, gzipLayer(t, files{"v": "1"})), "app")
	p.pull(t, s, s.image(t, host, gzipLayer(t, files{"v": "2"})), "app")
	img, err := p.Get(old.ID.String())
	if err != nil || !img.Dangling() || len(img.Digests()) != 0 || len(img.Sources) != 1 {
		t.Errorf("the old image: %+v, %v", img, err)
	}
}

func TestBadContentIsRefused(t *testing.T) {
	good := files{"f": strings.Repeat("content ", 10_000)}.tar(t)
	zip := gzipped(t, good)
	noise := make([]byte, 5000)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	for what, l := range map[string]layer{
		"truncated gzip":        {zip[:len(zip)-20], digest.FromBytes(good), ocispec.MediaTypeImageLayerGzip},
		"damaged tar":           {slices.Concat(good[:512], noise), digest.FromBytes(good), ocispec.MediaTypeImageLayer},
		"truncated tar":         {good[:1024], digest.FromBytes(good[:1024]), ocispec.MediaTypeImageLayer},
		"wrong diff ID":         {zip, digest.FromString("something else"), ocispec.MediaTypeImageLayerGzip},
		"a way out of the tree": plainLayer(t, files{"../../../escaped": "x"}),
	} {
		t.Run(what, func(t *testing.T) {
			p := newPlace(t)
			s := newShop()
			root := s.image(t, host, gzipLayer(t, files{"ok": "ok"}), l)
			_, err := p.Pull(t.Context(), s, root, []reference.Named{name(t, "bad")}, nil, nil)
			if k := fault.Of(err); k != fault.Corrupt && k != fault.Invalid {
				t.Errorf("got %v of kind %q", err, k)
			}
			t.Log(err)
			p.checkNothing(t)
		})
	}
}

// checkNothing: no image is visible, and nothing is left that a sweep would have to take.
func (p *place) checkNothing(t *testing.T) {
	t.Helper()
	if list, err := p.List(); err != nil || len(list) != 0 {
		t.Errorf("images after a failure: %v, %v", list, err)
	}
	if blobs, layers := p.content(t); blobs != 0 || layers != 0 {
		t.Errorf("%d blobs and %d layers are left", blobs, layers)
	}
}

func TestDigestMismatchThenGoodContent(t *testing.T) {
	p := newPlace(t)
	s := newShop()
	l := gzipLayer(t, files{"f": strings.Repeat("z", 300_000)})
	root := s.image(t, host, l)
	d := digest.FromBytes(l.blob)
	s.serve = func(_ context.Context, which digest.Digest, offset int64, data []byte) (io.ReadCloser, error) {
		if which != d {
			return nil, nil
		}
		data = slices.Clone(data)
		data[len(data)/2] ^= 0x10
		return io.NopCloser(bytes.NewReader(data[offset:])), nil
	}
	_, err := p.Pull(t.Context(), s, root, []reference.Named{name(t, "app")}, nil, nil)
	if !errors.Is(err, fault.Corrupt) || !strings.Contains(err.Error(), d.String()) {
		t.Fatalf("got %v", err)
	}
	if _, err := p.Get("app"); !errors.Is(err, fault.NotFound) {
		t.Errorf("after a failed pull: %v", err)
	}
	s.serve = nil
	p.pull(t, s, root, "app")
}

func TestTooManyBytes(t *testing.T) {
	p := newPlace(t)
	s := newShop()
	l := gzipLayer(t, files{"f": "x"})
	root := s.image(t, host, l)
	s.serve = func(_ context.Context, d digest.Digest, _ int64, data []byte) (io.ReadCloser, error) {
		if d != digest.FromBytes(l.blob) {
			return nil, nil
		}
		return io.NopCloser(io.MultiReader(bytes.NewReader(data), endless{})), nil
	}
	if _, err := p.Pull(t.Context(), s, root, nil, nil, nil); !errors.Is(err, fault.Corrupt) || !strings.Contains(err.Error(), "more than the announced") {
		t.Errorf("got %v", err)
	}
	p.checkNothing(t)
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// noise is content that doesn't compress.
func noise(n int) string {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(b)
	return string(b)
}

func TestBrokenDownloadIsResumed(t *testing.T) {
	p := newPlace(t)
	s := newShop()
	l := gzipLayer(t, files{"f": noise(1 << 20)})
	d := digest.FromBytes(l.blob)
	root := s.image(t, host, l)
	s.serve = func(_ context.Context, which digest.Digest, offset int64, data []byte) (io.ReadCloser, error) {
		if which != d {
			return nil, nil
		}
		return io.NopCloser(io.MultiReader(bytes.NewReader(data[offset:600_000]), failing{})), nil
	}
	if _, err := p.Pull(t.Context(), s, root, []reference.Named{name(t, "app")}, nil, nil); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("got %v", err)
	}
	p.reopen(t)
	s.serve, s.offsets, s.fetched = nil, nil, nil
	img := p.pull(t, s, root, "app")
	if at := slices.Index(s.fetched, d); at < 0 || s.offsets[at] == 0 || s.offsets[at] > 600_000 {
		t.Errorf("fetched %v from %v", s.fetched, s.offsets)
	}
	if got := p.read(t, img, "f"); got != noise(1<<20) {
		t.Error("the resumed layer differs")
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, syscall.ECONNRESET }

func TestConcurrentPullsShareLayers(t *testing.T) {
	p := newPlace(t)
	s := newShop()
	base := gzipLayer(t, files{"f": noise(300_000)})
	d := digest.FromBytes(base.blob)
	var roots []ocispec.Descriptor
	for i := range 4 {
		roots = append(roots, s.image(t, host, base, gzipLayer(t, files{"own": strings.Repeat("x", i)})))
	}
	// The base layer arrives when all four pulls have asked for their own layers, so all four want it at once.
	var all sync.WaitGroup
	all.Add(4)
	var mu sync.Mutex
	own := map[digest.Digest]bool{}
	s.serve = func(_ context.Context, which digest.Digest, _ int64, data []byte) (io.ReadCloser, error) {
		mu.Lock()
		isOwn := len(data) < 1000 && data[0] == 0x1f && !own[which]
		own[which] = true
		mu.Unlock()
		if isOwn {
			all.Done()
		}
		if which == d {
			all.Wait()
		}
		return nil, nil
	}
	var group sync.WaitGroup
	for i, root := range roots {
		group.Go(func() {
			if _, err := p.Pull(t.Context(), s, root, []reference.Named{name(t, "app:"+string(rune('a'+i)))}, nil, nil); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if n := s.times(d); n != 1 {
		t.Errorf("the shared layer was fetched %d times", n)
	}
	if list, _ := p.List(); len(list) != 4 {
		t.Errorf("%d images", len(list))
	}
}

func TestCanceledPullLeavesTheOtherAlone(t *testing.T) {
	p := newPlace(t)
	s := newShop()
	l := gzipLayer(t, files{"f": noise(300_000)})
	root := s.image(t, host, l)
	begun, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	s.serve = func(ctx context.Context, d digest.Digest, _ int64, data []byte) (io.ReadCloser, error) {
		if d != digest.FromBytes(l.blob) {
			return nil, nil
		}
		once.Do(func() { close(begun) })
		select {
		case <-goOn:
			return nil, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	first, cancel := context.WithCancel(t.Context())
	firstErr, secondErr := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := p.Pull(first, s, root, nil, nil, nil)
		firstErr <- err
	}()
	<-begun
	joined := make(chan struct{})
	go func() {
		_, err := p.Pull(t.Context(), s, root, []reference.Named{name(t, "app")}, nil, func(image.Event) {
			select {
			case <-joined:
			default:
				close(joined)
			}
		})
		secondErr <- err
	}()
	<-joined
	cancel()
	if err := <-firstErr; !errors.Is(err, context.Canceled) {
		t.Errorf("the canceled pull: %v", err)
	}
	close(goOn)
	if err := <-secondErr; err != nil {
		t.Errorf("the other pull: %v", err)
	}
	if n := s.times(digest.FromBytes(l.blob)); n != 1 {
		t.Errorf("the layer was fetched %d times", n)
	}
}

func TestPullWhileOthersRemove(t *testing.T) {
	p := newPlace(t)
	s := newShop()
	base := gzipLayer(t, files{"f": noise(50_000)})
	roots := map[string]ocispec.Descriptor{}
	for i := range 6 {
		n := "app" + string(rune('a'+i))
		roots[n] = s.image(t, host, base, gzipLayer(t, files{"own": n}))
	}
	var group sync.WaitGroup
	for n, root := range roots {
		group.Go(func() {
			for range 5 {
				img, err := p.Pull(t.Context(), s, root, []reference.Named{name(t, n)}, nil, nil)
				if err != nil {
					t.Errorf("pull: %v", err)
					return
				}
				if !p.layers.Has(img.Chain) {
					t.Error("a visible image has no layers")
				}
				if _, err := p.Remove(n, image.RemoveOptions{}); err != nil {
					t.Errorf("remove: %v", err)
				}
			}
		})
	}
	group.Wait()
	p.checkNothing(t)
}

func TestDiskFull(t *testing.T) {
	p := newPlace(t)
	small := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=2m", "none", small).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v %s", err, out)
	}
	defer func() {
		if out, err := exec.Command("umount", small).CombinedOutput(); err != nil {
			t.Errorf("umount: %v %s", err, out)
		}
	}()
	full := &place{dir: small}
	full.open(t)
	defer func() { full.layers.Close() }()
	s := newShop()
	for what, root := range map[string]ocispec.Descriptor{
		"unpacked it does not fit":  s.image(t, host, gzipLayer(t, files{"zeros": strings.Repeat("\x00", 8<<20)})),
		"it does not fit at all":    s.image(t, host, gzipLayer(t, files{"noise": noise(3 << 20)})),
		"only the first layer fits": s.image(t, host, gzipLayer(t, files{"small": noise(500_000)}), gzipLayer(t, files{"noise": noise(1 << 20)})),
	} {
		if _, err := full.Pull(t.Context(), s, root, nil, nil, nil); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%s: got %v", what, err)
		}
		if left := bytesBelow(t, small); left > 10_000 {
			t.Errorf("%s: %d bytes are left", what, left)
		}
		full.checkNothing(t)
		p.pull(t, s, root, "fits")
	}
}

// bytesBelow adds up the sizes of all files in a tree, but for those that the driver is deleting in the background.
func bytesBelow(t *testing.T, dir string) (n int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Name() == "trash" {
			return fs.SkipDir
		}
		info, err := d.Info()
		if err == nil && info.Mode().IsRegular() {
			n += info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestGzipWithSeveralMembers(t *testing.T) {
	p := newPlace(t)
	s := newShop()
	data := files{"f": strings.Repeat("abc", 100_000)}.tar(t)
	var b bytes.Buffer
	for _, half := range [][]byte{data[:1000], data[1000:]} {
		w := gzip.NewWriter(&b)
		w.Write(half)
		w.Close()
	}
	img := p.pull(t, s, s.image(t, host, layer{b.Bytes(), digest.FromBytes(data), ocispec.MediaTypeImageLayerGzip}), "app")
	if len(p.read(t, img, "f")) != 300_000 {
		t.Error("content is missing")
	}
}

func TestDamagedImageIsNotShown(t *testing.T) {
	p := newPlace(t)
	s := newShop()
	l := gzipLayer(t, files{"f": "x"})
	root := s.image(t, host, l)
	img := p.pull(t, s, root, "app")
	if err := os.Remove(p.dir + "/blobs/sha256/" + img.Layers[0].Digest.Encoded()); err != nil {
		t.Fatal(err)
	}
	p.reopen(t)
	if _, err := p.Get("app"); !errors.Is(err, fault.NotFound) || len(p.Broken()) != 1 {
		t.Errorf("got %v; broken: %v", err, p.Broken())
	}
	p.pull(t, s, root, "app")
	if len(p.Broken()) != 0 {
		t.Errorf("still broken: %v", p.Broken())
	}
}

func TestRepairUnpacksAgain(t *testing.T) {
	p := newPlace(t)
	s := newShop()
	img := p.pull(t, s, s.image(t, host, gzipLayer(t, files{"f": "x"}), plainLayer(t, files{"g": "y"})), "app")
	lost := p.pull(t, s, s.image(t, host, plainLayer(t, files{"h": "z"})), "lost")
	if err := p.layers.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(p.dir + "/overlay2"); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(p.dir + "/blobs/sha256/" + lost.Layers[0].Digest.Encoded()); err != nil {
		t.Fatal(err)
	}
	p.open(t)
	if len(p.Broken()) != 2 {
		t.Errorf("broken: %v", p.Broken())
	}
	if err := p.Repair(t.Context()); !errors.Is(err, fault.Corrupt) || !strings.Contains(err.Error(), lost.ID.String()) || strings.Contains(err.Error(), img.ID.String()) {
		t.Errorf("got %v", err)
	}
	got, err := p.Get("app")
	if err != nil || p.read(t, got, "f") != "x" || !slices.Equal(got.Digests(), img.Digests()) {
		t.Errorf("after the repair: %+v, %v", got, err)
	}
	if len(p.Broken()) != 1 {
		t.Errorf("still broken: %v", p.Broken())
	}
}

func TestPullHealsADamagedLayer(t *testing.T) {
	p := newPlace(t)
	s := newShop()
	l := gzipLayer(t, files{"f": noise(50_000)})
	img := p.pull(t, s, s.image(t, host, l), "app")
	d := digest.FromBytes(l.blob)
	if _, err := p.Remove("app", image.RemoveOptions{NoPrune: true}); err != nil {
		t.Fatal(err)
	}
	if err := p.layers.Remove(img.Chain); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(p.dir, "blobs", "sha256", d.Encoded())
	if err := os.Truncate(path, 1000); err != nil {
		t.Fatal(err)
	}
	if img = p.pull(t, s, img.Target, "app"); p.read(t, img, "f") != noise(50_000) || p.blobs.Verify(d) != nil {
		t.Errorf("got %+v", img)
	}
}
