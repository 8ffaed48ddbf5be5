package image_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

// market is a registry in memory, with repositories that are Targets.
type market struct {
	mu    sync.Mutex
	repos map[string]*stall
}

// stall is one repository of a market. As registries do, it refuses documents whose content it lacks.
type stall struct {
	m      *market
	path   string
	blobs  map[digest.Digest][]byte
	tags   map[string]digest.Digest
	puts   []digest.Digest
	refuse digest.Digest // that Put fails for
}

func (m *market) stall(path string) *stall {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.repos == nil {
		m.repos = map[string]*stall{}
	}
	if m.repos[path] == nil {
		m.repos[path] = &stall{m: m, path: path, blobs: map[digest.Digest][]byte{}, tags: map[string]digest.Digest{}}
	}
	return m.repos[path]
}

func (s *stall) Has(_ context.Context, desc ocispec.Descriptor) (bool, error) {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	return s.blobs[desc.Digest] != nil, nil
}

func (s *stall) Mount(_ context.Context, desc ocispec.Descriptor, from reference.Named) (bool, error) {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	other := s.m.repos[reference.Path(from)]
	if other == nil || other.blobs[desc.Digest] == nil {
		return false, nil
	}
	s.blobs[desc.Digest] = other.blobs[desc.Digest]
	return true, nil
}

func (s *stall) Put(_ context.Context, desc ocispec.Descriptor, open func() (io.ReadCloser, error)) error {
	if desc.Digest == s.refuse {
		return errors.New("refused")
	}
	for range 2 { // the first try breaks off
		r, err := open()
		if err != nil {
			return err
		}
		data, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil {
			return err
		}
		if digest.FromBytes(data) != desc.Digest || int64(len(data)) != desc.Size {
			return fmt.Errorf("%d bytes came for %+v", len(data), desc)
		}
		s.m.mu.Lock()
		s.blobs[desc.Digest] = data
		s.m.mu.Unlock()
	}
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.puts = append(s.puts, desc.Digest)
	return nil
}

func (s *stall) PutManifest(_ context.Context, desc ocispec.Descriptor, data []byte, tag string) error {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	var d struct {
		Config            *ocispec.Descriptor
		Layers, Manifests []ocispec.Descriptor
	}
	if err := json.Unmarshal(data, &d); err != nil {
		return err
	}
	children := slices.Concat(d.Layers, d.Manifests)
	if d.Config != nil {
		children = append(children, *d.Config)
	}
	for _, c := range children {
		if s.blobs[c.Digest] == nil && len(c.URLs) == 0 {
			return fmt.Errorf("manifest %s came before %s", desc.Digest, c.Digest)
		}
	}
	s.blobs[desc.Digest] = data
	s.puts = append(s.puts, desc.Digest)
	if tag != "" {
		s.tags[tag] = desc.Digest
	}
	return nil
}

// steps collects the words for each layer, bytes left out.
type steps struct{ seen map[string][]string }

func (s *steps) take(e image.Event) {
	if s.seen == nil {
		s.seen = map[string][]string{}
	}
	if list := s.seen[e.ID]; e.Status != image.StatusWaiting && (len(list) == 0 || list[len(list)-1] != e.Status) {
		s.seen[e.ID] = append(list, e.Status)
	}
}

func (p *place) push(t testing.TB, dst image.Target, as string) (image.Pushed, map[string][]string) {
	t.Helper()
	var s steps
	done, err := p.Push(t.Context(), dst, name(t, as), nil, s.take)
	if err != nil {
		t.Fatal(err)
	}
	return done, s.seen
}

