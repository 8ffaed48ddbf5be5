package registry_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
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

// elsewhere is an internet with hosts of any name, and a client behind its proxy that trusts them all by their certificates.
type elsewhere struct {
	*registrytest.Internet
	client *registry.Client
	hosts  registry.Hosts
	certs  string
	waits  []string
}

func newElsewhere(t *testing.T) *elsewhere {
	t.Helper()
	n, err := registrytest.NewInternet()
	if err != nil {
		t.Fatal(err)
	}
	w := &elsewhere{Internet: n, certs: t.TempDir()}
	w.client = registry.NewClient(registry.Options{Backoff: time.Millisecond}).Telling(func(host, reason string, d time.Duration) {
		w.waits = append(w.waits, host+": "+reason)
	})
	t.Cleanup(func() {
		w.client.Close()
		n.Close()
	})
	w.hosts = registry.Hosts{HTTPProxy: n.URL(), HTTPSProxy: n.URL(), CertDirs: []string{w.certs}}
	w.configure(t)
	return w
}

func (w *elsewhere) configure(t *testing.T) {
	t.Helper()
	if err := w.client.Configure(w.hosts); err != nil {
		t.Fatal(err)
	}
}

// mirror adds mirrors as a user writes them.
func (w *elsewhere) mirror(t *testing.T, list ...string) {
	t.Helper()
	for _, text := range list {
		m, err := registry.ParseMirror(text)
		if err != nil {
			t.Fatal(err)
		}
		w.hosts.Mirrors = append(w.hosts.Mirrors, m)
	}
	w.configure(t)
}

// trust puts the authority's certificate where a host's are looked for.
func (w *elsewhere) trust(t *testing.T, hosts ...string) {
	t.Helper()
	for _, h := range hosts {
		w.file(t, h+"/ca.crt", w.PEM())
	}
}

func (w *elsewhere) file(t *testing.T, name string, data []byte) {
	t.Helper()
	path := filepath.Join(w.certs, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, data, 0o600)); err != nil {
		t.Fatal(err)
	}
}

func named(t *testing.T, s string) reference.Named {
	t.Helper()
	n, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// stocked is a registry that has one image.
func stocked(repo string) (*registrytest.Server, ocispec.Descriptor, []byte) {
	s := registrytest.New()
	content := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
	d := s.Blob(repo, content)
	s.Manifest(repo, "v1", ocispec.MediaTypeImageManifest, []byte(document))
	return s, ocispec.Descriptor{Digest: d, Size: int64(len(content))}, content
}

// pull resolves v1 of a repository and reads its blob.
func (w *elsewhere) pull(t *testing.T, name string, auth registry.Auth, blob ocispec.Descriptor) ([]byte, error) {
	t.Helper()
	ref := named(t, name)
	r := w.client.Repository(ref, auth)
	desc, err := r.Resolve(t.Context(), ref)
	if err != nil {
		return nil, err
	}
	if desc.Digest != digest.FromString(document) {
		t.Errorf("resolved to %s", desc.Digest)
	}
	body, err := r.Fetch(t.Context(), blob, 0)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

func (w *elsewhere) mustPull(t *testing.T, name string, blob ocispec.Descriptor, content []byte) {
	t.Helper()
	got, err := w.pull(t, name, registry.Auth{}, blob)
	if err != nil || !bytes.Equal(got, content) {
		t.Fatalf("%s: got %d bytes, %v", name, len(got), err)
	}
}

func TestCertificates(t *testing.T) {
	w := newElsewhere(t)
	s, blob, content := stocked("team/app")
	var shown int
	w.Host("https://registry.example:5000", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		shown = len(r.TLS.PeerCertificates)
		s.ServeHTTP(rw, r)
	}))
	const name = "registry.example:5000/team/app:v1"
	if _, err := w.pull(t, name, registry.Auth{}, blob); !errors.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "certs.d/registry.example:5000/ca.crt") {
		t.Errorf("an unknown authority: %v", err)
	}
	w.trust(t, "registry.example:5000")
	w.mustPull(t, name, blob, content)
	if shown != 0 {
		t.Errorf("%d client certificates shown", shown)
	}
	cert, key, err := w.IssuePEM("client")
	if err != nil {
		t.Fatal(err)
	}
	w.file(t, "registry.example:5000/me.cert", cert)
	if _, err := w.pull(t, name, registry.Auth{}, blob); err == nil || !strings.Contains(err.Error(), "missing key me.key for client certificate") {
		t.Errorf("a certificate without its key: %v", err)
	}
	w.file(t, "registry.example:5000/me.key", key)
	w.mustPull(t, name, blob, content)
	if shown != 1 {
		t.Errorf("%d client certificates shown", shown)
	}
}

