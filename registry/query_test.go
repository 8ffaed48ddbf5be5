package registry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/fault"
	"berth/registry"
	"berth/registry/registrytest"
)

func TestLogin(t *testing.T) {
	users := map[string]string{"ann": "right"}
	ann := registry.Auth{Username: "ann", Password: "right"}
	wrong := registry.Auth{Username: "ann", Password: "wrong"}
	bearer := registrytest.Access{Scheme: "bearer", Users: users}
	basic := registrytest.Access{Scheme: "basic", Users: users}
	for name, c := range map[string]struct {
		access registrytest.Access
		auth   registry.Auth
		token  string
		kind   fault.Kind
		words  string
	}{
		"open":                    {registrytest.Access{}, ann, "", "", ""},
		"basic":                   {basic, ann, "", "", ""},
		"basic, wrong password":   {basic, wrong, "", fault.Unauthorized, "unauthorized: incorrect username or password"},
		"basic, nobody":           {basic, registry.Auth{}, "", fault.Unauthorized, "no basic auth credentials"},
		"bearer":                  {bearer, ann, "identity-of-ann", "", ""},
		"bearer, wrong password":  {bearer, wrong, "", fault.Unauthorized, "unauthorized: incorrect username or password"},
		"bearer, nobody":          {bearer, registry.Auth{}, "", fault.Unauthorized, "no basic auth credentials"},
		"bearer, identity":        {registrytest.Access{Scheme: "bearer", Users: users, Identity: map[string]string{"id": "ann"}}, registry.Auth{IdentityToken: "id"}, "", "", ""},
		"bearer, unknown tokens":  {bearer, registry.Auth{RegistryToken: "x"}, "", fault.Unauthorized, "unauthorized"},
		"bearer, wrong identity":  {bearer, registry.Auth{IdentityToken: "x"}, "", fault.Unauthorized, "unauthorized"},
		"token server with a bug": {registrytest.Access{Scheme: "bearer", Users: users, Realm: "gopher://x"}, ann, "", fault.Unavailable, "can't be asked"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, httptest.NewServer)
			w.SetAccess(c.access)
			for _, host := range []string{w.host, "http://" + w.host + "/v1/"} {
				status, token, err := w.client.Login(t.Context(), host, c.auth)
				if c.words == "" {
					if err != nil || status != "Login Succeeded" || token != c.token {
						t.Errorf("got %q, %q, %v", status, token, err)
					}
				} else if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.words) || strings.Contains(err.Error(), "wrong") || status != "" {
					t.Errorf("got %q, %v of kind %q", status, err, fault.Of(err))
				}
			}
		})
	}
}

// TestTheDefaultRegistry: its address, its token server on another host, its index, by names as people write them.
func TestTheDefaultRegistry(t *testing.T) {
	w := newElsewhere(t)
	s, blob, content := stocked("library/app")
	s.SetAccess(registrytest.Access{Scheme: "bearer", Users: map[string]string{"ann": "right"}, Realm: "https://auth.docker.io/token", Private: []string{"library/app"}})
	s.SetIndex([]registrytest.Result{{Name: "app", Stars: 9, Official: true}, {Name: "ann/app", Stars: 2}, {Name: "other"}})
	for _, host := range []string{"registry-1.docker.io", "auth.docker.io", "index.docker.io"} {
		w.Host("https://"+host, s)
	}
	w.trust(t, "docker.io") // the token server is trusted as the registry is
	w.trust(t, "index.docker.io")
	ann := registry.Auth{Username: "ann", Password: "right"}
	for _, host := range []string{"", "docker.io", "https://index.docker.io/v1/", "registry-1.docker.io"} {
		status, token, err := w.client.Login(t.Context(), host, ann)
		if err != nil || status != "Login Succeeded" || token != "identity-of-ann" {
			t.Errorf("login to %q: %q, %q, %v", host, status, token, err)
		}
	}
	for _, auth := range []registry.Auth{ann, {IdentityToken: "identity-of-ann"}} {
		if got, err := w.pull(t, "app:v1", auth, blob); err != nil || !bytes.Equal(got, content) {
			t.Errorf("got %d bytes, %v", len(got), err)
		}
	}
	for _, r := range s.Shown() {
		if strings.Contains(r, "registry-1.docker.io/token") {
			t.Errorf("a token was asked for at %s", r)
		}
	}
	yes := true
	for _, c := range []struct {
		term   string
		filter registry.SearchFilter
		want   string
	}{
		{"app", registry.SearchFilter{}, "app ann/app"},
		{"library/app", registry.SearchFilter{}, "app ann/app"},
		{"docker.io/app", registry.SearchFilter{}, "app ann/app"},
		{"app", registry.SearchFilter{Limit: 1}, "app"},
		{"app", registry.SearchFilter{Stars: 3}, "app"},
		{"app", registry.SearchFilter{Official: &yes}, "app"},
		{"app", registry.SearchFilter{Automated: &yes}, ""},
		{"nothing", registry.SearchFilter{}, ""},
	} {
		found, err := w.client.Search(t.Context(), c.term, c.filter, registry.Auth{})
		var names []string
		for _, f := range found {
			names = append(names, f.Name)
		}
		if got := strings.Join(names, " "); err != nil || got != c.want {
			t.Errorf("%s, %+v: got %q, %v", c.term, c.filter, got, err)
		}
	}
}

