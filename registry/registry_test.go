package registry_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/fault"
	"berth/registry"
	"berth/registry/registrytest"
)

// world is a registry with one image's worth of content, and a client.
type world struct {
	*registrytest.Server
	client   *registry.Client
	host     string
	content  []byte
	blob     digest.Digest
	manifest digest.Digest
	waits    []string
}

const document = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"}`

func newWorld(t *testing.T, start func(http.Handler) *httptest.Server) *world {
	t.Helper()
	w := &world{Server: registrytest.New(), content: bytes.Repeat([]byte("0123456789abcdef"), 20_000)}
	server := start(w.Server)
	w.host = strings.TrimPrefix(strings.TrimPrefix(server.URL, "https://"), "http://")
	w.blob = w.Blob("team/app", w.content)
	w.manifest = w.Manifest("team/app", "v1", ocispec.MediaTypeImageManifest, []byte(document))
	w.client = registry.NewClient(registry.Options{
		UserAgent: "berth/test", Backoff: time.Millisecond,
		Waiting: func(_ context.Context, _, reason string, d time.Duration) {
			w.waits = append(w.waits, reason+" "+d.Truncate(time.Second).String())
		},
	})
	t.Cleanup(func() {
		w.client.Close()
		server.Close()
	})
	return w
}

func (w *world) ref(t *testing.T, name string) reference.Named {
	t.Helper()
	n, err := reference.ParseNormalizedNamed(w.host + "/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (w *world) fetch(t *testing.T, auth registry.Auth, offset int64) ([]byte, error) {
	t.Helper()
	r, err := w.client.Repository(w.ref(t, "team/app"), auth).Fetch(t.Context(), ocispec.Descriptor{Digest: w.blob, Size: int64(len(w.content))}, offset)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func TestResolve(t *testing.T) {
	for name, start := range map[string]func(http.Handler) *httptest.Server{"http": httptest.NewServer, "https": httptest.NewTLSServer} {
		for fault, f := range map[string]registrytest.Faults{
			"none": {}, "no digest header": {NoDigest: true}, "no HEAD": {NoHead: true}, "503 twice": {Failing: 2},
		} {
			t.Run(name+", "+fault, func(t *testing.T) {
				w := newWorld(t, start)
				w.SetFaults(f)
				for _, ref := range []string{"team/app:v1", "team/app@" + w.manifest.String()} {
					desc, err := w.client.Resolve(t.Context(), w.ref(t, ref), registry.Auth{})
					want := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: w.manifest, Size: int64(len(document))}
					if err != nil || desc.Digest != want.Digest || desc.Size != want.Size || desc.MediaType != want.MediaType {
						t.Errorf("%s: got %v, %v; want %v", ref, desc, err, want)
					}
				}
			})
		}
	}
}

func TestResolveIsOneHead(t *testing.T) {
	w := newWorld(t, httptest.NewServer)
	if _, err := w.client.Resolve(t.Context(), w.ref(t, "team/app:v1"), registry.Auth{}); err != nil {
		t.Fatal(err)
	}
	if got := w.Requests(); !slices.Equal(got, []string{"GET /v2/", "HEAD /v2/team/app/manifests/v1"}) {
		t.Errorf("requests: %q", got)
	}
}

func TestErrorsHaveDockersWordsAndKinds(t *testing.T) {
	users := map[string]string{"ann": "right"}
	for _, c := range []struct {
		name   string
		access registrytest.Access
		auth   registry.Auth
		ref    string
		kind   fault.Kind
		words  string // %H is the host
	}{
		{"unknown repository", registrytest.Access{}, registry.Auth{}, "no/such:v1", fault.NotFound,
			"pull access denied for %H/no/such, repository does not exist or may require 'docker login'"},
		{"unknown tag", registrytest.Access{}, registry.Auth{}, "team/app:v2", fault.NotFound,
			`failed to resolve reference "%H/team/app:v2": %H/team/app:v2: not found`},
		{"unknown digest", registrytest.Access{}, registry.Auth{}, "team/app@" + digest.FromString("x").String(), fault.NotFound, ": not found"},
		{"private, anonymous", registrytest.Access{Scheme: "bearer", Users: users, Private: []string{"team/app"}}, registry.Auth{}, "team/app:v1", fault.NotFound,
			"pull access denied for %H/team/app, repository does not exist or may require 'docker login': denied: requested access to the resource is denied"},
		{"wrong password", registrytest.Access{Scheme: "bearer", Users: users}, registry.Auth{Username: "ann", Password: "wrong"}, "team/app:v1", fault.Unauthorized,
			"unauthorized: incorrect username or password"},
		{"basic, anonymous", registrytest.Access{Scheme: "basic", Users: users}, registry.Auth{}, "team/app:v1", fault.Unauthorized, "no basic auth credentials"},
		{"basic, wrong password", registrytest.Access{Scheme: "basic", Users: users}, registry.Auth{Username: "ann", Password: "wrong"}, "team/app:v1", fault.Unauthorized,
			"unauthorized: incorrect username or password"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, httptest.NewServer)
			w.SetAccess(c.access)
			_, err := w.client.Resolve(t.Context(), w.ref(t, c.ref), c.auth)
			words := strings.ReplaceAll(c.words, "%H", w.host)
			if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), words) {
				t.Errorf("got %q of kind %q, want %q of kind %q", err, fault.Of(err), words, c.kind)
			}
		})
	}
}

