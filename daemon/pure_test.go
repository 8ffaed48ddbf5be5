package daemon

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"berth/container"
	"berth/engine"
	"berth/fault"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/system"
)

func TestSplitVersion(t *testing.T) {
	for _, c := range []struct {
		path string
		v    apiVersion
		rest string
		err  string
	}{
		{"/v1.24/info", 24, "/info", ""},
		{"/v1.56/containers/json", 56, "/containers/json", ""},
		{"/version", 0, "", ""},
		{"/v1.23/info", 0, "", "client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version"},
		{"/v1.22/images/get", 22, "/images/get", ""},
		{"/v1.21/images/get", 0, "", "client version 1.21 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version"},
		{"/v1.57/info", 0, "", "client version 1.57 is too new. Maximum supported API version is 1.56"},
		{"/v2.0/info", 0, "", "client version 2.0 is too new. Maximum supported API version is 1.56"},
		{"/v1.99999999999999999999/info", 0, "", "client version 1.99999999999999999999 is too new. Maximum supported API version is 1.56"},
	} {
		v, rest, err := splitVersion(c.path)
		if message := text(err); v != c.v || rest != c.rest || message != c.err {
			t.Errorf("%s: %v %q %q", c.path, v, rest, message)
		}
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestImagePath(t *testing.T) {
	for _, c := range []struct{ method, path, want string }{
		{"GET", "/images/json", "/images/json"},
		{"GET", "/images/get", "/images/get"},
		{"POST", "/images/create", "/images/create"},
		{"GET", "/images/busybox/json", "/images/-/json/busybox"},
		{"GET", "/images/127.0.0.1:5000/a/b:c/history", "/images/-/history/127.0.0.1:5000/a/b:c"},
		{"POST", "/images/a/b/tag", "/images/-/tag/a/b"},
		{"DELETE", "/images/a/json", "/images/-/self/a/json"},
		{"DELETE", "/images/json", "/images/-/self/json"},
		{"GET", "/containers/json", "/containers/json"},
		{"GET", "/images/a/b@sha256:0/attestations", "/images/-/attestations/a/b@sha256:0"},
		{"GET", "/distribution/127.0.0.1:5000/a/b:c/json", "/distribution/-/json/127.0.0.1:5000/a/b:c"},
		{"PUT", "/distribution/json/manifest", "/distribution/-/manifest/json"},
		{"GET", "/distribution/json", "/distribution/json"},
	} {
		if got := imagePath(c.method, c.path); got != c.want {
			t.Errorf("%s %s: %s, want %s", c.method, c.path, got, c.want)
		}
	}
}

func TestParseFilters(t *testing.T) {
	for _, c := range []struct {
		in   string
		want engine.Filters
		ok   bool
	}{
		{"", nil, true},
		{`{"status":["running","paused"]}`, engine.Filters{"status": {"running", "paused"}}, true},
		{`{"label":{"b":true,"a":true}}`, engine.Filters{"label": {"a", "b"}}, true},
		{`{"label":"a"}`, nil, false},
		{`[`, nil, false},
	} {
		got, err := parseFilters(c.in)
		if (err == nil) != c.ok || c.ok && !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v, %v", c.in, got, err)
		}
		if err != nil && !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: %v is not of kind invalid", c.in, err)
		}
	}
}

func TestParseTime(t *testing.T) {
	for _, c := range []struct {
		in   string
		want time.Time
		ok   bool
	}{
		{"", time.Time{}, true},
		{"0", time.Time{}, true},
		{"1700000000", time.Unix(1700000000, 0), true},
		{"1700000000.5", time.Unix(1700000000, 500_000_000), true},
		{"1700000000.000000001", time.Unix(1700000000, 1), true},
		{"2024-01-01", time.Time{}, false},
		{"1.-5", time.Time{}, false},
	} {
		got, err := parseTime("since", c.in)
		if (err == nil) != c.ok || !got.Equal(c.want) {
			t.Errorf("%q: %v, %v", c.in, got, err)
		}
	}
}

func TestParsePlatform(t *testing.T) {
	for _, c := range []struct {
		in, os, arch, variant string
		ok                    bool
	}{
		{"linux/arm64/v8", "linux", "arm64", "v8", true},
		{"linux", "linux", runtime.GOARCH, "", true},
		{"nintendo64", "", "", "", false},
		{"amd64", "linux", "amd64", "", true},
		{"linux/x86_64", "linux", "amd64", "", true},
		{`{"os":"linux","architecture":"arm","variant":"v7"}`, "linux", "arm", "v7", true},
		{"linux/", "", "", "", false},
		{"a/b/c/d", "", "", "", false},
		{"{", "", "", "", false},
	} {
		p, err := parsePlatform(c.in)
		if (err == nil) != c.ok {
			t.Errorf("%q: %v", c.in, err)
		}
		if err == nil && (p.OS != c.os || p.Architecture != c.arch || p.Variant != c.variant) {
			t.Errorf("%q: %+v", c.in, p)
		}
	}
	if p, err := parsePlatform(""); p != nil || err != nil {
		t.Errorf("no platform: %v, %v", p, err)
	}
}

