package hostile

import (
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/registry/registrytest"
	"berth/test/testengine"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// meddler stands before a registry and answers some of the requests itself.
type meddler struct {
	*registrytest.Server
	mu   sync.Mutex
	hook func(w http.ResponseWriter, r *http.Request) bool // true: answered
	seen []http.Header
}

func (m *meddler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	hook := m.hook
	m.seen = append(m.seen, r.Header.Clone())
	m.mu.Unlock()
	if hook == nil || !hook(w, r) {
		m.Server.ServeHTTP(w, r)
	}
}

// authorizations are the credentials that were shown so far.
func (m *meddler) authorizations() (all []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, h := range m.seen {
		if a := h.Get("Authorization"); a != "" {
			all = append(all, a)
		}
	}
	return all
}

// meddle serves a registry whose answers hook may replace.
func meddle(t testing.TB, hook func(w http.ResponseWriter, r *http.Request) bool) (m *meddler, address string, stop func()) {
	t.Helper()
	m = &meddler{Server: registrytest.New(), hook: hook}
	server := httptest.NewServer(m)
	end := sync.OnceFunc(func() { server.CloseClientConnections(); server.Close() })
	t.Cleanup(end)
	return m, strings.TrimPrefix(server.URL, "http://"), end
}

// endless writes until the client goes away.
func endless(w http.ResponseWriter, r *http.Request, piece string) bool {
	for r.Method != http.MethodHead && r.Context().Err() == nil {
		if _, err := io.WriteString(w, piece); err != nil {
			break
		}
	}
	return true
}

// freed makes the engine drop what it keeps of broken pulls for the next try, except partial downloads: a load that fails does.
func freed(t testing.TB, e *testengine.Engine) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "none.tar")
	if err := os.WriteFile(path, tarOf(t, file("x", "")), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := e.Try("load", "-i", path); err == nil {
		t.Errorf("an archive of nothing is loaded: %s", out)
	}
}