func TestNamesOfTheDefaultRegistryAreShort(t *testing.T) {
	w := newWorld(t, httptest.NewServer)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	ref, _ := reference.ParseNormalizedNamed("busybox")
	if _, err := w.client.Resolve(ctx, ref, registry.Auth{}); !errors.Is(err, context.Canceled) {
		t.Errorf("a canceled request gives %v", err)
	}
}

func TestUnreachableRegistry(t *testing.T) {
	w := newWorld(t, httptest.NewServer)
	ref, err := reference.ParseNormalizedNamed("127.0.0.1:1/x:y")
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.client.Resolve(t.Context(), ref, registry.Auth{})
	if !errors.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("got %v", err)
	}
}

func TestAccess(t *testing.T) {
	users := map[string]string{"ann": "right"}
	ann := registry.Auth{Username: "ann", Password: "right"}
	for name, c := range map[string]struct {
		access registrytest.Access
		auth   registry.Auth
	}{
		"anonymous token":    {registrytest.Access{Scheme: "bearer"}, registry.Auth{}},
		"token for a user":   {registrytest.Access{Scheme: "bearer", Users: users, Private: []string{"team/app"}}, ann},
		"basic":              {registrytest.Access{Scheme: "basic", Users: users}, ann},
		"open, with account": {registrytest.Access{}, ann},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, httptest.NewServer)
			w.SetAccess(c.access)
			if _, err := w.client.Resolve(t.Context(), w.ref(t, "team/app:v1"), c.auth); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if got, err := w.fetch(t, c.auth, 0); err != nil || !bytes.Equal(got, w.content) {
					t.Fatalf("got %d bytes, %v", len(got), err)
				}
			}
			tokens := 0
			for _, r := range w.Requests() {
				if strings.HasPrefix(r, "GET /token") {
					tokens++
				}
			}
			if tokens > 1 {
				t.Errorf("%d tokens were fetched for one scope", tokens)
			}
		})
	}
}

