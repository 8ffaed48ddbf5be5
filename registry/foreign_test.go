package registry

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/registry/registrytest"
)

const foreignType = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"

func TestForeignContent(t *testing.T) {
	const content = "licensed content"
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("credentials were shown")
		}
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(content))
	}))
	defer other.Close()
	web := httptest.NewServer(registrytest.New())
	defer web.Close()
	client := NewClient(Options{})
	defer client.Close()
	if err := client.Configure(Hosts{Insecure: []string{strings.TrimPrefix(other.URL, "http://")}}); err != nil {
		t.Fatal(err)
	}
	name, err := reference.ParseNormalizedNamed(strings.TrimPrefix(web.URL, "http://") + "/app:1")
	if err != nil {
		t.Fatal(err)
	}
	repo := client.Repository(name, Auth{Username: "ann", Password: "right"})
	desc := ocispec.Descriptor{MediaType: foreignType, Digest: digest.FromString(content), Size: int64(len(content))}
	for _, c := range []struct {
		what, mediaType string
		urls            []string
		offset          int64
		want            string // "" = an error
	}{
		{"whole", foreignType, []string{other.URL + "/layer"}, 0, content},
		{"the rest", foreignType, []string{other.URL + "/layer"}, 9, content[9:]},
		{"the second address", foreignType, []string{"file:///etc/passwd", web.URL + "/nothing", other.URL}, 0, content},
		{"no address that works", foreignType, []string{"file:///etc/passwd", "gopher://x", "http://", web.URL + "/nothing"}, 0, ""},
		{"an ordinary layer", ocispec.MediaTypeImageLayerGzip, []string{other.URL + "/layer"}, 0, ""},
	} {
		t.Run(c.what, func(t *testing.T) {
			desc.MediaType, desc.URLs = c.mediaType, c.urls
			r, err := repo.Fetch(t.Context(), desc, c.offset)
			if err != nil {
				if t.Log(err); c.want != "" {
					t.Fatal(err)
				}
				return
			}
			defer r.Close()
			if got, err := io.ReadAll(r); err != nil || string(got) != c.want {
				t.Errorf("got %q, %v; want %q", got, err, c.want)
			}
		})
	}
}

func TestForeignAddressesLeadNowhereInside(t *testing.T) {
	inside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a host inside was asked") }))
	defer inside.Close()
	s, err := newSettings(Hosts{})
	if err != nil {
		t.Fatal(err)
	}
	// The registry being here itself opens no other door.
	e := elsewhere{settings: s, home: "127.0.0.1:1"}
	port := inside.URL[strings.LastIndex(inside.URL, ":"):]
	for _, address := range []string{inside.URL, "http://localhost" + port, "http://[::ffff:127.0.0.1]" + port, "http://0.0.0.0" + port, "http://169.254.169.254/latest", "http://10.1.2.3/", "file:///etc/passwd", "http://ann:right@example.org/"} {
		resp, err := e.get(t.Context(), address, 0)
		if err == nil {
			resp.Body.Close()
			t.Errorf("%s was opened", address)
		}
		t.Log(err)
	}
	if conn, err := e.dial(t.Context(), "tcp", "localhost"+port); err == nil {
		conn.Close()
		t.Error("a name that leads inside was followed")
	}
	proxied, err := newSettings(Hosts{HTTPProxy: inside.URL})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (elsewhere{settings: proxied}).get(t.Context(), "http://10.1.2.3/", 0); err == nil {
		t.Error("a private address was asked by way of a proxy")
	}
}

func TestForeignAddressesDoNotSendOnInside(t *testing.T) {
	inside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a host inside was asked") }))
	defer inside.Close()
	sender := httptest.NewServer(http.RedirectHandler(inside.URL, http.StatusFound))
	defer sender.Close()
	s, err := newSettings(Hosts{})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := elsewhere{settings: s, home: strings.TrimPrefix(sender.URL, "http://")}.get(t.Context(), sender.URL, 0)
	if err == nil {
		resp.Body.Close()
		t.Error("a redirect was followed inside")
	}
}