func TestPullName(t *testing.T) {
	for _, c := range []struct {
		name, tag, ref string
		all            bool
	}{
		{"busybox", "latest", "busybox:latest", false},
		{"busybox", "sha256:0123", "busybox@sha256:0123", false},
		{"busybox", "", "busybox", true},
		{"localhost:5000/busybox", "", "localhost:5000/busybox", true},
		{"localhost:5000/busybox:1", "", "localhost:5000/busybox:1", false},
		{"busybox@sha256:0123", "", "busybox@sha256:0123", false},
	} {
		if ref, all := pullName(c.name, c.tag); ref != c.ref || all != c.all {
			t.Errorf("%s, %s: %s, %v", c.name, c.tag, ref, all)
		}
	}
}

func TestStatusOf(t *testing.T) {
	for kind, want := range map[fault.Kind]int{
		fault.Invalid: 400, fault.Unauthorized: 401, fault.Denied: 403, fault.NotFound: 404, fault.Exists: 409,
		fault.Conflict: 409, fault.NotModified: 304, fault.Unsupported: 501, fault.Unavailable: 503, fault.Corrupt: 500,
	} {
		if got := statusOf(fault.New(kind, "x")); got != want {
			t.Errorf("%s: %d, want %d", kind, got, want)
		}
	}
	if got := statusOf(errors.New("x")); got != 500 {
		t.Errorf("no kind: %d", got)
	}
}

func TestCreateAcceptsCommandsOfTheFirstReleases(t *testing.T) {
	r := httptest.NewRequest("POST", "/containers/create", strings.NewReader(`{"Image":"a","Cmd":"true","Entrypoint":"sh","HostConfig":{"Memory":5}}`))
	r.Header.Set("Content-Type", "application/json")
	body, err := readCreate(r)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(body.Cmd, []string{"true"}) || !reflect.DeepEqual(body.Entrypoint, []string{"sh"}) || body.HostConfig.Memory != 5 {
		t.Errorf("%+v %+v", body.Config, body.HostConfig)
	}
}

func TestCreateRefusesWhatIsNoConfig(t *testing.T) {
	for in, want := range map[string]string{
		``:                               "EOF",
		`{}`:                             "config cannot be empty",
		`{"Image":3}`:                    "invalid JSON",
		`{"Image":"a"} {}`:               "unexpected content",
		`{"Image":"a","HostConfig":"b"}`: "invalid JSON",
	} {
		r := httptest.NewRequest("POST", "/containers/create", strings.NewReader(in))
		_, err := readCreate(r)
		if !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", in, err)
		}
	}
}

func TestOldClientsFindTheAddressAtTheTop(t *testing.T) {
	c := engine.Inspection{InspectResponse: api.InspectResponse{ID: "x", Config: &api.Config{Image: "busybox"}, NetworkSettings: &api.NetworkSettings{Networks: map[string]*network.EndpointSettings{
		"bridge": {IPAddress: netip.MustParseAddr("172.17.0.2"), IPPrefixLen: 16, Gateway: netip.MustParseAddr("172.17.0.1")},
	}}}}
	c.Berth.MAC = "02:42:ac:11:00:0b"
	old, err := oldInspect(50, &c)
	if err != nil {
		t.Fatal(err)
	}
	data, _ := json.Marshal(old)
	var got struct {
		Id              string
		NetworkSettings struct {
			IPAddress, Gateway string
			IPPrefixLen        int
			Networks           map[string]any
		}
		Config struct{ Image, MacAddress string }
	}
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	n := got.NetworkSettings
	if got.Id != "x" || n.IPAddress != "172.17.0.2" || n.Gateway != "172.17.0.1" || n.IPPrefixLen != 16 || n.Networks["bridge"] == nil || got.Config.Image != "busybox" || got.Config.MacAddress != "02:42:ac:11:00:0b" {
		t.Errorf("%s", data)
	}
	if new, err := oldInspect(52, &c); new != nil || err != nil {
		t.Errorf("a new client gets %v, %v", new, err)
	}
}

func TestFlag(t *testing.T) {
	for v, want := range map[string]bool{"": false, "0": false, "no": false, "False": false, "none": false, "1": true, "true": true, "yes": true} {
		if got := flag(url.Values{"x": {v}}, "x"); got != want {
			t.Errorf("%q: %v", v, got)
		}
	}
}