func TestSearchElsewhere(t *testing.T) {
	w := newWorld(t, httptest.NewServer)
	w.SetIndex([]registrytest.Result{{Name: "team/app", Stars: 1}})
	found, err := w.client.Search(t.Context(), w.host+"/app", registry.SearchFilter{}, registry.Auth{})
	if err != nil || len(found) != 1 || found[0].Name != "team/app" {
		t.Errorf("got %v, %v", found, err)
	}
	for _, c := range []struct {
		term  string
		limit int
		words string
	}{
		{"app", 101, "limit 101 is outside the range of [1, 100]"},
		{"app", -1, "outside the range"},
		{"http://x/app", 0, "should not have a scheme"},
		{"127.0.0.1:1/app", 0, "connection refused"},
	} {
		if _, err := w.client.Search(t.Context(), c.term, registry.SearchFilter{Limit: c.limit}, registry.Auth{}); err == nil || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s, %d: %v", c.term, c.limit, err)
		}
	}
	w.SetFaults(registrytest.Faults{TooMany: 99, Quota: "100;w=21600 0;w=21600"})
	_, err = w.client.Search(t.Context(), w.host+"/app", registry.SearchFilter{}, registry.Auth{})
	if !errors.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "toomanyrequests: you have reached your pull rate limit (0 of 100 left in 6h)") {
		t.Errorf("got %v", err)
	}
}

func TestTags(t *testing.T) {
	for _, size := range []int{0, 1, 3, 7, 100} {
		w := newWorld(t, httptest.NewServer)
		w.SetFaults(registrytest.Faults{PageSize: size})
		w.SetAccess(registrytest.Access{Scheme: "bearer", Users: map[string]string{"ann": "right"}, Uses: 2})
		var want []string
		for i := range 7 {
			tag := fmt.Sprint("t", i)
			w.Manifest("team/many", tag, ocispec.MediaTypeImageManifest, []byte(document))
			want = append(want, tag)
		}
		got, err := w.client.Tags(t.Context(), w.ref(t, "team/many"), registry.Auth{Username: "ann", Password: "right"})
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("pages of %d: got %v, %v", size, got, err)
		}
		if _, err := w.client.Tags(t.Context(), w.ref(t, "team/none"), registry.Auth{Username: "ann", Password: "right"}); !errors.Is(err, fault.NotFound) {
			t.Errorf("no such repository: %v", err)
		}
	}
}

func TestManifest(t *testing.T) {
	w := newWorld(t, httptest.NewServer)
	for _, ref := range []string{"team/app:v1", "team/app@" + w.manifest.String()} {
		desc, data, err := w.client.Manifest(t.Context(), w.ref(t, ref), registry.Auth{})
		if err != nil || desc.Digest != w.manifest || desc.MediaType != ocispec.MediaTypeImageManifest || string(data) != document {
			t.Errorf("%s: %v, %q, %v", ref, desc, data, err)
		}
	}
}