func TestInsecureRegistries(t *testing.T) {
	s, blob, content := stocked("team/app")
	for name, c := range map[string]struct {
		origin, host string
		insecure     []string
		works        bool
	}{
		"unverified":               {"https://registry.example", "registry.example", []string{"registry.example"}, true},
		"plain":                    {"http://registry.example:5000", "registry.example:5000", []string{"registry.example:5000"}, true},
		"plain, by network":        {"http://192.0.2.7:5000", "192.0.2.7:5000", []string{"192.0.2.0/24"}, true},
		"plain, another port":      {"http://registry.example:5000", "registry.example:5000", []string{"registry.example:5001"}, false},
		"plain, another network":   {"http://192.0.2.7:5000", "192.0.2.7:5000", []string{"192.0.3.0/24"}, false},
		"plain, nothing said":      {"http://registry.example:5000", "registry.example:5000", nil, false},
		"unverified, nothing said": {"https://registry.example", "registry.example", nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newElsewhere(t)
			w.Host(c.origin, s)
			w.hosts.Insecure = c.insecure
			w.configure(t)
			got, err := w.pull(t, c.host+"/team/app:v1", registry.Auth{}, blob)
			if c.works && (err != nil || !bytes.Equal(got, content)) || !c.works && err == nil {
				t.Errorf("got %d bytes, %v", len(got), err)
			}
			if _, _, err := w.client.Login(t.Context(), c.host, registry.Auth{Username: "ann", Password: "x"}); (err == nil) != c.works {
				t.Errorf("login: %v", err)
			}
		})
	}
}

