package cli

import (
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
)

// TestConfigurationIsDockers gives both programs one config.json and compares what they ask for and print.
func TestConfigurationIsDockers(t *testing.T) {
	needDocker(t)
	f := newFake(t)
	f.version = "1.50"
	write(t, filepath.Join(f.config, "config.json"), `{"HttpHeaders": {"X-Team": "blue"}, "psFormat": "table {{.Names}}\t{{.Image}}", "imagesFormat": "{{.ID}}", "detachKeys": "ctrl-x,q",
		"proxies": {"default": {"httpProxy": "http://p:1", "noProxy": "localhost"}, "tcp://elsewhere:2375": {"httpProxy": "http://no"}}}`)
	var header http.Header
	f.on("GET /containers/json", func(w http.ResponseWriter, r *http.Request) {
		header = r.Header
		w.Write([]byte(`[{"Id":"` + fakeID + `","Names":["/web"],"Image":"busybox"}]`))
	})
	f.on("GET /images/json", func(w http.ResponseWriter, r *http.Request) {
		header = r.Header
		w.Write([]byte(`[{"Id":"sha256:` + fakeID + `","RepoTags":["debian:12"]}]`))
	})
	for _, args := range [][]string{{"ps"}, {"ps", "-q"}, {"ps", "--format", "{{.ID}}"}, {"images"}} {
		d, team := f.docker(args...), ""
		team = header.Get("X-Team")
		b := f.berth(args...)
		if d != b || team != "blue" || header.Get("X-Team") != "blue" {
			t.Errorf("%q: headers %q and %q\n docker: %+v\n berth:  %+v", args, team, header.Get("X-Team"), d, b)
		}
	}
	f.take()
	for _, args := range [][]string{{"create", "busybox"}, {"create", "-e", "HTTP_PROXY=mine", "-e", "no_proxy", "busybox"}} {
		f.docker(args...)
		_, d := createBody(t, f.take())
		f.berth(args...)
		_, b := createBody(t, f.take())
		if diff := cmp.Diff(d, b, unordered); diff != "" {
			t.Errorf("%q: docker (-) and berth (+) differ:\n%s", args, diff)
		}
	}
	write(t, filepath.Join(f.config, "config.json"), `{"statsFormat": "{{.Name}}!", "pruneFilters": ["label!=keep"]}`)
	f.on("GET /containers/web/stats", container.StatsResponse{Name: "/web"})
	if got := f.berth("stats", "--no-stream", "web"); got.out != "web!\n" {
		t.Errorf("stats: %+v", got)
	}
	f.on("POST /containers/prune", container.PruneReport{})
	if got := f.berth("container", "prune", "-f"); got.code != 0 {
		t.Errorf("prune: %+v", got)
	}
	if all := f.take(); !strings.Contains(all[len(all)-1].query.Get("filters"), "label!") {
		t.Errorf("the configured filters are not asked for: %v", all)
	}
	write(t, filepath.Join(f.config, "config.json"), `{"detachKeys": "ctrl-x,q"}`)
	f.on("GET /containers/web/json", container.InspectResponse{ID: fakeID, State: &container.State{Running: true}, Config: &container.Config{}})
	f.on("POST /containers/"+fakeID+"/wait", map[string]int{"StatusCode": 0})
	f.on("POST /containers/"+fakeID+"/attach", refusal{404, "enough"})
	f.berth("attach", "web")
	if all := f.take(); !slices.ContainsFunc(all, func(a asked) bool { return a.query.Get("detachKeys") == "ctrl-x,q" }) {
		t.Errorf("the configured keys are not asked for: %v", all)
	}
}

func TestBrokenConfigurationIsToldAndPassedOver(t *testing.T) {
	f := newFake(t)
	f.on("GET /containers/json", []any{})
	write(t, filepath.Join(f.config, "config.json"), "{")
	if got := f.berth("ps"); got.code != 0 || !strings.Contains(got.err, "config.json is not used: ") {
		t.Errorf("got %+v", got)
	}
	got := runMain(map[string]string{"DOCKER_HOST": f.host, "DOCKER_CUSTOM_HEADERS": "=x"}, nil, "ps")
	if got.code != 1 || !strings.Contains(got.err, "DOCKER_CUSTOM_HEADERS") {
		t.Errorf("got %+v", got)
	}
}

func TestForcedRemovalOfNothing(t *testing.T) {
	f := newFake(t)
	f.on("DELETE /containers/web", reply(204))
	if got := f.berth("rm", "-f", "nosuch", "web"); got.code != 0 || got.out != "web\n" || !strings.Contains(got.err, "no answer to") {
		t.Errorf("got %+v", got)
	}
	if got := f.berth("rm", "nosuch"); got.code != 1 {
		t.Errorf("got %+v", got)
	}
}