func TestTokensAreNotSharedBetweenUsers(t *testing.T) {
	w := newWorld(t, httptest.NewServer)
	w.SetAccess(registrytest.Access{Scheme: "bearer", Users: map[string]string{"ann": "right"}, Private: []string{"team/app"}})
	if _, err := w.fetch(t, registry.Auth{Username: "ann", Password: "right"}, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := w.fetch(t, registry.Auth{}, 0); !errors.Is(err, fault.NotFound) {
		t.Errorf("an anonymous user gets %v after ann's pull", err)
	}
}

func TestFetchSurvives(t *testing.T) {
	for name, f := range map[string]registrytest.Faults{
		"no fault":              {},
		"a cut every 50 kB":     {CutAfter: 50_000},
		"cuts, no ranges":       {CutAfter: 50_000, Cuts: 3, NoRanges: true},
		"429 with a short wait": {TooMany: 2},
		"503":                   {Failing: 3},
	} {
		for _, offset := range []int64{0, 100_001} {
			t.Run(name, func(t *testing.T) {
				w := newWorld(t, httptest.NewServer)
				w.SetFaults(f)
				if got, err := w.fetch(t, registry.Auth{}, offset); err != nil || !bytes.Equal(got, w.content[offset:]) {
					t.Errorf("from %d: got %d bytes, %v", offset, len(got), err)
				}
			})
		}
	}
}

func TestFetchGivesUp(t *testing.T) {
	w := newWorld(t, httptest.NewServer)
	w.SetFaults(registrytest.Faults{CutAfter: 10})
	if _, err := w.fetch(t, registry.Auth{}, 0); !errors.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "got no further") {
		t.Errorf("cuts without progress: %v", err)
	}
	w.SetFaults(registrytest.Faults{Missing: []digest.Digest{w.blob}})
	if _, err := w.fetch(t, registry.Auth{}, 0); !errors.Is(err, fault.NotFound) {
		t.Errorf("a lost blob: %v", err)
	}
	w.SetFaults(registrytest.Faults{TooMany: 1, RetryAfter: "86400"})
	if _, err := w.fetch(t, registry.Auth{}, 0); !errors.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "86400") {
		t.Errorf("429 for a day: %v", err)
	}
}

func TestFetchOfLessThanAnnounced(t *testing.T) {
	w := newWorld(t, httptest.NewServer)
	for what, f := range map[string]registrytest.Faults{"with ranges": {}, "without": {NoRanges: true}} {
		w.SetFaults(f)
		r, err := w.client.Repository(w.ref(t, "team/app"), registry.Auth{}).Fetch(t.Context(), ocispec.Descriptor{Digest: w.blob, Size: int64(len(w.content)) + 1}, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.ReadAll(r)
		if k := fault.Of(err); k != fault.Corrupt && k != fault.Unavailable {
			t.Errorf("%s: got %v of kind %q", what, err, k)
		}
		r.Close()
	}
}

func TestRetryAfterIsKeptAndTold(t *testing.T) {
	w := newWorld(t, httptest.NewServer)
	w.SetFaults(registrytest.Faults{TooMany: 1, RetryAfter: "1"})
	if _, err := w.fetch(t, registry.Auth{}, 0); err != nil {
		t.Fatal(err)
	}
	// The first request that was refused is the one for the scheme, which is not tried again.
	w.SetFaults(registrytest.Faults{TooMany: 1, RetryAfter: "1"})
	if _, err := w.fetch(t, registry.Auth{}, 0); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(w.waits, []string{"toomanyrequests: you have reached your pull rate limit 1s"}) {
		t.Errorf("told: %q", w.waits)
	}
}

func TestPlainHTTPOnlyForLoopback(t *testing.T) {
	w := newWorld(t, func(h http.Handler) *httptest.Server {
		return httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/blobs/") {
				http.Redirect(rw, r, "http://192.0.2.1/elsewhere", http.StatusTemporaryRedirect)
				return
			}
			h.ServeHTTP(rw, r)
		}))
	})
	if _, err := w.fetch(t, registry.Auth{}, 0); err == nil || !strings.Contains(err.Error(), "plain HTTP") {
		t.Errorf("a redirect to plain HTTP elsewhere: %v", err)
	}
}