func TestMirrors(t *testing.T) {
	lame := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { rw.WriteHeader(http.StatusInternalServerError) })
	s, blob, content := stocked("library/app")
	deep, _, _ := stocked("cache/app")
	empty := registrytest.New()
	noBlob, _, _ := stocked("library/app")
	noBlob.SetFaults(registrytest.Faults{Missing: []digest.Digest{blob.Digest}})
	for name, c := range map[string]struct {
		mirrors []string
		hosts   map[string]http.Handler
		ref     string
		asked   []string // which origins, in order
	}{
		"the mirror has it": {[]string{"https://m.example"}, map[string]http.Handler{"https://m.example": s}, "app:v1", []string{"https://m.example"}},
		"a plain mirror": {[]string{"http://m.example:5000"}, map[string]http.Handler{"http://m.example:5000": s}, "app:v1",
			[]string{"http://m.example:5000"}},
		"it lacks the image": {[]string{"https://m.example"}, map[string]http.Handler{"https://m.example": empty, "https://registry-1.docker.io": s}, "app:v1",
			[]string{"https://m.example", "https://registry-1.docker.io"}},
		"it lacks a blob": {[]string{"https://m.example"}, map[string]http.Handler{"https://m.example": noBlob, "https://registry-1.docker.io": s}, "app:v1",
			[]string{"https://m.example", "https://registry-1.docker.io"}},
		"it is broken": {[]string{"https://m.example"}, map[string]http.Handler{"https://m.example": lame, "https://registry-1.docker.io": s}, "app:v1",
			[]string{"https://m.example", "https://registry-1.docker.io"}},
		"it is away, the next has it": {[]string{"https://gone.example", "https://m.example"}, map[string]http.Handler{"https://m.example": s}, "app:v1",
			[]string{"https://gone.example", "https://m.example"}},
		"for the default registry only": {[]string{"https://m.example"}, map[string]http.Handler{"https://m.example": s, "https://other.example": s}, "other.example/library/app:v1",
			[]string{"https://other.example"}},
		"of another registry": {[]string{"quay.example=https://m.example"}, map[string]http.Handler{"https://m.example": s}, "quay.example/library/app:v1",
			[]string{"https://m.example"}},
		"of a part, elsewhere": {[]string{"https://m.example", "quay.example/team=https://m.example/cache"}, map[string]http.Handler{"https://m.example": deep}, "quay.example/team/app:v1",
			[]string{"https://m.example"}},
		"the longest prefix first": {[]string{"quay.example=https://far.example", "quay.example/team=https://m.example/cache"}, map[string]http.Handler{"https://m.example": deep}, "quay.example/team/app:v1",
			[]string{"https://m.example"}},
		"not of a part": {[]string{"quay.example/tea=https://m.example/cache"}, map[string]http.Handler{"https://m.example": deep, "https://quay.example": empty}, "quay.example/team/app:v1",
			[]string{"https://quay.example"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newElsewhere(t)
			w.trust(t, "m.example", "registry-1.docker.io", "other.example", "quay.example", "gone.example")
			for origin, h := range c.hosts {
				w.Host(origin, h)
			}
			w.mirror(t, c.mirrors...)
			got, err := w.pull(t, c.ref, registry.Auth{Username: "ann", Password: "secret"}, blob)
			if name == "not of a part" {
				if !errors.Is(err, fault.NotFound) {
					t.Errorf("got %v", err)
				}
			} else if err != nil || !bytes.Equal(got, content) {
				t.Errorf("got %d bytes, %v", len(got), err)
			}
			var asked []string
			for _, o := range w.Tries() {
				if !slices.Contains(asked, o) {
					asked = append(asked, o)
				}
			}
			if !slices.Equal(asked, c.asked) {
				t.Errorf("asked %v, want %v", asked, c.asked)
			}
			if len(w.waits) > 0 {
				t.Errorf("waited: %q", w.waits)
			}
		})
	}
}

// TestMirrorsSeeNoCredentials: what a user has for the registry is nobody else's.
func TestMirrorsSeeNoCredentials(t *testing.T) {
	w := newElsewhere(t)
	w.trust(t, "m.example", "registry-1.docker.io")
	home, blob, _ := stocked("library/app")
	curious := registrytest.New()
	access := registrytest.Access{Scheme: "basic", Users: map[string]string{"ann": "right"}}
	home.SetAccess(access)
	curious.SetAccess(access)
	w.Host("https://m.example", curious)
	w.Host("https://registry-1.docker.io", home)
	w.mirror(t, "https://m.example")
	ann := registry.Auth{Username: "ann", Password: "right"}
	if _, err := w.pull(t, "app:v1", ann, blob); err != nil {
		t.Fatal(err)
	}
	if shown := curious.Shown(); len(shown) > 0 {
		t.Errorf("the mirror saw credentials: %v", shown)
	}
	desc, _, open := goods(100)
	if err := w.client.Repository(named(t, "app"), ann).Put(t.Context(), desc, open); err != nil {
		t.Error(err)
	}
	for _, r := range curious.Requests() {
		if !strings.HasPrefix(r, "GET ") && !strings.HasPrefix(r, "HEAD ") {
			t.Errorf("the mirror was sent %s", r)
		}
	}
}

