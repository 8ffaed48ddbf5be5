package registry

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestIsLoopback(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "LOCALHOST:5000": true, "127.0.0.1": true, "127.8.9.1:5000": true, "[::1]:5000": true, "::1": true, "[::ffff:127.0.0.1]:80": true,
		"localhost.example.org": false, "example.org": false, "128.0.0.1": false, "127.example.org": false, "": false, "[::2]:80": false, "registry-1.docker.io": false,
	} {
		if got := isLoopback(host); got != want {
			t.Errorf("isLoopback(%q) = %v", host, got)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for s, want := range map[string]time.Duration{
		"": 0, "x": 0, "-5": 0, "0": 0, "7": 7 * time.Second, "Fri, 02 Jan 2026 03:05:05 GMT": time.Minute, "Fri, 02 Jan 2026 03:03:05 GMT": 0,
	} {
		if got := retryAfter(s, now); got != want {
			t.Errorf("retryAfter(%q) = %v, want %v", s, got, want)
		}
	}
}

func TestBegins(t *testing.T) {
	for s, want := range map[string]int64{"bytes 5-9/10": 5, "bytes 0-0/1": 0, "": -1, "bytes */10": -1, "items 5-9/10": -1, "bytes 5": -1} {
		if got := begins(s); got != want {
			t.Errorf("begins(%q) = %d, want %d", s, got, want)
		}
	}
}

func TestReceived(t *testing.T) {
	for s, want := range map[string]int64{"0-99": 100, "bytes=0-99": 100, "bytes 0-99": 100, "0-0": 0, "": 0, "5-9": 0, "0-1000": 0, "0-999": 1000, "0--1": 0, "x": 0, "0-99/100": 0} {
		if got := received(s, 1000); got != want {
			t.Errorf("received(%q) = %d, want %d", s, got, want)
		}
	}
}

func TestParseChallenges(t *testing.T) {
	for _, c := range []struct {
		values []string
		want   challenge
		ok     bool
	}{
		{nil, challenge{}, false},
		{[]string{"Negotiate"}, challenge{}, false},
		{[]string{`Basic realm="x"`}, challenge{basic: true}, true},
		{[]string{"basic"}, challenge{basic: true}, true},
		{[]string{`Bearer realm="https://a/t",service="s",scope="repository:x:pull repository:y:pull,push"`},
			challenge{realm: "https://a/t", service: "s", scope: []string{"repository:x:pull", "repository:y:pull,push"}}, true},
		{[]string{`Basic realm="x"`, `bearer Realm="https://a/t" , SERVICE=s,error="insufficient_scope"`}, challenge{realm: "https://a/t", service: "s", refused: true}, true},
		{[]string{`Bearer realm="a\"b,c"`}, challenge{realm: `a"b,c`}, true},
		{[]string{`Bearer service="s"`}, challenge{}, false},
		{[]string{`Bearer realm="open`}, challenge{}, false},
	} {
		got, ok := parseChallenges(c.values)
		if ok != c.ok || cmp.Diff(got, c.want, cmp.AllowUnexported(challenge{}), cmp.Comparer(func(a, b []string) bool { return slices.Equal(a, b) })) != "" {
			t.Errorf("%q: got %+v, %v", c.values, got, ok)
		}
	}
}

func TestNextPage(t *testing.T) {
	base, _ := url.Parse("https://r.example/v2/x/tags/list")
	for link, want := range map[string]string{
		`</v2/x/tags/list?last=b&n=2>; rel="next"`:               "https://r.example/v2/x/tags/list?last=b&n=2",
		`<list?last=b>;rel=next`:                                 "https://r.example/v2/x/tags/list?last=b",
		`<https://o.example/a>; rel="prev", </b>; x=y; rel=next`: "https://r.example/b",
		`</a>; rel="prev"`:                                       "", ``: "", `</a>`: "", `/a; rel="next"`: "", `<%zz>; rel="next"`: "",
	} {
		got := ""
		if u := nextPage(base, []string{link}); u != nil {
			got = u.String()
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", link, got, want)
		}
	}
}

func TestQuota(t *testing.T) {
	for _, c := range [][3]string{
		{"100;w=21600", "76;w=21600", "76 of 100 left in 6h"}, {"100;w=90", "0;w=90", "0 of 100 left in 1m30s"}, {"100", "1", "1 of 100 left"},
		{"", "", ""}, {"x", "1", ""}, {"100;w=x", "5", "5 of 100 left"},
	} {
		if got := quota(http.Header{"Ratelimit-Limit": {c[0]}, "Ratelimit-Remaining": {c[1]}}); got != c[2] {
			t.Errorf("%q, %q: got %q, want %q", c[0], c[1], got, c[2])
		}
	}
}

func TestParseMirror(t *testing.T) {
	for text, want := range map[string]string{
		"https://m.example": "docker.io https://m.example", "http://m.example:5000/": "docker.io http://m.example:5000",
		"docker.io=https://m.example": "docker.io https://m.example", "quay.io/team/=https://m.example/a/b": "quay.io/team https://m.example/a/b",
		"localhost:5000=https://m.example": "localhost:5000 https://m.example", "docker.io/library=https://m.example/x": "docker.io/library https://m.example/x",
		"m.example": "", "ftp://x": "", "team=https://x": "", "=https://x": "", "quay.io=": "", "https://u:p@x": "", "https://x?q": "", "https://x/UP": "", "quay.io/a b=https://x": "",
	} {
		m, err := ParseMirror(text)
		got := ""
		if err == nil {
			got = m.Prefix + " " + strings.Replace(m.URL.String(), "example//", "example/", 1)
		}
		if got != want {
			t.Errorf("%s: got %q (%v), want %q", text, got, err, want)
		}
	}
}

// FuzzParseProblem: whatever a registry answers, an error has words.
func FuzzParseProblem(f *testing.F) {
	f.Add([]byte(`{"errors":[{"code":"NAME_UNKNOWN","message":"m"}]}`), 404)
	f.Add([]byte(`{"details":"incorrect username or password"}`), 401)
	f.Add([]byte(`<html>`), 500)
	f.Fuzz(func(t *testing.T, data []byte, status int) {
		p := &problem{status: status}
		p.code, p.text = parseProblem(data)
		if p.Error() == "" {
			t.Error("no words")
		}
	})
}

// FuzzHeaders: what a registry writes into its headers is read or passed over, and leads nowhere that isn't an address.
func FuzzHeaders(f *testing.F) {
	f.Add(`Bearer realm="https://a/t",service="s",scope="x:y"`, `</a?b=c>; rel="next"`, "0-99", "100;w=60")
	f.Add(`Basic realm="\"x`, `<a>;rel=next, <b>`, "bytes 5-9/10", "x")
	base, _ := url.Parse("https://r.example/v2/x/tags/list")
	f.Fuzz(func(t *testing.T, wanted, link, span, limit string) {
		if c, ok := parseChallenges([]string{wanted}); ok && !c.basic && c.realm == "" {
			t.Error("a challenge without realm")
		}
		if u := nextPage(base, []string{link}); u != nil && u.Scheme == "" {
			t.Errorf("%q leads to %q", link, u)
		}
		if n := received(span, 1000); n < 0 || n > 1000 {
			t.Errorf("%q: %d of 1000 received", span, n)
		}
		if n := begins(span); n < -1 && !strings.Contains(span, "-") {
			t.Errorf("%q begins at %d", span, n)
		}
		retryAfter(span, time.Now())
		quota(http.Header{"Ratelimit-Limit": {limit}, "Ratelimit-Remaining": {limit}})
	})
}

// FuzzHostsFile: a hosts.toml is refused, or its places can be asked.
func FuzzHostsFile(f *testing.F) {
	f.Add("server = \"https://a.example\"\n[host.\"https://b.example/x\"]\ncapabilities = [\"pull\"]\nca = [\"a\", \"b\"]\nclient = [[\"c\", \"k\"]]\noverride_path = true")
	f.Add("[host.\"b\"]\nskip_verify = true\nclient = \"c\"")
	f.Fuzz(func(t *testing.T, text string) {
		n := &namespace{}
		if n.parseHosts("/nowhere/hosts.toml", text) != nil {
			return
		}
		for _, p := range n.mirrors {
			if p.url.Host == "" || p.url.Scheme != "http" && p.url.Scheme != "https" {
				t.Errorf("%q is no address", p.url)
			}
		}
	})
}

// FuzzParseMirror: a mirror that is accepted survives being written and read again.
func FuzzParseMirror(f *testing.F) {
	f.Add("quay.io/team=https://m.example:5000/a")
	f.Fuzz(func(t *testing.T, text string) {
		m, err := ParseMirror(text)
		if err != nil {
			return
		}
		again, err := ParseMirror(m.String())
		if err != nil || again.String() != m.String() {
			t.Errorf("%q: %q, then %q, %v", text, m, again, err)
		}
	})
}
