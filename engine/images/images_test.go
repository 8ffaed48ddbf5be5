package images

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"berth/blob"
	"berth/engine/journal"
	"berth/fault"
	"berth/image"
	"berth/internal/kerneltest"
	"berth/registry"
	"berth/registry/registrytest"
	"berth/union"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/jsonstream"
	wire "github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

// world is a service over a data root of its own, and a registry.
type world struct {
	*Service
	*testing.T
	server *registrytest.Server
	host   string
	said   []jsonstream.Message
	heard  *journal.Subscription
}

func newWorld(t *testing.T) *world {
	t.Helper()
	kerneltest.Root(t)
	dir := t.TempDir()
	layers, err := union.Open("", filepath.Join(dir, "layers"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { layers.Close() })
	blobs, err := blob.Open(filepath.Join(dir, "blobs"))
	if err != nil {
		t.Fatal(err)
	}
	store, err := image.Open(filepath.Join(dir, "images"), blobs, layers)
	if err != nil {
		t.Fatal(err)
	}
	told, err := journal.Open(filepath.Join(dir, "events"), func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { told.Close() })
	client := registry.NewClient(registry.Options{Backoff: time.Millisecond})
	t.Cleanup(client.Close)
	w := &world{T: t, server: registrytest.New()}
	http := httptest.NewServer(w.server)
	t.Cleanup(http.Close)
	w.host = strings.TrimPrefix(http.URL, "http://")
	w.Service = &Service{
		Store: store, Registry: client, Events: told, Driver: layers.Name(), Settle: func() {},
		LayerDirs:  func(chain digest.Digest) []string { return union.Dirs(layers, chain) },
		UsedBy:     func(string) (running, stopped []string) { return nil, nil },
		ManifestOf: func(string) digest.Digest { return "" },
	}
	if _, err := store.Hello(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, w.heard, err = told.Subscribe(journal.Request{}); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) out(m jsonstream.Message) { w.said = append(w.said, m) }

// words are all status lines since the last call.
func (w *world) words() string {
	var b strings.Builder
	for _, m := range w.said {
		b.WriteString(m.ID + " " + m.Status + "\n")
	}
	w.said = nil
	return b.String()
}

// events are the events since the last call, as "action subject name".
func (w *world) events(n int) []string {
	w.Helper()
	var list []string
	for range n {
		select {
		case m := <-w.heard.C:
			list = append(list, string(m.Action)+" "+m.Actor.ID+" "+m.Actor.Attributes["name"])
		case <-time.After(20 * time.Second):
			w.Fatalf("%d events, want %d: %q", len(list), n, list)
		}
	}
	return list
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) named(s string) reference.Named {
	w.Helper()
	n, err := reference.ParseNormalizedNamed(s)
	w.must(err)
	return n
}

func TestPushAndPullOfAllTags(t *testing.T) {
	w := newWorld(t)
	app := w.host + "/team/app"
	id, err := w.ID("hello-world")
	w.must(err)
	for _, tag := range []string{"1", "2"} {
		w.must(w.Tag("hello-world", app, tag))
	}
	want := []string{"tag " + id + " " + app + ":1", "tag " + id + " " + app + ":2"}
	if got := w.events(2); !slices.Equal(got, want) {
		t.Errorf("events %q", got)
	}
	w.must(w.Push(t.Context(), PushRequest{Ref: w.named(app)}, w.out))
	last := w.said[len(w.said)-1]
	var record pushed
	if last.Aux == nil || json.Unmarshal(*last.Aux, &record) != nil || record.Tag != "2" || record.Digest != id || record.Size == 0 {
		t.Errorf("the last record: %+v", last)
	}
	said := w.words()
	for _, words := range []string{"The push refers to repository [" + app + "]", "Pushed", "1: digest: " + id, "Layer already exists", "2: digest: " + id} {
		if !strings.Contains(said, words) {
			t.Errorf("no %q in\n%s", words, said)
		}
	}
	if got := w.events(2); !slices.Equal(got, []string{"push " + app + ":1 " + app, "push " + app + ":2 " + app}) {
		t.Errorf("events %q", got)
	}
	if _, err := w.Remove(t.Context(), RemoveRequest{Ref: id, Force: true}); err != nil {
		t.Fatal(err)
	}
	gone := w.events(4) // three tags, the image
	if gone[3] != "delete "+id+" "+id || !slices.Contains(gone, "untag "+id+" "+app+":1") {
		t.Errorf("events %q", gone)
	}
	w.must(w.Pull(t.Context(), PullRequest{Ref: app, All: true}, w.out))
	said = w.words()
	for _, words := range []string{"1 Pulling from team/app", "2 Pulling from team/app", "Pull complete", "Digest: " + id, "Status: Downloaded newer image for " + app + ":1"} {
		if !strings.Contains(said, words) {
			t.Errorf("no %q in\n%s", words, said)
		}
	}
	if got := w.events(2); !slices.Equal(got, []string{"pull " + app + ":1 " + app, "pull " + app + ":2 " + app}) {
		t.Errorf("events %q", got)
	}
	w.must(w.Pull(t.Context(), PullRequest{Ref: app + ":1"}, w.out))
	if said := w.words(); !strings.Contains(said, "Image is up to date") || strings.Contains(said, image.StatusExists) {
		t.Errorf("a second pull says\n%s", said)
	}
}

func TestPullAndPushThatFail(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		ref   string
		all   bool
		kind  fault.Kind
		words string
	}{
		{"scratch", false, fault.Denied, "'scratch' is a reserved name"},
		{"scratch:1", false, fault.Denied, "'scratch' is a reserved name"},
		{"Bad", false, fault.Invalid, "must be lowercase"},
		{w.host + "/no/such:1", false, fault.NotFound, "pull access denied for " + w.host + "/no/such, repository does not exist"},
		{w.host + "/no/such", true, fault.NotFound, "pull access denied for " + w.host + "/no/such, repository does not exist"},
	} {
		err := w.Pull(t.Context(), PullRequest{Ref: c.ref, All: c.all}, w.out)
		if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.words) {
			t.Errorf("pull %s: %v", c.ref, err)
		}
		if said := w.words(); said != "" {
			t.Errorf("pull %s says before it fails: %s", c.ref, said)
		}
	}
	for ref, words := range map[string]string{
		w.host + "/none":   "An image does not exist locally with the tag: " + w.host + "/none",
		w.host + "/none:1": "tag does not exist: " + w.host + "/none:1",
	} {
		err := w.Push(t.Context(), PushRequest{Ref: w.named(ref)}, w.out)
		if !errors.Is(err, fault.NotFound) || !strings.Contains(err.Error(), words) {
			t.Errorf("push %s: %v", ref, err)
		}
	}
	w.words()
	w.must(w.Tag("hello-world", w.host+"/app", "1"))
	w.server.SetFaults(registrytest.Faults{TooMany: 1})
	w.must(w.Push(t.Context(), PushRequest{Ref: w.named(w.host + "/app:1")}, w.out))
	if said := w.words(); !strings.Contains(said, w.host+" Retrying in ") {
		t.Errorf("nothing tells of the wait:\n%s", said)
	}
}