func TestPushSendsAllOnceAndMounts(t *testing.T) {
	p := newPlace(t)
	s := newShop()
	one, two := gzipLayer(t, files{"f": noise(300_000)}), plainLayer(t, files{"g": "y"})
	root := s.index(t, s.image(t, host, one, two, one))
	img := p.pull(t, s, root, "reg.test/team/app:1")
	var m market
	first := m.stall("team/app")
	done, words := p.push(t, first, "reg.test/team/app:1")
	if done.Target.Digest != root.Digest || done.Index != nil || first.tags["1"] != root.Digest {
		t.Errorf("pushed %+v, tags %v", done, first.tags)
	}
	id := digest.FromBytes(one.blob).Encoded()[:12]
	if want := []string{"Preparing", "Pushing", "Pushed"}; !slices.Equal(words[id], want) || len(words) != 2 {
		t.Errorf("words %q, want %q for %s", words, want, id)
	}
	if len(first.puts) != 5 || len(slices.Compact(slices.Sorted(slices.Values(first.puts)))) != 5 {
		t.Errorf("sent %v", first.puts)
	}
	for d, data := range first.blobs {
		if !bytes.Equal(data, s.blobs[d]) {
			t.Errorf("%s differs from what was pulled", d)
		}
	}
	first.puts = nil
	if _, words := p.push(t, first, "reg.test/team/app:1"); !slices.Equal(words[id], []string{"Preparing", "Layer already exists"}) || !slices.Equal(first.puts, []digest.Digest{root.Digest}) {
		t.Errorf("a second push says %v and sends %v", words, first.puts)
	}
	if err := p.Tag(img.ID.String(), name(t, "reg.test/other:2")); err != nil {
		t.Fatal(err)
	}
	second := m.stall("other")
	if _, words := p.push(t, second, "reg.test/other:2"); !slices.Equal(words[id], []string{"Preparing", "Mounted from team/app"}) || len(second.puts) != 2 {
		t.Errorf("to a second repository: %v, sent %v", words, second.puts)
	}
	got, err := p.Get("reg.test/other:2")
	want := []string{"reg.test/other@" + root.Digest.String(), "reg.test/team/app@" + root.Digest.String()}
	if err != nil || !slices.Equal(got.Digests(), want) {
		t.Errorf("digests %v, %v; want %v", got.Digests(), err, want)
	}
	// What is known of where content lies outlives the names.
	for _, gone := range []string{"reg.test/team/app:1", "reg.test/other@" + root.Digest.String()} {
		if err := p.Tag(img.ID.String(), name(t, "third")); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Remove(gone, image.RemoveOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	p.reopen(t)
	if err := p.Tag("third", name(t, "reg.test/last:3")); err != nil {
		t.Fatal(err)
	}
	if _, words := p.push(t, m.stall("last"), "reg.test/last:3"); !slices.Equal(words[id], []string{"Preparing", "Mounted from other"}) {
		t.Errorf("to a further repository: %v", words)
	}
	if got, err = p.Get("reg.test/last@" + root.Digest.String()); err != nil || got.ID != root.Digest {
		t.Errorf("after a restart: %v, %v", got, err)
	}
}

func TestPushOfWhatIsHere(t *testing.T) {
	p := newPlace(t)
	s := newShop()
	mine := s.image(t, host, gzipLayer(t, files{"f": "mine"}))
	other := s.image(t, ocispec.Platform{OS: "linux", Architecture: "s390x"}, gzipLayer(t, files{"f": "other"}))
	root := s.index(t, mine, other)
	p.pull(t, s, root, "reg.test/app:1")
	var m market
	dst := m.stall("app")
	done, _ := p.push(t, dst, "reg.test/app:1")
	if done.Target.Digest != mine.Digest || done.Index == nil || done.Index.Digest != root.Digest || dst.tags["1"] != mine.Digest {
		t.Errorf("pushed %+v", done)
	}
	// Where the other platform is already, the index goes as it is.
	for d, data := range s.blobs {
		if d != root.Digest {
			dst.blobs[d] = data
		}
	}
	if done, _ := p.push(t, dst, "reg.test/app:1"); done.Target.Digest != root.Digest || done.Index != nil || dst.tags["1"] != root.Digest {
		t.Errorf("pushed %+v", done)
	}
	if _, err := p.Push(t.Context(), dst, name(t, "reg.test/app:1"), &ocispec.Platform{OS: "linux", Architecture: "s390x"}, nil); !errors.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "does not provide the specified platform (linux/s390x)") {
		t.Errorf("a platform that is not here: %v", err)
	}
	if _, err := p.Push(t.Context(), dst, name(t, "reg.test/app:2"), nil, nil); !errors.Is(err, fault.NotFound) || err.Error() != "tag does not exist: reg.test/app:2" {
		t.Errorf("a tag that is not here: %v", err)
	}
	both := []reference.Named{name(t, "reg.test/app:1")}
	if _, err := p.Pull(t.Context(), s, root, both, &ocispec.Platform{OS: "linux", Architecture: "s390x"}, nil); err != nil {
		t.Fatal(err)
	}
	empty := m.stall("empty")
	if done, err := p.Push(t.Context(), empty, name(t, "reg.test/app:1"), &ocispec.Platform{OS: "linux", Architecture: "s390x"}, nil); err != nil || done.Target.Digest != other.Digest || done.Index != nil || len(empty.blobs) != 3 {
		t.Errorf("one platform: %+v, %v", done, err)
	}
	if done, _ := p.push(t, empty, "reg.test/app:1"); done.Target.Digest != root.Digest || len(empty.blobs) != 7 {
		t.Errorf("both platforms: %+v with %d blobs", done, len(empty.blobs))
	}
}

func TestPushFailsBeforeTheManifest(t *testing.T) {
	p := newPlace(t)
	s := newShop()
	l := gzipLayer(t, files{"f": "x"})
	p.pull(t, s, s.image(t, host, l, gzipLayer(t, files{"g": "x"})), "reg.test/app:1")
	if err := p.Tag("reg.test/app:1", name(t, "reg.test/new:1")); err != nil {
		t.Fatal(err)
	}
	var m market
	dst := m.stall("new")
	dst.refuse = digest.FromBytes(l.blob)
	if _, err := p.Push(t.Context(), dst, name(t, "reg.test/new:1"), nil, nil); err == nil || len(dst.tags) != 0 {
		t.Errorf("got %v and tags %v", err, dst.tags)
	}
	if img, err := p.Get("reg.test/new:1"); err != nil || len(img.Sources) != 1 {
		t.Errorf("after a failed push: %v, %v", img.Sources, err)
	}
}

func TestTagsOfARepository(t *testing.T) {
	p := newPlace(t)
	s := newShop()
	p.pull(t, s, s.image(t, host, gzipLayer(t, files{"f": "x"})), "app:2")
	p.pull(t, s, s.image(t, host, gzipLayer(t, files{"f": "y"})), "app:1")
	p.pull(t, s, s.image(t, host, gzipLayer(t, files{"f": "y"})), "other:1")
	var got []string
	for _, n := range p.Tags(name(t, "app")) {
		got = append(got, reference.FamiliarString(n))
	}
	if want := []string{"app:1", "app:2"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// What may not be passed on comes with a pull and stays here: the registry's readers have its addresses.
func TestPushLeavesForeignLayersOut(t *testing.T) {
	p := newPlace(t)
	s := newShop()
	data := files{"licensed": "x"}.tar(t)
	foreign := layer{gzipped(t, data), digest.FromBytes(data), "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"}
	root := s.image(t, host, gzipLayer(t, files{"f": "x"}), foreign)
	var manifest ocispec.Manifest
	if err := json.Unmarshal(s.blobs[root.Digest], &manifest); err != nil {
		t.Fatal(err)
	}
	for _, urls := range [][]string{{"https://example.org/licensed"}, nil} {
		manifest.Layers[1].URLs = urls
		root = s.document(t, manifest, ocispec.MediaTypeImageManifest)
		if img := p.pull(t, s, root, "reg.test/app:1"); p.read(t, img, "licensed") != "x" {
			t.Errorf("got %+v", img)
		}
		var m market
		p.push(t, m.stall("app"), "reg.test/app:1")
		if _, sent := m.stall("app").blobs[digest.FromBytes(foreign.blob)]; sent != (urls == nil) || m.stall("app").tags["1"] != root.Digest {
			t.Errorf("with addresses %v: sent %v", urls, sent)
		}
	}
}
