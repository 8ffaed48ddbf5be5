package registry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/fault"
	"berth/registry"
	"berth/registry/registrytest"
)

// goods are bytes to push, large enough to be sent in a request of their own.
func goods(size int) (ocispec.Descriptor, []byte, func() (io.ReadCloser, error)) {
	data := make([]byte, size)
	rand.NewChaCha8([32]byte{byte(size)}).Read(data)
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(data), Size: int64(size)}
	return desc, data, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
}

func (w *world) target(t *testing.T, name string, auth registry.Auth) *registry.Repository {
	return w.client.Repository(w.ref(t, name), auth)
}

func TestPush(t *testing.T) {
	users := map[string]string{"ann": "right"}
	ann := registry.Auth{Username: "ann", Password: "right"}
	for name, c := range map[string]struct {
		faults registrytest.Faults
		access registrytest.Access
		auth   registry.Auth
	}{
		"open":                        {},
		"absolute locations":          {faults: registrytest.Faults{Absolute: true}},
		"503 twice":                   {faults: registrytest.Faults{Failing: 2}},
		"429":                         {faults: registrytest.Faults{TooMany: 2}},
		"cut every 3 MB":              {faults: registrytest.Faults{CutUpload: 3 << 20}},
		"cut twice, session lost":     {faults: registrytest.Faults{CutUpload: 5 << 20, CutUploads: 2, LostUploads: 1}},
		"bearer":                      {access: registrytest.Access{Scheme: "bearer", Users: users}, auth: ann},
		"bearer, tokens for one use":  {access: registrytest.Access{Scheme: "bearer", Users: users, Uses: 1}, auth: ann},
		"basic":                       {access: registrytest.Access{Scheme: "basic", Users: users}, auth: ann},
		"basic, cuts":                 {faults: registrytest.Faults{CutUpload: 4 << 20}, access: registrytest.Access{Scheme: "basic", Users: users}, auth: ann},
		"bearer, identity token":      {access: registrytest.Access{Scheme: "bearer", Users: users, Identity: map[string]string{"id": "ann"}}, auth: registry.Auth{IdentityToken: "id"}},
		"bearer, short lives and cut": {faults: registrytest.Faults{CutUpload: 4 << 20}, access: registrytest.Access{Scheme: "bearer", Users: users, Uses: 2}, auth: ann},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, httptest.NewServer)
			w.SetAccess(c.access)
			repo := w.target(t, "team/new", c.auth)
			for _, size := range []int{0, 1, 100_000, 9 << 20} {
				desc, data, open := goods(size)
				if has, err := repo.Has(t.Context(), desc); err != nil || has {
					t.Fatalf("before the push of %d bytes: %v, %v", size, has, err)
				}
				w.SetFaults(c.faults)
				if err := repo.Put(t.Context(), desc, open); err != nil {
					t.Fatalf("put %d bytes: %v\n%s", size, err, strings.Join(w.Requests(), "\n"))
				}
				w.SetFaults(registrytest.Faults{})
				if has, err := repo.Has(t.Context(), desc); err != nil || !has || !bytes.Equal(w.Content("team/new", desc.Digest), data) {
					t.Errorf("after the push of %d bytes: %v, %v", size, has, err)
				}
			}
			manifest := []byte(document)
			desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(manifest), Size: int64(len(manifest))}
			for _, tag := range []string{"", "v2"} {
				if err := repo.PutManifest(t.Context(), desc, manifest, tag); err != nil {
					t.Fatal(err)
				}
			}
			if w.Tag("team/new", "v2") != desc.Digest {
				t.Error("the tag is not there")
			}
			if has, err := repo.Has(t.Context(), desc); err != nil || !has {
				t.Errorf("the manifest: %v, %v", has, err)
			}
		})
	}
}

