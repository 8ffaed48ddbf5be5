package cli

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
)

// changes are the requests among all that ask for something to be done, with what they say.
func changes(all []asked) (out []any) {
	for _, a := range all {
		if a.method == "GET" || a.method == "HEAD" {
			continue
		}
		var body any
		json.Unmarshal([]byte(a.body), &body)
		if m, ok := body.(map[string]any); ok && strings.HasSuffix(a.path, "/exec") {
			delete(m, "Detach") // newer versions of the API don't have it here
		}
		for key, values := range a.query {
			a.query.Set(key, strings.TrimPrefix(values[0], "docker.io/library/")) // of one image name, as short as it is
			a.query[key] = append(a.query[key], values[1:]...)
			if values[0] == "" {
				a.query.Del(key) // says nothing
			}
		}
		out = append(out, []any{a.String(), a.query.Encode(), plain(body)})
	}
	return out
}

// TestActionsAreDockers sends the same commands through both programs and compares what they ask for.
func TestActionsAreDockers(t *testing.T) {
	needDocker(t)
	f := newFake(t)
	f.version = "1.50"
	f.on("GET /containers/web/json", container.InspectResponse{ID: fakeID, Name: "/web", State: &container.State{Running: true}, Config: &container.Config{}, HostConfig: &container.HostConfig{}})
	f.on("POST /containers/web/exec", map[string]string{"Id": "ex"})
	f.on("POST /exec/ex/start", reply(200))
	f.on("POST /containers/web/update", map[string][]string{"Warnings": nil})
	f.on("POST /containers/prune", container.PruneReport{})
	f.on("POST /commit", map[string]string{"Id": "sha256:" + strings.Repeat("a", 64)})
	f.on("POST /containers/web/wait", map[string]int{"StatusCode": 0})
	f.on("DELETE /containers/web", reply(204))
	for _, verb := range []string{"start", "stop", "restart", "kill", "pause", "unpause", "rename"} {
		f.on("POST /containers/web/"+verb, reply(204))
	}
	for _, line := range []string{
		"start web", "start --detach-keys a web", "stop web", "stop -t 0 web", "stop -t -1 -s INT web", "stop --time 3 web", "restart web", "restart --timeout 2 --signal HUP web", "kill web", "kill -s USR1 web",
		"pause web", "unpause web", "rename web x", "rm web", "rm -f web", "rm -v -f web", "rm -l web", "wait web",
		"exec -d web true", "exec -d -e A=1 -e B -u 1:2 -w /x --privileged web sh -c x", "exec -dit web sh", "exec -d --detach-keys a,b web true",
		"update -m 1g web", "update --cpus 1.5 --cpu-shares 5 web", "update --cpu-period 5 --cpu-quota 6 --cpu-rt-period 7 --cpu-rt-runtime 8 --cpuset-cpus 0 --cpuset-mems 1 web",
		"update --memory-reservation 5m --memory-swap -1 --pids-limit 7 --blkio-weight 100 web", "update --restart on-failure:2 web", "update --restart unless-stopped web",
		"container prune -f", "container prune -f --filter until=5m --filter label=a --filter label!=b=c",
		"commit web", "commit -a me -m said -c CMD=x -c LABEL=a=b web repo:tag", "commit -p=false web host:5000/x", "commit --pause web",
	} {
		args := strings.Fields(line)
		f.take()
		d := f.docker(args...)
		want := changes(f.take())
		b := f.berth(args...)
		got := changes(f.take())
		if d.code != b.code {
			t.Errorf("%s: exit codes %d and %d\n docker: %s\n berth:  %s", line, d.code, b.code, d.err, b.err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: docker (-) and berth (+) differ:\n%s", line, diff)
		}
	}
}