// TestTheRegistrysAnswerCounts: what a mirror says of a failure is not told.
func TestTheRegistrysAnswerCounts(t *testing.T) {
	w := newElsewhere(t)
	w.trust(t, "m.example", "registry-1.docker.io")
	w.Host("https://m.example", registrytest.New())
	home, blob, _ := stocked("library/other")
	w.Host("https://registry-1.docker.io", home)
	w.mirror(t, "https://m.example")
	_, err := w.pull(t, "app:v1", registry.Auth{}, blob)
	if !errors.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "pull access denied for app, repository does not exist or may require 'docker login'") {
		t.Errorf("got %v", err)
	}
}

// TestABrokenMirrorIsLeft: a download that breaks at a mirror again and again goes on elsewhere.
func TestABrokenMirrorIsLeft(t *testing.T) {
	w := newElsewhere(t)
	w.trust(t, "m.example", "registry-1.docker.io")
	home, blob, content := stocked("library/app")
	weak, _, _ := stocked("library/app")
	weak.SetFaults(registrytest.Faults{CutAfter: 10})
	w.Host("https://m.example", weak)
	w.Host("https://registry-1.docker.io", home)
	w.mirror(t, "https://m.example")
	w.mustPull(t, "app:v1", blob, content)
}

// TestDistrust: once a mirror has lied, the registry alone is asked.
func TestDistrust(t *testing.T) {
	w := newElsewhere(t)
	w.trust(t, "m.example", "registry-1.docker.io")
	home, blob, content := stocked("library/app")
	liar, _, _ := stocked("library/app")
	liar.SetFaults(registrytest.Faults{Corrupt: []digest.Digest{blob.Digest}})
	w.Host("https://m.example", liar)
	w.Host("https://registry-1.docker.io", home)
	w.mirror(t, "https://m.example")
	r := w.client.Repository(named(t, "app"), registry.Auth{})
	for _, right := range []bool{false, true} {
		body, err := r.Fetch(t.Context(), blob, 0)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(body)
		if body.Close(); err != nil || bytes.Equal(got, content) != right {
			t.Errorf("%d bytes, %v; right: %v", len(got), err, !right)
		}
		if r.Distrust() == right {
			t.Errorf("distrusted again: %v", right)
		}
	}
}

// TestNobodyElsewhereLeadsHere: a registry's redirect to a plain service of this machine is not followed.
func TestNobodyElsewhereLeadsHere(t *testing.T) {
	w := newElsewhere(t)
	w.trust(t, "registry.example")
	s, blob, _ := stocked("team/app")
	reached := false
	here := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	defer here.Close()
	s.SetFaults(registrytest.Faults{BlobHost: here.URL, UploadHost: here.URL})
	w.Host("https://registry.example", s)
	if _, err := w.pull(t, "registry.example/team/app:v1", registry.Auth{}, blob); err == nil || !strings.Contains(err.Error(), "plain HTTP") {
		t.Errorf("pull: %v", err)
	}
	desc, _, open := goods(100)
	if err := w.client.Repository(named(t, "registry.example/team/app"), registry.Auth{}).Put(t.Context(), desc, open); err == nil || !strings.Contains(err.Error(), "plain HTTP") {
		t.Errorf("push: %v", err)
	}
	s.SetAccess(registrytest.Access{Scheme: "bearer", Users: map[string]string{"ann": "right"}, Realm: here.URL + "/token"})
	if _, _, err := w.client.Login(t.Context(), "registry.example", registry.Auth{Username: "ann", Password: "right"}); err == nil || !strings.Contains(err.Error(), "plain HTTP") {
		t.Errorf("login: %v", err)
	}
	if reached {
		t.Error("the service was asked")
	}
}