func TestPushInParallel(t *testing.T) {
	w := newWorld(t, httptest.NewServer)
	w.SetAccess(registrytest.Access{Scheme: "bearer", Users: map[string]string{"ann": "right"}, Uses: 40})
	repo := w.target(t, "team/new", registry.Auth{Username: "ann", Password: "right"})
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			desc, _, open := goods(1000 + i)
			if err := repo.Put(t.Context(), desc, open); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestAnUploadGoesOnWhereItBroke(t *testing.T) {
	w := newWorld(t, httptest.NewServer)
	w.SetFaults(registrytest.Faults{CutUpload: 5 << 20, CutUploads: 1})
	desc, data, _ := goods(9 << 20)
	var sent int64
	open := func() (io.ReadCloser, error) { return io.NopCloser(&counting{bytes.NewReader(data), &sent}), nil }
	if err := w.target(t, "team/new", registry.Auth{}).Put(t.Context(), desc, open); err != nil {
		t.Fatal(err)
	}
	var verbs []string
	for _, r := range w.Requests()[1:] {
		if verb, path, _ := strings.Cut(r, " "); path != "/v2/" {
			verbs = append(verbs, verb)
		}
	}
	if !slices.Equal(verbs, []string{"POST", "PATCH", "GET", "PATCH", "PUT"}) {
		t.Errorf("requests: %v", verbs)
	}
}

type counting struct {
	io.ReadSeeker
	n *int64
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.ReadSeeker.Read(p)
	*c.n += int64(n)
	return n, err
}

func TestMount(t *testing.T) {
	w := newWorld(t, httptest.NewServer)
	w.SetAccess(registrytest.Access{Scheme: "bearer", Users: map[string]string{"ann": "right"}})
	repo := w.target(t, "team/new", registry.Auth{Username: "ann", Password: "right"})
	desc := ocispec.Descriptor{Digest: w.blob, Size: int64(len(w.content))}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(w.content)), nil }
	w.SetFaults(registrytest.Faults{NoMounts: true})
	if ok, err := repo.Mount(t.Context(), desc, w.ref(t, "team/app")); ok || err != nil {
		t.Fatalf("without mounts: %v, %v", ok, err)
	}
	if err := repo.Put(t.Context(), desc, open); err != nil {
		t.Fatal(err)
	}
	begun := 0
	for _, r := range w.Requests() {
		if strings.HasPrefix(r, "POST /v2/") {
			begun++
		}
	}
	if begun != 1 {
		t.Errorf("the upload that a mount left open was not used: %d were begun", begun)
	}
	w.SetFaults(registrytest.Faults{})
	other := w.target(t, "team/third", registry.Auth{Username: "ann", Password: "right"})
	if ok, err := other.Mount(t.Context(), desc, w.ref(t, "team/app")); !ok || err != nil {
		t.Fatalf("got %v, %v", ok, err)
	}
	if has, err := other.Has(t.Context(), desc); !has || err != nil {
		t.Errorf("after a mount: %v, %v", has, err)
	}
	if ok, err := other.Mount(t.Context(), ocispec.Descriptor{Digest: digest.FromString("nowhere")}, w.ref(t, "team/app")); ok || err != nil {
		t.Errorf("what is nowhere: %v, %v", ok, err)
	}
}