// TestHostileRegistries: whatever a registry answers, a pull ends with a reason, no other server sees credentials, and nothing stays.
func TestHostileRegistries(t *testing.T) {
	e := testengine.Start(t)
	e.Busybox(t)
	c := plant(t)
	p := imageOf([]layer{layerOf(t, file("f", random(300_000)))}, nil)
	blob, config := p.manifest.Layers[0].Digest, p.manifest.Config.Digest
	other := marshal(imageOf([]layer{layerOf(t, file("other", "x"))}, nil).manifest)
	for len(other) < len(marshal(p.manifest)) {
		other = append(other, ' ')
	}
	long := strings.Repeat("x", 64<<10)
	is := func(r *http.Request, d digest.Digest) bool { return strings.HasSuffix(r.URL.Path, string(d)) }
	isTag := func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/manifests/1") }
	redirect := func(d digest.Digest, to string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if is(r, d) {
				w.Header().Set("Location", to)
				w.WriteHeader(http.StatusTemporaryRedirect)
			}
			return is(r, d)
		}
	}
	before := settled(t, e)
	for _, x := range []struct {
		name, words string
		hook        func(w http.ResponseWriter, r *http.Request) bool
	}{
		{"blob sent on to a file", "unsupported protocol scheme|plain HTTP", redirect(blob, "file://"+c.dir+"/canary")},
		{"config sent on to a file", "unsupported protocol scheme|plain HTTP", redirect(config, "file://"+c.dir+"/canary")},
		{"blob sent on to a socket", "unsupported protocol scheme|plain HTTP", redirect(blob, "unix://"+e.Socket)},
		{"blob sent on by plain HTTP to a private address", "plain HTTP", redirect(blob, "http://192.0.2.1/latest/meta-data/")},
		{"blob sent round in a circle", "redirects", redirect(blob, "./"+string(blob))},
		{"blob without an end", "more than the announced", func(w http.ResponseWriter, r *http.Request) bool { return is(r, blob) && endless(w, r, long) }},
		{"config without an end", "digest|more than|bytes", func(w http.ResponseWriter, r *http.Request) bool { return is(r, config) && endless(w, r, long) }},
		{"manifest without an end", "digest|larger|more than", func(w http.ResponseWriter, r *http.Request) bool {
			return r.Method == "GET" && strings.Contains(r.URL.Path, "/manifests/") && endless(w, r, long)
		}},
		{"manifest without an end, and no HEAD", "larger than|more than", func(w http.ResponseWriter, r *http.Request) bool {
			if isTag(r) && r.Method == "HEAD" {
				w.WriteHeader(http.StatusMethodNotAllowed)
				return true
			}
			return isTag(r) && endless(w, r, long)
		}},
		{"error without an end", "denied|unauthorized|status 403|requested access", func(w http.ResponseWriter, r *http.Request) bool {
			w.WriteHeader(http.StatusForbidden)
			return endless(w, r, long)
		}},
		{"headers of many megabytes", "headers|malformed|broke|large", func(w http.ResponseWriter, r *http.Request) bool {
			for i := range 200 {
				w.Header().Set(fmt.Sprintf("X-%d", i), long)
			}
			return false
		}},
		{"other content under the digest that HEAD told", "digest", func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == "GET" && strings.Contains(r.URL.Path, "/manifests/") {
				w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
				w.Write(other)
				return true
			}
			return false
		}},
		{"digest of no kind", "digest|invalid|manifest", func(w http.ResponseWriter, r *http.Request) bool {
			if isTag(r) {
				w.Header().Set("Docker-Content-Digest", "sha256:../../../../"+c.dir)
				w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
				w.Header().Set("Content-Length", "2")
				if r.Method == "GET" {
					io.WriteString(w, "{}")
				}
			}
			return isTag(r)
		}},
		{"compressed transfer that nobody asked for", "digest|more than|bytes", func(w http.ResponseWriter, r *http.Request) bool {
			if is(r, config) {
				w.Header().Set("Content-Encoding", "gzip")
				w.Write(append(zipped(t, marshal(p.config)), make([]byte, 1000)...))
			}
			return is(r, config)
		}},
		{"nothing but 401", "denied|unauthorized|authentication|no basic auth", func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Www-Authenticate", `Bearer realm="http://`+r.Host+`/token",service="x"`)
			if r.URL.Path == "/token" {
				io.WriteString(w, `{"token":"`+long+`"}`)
			} else {
				w.WriteHeader(http.StatusUnauthorized)
			}
			return true
		}},
		{"token server that is a file", "no http or https address|unsupported protocol", func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Www-Authenticate", `Bearer realm="file://`+c.dir+`/canary",service="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}},
		{"token server in clear text elsewhere", "plain HTTP", func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Www-Authenticate", `Bearer realm="http://192.0.2.1/token",service="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}},
		{"token without an end", "token", func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Www-Authenticate", `Bearer realm="http://`+r.Host+`/token",service="x"`)
			if r.URL.Path == "/token" {
				io.WriteString(w, `{"token":"`)
				return endless(w, r, long)
			}
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}},
		{"come back in thirty years", "toomanyrequests|429", func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Retry-After", "999999999999")
			w.WriteHeader(http.StatusTooManyRequests)
			return true
		}},
		{"no HTTP at all", "malformed|broke|EOF|HTTP", func(w http.ResponseWriter, _ *http.Request) bool {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				io.WriteString(conn, "SSH-2.0-OpenSSH_9.9\r\n")
				conn.Close()
			}
			return true
		}},
	} {
		t.Run(x.name, func(t *testing.T) {
			began := time.Now()
			m, address, stop := meddle(t, x.hook)
			p.put(m.Server, "app", "1")
			refused(t, e, 1, x.words, "pull", address+"/app:1")
			stop()
			freed(t, e)
			same(t, e, before)
			c.alive(t)
			t.Logf("took %v", time.Since(began).Round(time.Millisecond))
		})
	}
	if peak := memory(t, e); peak > 160<<10 {
		t.Errorf("the daemon took %d KiB for it", peak)
	}
}

