package image_test

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/fault"
	"berth/image"
)

func using(running, stopped []string) func(digest.Digest) ([]string, []string) {
	return func(digest.Digest) ([]string, []string) { return running, stopped }
}

func TestRemove(t *testing.T) {
	const container = "0123456789abcdef0123456789abcdef"
	for _, c := range []struct {
		what  string
		names []string // the first is pulled, the others are tags
		ref   string   // %I is the ID
		o     image.RemoveOptions
		want  []string // %I the ID, %S its short form; "!" begins an error
	}{
		{"last name", []string{"app:1"}, "app:1", image.RemoveOptions{}, []string{"untag app:1", "delete %I"}},
		{"one of two names", []string{"app:1", "app:2"}, "app:1", image.RemoveOptions{}, []string{"untag app:1"}},
		{"last tag of a repository", []string{"app:1", "other:1"}, "app:1", image.RemoveOptions{}, []string{"untag app:1"}},
		{"by ID", []string{"app:1"}, "%I", image.RemoveOptions{}, []string{"untag app:1", "delete %I"}},
		{"by short ID", []string{"app:1"}, "%S", image.RemoveOptions{}, []string{"untag app:1", "delete %I"}},
		{"by digest", []string{"app:1", "app:2"}, "app@%I", image.RemoveOptions{}, []string{"untag app:1", "untag app:2", "delete %I"}},
		{"by digest, another repository is left", []string{"app:1", "other:2"}, "app@%I", image.RemoveOptions{}, []string{"untag app:1"}},
		{"by the digest of a name that was not pulled", []string{"app:1", "other:2"}, "other@%I", image.RemoveOptions{}, []string{"untag other:2"}},
		{"by digest and a tag of nobody's", []string{"app:1", "app:2"}, "app:3@%I", image.RemoveOptions{}, []string{"!No such image: app:3@%I"}},
		{"by tag and digest", []string{"app:1", "app:2"}, "app:2@%I", image.RemoveOptions{}, []string{"untag app:2"}},
		{"by ID, two repositories", []string{"app:1", "other:1"}, "%I", image.RemoveOptions{},
			[]string{"!conflict: unable to delete %S (must be forced) - image is referenced in multiple repositories"}},
		{"by ID, two repositories, forced", []string{"app:1", "other:1"}, "%I", image.RemoveOptions{Force: true},
			[]string{"untag app:1", "untag other:1", "delete %I"}},
		{"by ID, stopped container", []string{"app:1"}, "%I", image.RemoveOptions{InUse: using(nil, []string{container})},
			[]string{"!conflict: unable to delete %S (must be forced) - image is being used by stopped container 0123456789ab"}},
		{"by ID, stopped container, forced", []string{"app:1"}, "%I", image.RemoveOptions{Force: true, InUse: using(nil, []string{container})},
			[]string{"untag app:1", "delete %I"}},
		{"by ID, running container, forced", []string{"app:1"}, "%I", image.RemoveOptions{Force: true, InUse: using([]string{container}, nil)},
			[]string{"!conflict: unable to delete %S (cannot be forced) - image is being used by running container 0123456789ab"}},
		{"by name, container", []string{"app:1"}, "app:1", image.RemoveOptions{InUse: using(nil, []string{container})},
			[]string{`!conflict: unable to delete app:1 (must be forced) - container 0123456789ab is using its referenced image %S`}},
		{"by name, running container, forced", []string{"app:1"}, "app:1", image.RemoveOptions{Force: true, InUse: using([]string{container}, nil)},
			[]string{"untag app:1"}},
		{"by name, stopped container, forced", []string{"app:1", "app:2"}, "app@%I", image.RemoveOptions{Force: true, InUse: using(nil, []string{container})},
			[]string{"untag app:1", "untag app:2"}},
		{"one of two names, container", []string{"app:1", "app:2"}, "app:1", image.RemoveOptions{InUse: using([]string{container}, nil)}, []string{"untag app:1"}},
		{"unknown", []string{"app:1"}, "nobody", image.RemoveOptions{}, []string{"!No such image: nobody:latest"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			p := newPlace(t)
			s := newShop()
			img := p.pull(t, s, s.image(t, host, gzipLayer(t, files{"f": "x"}), gzipLayer(t, files{"g": "y"})), c.names[0])
			for _, n := range c.names[1:] {
				if err := p.Tag(c.names[0], name(t, n)); err != nil {
					t.Fatal(err)
				}
			}
			fill := strings.NewReplacer("%I", img.ID.String(), "%S", img.ID.Encoded()[:12])
			steps, err := p.Remove(fill.Replace(c.ref), c.o)
			var got []string
			for _, r := range steps {
				if r.Untagged != "" {
					got = append(got, "untag "+r.Untagged)
				} else {
					got = append(got, "delete "+r.Deleted)
				}
			}
			if err != nil {
				got = append(got, "!"+err.Error())
			}
			var want []string
			for _, w := range c.want {
				want = append(want, fill.Replace(w))
			}
			if !slices.Equal(got, want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			gone := slices.Contains(want, "delete "+img.ID.String())
			if blobs, layers := p.content(t); (blobs+layers == 0) != gone {
				t.Errorf("%d blobs and %d layers are left", blobs, layers)
			}
		})
	}
}

func TestRemoveKeepsSharedContent(t *testing.T) {
	p := newPlace(t)
	s := newShop()
	base := gzipLayer(t, files{"f": "x"})
	p.pull(t, s, s.image(t, host, base, gzipLayer(t, files{"g": "1"})), "one")
	two := p.pull(t, s, s.image(t, host, base, gzipLayer(t, files{"g": "2"})), "two")
	if _, err := p.Remove("one", image.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if p.read(t, two, "f") != "x" {
		t.Error("the shared layer is gone")
	}
	if blobs, layers := p.content(t); blobs != 4 || layers != 2 {
		t.Errorf("%d blobs and %d layers are left", blobs, layers)
	}
}

func TestSweepKeepsLayersOfContainers(t *testing.T) {
	p := newPlace(t)
	s := newShop()
	img := p.pull(t, s, s.image(t, host, gzipLayer(t, files{"f": "x"}), gzipLayer(t, files{"g": "y"})), "app")
	if _, err := p.layers.Create("container", img.Chain, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Remove(img.ID.String(), image.RemoveOptions{Force: true, InUse: using(nil, []string{"container"})}); err != nil {
		t.Fatal(err)
	}
	if blobs, layers := p.content(t); blobs != 0 || layers != 2 {
		t.Errorf("%d blobs and %d layers while a container stands on them", blobs, layers)
	}
	if err := p.layers.Delete("container"); err != nil {
		t.Fatal(err)
	}
	if f, err := p.Sweep(t.Context()); err != nil || f.Layers != 2 || f.Bytes != img.Unpacked {
		t.Errorf("swept %+v, %v", f, err)
	}
}

func TestGet(t *testing.T) {
	p := newPlace(t)
	s := newShop()
	img := p.pull(t, s, s.image(t, host, gzipLayer(t, files{"f": "x"})), "registry.example:5000/team/app:1")
	if err := p.Tag(img.ID.String(), name(t, "app")); err != nil {
		t.Fatal(err)
	}
	id := img.ID.Encoded()
	for _, ref := range []string{
		"app", "app:latest", "docker.io/library/app", "library/app:latest", "registry.example:5000/team/app:1",
		"registry.example:5000/team/app@" + img.ID.String(), "registry.example:5000/team/app:other@" + img.ID.String(), "app@" + img.ID.String(),
		id, "sha256:" + id, id[:12], "sha256:" + id[:5], id[:1],
	} {
		if got, err := p.Get(ref); err != nil || got.ID != img.ID {
			t.Errorf("%s: %v", ref, err)
		}
	}
	other := strings.Repeat("0", 64)
	for ref, words := range map[string]string{
		"busybox":         "No such image: busybox:latest",
		"busybox:1":       "No such image: busybox:1",
		"quay.io/x/y":     "No such image: quay.io/x/y:latest",
		"sha256:" + other: "No such image: sha256:" + other,
		other:             "No such image: " + other,
		"sha256:00000":    "No such image: sha256:00000",
	} {
		if _, err := p.Get(ref); !errors.Is(err, fault.NotFound) || err.Error() != words {
			t.Errorf("%s: %v, want %s", ref, err, words)
		}
	}
	for _, ref := range []string{"ubuntu:16:04", "UPPER", "", "-x"} {
		if _, err := p.Get(ref); !errors.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", ref, err)
		}
	}
}

func TestAmbiguousID(t *testing.T) {
	p := newPlace(t)
	s := newShop()
	seen := map[byte]bool{}
	for i := 0; ; i++ {
		img := p.pull(t, s, s.image(t, host, plainLayer(t, files{"f": strings.Repeat("x", i)})), "app")
		first := img.ID.Encoded()[0]
		if seen[first] {
			if _, err := p.Get("sha256:" + string(first)); !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "ambiguous") {
				t.Errorf("got %v", err)
			}
			return
		}
		seen[first] = true
	}
}

func TestTagMovesAName(t *testing.T) {
	p := newPlace(t)
	s := newShop()
	one := p.pull(t, s, s.image(t, host, plainLayer(t, files{"f": "1"})), "one")
	two := p.pull(t, s, s.image(t, host, plainLayer(t, files{"f": "2"})), "two")
	if err := p.Tag("two", name(t, "one")); err != nil {
		t.Fatal(err)
	}
	p.reopen(t)
	if got, err := p.Get("one"); err != nil || got.ID != two.ID {
		t.Errorf("got %v", err)
	}
	if got, err := p.Get(one.ID.String()); err != nil || !got.Dangling() {
		t.Errorf("the image that lost its name: %v", err)
	}
	if err := p.Tag("nobody", name(t, "x")); !errors.Is(err, fault.NotFound) {
		t.Errorf("tagging nothing: %v", err)
	}
}

func TestDamagedRecordIsReported(t *testing.T) {
	p := newPlace(t)
	if err := os.WriteFile(p.dir+"/images/images.json", []byte(`{"version":1,"images":[`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := image.Open(p.dir+"/images", p.blobs, p.layers); !errors.Is(err, fault.Corrupt) {
		t.Errorf("got %v", err)
	}
}

func TestDigestReferences(t *testing.T) {
	p := newPlace(t)
	s := newShop()
	root := s.image(t, host, plainLayer(t, files{"f": "1"}))
	byDigest := "app@" + root.Digest.String()
	for _, tag := range []string{"", ":1"} {
		ref, err := reference.ParseNormalizedNamed("app" + tag + "@" + root.Digest.String())
		if err != nil {
			t.Fatal(err)
		}
		img, err := p.Pull(t.Context(), s, root, []reference.Named{ref}, nil, nil)
		if err != nil || img.Dangling() || len(img.Tags()) != 0 || !slices.Equal(img.Digests(), []string{byDigest}) {
			t.Errorf("pulled by digest: %+v, %v", img, err)
		}
	}
	// It keeps that name whatever becomes of tags.
	newer := s.image(t, host, plainLayer(t, files{"f": "2"}))
	p.pull(t, s, root, "app:1")
	p.pull(t, s, newer, "app:1")
	if img, err := p.Get(byDigest); err != nil || img.Dangling() {
		t.Errorf("got %+v, %v", img, err)
	}
	if img, err := p.Get("app@" + newer.Digest.String()); err != nil || !slices.Equal(img.Digests(), []string{"app@" + newer.Digest.String()}) {
		t.Errorf("got %+v, %v", img, err)
	}
	if _, err := p.Remove(byDigest, image.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Get(byDigest); !errors.Is(err, fault.NotFound) {
		t.Errorf("after its removal: %v", err)
	}
}

func TestRemovePlatforms(t *testing.T) {
	far := ocispec.Platform{OS: "linux", Architecture: "s390x"}
	p := newPlace(t)
	s := newShop()
	root, mine, other := multi(t, s)
	p.pull(t, s, root, "app:1")
	if _, err := p.Pull(t.Context(), s, root, []reference.Named{name(t, "app:1")}, &far, nil); err != nil {
		t.Fatal(err)
	}
	remove := func(platforms ...ocispec.Platform) ([]image.Removed, error) {
		return p.Remove("app:1", image.RemoveOptions{Force: true, Platforms: platforms})
	}
	if _, err := p.Remove("app:1", image.RemoveOptions{Platforms: []ocispec.Platform{far}}); !errors.Is(err, fault.Invalid) {
		t.Errorf("not forced: %v", err)
	}
	if _, err := remove(ocispec.Platform{OS: "linux", Architecture: "arm"}); !errors.Is(err, fault.NotFound) {
		t.Errorf("a platform that is not here: %v", err)
	}
	blobs, layers := p.content(t)
	if steps, err := remove(host); err != nil || !slices.Equal(steps, []image.Removed{{Deleted: string(mine.Digest)}}) {
		t.Fatalf("%v, %v", steps, err)
	}
	if b, l := p.content(t); b != blobs-3 || l != layers-1 {
		t.Errorf("%d of %d blobs and %d of %d layers are left", b, blobs, l, layers)
	}
	img, err := p.Get("app:1")
	if err != nil || img.ID != root.Digest || img.Manifest.Digest != other.Digest || p.read(t, img, "base") != noise(20_000) {
		t.Errorf("got %+v, %v", img, err)
	}
	p.reopen(t)
	if len(p.Broken()) > 0 {
		t.Errorf("broken: %v", p.Broken())
	}
	if steps, err := remove(far); err != nil || !slices.Equal(steps, []image.Removed{{Untagged: "app:1"}, {Deleted: string(root.Digest)}}) {
		t.Errorf("%v, %v", steps, err)
	}
	p.checkNothing(t)
}

// A platform that was loaded and never unpacked takes the place of the one that goes.
func TestRemovePlatformThatWasUnpacked(t *testing.T) {
	p := newPlace(t)
	s := newShop()
	root, mine, other := multi(t, s)
	p.pull(t, s, root, "app:1")
	far := ocispec.Platform{OS: "linux", Architecture: "s390x"}
	if _, err := p.Pull(t.Context(), s, root, []reference.Named{name(t, "app:1")}, &far, nil); err != nil {
		t.Fatal(err)
	}
	data := p.save(t, "app:1")
	p.removeAll(t)
	p.load(t, data)
	p.pull(t, s, mine, "alone")
	if _, err := p.Remove("app:1", image.RemoveOptions{Force: true, Platforms: []ocispec.Platform{host}}); !errors.Is(err, fault.Conflict) {
		t.Errorf("another image is nothing but that platform: %v", err)
	}
	if _, err := p.Remove("alone", image.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Remove("app:1", image.RemoveOptions{Force: true, Platforms: []ocispec.Platform{host}}); err != nil {
		t.Fatal(err)
	}
	if img, err := p.Get("app:1"); err != nil || img.Manifest.Digest != other.Digest || p.read(t, img, "f") != "other" {
		t.Errorf("got %+v, %v", img, err)
	}
}