func TestPushErrorsHaveDockersWordsAndKinds(t *testing.T) {
	users := map[string]string{"ann": "right"}
	for name, c := range map[string]struct {
		access registrytest.Access
		auth   registry.Auth
		kind   fault.Kind
		words  string
	}{
		"anonymous, tokens": {registrytest.Access{Scheme: "bearer", Users: users}, registry.Auth{}, fault.Denied, "denied: requested access to the resource is denied"},
		"anonymous, basic":  {registrytest.Access{Scheme: "basic", Users: users}, registry.Auth{}, fault.Unauthorized, "no basic auth credentials"},
		"wrong password": {registrytest.Access{Scheme: "bearer", Users: users}, registry.Auth{Username: "ann", Password: "x"}, fault.Unauthorized,
			"unauthorized: incorrect username or password"},
		"wrong password, basic": {registrytest.Access{Scheme: "basic", Users: users}, registry.Auth{Username: "ann", Password: "x"}, fault.Unauthorized,
			"unauthorized: incorrect username or password"},
		"unknown identity": {registrytest.Access{Scheme: "bearer", Users: users}, registry.Auth{IdentityToken: "x"}, fault.Unauthorized, "unauthorized: "},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, httptest.NewServer)
			w.SetAccess(c.access)
			desc, data, open := goods(1000)
			repo := w.target(t, "team/new", c.auth)
			for what, err := range map[string]error{"put": repo.Put(t.Context(), desc, open), "put manifest": repo.PutManifest(t.Context(), desc, data, "x")} {
				if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.words) {
					t.Errorf("%s: got %q of kind %q", what, err, fault.Of(err))
				}
			}
		})
	}
}

func TestPushGivesUp(t *testing.T) {
	w := newWorld(t, httptest.NewServer)
	repo := w.target(t, "team/new", registry.Auth{})
	desc, _, open := goods(9 << 20)
	w.SetFaults(registrytest.Faults{CutUpload: 100})
	if err := repo.Put(t.Context(), desc, open); !errors.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "got no further") {
		t.Errorf("cuts without progress: %v", err)
	}
	w.SetFaults(registrytest.Faults{})
	own := errors.New("the disk is broken")
	if err := repo.Put(t.Context(), desc, func() (io.ReadCloser, error) { return nil, own }); !errors.Is(err, own) {
		t.Errorf("content that can't be opened: %v", err)
	}
	broken := func() (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(strings.NewReader("some"), &failing{own})), nil
	}
	if err := repo.Put(t.Context(), desc, broken); !errors.Is(err, own) {
		t.Errorf("content that can't be read: %v", err)
	}
	lying := desc
	lying.Digest = digest.FromString("else")
	if err := repo.Put(t.Context(), lying, open); err == nil || !strings.Contains(err.Error(), "digest invalid") {
		t.Errorf("content of another digest: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	hanging := func() (io.ReadCloser, error) { cancel(); return open() }
	if err := repo.Put(ctx, desc, hanging); !errors.Is(err, context.Canceled) {
		t.Errorf("a canceled push: %v", err)
	}
}

type failing struct{ err error }

func (f *failing) Read([]byte) (int, error) { return 0, f.err }

// TestCredentialsStayAtHome: uploads and downloads that go on at another host show it nothing.
func TestCredentialsStayAtHome(t *testing.T) {
	w := newWorld(t, httptest.NewServer)
	store := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if a := r.Header.Get("Authorization"); a != "" {
			t.Errorf("%s %s shows %q elsewhere", r.Method, r.URL, a)
		}
		open := registrytest.New()
		open.Blob("team/app", w.content)
		if strings.Contains(r.URL.Path, "/uploads/") {
			fmt.Fprint(rw, "")
			return
		}
		open.ServeHTTP(rw, r)
	}))
	defer store.Close()
	for _, scheme := range []string{"basic", "bearer"} {
		w.SetAccess(registrytest.Access{Scheme: scheme, Users: map[string]string{"ann": "right"}})
		ann := registry.Auth{Username: "ann", Password: "right"}
		w.SetFaults(registrytest.Faults{BlobHost: store.URL, UploadHost: store.URL})
		if got, err := w.fetch(t, ann, 1000); err != nil || !bytes.Equal(got, w.content[1000:]) {
			t.Errorf("%s: got %d bytes, %v", scheme, len(got), err)
		}
		desc, _, open := goods(9 << 20)
		if err := w.target(t, "team/new", ann).Put(t.Context(), desc, open); err != nil {
			t.Errorf("%s: %v", scheme, err)
		}
	}
	if len(w.Shown()) == 0 {
		t.Error("nothing was shown at home either")
	}
}