func TestDistribution(t *testing.T) {
	w := newWorld(t)
	app := w.host + "/team/app"
	w.must(w.Tag("hello-world", app, "1"))
	w.must(w.Push(t.Context(), PushRequest{Ref: w.named(app + ":1")}, w.out))
	id := digest.Digest(w.server.Tag("team/app", "1"))
	d, err := w.Distribution(t.Context(), app+":1", wire.AuthConfig{})
	if err != nil || d.Descriptor.Digest != id || len(d.Platforms) != 2 || d.Platforms[0].OS != "linux" {
		t.Fatalf("%+v, %v", d, err)
	}
	desc, data, err := w.Manifest(t.Context(), app+"@"+id.String(), wire.AuthConfig{})
	if err != nil || digest.FromBytes(data) != id || desc.Digest != id {
		t.Errorf("%+v, %v", desc, err)
	}
	if _, err := w.Distribution(t.Context(), id.String(), wire.AuthConfig{}); !errors.Is(err, fault.Invalid) {
		t.Errorf("an ID: %v", err)
	}
	if _, err := w.Distribution(t.Context(), app+":none", wire.AuthConfig{}); !errors.Is(err, fault.NotFound) {
		t.Errorf("no such tag: %v", err)
	}

	// An index of it in another repository.
	var whole ocispec.Index
	w.must(json.Unmarshal(data, &whole))
	child := whole.Manifests[0]
	one, err := w.Distribution(t.Context(), app+"@"+child.Digest.String(), wire.AuthConfig{})
	if err != nil || len(one.Platforms) != 1 || one.Platforms[0].Architecture != child.Platform.Architecture {
		t.Errorf("%+v, %v", one, err)
	}
	index, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{child}})
	w.must(err)
	put := PutRequest{Ref: w.host + "/team/list:all", MediaType: ocispec.MediaTypeImageIndex, Data: index, From: []string{app + "@" + child.Digest.String()}}
	made, err := w.PutManifest(t.Context(), put)
	if err != nil || w.server.Tag("team/list", "all") != made.Digest {
		t.Fatalf("%+v, %v", made, err)
	}
	var blobs int
	for _, request := range w.server.Requests() {
		if strings.HasPrefix(request, "GET /v2/team/app/blobs/") {
			blobs++
		}
	}
	if blobs > 1 { // the config, for its platform
		t.Errorf("blobs were fetched though they could be mounted: %q", w.server.Requests())
	}
	d, err = w.Distribution(t.Context(), put.Ref, wire.AuthConfig{})
	if err != nil || d.Descriptor.Digest != made.Digest || len(d.Platforms) != 1 {
		t.Errorf("%+v, %v", d, err)
	}
	w.must(w.Pull(t.Context(), PullRequest{Ref: put.Ref}, w.out))
	shown, err := w.Inspect(put.Ref, nil, true)
	if err != nil || shown.ID != made.Digest.String() || len(shown.Manifests) != 1 || !shown.Manifests[0].Available || shown.GraphDriver.Data["UpperDir"] == "" {
		t.Errorf("%+v, %v", shown, err)
	}
	for what, r := range map[string]PutRequest{
		"another type":   {Ref: put.Ref, MediaType: ocispec.MediaTypeImageManifest, Data: index},
		"another digest": {Ref: app + "@" + id.String(), Data: index},
		"no JSON":        {Ref: put.Ref, Data: []byte("{")},
		"no type":        {Ref: put.Ref, Data: []byte("{}")},
		"an index below": {Ref: w.host + "/third:1", Data: index, From: []string{put.Ref}},
	} {
		if _, err := w.PutManifest(t.Context(), r); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestSearch(t *testing.T) {
	w := newWorld(t)
	w.server.SetIndex([]registrytest.Result{{Name: "a", Stars: 5, Official: true}, {Name: "team/a", Stars: 50}})
	for _, c := range []struct {
		filters journal.Filters
		limit   int
		want    string // names, or what the error says
	}{
		{nil, 0, "a team/a"},
		{journal.Filters{"stars": {"3", "10"}}, 0, "team/a"},
		{journal.Filters{"is-official": {"true"}}, 0, "a"},
		{journal.Filters{"is-official": {"0"}}, 0, "team/a"},
		{journal.Filters{"is-automated": {"true"}}, 0, ""},
		{journal.Filters{"is-automated": {"false"}}, 0, "a team/a"},
		{journal.Filters{"is-official": {"maybe"}}, 0, "invalid filter 'is-official=[maybe]'"},
		{journal.Filters{"stars": {"many"}}, 0, "invalid filter 'stars=many'"},
		{journal.Filters{"color": {"red"}}, 0, "invalid filter 'color'"},
		{nil, 101, "Limit 101 is outside the range of [1, 100]"},
	} {
		found, err := w.Search(t.Context(), SearchRequest{Term: w.host + "/a", Limit: c.limit, Filters: c.filters})
		var names []string
		for _, f := range found {
			names = append(names, f.Name)
		}
		got := strings.Join(names, " ")
		if err != nil {
			got = err.Error()
			if !errors.Is(err, fault.Invalid) {
				t.Errorf("%v: kind of %v", c.filters, err)
			}
		}
		if got != c.want {
			t.Errorf("%v: %q, want %q", c.filters, got, c.want)
		}
	}
}

func TestSavedRepositoryHasAllItsTags(t *testing.T) {
	w := newWorld(t)
	for _, tag := range []string{"1", "2"} {
		w.must(w.Tag("hello-world", "app", tag))
	}
	var archive bytes.Buffer
	w.must(w.Save(t.Context(), &archive, []string{"app"}, nil))
	for _, tag := range []string{"1", "2"} {
		if _, err := w.Remove(t.Context(), RemoveRequest{Ref: "app:" + tag}); err != nil {
			t.Fatal(err)
		}
	}
	w.must(w.Load(t.Context(), &archive, nil, true, w.out))
	var said []string
	for _, m := range w.said {
		said = append(said, m.Stream)
	}
	if !slices.Equal(said, []string{"Loaded image: app:1\n", "Loaded image: app:2\n"}) {
		t.Errorf("%q", said)
	}
}

func TestListCountsWhatImagesShare(t *testing.T) {
	w := newWorld(t)
	err := w.Import(t.Context(), ImportRequest{Source: "-", Repository: "other", Changes: []string{"LABEL a=b"}}, bytes.NewReader(make([]byte, 1024)), w.out)
	w.must(err)
	list, err := w.List(ListRequest{SharedSize: true, Manifests: true, Filters: journal.Filters{"reference": {"other", "hello-world"}}})
	if err != nil || len(list) != 2 {
		t.Fatalf("%v, %v", list, err)
	}
	for _, s := range list {
		if s.SharedSize != 0 || len(s.Manifests) == 0 || !s.Manifests[0].Available || s.Size < s.Manifests[0].Size.Content {
			t.Errorf("%+v", s)
		}
	}
	if d := list[0].RepoDigests; len(d) != 1 || d[0] != "other@"+list[0].ID && d[0] != "hello-world@"+list[0].ID {
		t.Errorf("digests %q", d)
	}
	for _, want := range []events.Action{events.ActionTag, events.ActionImport} {
		if m := <-w.heard.C; m.Action != want || m.Actor.Attributes["a"] != "b" { // the image's label
			t.Errorf("%+v", m)
		}
	}
}

func TestAttestations(t *testing.T) {
	w := newWorld(t)
	w.must(w.Tag("hello-world", w.host+"/app", "1"))
	w.must(w.Push(t.Context(), PushRequest{Ref: w.named(w.host + "/app:1")}, w.out))
	_, data, err := w.Manifest(t.Context(), w.host+"/app:1", wire.AuthConfig{})
	w.must(err)
	var index ocispec.Index
	w.must(json.Unmarshal(data, &index))
	const provenance, statement = "https://slsa.dev/provenance/v1", `{"_type":"https://in-toto.io/Statement/v1"}`
	document := func(v any) []byte {
		data, err := json.Marshal(v)
		w.must(err)
		return data
	}
	layer := ocispec.Descriptor{
		MediaType: "application/vnd.in-toto+json", Digest: w.server.Blob("app", []byte(statement)), Size: int64(len(statement)),
		Annotations: map[string]string{"in-toto.io/predicate-type": provenance},
	}
	config := []byte(`{"architecture":"unknown","os":"unknown","config":{},"rootfs":{"type":"layers","diff_ids":["` + layer.Digest.String() + `"]}}`)
	manifest := document(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{layer},
		Config: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: w.server.Blob("app", config), Size: int64(len(config))},
	})
	index.Manifests = append(index.Manifests, ocispec.Descriptor{ // of the first alone
		MediaType: ocispec.MediaTypeImageManifest, Digest: w.server.Manifest("app", "", ocispec.MediaTypeImageManifest, manifest), Size: int64(len(manifest)),
		Platform:    &ocispec.Platform{OS: "unknown", Architecture: "unknown"},
		Annotations: map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": index.Manifests[0].Digest.String()},
	})
	w.server.Manifest("app", "attested", ocispec.MediaTypeImageIndex, document(index))
	first := index.Manifests[0].Platform
	w.must(w.Pull(t.Context(), PullRequest{Ref: w.host + "/app:attested", Platform: first}, w.out))
	list, err := w.Attestations(w.host+"/app:attested", first, nil, false)
	if err != nil || len(list) != 1 || list[0].PredicateType != provenance || list[0].Descriptor.Digest != layer.Digest || list[0].Statement != nil {
		t.Errorf("%+v, %v", list, err)
	}
	list, err = w.Attestations(w.host+"/app:attested", first, []string{provenance}, true)
	if err != nil || len(list) != 1 || string(*list[0].Statement) != statement {
		t.Errorf("%+v, %v", list, err)
	}
	for what, c := range map[string]struct {
		ref   string
		types []string
	}{"of another type": {w.host + "/app:attested", []string{"other"}}, "of an image without": {"hello-world", nil}} {
		if list, err := w.Attestations(c.ref, nil, c.types, true); err != nil || list == nil || len(list) != 0 {
			t.Errorf("%s: %+v, %v", what, list, err)
		}
	}
	shown, err := w.Inspect(w.host+"/app:attested", nil, true)
	w.must(err)
	last := shown.Manifests[len(shown.Manifests)-1]
	if last.Kind != "attestation" || last.AttestationData.For != index.Manifests[0].Digest {
		t.Errorf("%+v", last)
	}
}

