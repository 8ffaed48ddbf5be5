package cli

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// canned fills a fake with a small world.
func canned(t *testing.T) *fake {
	f := newFake(t)
	f.version = "1.50"
	now := time.Now().Unix()
	f.on("GET /containers/json", []map[string]any{
		{"Id": fakeID, "Names": []string{"/web", "/db/alias"}, "Image": "nginx:1.27", "ImageID": "sha256:" + fakeID, "Command": "/docker-entrypoint.sh nginx -g 'daemon off;'", "Created": now - 125, "State": "running", "Status": "Up 2 minutes (healthy)",
			"Ports": []map[string]any{
				{"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"}, {"IP": "::", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
				{"IP": "0.0.0.0", "PrivatePort": 90, "PublicPort": 90, "Type": "tcp"}, {"IP": "0.0.0.0", "PrivatePort": 91, "PublicPort": 91, "Type": "tcp"}, {"IP": "0.0.0.0", "PrivatePort": 93, "PublicPort": 93, "Type": "tcp"},
				{"PrivatePort": 443, "Type": "tcp"}, {"PrivatePort": 53, "Type": "udp"}, {"PrivatePort": 54, "Type": "udp"},
			},
			"Labels": map[string]string{"com.example.tier-name": "front", "a": "b"}, "SizeRw": 1234567, "SizeRootFs": 187654321,
			"Mounts":          []map[string]any{{"Type": "bind", "Source": "/srv/a-very-long-path/of/things", "Destination": "/x"}, {"Type": "volume", "Name": "data", "Driver": "local"}},
			"NetworkSettings": map[string]any{"Networks": map[string]any{"apps": map[string]any{}}},
		},
		{"Id": strings.Repeat("f", 64), "Names": []string{"/old"}, "Image": "sha256:" + strings.Repeat("a", 64), "ImageID": "sha256:" + strings.Repeat("a", 64), "Command": "sh", "Created": now - 3*86400, "State": "exited", "Status": "Exited (0) 2 days ago", "Ports": []any{}, "Labels": map[string]string{}},
		{"Id": strings.Repeat("e", 64), "Names": []string{"/pinned"}, "Image": "busybox@sha256:" + strings.Repeat("b", 64), "ImageID": "sha256:" + strings.Repeat("b", 64), "Command": "a 日本語 command which is long", "Created": now - 400*86400, "State": "created", "Status": "Created", "Labels": nil},
	})
	f.on("GET /images/json", []map[string]any{
		{"Id": "sha256:" + fakeID, "RepoTags": []string{"debian:12", "debian:bookworm"}, "RepoDigests": []string{"debian@sha256:" + strings.Repeat("c", 64)}, "Created": now - 40*86400, "Size": 116_500_000, "SharedSize": -1, "Containers": -1},
		{"Id": "sha256:" + strings.Repeat("b", 64), "RepoTags": []string{"example.org:5000/base:v1"}, "RepoDigests": []string{}, "Created": now - 50*86400, "Size": 116_500_000_000, "SharedSize": -1, "Containers": 3},
		{"Id": "sha256:" + strings.Repeat("d", 64), "RepoTags": []string{}, "RepoDigests": []string{}, "Created": now - 7200, "Size": 4_270_000, "SharedSize": -1, "Containers": -1},
		{"Id": "sha256:" + strings.Repeat("e", 64), "RepoTags": nil, "RepoDigests": []string{"busybox@sha256:" + strings.Repeat("c", 64)}, "Created": now - 70, "Size": 999, "SharedSize": -1, "Containers": -1},
	})
	f.on("GET /images/debian/history", []map[string]any{
		{"Id": "sha256:" + fakeID, "Created": now - 40*86400, "CreatedBy": "/bin/sh -c #(nop)  CMD [\"bash\"] and a long line of words that goes on", "Size": 0, "Comment": "buildkit", "Tags": nil},
		{"Id": "<missing>", "Created": now - 40*86400, "CreatedBy": "ADD file:x / # a\ttab", "Size": 116500000, "Comment": ""},
	})
	f.on("GET /containers/web/top", map[string]any{"Titles": []string{"UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"}, "Processes": [][]string{{"root", "1234", "1200", "0", "10:00", "?", "00:00:00", "top -b"}}})
	inspect := map[string]any{"Id": fakeID, "Name": "/web", "Created": "2024-01-02T03:04:05Z", "State": map[string]any{"Running": true, "Status": "running", "Pid": 4242, "ExitCode": 0}, "Path": "top <&>", "Args": []string{"-b"}, "HostConfig": map[string]any{"Memory": 67108864},
		"Config":          map[string]any{"Tty": false, "Env": []string{"A=b", "C=d"}, "Labels": map[string]string{"k": "v"}, "Image": "debian"},
		"NetworkSettings": map[string]any{"IPAddress": "172.17.0.2", "Ports": map[string]any{"80/tcp": []map[string]string{{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}}, "9/udp": nil}, "Networks": map[string]any{"bridge": map[string]any{"IPAddress": "172.17.0.2"}}}}
	f.on("GET /containers/web/json", inspect)
	f.on("GET /containers/debian/json", refusal{404, "No such container: debian"})
	f.on("GET /images/debian/json", json.RawMessage(`{"Id":"sha256:`+fakeID+`","RepoTags":["debian:12"],"Architecture":"amd64","Os":"linux","Size":116500000,"Config":{"Cmd":["bash"],"Env":["PATH=/bin"]}}`))
	f.on("GET /events", json.RawMessage(fmt.Sprintf(`{"Type":"container","Action":"die","Actor":{"ID":%q,"Attributes":{"exitCode":"137","image":"debian","name":"web"}},"scope":"local","time":1700000000,"timeNano":1700000000123456789}
{"Type":"daemon","Action":"reload","Actor":{"ID":"x","Attributes":{}},"scope":"local","time":1700000001}
`, fakeID)))
	return f
}

// TestTablesAreDockers compares what both programs print of the same answers, byte by byte.
func TestTablesAreDockers(t *testing.T) {
	needDocker(t)
	f := canned(t)
	for _, args := range [][]string{
		{"ps"}, {"ps", "-a", "--no-trunc"}, {"ps", "-s"}, {"ps", "-q"}, {"ps", "-q", "--no-trunc"}, {"ps", "--format", "{{.Names}}: {{.Status}}"}, {"container", "ls", "--format", "table {{.ID}}\t{{.Names}}\t{{.Ports}}"},
		{"ps", "--format", `table {{.ID}}\t{{.Label "com.example.tier-name"}}\t{{upper .Image}}`}, {"ps", "--format", "{{.Labels}}|{{.Mounts}}|{{.LocalVolumes}}|{{.Networks}}|{{.Command}}|{{.State}}|{{.Size}}|{{.RunningFor}}"}, {"ps", "--format", `{{.Label "a"}}{{pad .Names 2 3}}{{truncate .ID 3}}{{title "a b"}}{{join (split "a/b" "/") "+"}}{{println "x"}}`},
		{"ps", "--format", "table"}, {"ps", "--format", "table {{.CreatedAt}}\t{{.RunningFor}}\t{{.State}}\t{{.Labels}}"}, {"ps", "--format", `{{json .Names}}`},
		{"images"}, {"images", "-a"}, {"images", "--digests"}, {"images", "-q"}, {"images", "--no-trunc"}, {"images", "--format", "{{.Repository}}:{{.Tag}} {{.Size}} {{.Containers}} {{.CreatedSince}}"}, {"images", "--format", "table {{.ID}}\t{{.Repository}}\t{{.UniqueSize}}"}, {"image", "ls", "--digests", "--no-trunc"},
		{"history", "debian"}, {"history", "--no-trunc", "debian"}, {"history", "-H=false", "debian"}, {"history", "-q", "debian"}, {"history", "--format", "{{.ID}} {{.CreatedBy}} {{.Size}}", "debian"}, {"history", "--format", "json", "debian"},
		{"top", "web"}, {"port", "web"}, {"port", "web", "80"}, {"port", "web", "80/tcp"}, {"port", "web", "81"},
		{"inspect", "web"}, {"inspect", "-f", "{{.State.Running}}", "web"}, {"inspect", "-f", "{{.Id}} {{.State.Pid}} {{.HostConfig.Memory}}", "web"}, {"inspect", "-f", "{{json .Config.Env}}", "web"}, {"inspect", "-f", "{{.NetworkSettings.IPAddress}}", "web"},
		{"inspect", "-f", `{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}`, "web"}, {"inspect", "-f", "{{range $p, $c := .NetworkSettings.Ports}}{{if $c}}{{$p}}={{len $c}} {{end}}{{end}}", "web"}, {"inspect", "-f", "{{.Config.Env}}{{.Name}}", "web"}, {"inspect", "-f", "{{if .State.Health}}h{{else}}n{{end}}", "web"},
		{"inspect", "debian"}, {"inspect", "debian", "nothing", "web"}, {"inspect", "nothing"}, {"image", "inspect", "debian", "-f", "{{.Size}} {{.Config.Cmd}}"}, {"inspect", "--type", "image", "debian"}, {"inspect", "-f", "{{ .Bad", "web"}, {"inspect", "-f", "json", "web"}, {"container", "inspect", "debian"},
		{"events", "--until", "1s"}, {"events", "--format", "{{.Type}} {{.Actor.ID}}"}, {"events", "--format", "json"},
	} {
		d, b := f.docker(args...), f.berth(args...)
		f.take()
		if diff := cmp.Diff(lines2(d.out), lines2(b.out)); diff != "" || d.code != b.code {
			t.Errorf("%q: codes %d and %d; docker (-) and berth (+) print:\n%s\n docker's errors: %s\n berth's errors:  %s", args, d.code, b.code, diff, d.err, b.err)
		}
	}
}

func lines2(s string) []string { return strings.Split(s, "\n") }
