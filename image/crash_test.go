package image_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/blob"
	"berth/image"
	"berth/internal/kerneltest"
	"berth/union"
)

// crashVar tells the test binary to be the program that is killed: its value is the data root.
const crashVar = "BERTH_TEST_IMAGE_CRASH"

// catalog is what the killed program pulls; it is the same in every process.
func catalog(t testing.TB) (*shop, map[string]ocispec.Descriptor) {
	s := newShop()
	base := gzipLayer(t, files{"base": noise(200_000), "dir/": ""})
	roots := map[string]ocispec.Descriptor{}
	for i := range 4 {
		n := fmt.Sprintf("app%d", i)
		roots[n] = s.image(t, host, base, gzipLayer(t, files{"dir/own": n}), plainLayer(t, files{"dir/more": noise(1000 * (i + 1))}))
	}
	mine := s.image(t, host, base, gzipLayer(t, files{"dir/own": "multi"}))
	roots["multi"] = s.index(t, mine, s.attestation(t, mine), s.image(t, crashPlatform, base, gzipLayer(t, files{"dir/own": "far"})))
	return s, roots
}

// crashPlatform is the other one of the image for two.
var crashPlatform = ocispec.Platform{OS: "linux", Architecture: "s390x"}

// twoPlatforms brings both platforms of an image, and removes one of them.
func twoPlatforms(ctx context.Context, store *image.Store, s *shop, root ocispec.Descriptor, tag reference.Named) error {
	if _, err := store.Pull(ctx, s, root, []reference.Named{tag}, &crashPlatform, nil); err != nil {
		return err
	}
	fmt.Println("pulled")
	gone := crashPlatform
	if rand.N(2) == 0 {
		gone = image.Host()
	}
	_, err := store.Remove(tag.String(), image.RemoveOptions{Force: true, Platforms: []ocispec.Platform{gone}})
	fmt.Println("removed")
	return err
}

// work pulls, saves, loads, tags and removes until it is killed. It prints a line at each step.
func work(dir string) int {
	t := &testing.B{}
	s, roots := catalog(t)
	fail := func(err error) int {
		fmt.Println("failed:", err)
		return 1
	}
	blobs, err := blob.Open(filepath.Join(dir, "blobs"))
	if err != nil {
		return fail(err)
	}
	layers, err := union.Open("", filepath.Join(dir, "overlay2"))
	if err != nil {
		return fail(err)
	}
	store, err := image.Open(filepath.Join(dir, "images"), blobs, layers)
	if err != nil {
		return fail(err)
	}
	fmt.Println("open")
	ctx := context.Background()
	for {
		for n, root := range roots {
			tag, _ := image.ParseName(n)
			other, _ := image.ParseName(n + ":other")
			if _, err := store.Pull(ctx, s, root, []reference.Named{tag}, nil, func(image.Event) { fmt.Println("event") }); err != nil {
				return fail(err)
			}
			fmt.Println("pulled")
			if n == "multi" {
				if err := twoPlatforms(ctx, store, s, root, tag); err != nil {
					return fail(err)
				}
			}
			var saved bytes.Buffer
			if err := store.Save(ctx, &saved, []string{n}, nil); err != nil {
				return fail(err)
			}
			if err := store.Tag(n, other.(reference.NamedTagged)); err != nil {
				return fail(err)
			}
			fmt.Println("tagged")
			if _, err := store.Remove(root.Digest.String(), image.RemoveOptions{Force: true}); err != nil {
				return fail(err)
			}
			fmt.Println("removed")
			if _, err := store.Load(ctx, &saved, nil, func(image.Event) { fmt.Println("event") }); err != nil {
				return fail(err)
			}
			fmt.Println("loaded")
			if rand.N(2) == 0 {
				if _, err := store.Remove(n, image.RemoveOptions{}); err != nil {
					return fail(err)
				}
				fmt.Println("removed")
			}
		}
	}
}

func TestKilledAtAnyMoment(t *testing.T) {
	kerneltest.Root(t)
	dir := t.TempDir()
	s, roots := catalog(t)
	for round := range 20 {
		killAfter(t, dir, 1+rand.N(60))
		p := &place{dir: dir}
		p.open(t)
		for _, err := range p.Broken() {
			t.Errorf("round %d: %v", round, err)
		}
		list, err := p.List()
		if err != nil {
			t.Fatal(err)
		}
		for _, img := range list {
			p.checkWhole(t, img)
		}
		for n, root := range roots {
			if img := p.pull(t, s, root, n); p.read(t, img, "dir/own") != n {
				t.Errorf("round %d: %s differs", round, n)
			}
		}
		p.removeAll(t)
		if err := p.layers.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// killAfter starts the program and kills it when it has printed so many lines.
func killAfter(t *testing.T, dir string, lines int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashVar+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewScanner(out)
	for range lines {
		if !in.Scan() {
			t.Errorf("the program ended by itself")
			break
		}
		if bytes.HasPrefix(in.Bytes(), []byte("failed")) {
			t.Error(in.Text())
		}
	}
	cmd.Process.Kill()
	cmd.Wait()
}

// checkWhole verifies all content of an image.
func (p *place) checkWhole(t *testing.T, img *image.Image) {
	t.Helper()
	all := []digest.Digest{img.ID, img.Manifest.Digest, img.ConfigID}
	for _, l := range img.Layers {
		all = append(all, l.Digest)
	}
	for _, d := range all {
		if err := p.blobs.Verify(d); err != nil {
			t.Errorf("%v: %v", img.Tags(), err)
		}
	}
	if !p.layers.Has(img.Chain) {
		t.Errorf("%v is not unpacked", img.Tags())
	}
}