// TestImportKeepsPasswordsSecret fetches archives whose address has a password.
func TestImportKeepsPasswordsSecret(t *testing.T) {
	w := newWorld(t)
	server := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		if _, password, _ := r.BasicAuth(); password != "secret" {
			out.WriteHeader(http.StatusUnauthorized)
		} else if r.URL.Path != "/root.tar" {
			out.WriteHeader(http.StatusNotFound)
		} else {
			out.Write(make([]byte, 1024))
		}
	}))
	host := strings.TrimPrefix(server.URL, "http://")
	if err := w.Import(t.Context(), ImportRequest{Source: "http://me:secret@" + host + "/root.tar", Repository: "fetched"}, nil, w.out); err != nil {
		t.Fatal(err)
	}
	history, err := w.History("fetched", nil)
	if err != nil || len(history) != 1 || history[0].Comment != "Imported from http://me:xxxxx@"+host+"/root.tar" {
		t.Errorf("history: %+v, %v", history, err)
	}
	failures := []error{w.Import(t.Context(), ImportRequest{Source: "me:secret@" + host + "/nosuch.tar"}, nil, w.out)}
	server.Close()
	for _, source := range []string{"http://me:secret@" + host + "/root.tar", "ftp://me:secret@" + host, "http://me:secret@%zz/", "http://me:secret@"} {
		failures = append(failures, w.Import(t.Context(), ImportRequest{Source: source}, nil, w.out))
	}
	for n, err := range failures {
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("failure %d: %v", n, err)
		}
	}
	if said := fmt.Sprint(w.said); strings.Contains(said, "secret") {
		t.Errorf("said: %s", said)
	}
}
