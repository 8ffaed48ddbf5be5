package cli

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// credentials is what an X-Registry-Auth says; one that says nothing is none.
func credentials(t *testing.T, header string) string {
	t.Helper()
	text, err := base64.URLEncoding.DecodeString(header)
	if err != nil {
		t.Errorf("X-Registry-Auth: %s: %v", header, err)
	}
	if string(text) == "{}" {
		return ""
	}
	var m map[string]string
	if len(text) > 0 && json.Unmarshal(text, &m) != nil {
		t.Errorf("X-Registry-Auth: %s", text)
	}
	if m["username"] == "" && m["identitytoken"] == "" {
		return "" // a server's address and nothing for it
	}
	b, _ := json.Marshal(m)
	return string(b)
}

// imageRequests are the requests that were sent, without what only greets the daemon.
func imageRequests(t *testing.T, all []asked) (out []any) {
	for _, a := range all {
		if a.path == "/_ping" || a.path == "/info" || a.path == "/version" || strings.HasPrefix(a.path, "/containers/") {
			continue
		}
		q := maps.Clone(a.query)
		for key, values := range q {
			var said []string
			for _, v := range values {
				var platform map[string]any
				if json.Unmarshal([]byte(v), &platform) == nil && len(platform) > 0 {
					b, _ := json.Marshal(platform)
					v = string(b)
				}
				v = strings.TrimPrefix(v, "docker.io/library/")
				if v != "" && v != "0" {
					said = append(said, v)
				}
			}
			if q[key] = said; len(said) == 0 || key == "quiet" || key == "digests" {
				delete(q, key)
			}
		}
		var body any = a.body
		if json.Unmarshal([]byte(a.body), &body) != nil {
			body = a.body
		}
		if a.path == "/images/create" && q.Get("fromImage") != "" || strings.HasSuffix(a.path, "/push") {
			body = nil // an empty object, or nothing
		}
		out = append(out, []any{a.method, strings.Replace(a.path, "docker.io/library/", "", 1), q, body, credentials(t, a.auth)})
	}
	return out
}

// imageAnswers fills a fake with a daemon that can do all with images.
func imageAnswers(t *testing.T) *fake {
	f := canned(t)
	lines := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Write([]byte(text))
		}
	}
	const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	f.on("POST /images/create", lines(`{"status":"Pulling from library/debian","id":"12"}
{"status":"Pulling fs layer","progressDetail":{},"id":"aaaaaaaaaaaa"}
{"status":"Downloading","progressDetail":{"current":10,"total":40},"progress":"[x]","id":"aaaaaaaaaaaa"}
{"status":"Download complete","progressDetail":{},"id":"aaaaaaaaaaaa"}
{"status":"Digest: `+digest+`"}
{"status":"Status: Downloaded newer image for debian:12"}
`))
	for _, name := range []string{"docker.io/library/debian", "localhost:5000/a/b", "r.example.org/x"} {
		f.on("POST /images/"+name+"/push", lines(`{"status":"The push refers to repository [`+name+`]"}
{"status":"Preparing","progressDetail":{},"id":"aaaaaaaaaaaa"}
{"status":"Pushed","progressDetail":{},"id":"aaaaaaaaaaaa"}
{"status":"v1: digest: `+digest+` size: 528"}
{"progressDetail":{},"aux":{"Tag":"v1","Digest":"`+digest+`","Size":528}}
`))
	}
	f.on("POST /images/docker.io/library/refused/push", lines(`{"status":"The push refers to repository [docker.io/library/refused]"}
{"errorDetail":{"message":"denied: requested access to the resource is denied"},"error":"denied: requested access to the resource is denied"}
`))
	f.on("POST /images/load", lines(`{"stream":"Loaded image: debian:12\n"}
{"stream":"Loaded image ID: `+digest+`\n"}
`))
	f.on("GET /images/get", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("an archive")) })
	f.on("GET /images/debian/get", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("an archive")) })
	f.on("POST /images/debian/tag", reply(201))
	f.on("DELETE /images/debian", []map[string]string{{"Untagged": "debian:12"}, {"Deleted": digest}})
	f.on("DELETE /images/busy", refusal{409, "conflict: unable to delete busy (must be forced)"})
	f.on("GET /images/search", []map[string]any{
		{"name": "nginx", "description": "Official build of Nginx.", "star_count": 20000, "is_official": true, "is_automated": false},
		{"name": "someone/nginx-with-a-long-name", "description": "A description of\nmany words which goes on and on, beyond what a table shows", "star_count": 3},
		{"name": "x/日本", "description": "日本語の説明は長いので切られますが文字の途中では切られません、それは当たり前のことです。はい、そうですね、そうです", "star_count": 0},
	})
	f.on("POST /auth", map[string]string{"Status": "Login Succeeded"})
	return f
}