// TestRegistrysWordsReachNoTerminal: what a registry says is shown without what a terminal would obey.
func TestRegistrysWordsReachNoTerminal(t *testing.T) {
	e := testengine.Start(t)
	_, address, _ := meddle(t, func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, `{"errors":[{"code":"DEN\u001b[2JIED","message":"no\u001b]0;owned\u0007\r\u009b31m%s"}]}`, strings.Repeat("y", 50_000))
		return true
	})
	for _, args := range [][]string{{"pull", address + "/app:1"}, {"run", address + "/app:1"}} {
		out, _ := e.Command("berth", args...).CombinedOutput()
		if strings.ContainsAny(string(out), "\x1b\x07\r\u009b") || len(out) > 5000 {
			t.Errorf("berth %v prints %d bytes: %.300q", args, len(out), out)
		}
	}
}

// TestCredentialsStayWithTheirRegistry: neither a redirect nor a mirror of the blobs gets what was meant for the registry.
func TestCredentialsStayWithTheirRegistry(t *testing.T) {
	e := testengine.Start(t)
	p := imageOf([]layer{busyboxLayer(t)}, nil)
	thief, elsewhere, _ := meddle(t, nil)
	p.put(thief.Server, "app", "1")
	m, address, _ := meddle(t, func(w http.ResponseWriter, r *http.Request) bool {
		away := strings.Contains(r.URL.Path, "/blobs/")
		if away {
			http.Redirect(w, r, "http://"+elsewhere+r.URL.Path, http.StatusTemporaryRedirect)
		}
		return away
	})
	m.SetAccess(registrytest.Access{Scheme: "basic", Users: map[string]string{"ann": "secret-word"}})
	p.put(m.Server, "app", "1")
	auth := base64.URLEncoding.EncodeToString(fmt.Appendf(nil, `{"username":"ann","password":"secret-word","serveraddress":%q}`, address))
	request, err := http.NewRequest("POST", "http://engine/images/create?fromImage="+address+"/app&tag=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("X-Registry-Auth", auth)
	answer, err := caller(e).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(answer.Body)
	if answer.StatusCode != 200 || !strings.Contains(string(text), "Downloaded newer image") {
		t.Errorf("%s: %s", answer.Status, text)
	}
	if len(m.authorizations()) == 0 {
		t.Error("the registry saw no credentials")
	}
	if seen := thief.authorizations(); len(seen) > 0 {
		t.Errorf("another server saw %q", seen)
	}
	for what, s := range map[string]string{"log": e.Log(), "answer": string(text)} {
		if strings.Contains(s, "secret-word") || strings.Contains(s, auth) {
			t.Errorf("the password stands in the %s", what)
		}
	}
}

// TestStalledPullEndsWithItsClient: a registry that stops in the middle holds nothing longer than somebody waits for it.
func TestStalledPullEndsWithItsClient(t *testing.T) {
	e := testengine.Start(t)
	e.Busybox(t)
	p := imageOf([]layer{layerOf(t, file("f", random(300_000)))}, nil)
	before := settled(t, e)
	for _, where := range []string{"/manifests/", "/blobs/", string(p.manifest.Layers[0].Digest)} {
		t.Run(where, func(t *testing.T) {
			stalled := make(chan struct{}, 100)
			m, address, stop := meddle(t, nil)
			m.hook = func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method != "GET" || !strings.Contains(r.URL.Path, where) {
					return false
				}
				w.Header().Set("Content-Length", "1000000")
				io.WriteString(w, "beginning")
				w.(http.Flusher).Flush()
				stalled <- struct{}{}
				<-r.Context().Done()
				return true
			}
			p.put(m.Server, "app", "1")
			conn, err := net.Dial("unix", e.Socket)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(conn, "POST /images/create?fromImage=%s/app&tag=1 HTTP/1.1\r\nHost: x\r\n\r\n", address)
			<-stalled
			conn.Close()
			stop()
			freed(t, e)
			same(t, e, before)
		})
	}
}