// TestTokensAreRenewed: a token that ends in the middle of a download is replaced.
func TestTokensAreRenewed(t *testing.T) {
	w := newWorld(t, httptest.NewServer)
	w.SetAccess(registrytest.Access{Scheme: "bearer", Users: map[string]string{"ann": "right"}, Private: []string{"team/app"}, Uses: 1})
	w.SetFaults(registrytest.Faults{CutAfter: 50_000})
	got, err := w.fetch(t, registry.Auth{Username: "ann", Password: "right"}, 0)
	if err != nil || !bytes.Equal(got, w.content) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
}

// TestWaitsAreTold: why, and each second how long still; whoever gives up is let go at once.
func TestWaitsAreTold(t *testing.T) {
	w := newWorld(t, httptest.NewServer)
	if _, err := w.client.Resolve(t.Context(), w.ref(t, "team/app:v1"), registry.Auth{}); err != nil {
		t.Fatal(err)
	}
	w.SetFaults(registrytest.Faults{TooMany: 1, RetryAfter: "2", Quota: "10;w=3600 0;w=3600"})
	type wait struct {
		reason string
		pause  time.Duration
	}
	var told []wait
	client := w.client.Telling(func(_, reason string, d time.Duration) { told = append(told, wait{reason, d}) })
	if _, _, err := client.Manifest(t.Context(), w.ref(t, "team/app:v1"), registry.Auth{}); err != nil {
		t.Fatal(err)
	}
	words := "toomanyrequests: you have reached your pull rate limit (0 of 10 left in 1h)"
	if !slices.Equal(told, []wait{{words, 2 * time.Second}, {words, time.Second}}) {
		t.Errorf("told %v", told)
	}
	w.SetFaults(registrytest.Faults{TooMany: 1, RetryAfter: "100"})
	ctx, cancel := context.WithCancel(t.Context())
	client = w.client.Telling(func(string, string, time.Duration) { cancel() })
	if _, _, err := client.Manifest(ctx, w.ref(t, "team/app:v1"), registry.Auth{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestErrorsHoldNoSecrets: addresses of stores are signed, and errors are printed.
func TestErrorsHoldNoSecrets(t *testing.T) {
	w := newWorld(t, httptest.NewServer)
	for _, store := range []string{"http://127.0.0.1:1", "http://" + w.host + "0"} {
		w.SetFaults(registrytest.Faults{BlobHost: store})
		_, err := w.fetch(t, registry.Auth{Username: "ann", Password: "hidden"}, 0)
		if err == nil || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "hidden") {
			t.Errorf("got %v", err)
		}
	}
}

// TestDownloadsAreBounded: one at a time, if that is asked for; the end of a stream lets the next one begin.
func TestDownloadsAreBounded(t *testing.T) {
	w := newWorld(t, httptest.NewServer)
	if err := w.client.Configure(registry.Hosts{Downloads: 1, Uploads: 1, Attempts: 2}); err != nil {
		t.Fatal(err)
	}
	repo := w.target(t, "team/app", registry.Auth{})
	desc := ocispec.Descriptor{Digest: w.blob, Size: int64(len(w.content))}
	first, err := repo.Fetch(t.Context(), desc, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if second, err := repo.Fetch(ctx, desc, 0); !errors.Is(err, context.DeadlineExceeded) {
		second.Close()
		t.Errorf("a second download beside the first: %v", err)
	}
	if _, _, err := repo.Manifest(t.Context(), w.ref(t, "team/app:v1")); err != nil {
		t.Errorf("a manifest beside a download: %v", err)
	}
	if got, err := io.ReadAll(first); err != nil || !bytes.Equal(got, w.content) {
		t.Fatalf("got %d bytes, %v", len(got), err)
	}
	for range 3 {
		if got, err := w.fetch(t, registry.Auth{}, 0); err != nil || !bytes.Equal(got, w.content) {
			t.Errorf("got %d bytes, %v", len(got), err)
		}
		other, _, open := goods(1000)
		if err := repo.Put(t.Context(), other, open); err != nil {
			t.Error(err)
		}
	}
	w.SetFaults(registrytest.Faults{CutAfter: 10})
	if _, err := w.fetch(t, registry.Auth{}, 0); err == nil || !strings.Contains(err.Error(), "2 tries got no further") {
		t.Errorf("got %v", err)
	}
}