// TestImageCommandsAreDockers types the commands about images and registries into both programs, and compares
// what they ask for, with which credentials, what they print and how they end.
func TestImageCommandsAreDockers(t *testing.T) {
	needDocker(t)
	f := imageAnswers(t)
	write(t, filepath.Join(f.config, "config.json"), `{"auths": {"https://index.docker.io/v1/": {"auth": "aHViOnNlY3JldA=="}, "localhost:5000": {"auth": "bG9jYWw6c2VjcmV0"}, "r.example.org": {"auth": "bWU6", "identitytoken": "tok"}}}`)
	tar := filepath.Join(t.TempDir(), "image.tar")
	write(t, tar, "an archive")
	digest := "@sha256:" + fakeID
	for _, line := range []string{
		"pull debian", "pull debian:12", "pull -q debian", "pull --quiet debian:12", "pull debian" + digest, "pull -a debian", "pull --platform linux/arm64 debian", "image pull localhost:5000/a/b:v1", "pull r.example.org/x", "pull other.example.org/x", "pull docker.io/library/debian:12", "pull index.docker.io/debian",
		"push debian", "push debian:v1", "push -q debian:v1", "push -a debian", "push --platform linux/arm64/v8 debian:v1", "image push localhost:5000/a/b:v1", "push r.example.org/x:v1", "push refused", "push debian" + digest, "push -a debian:v1", "push", "push UPPER",
		"search nginx", "search --no-trunc nginx", "search --limit 5 nginx", "search --filter stars=3 --filter is-official=true nginx", "search -f is-automated=false nginx", "search --format {{.Name}}:{{.StarCount}} nginx", "search --format json nginx", "search --format table nginx",
		"search localhost:5000/x", "search r.example.org/team/x", "search someone/x", "search", "search a b", "search --filter x nginx",
		"save debian", "save debian busybox", "save --platform linux/amd64 debian", "save", "load -i " + tar, "load -q -i " + tar, "load --platform linux/arm64 -i " + tar, "load -i /nonexistent", "image load --input " + tar,
		"import " + tar, "import " + tar + " mine:v1", "import -c CMD=x -c ENV=a=b -m words --platform linux/arm64 " + tar + " localhost:5000/mine", "import http://example.org/a.tar mine", "import /nonexistent", "import - mine", "import " + tar + " UPPER",
		"tag debian mine", "tag debian localhost:5000/mine:v1", "image tag debian UPPER", "tag debian", "tag debian mine" + digest,
		"rmi debian", "rmi -f debian", "rmi --no-prune debian", "image rm debian busy nosuch", "image remove debian", "rmi nosuch", "rmi -f nosuch", "rmi -f nosuch busy", "rmi --platform linux/arm64 debian", "rmi",
		"images", "image ls -a", "images debian", "images --filter dangling=true -f label=a=b", "images -q --no-trunc", "image ls --digests", "images -f bad", "images a b", "images prune", "image ls prune", "images --format json", "image list --format {{.ID}}|{{.CreatedAt}}|{{.Containers}}|{{.SharedSize}}|{{.UniqueSize}}|{{.VirtualSize}}",
		"image inspect debian", "image inspect debian nosuch", "image inspect --platform linux/amd64 debian", "image inspect", "history debian", "image history --platform linux/amd64 debian", "history nosuch", "history",
		"login -u me -p secret localhost:5000", "login -u me -p secret https://r.example.org/v2/", "login -u me -p secret", "login -u me", "login --password-stdin", "login -u me --password-stdin -p x", "login -u me --password x a b", "login", "login r.example.org", "login new.example.org",
		"logout nosuch.example.org", "logout a b", "run -d --pull always debian", "create --pull always -q localhost:5000/a/b:v1", "pull --platform bad/plat/form/x debian", "image prune x", "image bogus",
	} {
		args := strings.Fields(line)
		text, err := os.ReadFile(filepath.Join(f.config, "config.json"))
		if err != nil {
			t.Fatal(err)
		}
		f.take()
		d := f.docker(args...)
		want := imageRequests(t, f.take())
		write(t, filepath.Join(f.config, "config.json"), string(text)) // a login of the first is no news for the second
		b := f.berth(args...)
		got := imageRequests(t, f.take())
		write(t, filepath.Join(f.config, "config.json"), string(text))
		if d.code != b.code {
			t.Errorf("%s: exit codes %d and %d\n docker: %s\n berth:  %s", line, d.code, b.code, d.err, b.err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: docker (-) and berth (+) ask for:\n%s", line, diff)
		}
		if _, rest, ok := strings.Cut(d.out, "remove the --platform flag.\n"); ok {
			d.out = strings.TrimLeft(rest, " \n") // a note on standard output, where scripts don't want it
		}
		if diff := cmp.Diff(lines2(d.out), lines2(b.out)); diff != "" && !strings.Contains(d.out, "Usage:") {
			t.Errorf("%s: docker (-) and berth (+) print:\n%s", line, diff)
		}
		if os.Getenv("BERTH_WORDS") != "" && said(d.err) != said(b.err) {
			t.Logf("%s:\n docker: %s\n berth:  %s", line, d.err, b.err)
		}
	}
}

// TestOutputsNeedADirectory asks for nothing where nobody could keep it.
func TestOutputsNeedADirectory(t *testing.T) {
	f := newFake(t)
	for _, line := range []string{"save -o /nosuch/x debian", "export -o /nosuch/x web"} {
		got := f.berth(strings.Fields(line)...)
		if asked := f.take(); got.code != 1 || !strings.HasSuffix(got.err, "invalid output path: directory \"/nosuch\" does not exist\n") || len(asked) > 0 {
			t.Errorf("%s: %d %q, and %v was asked for", line, got.code, got.err, asked)
		}
	}
}