func TestLogLines(t *testing.T) {
	at := time.Date(2024, 1, 2, 3, 4, 5, 6, time.UTC)
	line := &container.Line{Time: at, Stream: "stderr", Text: []byte("hello\n"), Attrs: map[string]string{"b": "2", "a": "1 1"}}
	for name, c := range map[string]struct {
		w    lineWriter
		want string
	}{
		"raw":        {lineWriter{}, "hello\n"},
		"frames":     {lineWriter{frames: true}, "\x02\x00\x00\x00\x00\x00\x00\x06hello\n"},
		"timestamps": {lineWriter{timestamps: true}, "2024-01-02T03:04:05.000000006Z hello\n"},
		"details":    {lineWriter{details: true}, "a=1+1,b=2 hello\n"},
	} {
		var out strings.Builder
		c.w.out = &out
		c.w.write(line)
		if err := c.w.flush(); err != nil || out.String() != c.want {
			t.Errorf("%s: %q, %v", name, out.String(), err)
		}
	}
	var out strings.Builder
	w := lineWriter{out: &out, timestamps: true}
	for _, text := range []string{"a long", " line\n", "next"} {
		w.write(&container.Line{Time: at, Stream: "stdout", Text: []byte(text)})
	}
	if err := w.flush(); err != nil || out.String() != "2024-01-02T03:04:05.000000006Z a long line\n2024-01-02T03:04:05.000000006Z next" {
		t.Errorf("a line in parts: %q, %v", out.String(), err)
	}
}

func TestAnErrorAfterTheFirstLineIsALine(t *testing.T) {
	w := httptest.NewRecorder()
	out := newLines(w)
	if err := out.fail(fault.New(fault.NotFound, "gone")); !errors.Is(err, fault.NotFound) {
		t.Errorf("before the first line the error is the answer, not %v", err)
	}
	out.write(map[string]string{"status": "<a>"})
	if err := out.fail(errors.New("cut")); err != nil {
		t.Error(err)
	}
	want := "{\"status\":\"<a>\"}\n{\"error\":\"cut\",\"errorDetail\":{\"message\":\"cut\"}}\n"
	if w.Body.String() != want || w.Code != http.StatusOK {
		t.Errorf("%d %q", w.Code, w.Body.String())
	}
}

func TestOldClientsAreNotWarnedOfTheBridge(t *testing.T) {
	for v, want := range map[apiVersion]bool{41: true, 50: false, newestMinor: false} {
		data, err := json.Marshal(oldInfo(v, &system.Info{ID: "x"}))
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			ID               string
			BridgeNfIptables bool
		}
		if err := json.Unmarshal(data, &got); err != nil || got.BridgeNfIptables != want || got.ID != "x" {
			t.Errorf("%v: %s, %v", v, data, err)
		}
	}
}

func TestOldClientsReadAWholeImageConfig(t *testing.T) {
	i := image.InspectResponse{ID: "x", Size: 7, Config: &dockerspec.DockerOCIImageConfig{}}
	i.Config.User, i.Config.Cmd = "u", []string{"sh"}
	for v, want := range map[apiVersion]string{
		41:          `[7,"",null,"u",["sh"],""]`,
		49:          `[null,"",null,"u",["sh"],""]`,
		50:          `[null,null,null,"u",["sh"],""]`,
		newestMinor: `[null,null,null,"u",["sh"],null]`,
	} {
		data, err := json.Marshal(oldImage(v, &i, origin{}))
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			VirtualSize, Parent any
			Config              map[string]any
		}
		if err := json.Unmarshal(data, &got); err != nil {
			t.Fatal(err)
		}
		row, _ := json.Marshal([]any{got.VirtualSize, got.Config["Hostname"], got.Config["Labels"], got.Config["User"], got.Config["Cmd"], got.Parent})
		if string(row) != want {
			t.Errorf("%v: %s, want %s", v, row, want)
		}
		if _, whole := got.Config["Labels"]; whole != (v < 50) {
			t.Errorf("%v: Labels there: %v", v, whole)
		}
	}
}

func TestOldClientsChooseAHardwareAddress(t *testing.T) {
	for version, want := range map[string]string{"1.41": "02:42:11:22:33:44", "1.52": ""} {
		r := httptest.NewRequest("POST", "/v"+version+"/containers/create", strings.NewReader(
			`{"Image":"x","MacAddress":"02:42:11:22:33:44","HostConfig":{"NetworkMode":"default"}}`))
		var got string
		s := &Server{log: discard()}
		s.versioned(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			body, err := readCreate(r)
			if err != nil {
				t.Fatal(err)
			}
			if n := body.NetworkingConfig; n != nil && n.EndpointsConfig["bridge"] != nil {
				got = n.EndpointsConfig["bridge"].MacAddress.String()
			}
		})).ServeHTTP(httptest.NewRecorder(), r)
		if got != want {
			t.Errorf("%s: %q, want %q", version, got, want)
		}
	}
}