func TestHostsFile(t *testing.T) {
	home, blob, content := stocked("team/app")
	for name, c := range map[string]struct {
		file  string
		hosts map[string]http.Handler
		fails string
	}{
		"a mirror":    {`[host."https://m.example"]` + "\n" + `ca = "../m.example/ca.crt"`, map[string]http.Handler{"https://m.example": home}, ""},
		"unverified":  {`[host."https://u.example"]` + "\n" + `skip_verify = true`, map[string]http.Handler{"https://u.example": home}, ""},
		"a server":    {`server = "https://m.example"`, map[string]http.Handler{"https://m.example": home}, ""},
		"plain":       {`[host."http://p.example:5000"]`, map[string]http.Handler{"http://p.example:5000": home}, ""},
		"path":        {"[host.\"http://p.example/registry\"]", map[string]http.Handler{"http://p.example": http.StripPrefix("/registry", home)}, ""},
		"whole path":  {"[host.\"http://p.example/x/y\"]\noverride_path = true", map[string]http.Handler{"http://p.example": below("/x/y", home)}, ""},
		"order":       {"[host.\"http://z.example\"]\n[host.\"http://a.example\"]", map[string]http.Handler{"http://z.example": home}, ""},
		"no resolver": {"[host.\"http://z.example\"]\ncapabilities = [\"pull\"]", map[string]http.Handler{"https://registry.example": home, "http://z.example": teapot{}}, ""},
		"tells whom":  {"[host.\"http://z.example\"]", map[string]http.Handler{"http://z.example": telling(home)}, ""},
		"unreadable":  {`[host`, nil, "hosts.toml"},
		"bad type":    {"[host.\"http://z.example\"]\nca = 5", nil, "ca: a file's name"},
		"bad address": {"server = \"ftp://x\"", nil, "no http or https address"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newElsewhere(t)
			w.trust(t, "registry.example", "m.example")
			w.file(t, "registry.example/hosts.toml", []byte(c.file))
			for origin, h := range c.hosts {
				w.Host(origin, h)
			}
			got, err := w.pull(t, "registry.example/team/app:v1", registry.Auth{}, blob)
			if c.fails != "" {
				if err == nil || !strings.Contains(err.Error(), c.fails) {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil || !bytes.Equal(got, content) {
				t.Errorf("got %d bytes, %v; asked %v", len(got), err, w.Tries())
			}
		})
	}
}

// below lets a registry answer where "/v2" is another path.
func below(base string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rest, ok := strings.CutPrefix(r.URL.Path, base)
		if !ok {
			rw.WriteHeader(http.StatusNotFound)
			return
		}
		r.URL.Path = "/v2" + rest
		h.ServeHTTP(rw, r)
	})
}

// telling answers those who tell which registry they mean.
func telling(h http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("ns") != "registry.example" {
			rw.WriteHeader(http.StatusNotFound)
			return
		}
		h.ServeHTTP(rw, r)
	})
}

type teapot struct{}

func (teapot) ServeHTTP(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusTeapot) }

func TestServiceConfig(t *testing.T) {
	w := newElsewhere(t)
	w.hosts.Insecure = []string{"192.0.2.0/24", "registry.example:5000"}
	w.hosts.HTTPProxy = "http://ann:secret@proxy.example:3128"
	w.mirror(t, "https://m.example", "quay.io/team=https://c.example/q")
	d := w.client.ServiceConfig()
	if !slices.Equal(d.Mirrors, []string{"https://m.example/"}) || !d.IndexConfigs["docker.io"].Official || len(d.InsecureRegistryCIDRs) != 3 ||
		d.IndexConfigs["registry.example:5000"].Secure || !slices.Equal(d.IndexConfigs["quay.io"].Mirrors, []string{"quay.io/team=https://c.example/q"}) {
		t.Errorf("%+v", d)
	}
	if http, _, _ := w.client.Proxies(); http != "http://xxxxx:xxxxx@proxy.example:3128" {
		t.Errorf("proxy: %s", http)
	}
	if err := w.client.Configure(registry.Hosts{Insecure: []string{"http://x"}}); !errors.Is(err, fault.Invalid) {
		t.Errorf("got %v", err)
	}
}
