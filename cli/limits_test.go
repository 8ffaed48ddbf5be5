package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"

	"berth/cli/session"
)

// usage is what a container of the fake has used by its nth sample; v2 is as cgroup v2 counts.
func usage(name string, n uint64, v2 bool) container.StatsResponse {
	s := container.StatsResponse{ID: fakeID, Name: "/" + name, OSType: "linux", Read: time.Unix(1700000000+int64(n), 0)}
	s.CPUStats = container.CPUStats{SystemUsage: n * 2e9, OnlineCPUs: 2, CPUUsage: container.CPUUsage{TotalUsage: n * 1_234_567_890}}
	s.MemoryStats = container.MemoryStats{Usage: 300 << 20, Limit: 1 << 30, Stats: map[string]uint64{"total_inactive_file": 100 << 20, "inactive_file": 5}}
	if v2 {
		s.MemoryStats.Stats = map[string]uint64{"inactive_file": 50 << 20}
		s.CPUStats.OnlineCPUs, s.CPUStats.CPUUsage.PercpuUsage = 0, []uint64{1, 2, 3}
	}
	s.Networks = map[string]container.NetworkStats{"eth0": {RxBytes: 1_234_567, TxBytes: 89}, "eth1": {RxBytes: 1}}
	s.BlkioStats.IoServiceBytesRecursive = []container.BlkioStatEntry{{Op: "read", Value: 4096}, {Op: "Write", Value: 8192}, {Op: "Total", Value: 5}, {Op: ""}}
	s.PidsStats.Current = 12
	return s
}

// uses makes the fake answer for the stats of a container, to a client that compares samples itself and to one that does not.
func (f *fake) uses(name string, v2 bool) {
	var mu sync.Mutex
	n := uint64(0)
	f.on("GET /containers/"+name+"/stats", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		n++
		s := usage(name, n, v2)
		if r.URL.Query().Get("one-shot") != "1" {
			s = usage(name, 2, v2)
			s.PreCPUStats = usage(name, 1, v2).CPUStats
		}
		if name == "rests" {
			s = container.StatsResponse{ID: fakeID, Name: "/rests", OSType: "linux"}
		}
		json.NewEncoder(w).Encode(s)
	})
}

// TestStatsTablesAreDockers compares what both programs make of the same counters, byte by byte.
func TestStatsTablesAreDockers(t *testing.T) {
	needDocker(t)
	f := newFake(t)
	f.version = "1.50"
	f.on("GET /version", map[string]any{"Os": "linux"})
	for _, name := range []string{"web", "db", "rests"} {
		f.uses(name, name == "db")
	}
	for _, args := range [][]string{
		{"web"}, {"db"}, {"rests"}, {"--no-trunc", "web"}, {"--format", "json", "db"}, {"--format", "{{.CPUPerc}} {{.MemPerc}} {{.PIDs}}", "web"},
		{"--format", "table {{.Container}}\t{{.ID}}\t{{.Name}}\t{{.NetIO}}\t{{.BlockIO}}", "db"},
	} {
		args = append([]string{"stats", "--no-stream"}, args...)
		d, b := f.docker(args...), f.berth(args...)
		if d != b {
			t.Errorf("%q:\n docker: %+v\n berth:  %+v", args, d, b)
		}
	}
	got := f.berth("stats", "--no-stream", "web", "nosuch", "gone")
	if got.code != 1 || got.out != "" || strings.Count(got.err, "\n") != 2 {
		t.Errorf("%+v", got)
	}
	write(t, f.config+"/config.json", `{"statsFormat": "{{.Name}} only"}`)
	if got := f.berth("stats", "--no-stream", "web"); got.out != "web only\n" {
		t.Errorf("with the user's own format: %+v", got)
	}
}

// TestStatsOnATerminal: the table is written over itself, and the end of all that was named is the end.
func TestStatsOnATerminal(t *testing.T) {
	f := newFake(t)
	var mu sync.Mutex
	n := 0
	f.on("GET /containers/web/stats", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if n++; n > 3 {
			w.WriteHeader(404)
			fmt.Fprint(w, `{"message":"No such container: web"}`)
			return
		}
		json.NewEncoder(w).Encode(usage("web", uint64(n), false))
	})
	terminal, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	text := make(chan string)
	go func() {
		all, _ := io.ReadAll(terminal) // EIO when the other side is closed
		text <- string(all)
	}()
	env := map[string]string{"DOCKER_HOST": f.host, "DOCKER_CONFIG": f.config}
	code := Main(&session.Program{Args: []string{"stats", "web"}, Out: tty, Err: io.Discard, Getenv: func(k string) (string, bool) { v, ok := env[k]; return v, ok }})
	tty.Close()
	got := <-text
	if code != 0 || strings.Count(got, "\033[H") != 3 || strings.Count(got, "CONTAINER ID") != 3 || strings.Count(got, "123.46%") != 2 || strings.Count(got, "-- / --") != 1 || !strings.HasSuffix(got, "\033[J") {
		t.Errorf("%d, %q", code, got)
	}
}

// TestUpdateRequestsAreDockers sends the same options through both programs and compares the requests.
func TestUpdateRequestsAreDockers(t *testing.T) {
	needDocker(t)
	f := newFake(t)
	f.version = "1.50"
	f.on("POST /containers/web/update", map[string]any{"Warnings": []string{"one", "two"}})
	f.on("POST /containers/db/update", refusal{409, "Cannot update container"})
	for _, line := range []string{
		"-m 64m", "--memory 1g --memory-swap -1 --memory-reservation 100mb", "--cpus 1.5", "-c 5 --cpu-period 1000 --cpu-quota 2000", "--cpu-rt-period 5 --cpu-rt-runtime 4",
		"--cpuset-cpus 0-1 --cpuset-mems 0", "--pids-limit 5", "--pids-limit -1", "--blkio-weight 300", "--restart always", "--restart on-failure:5", "--restart no", "--restart unless-stopped",
	} {
		for _, who := range []string{"web", "web db"} {
			args := strings.Fields("update " + line + " " + who)
			d := f.docker(args...)
			docker := f.take()
			b := f.berth(args...)
			berth := f.take()
			if d.code != b.code || d.out != b.out || len(docker) != len(berth) {
				t.Errorf("%q:\n docker: %+v\n berth:  %+v", args, d, b)
				continue
			}
			for k := range docker {
				var one, other any
				if err := json.Unmarshal([]byte(docker[k].body), &one); err != nil {
					t.Fatal(err)
				}
				if err := json.Unmarshal([]byte(berth[k].body), &other); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(plain(one), plain(other)); diff != "" || docker[k].path != berth[k].path {
					t.Errorf("%q: docker (-) and berth (+) differ:\n%s", args, diff)
				}
			}
		}
	}
	for _, line := range []string{"update", "update web", "update --restart x:y web", "update -m x web", "update --cpus x web", "update --pids-limit x web"} {
		args := strings.Fields(line)
		if d, b := f.docker(args...), f.berth(args...); d.code != b.code {
			t.Errorf("%s: exit code %d, docker's is %d\n%s\n%s", line, b.code, d.code, d.err, b.err)
		}
	}
}

func TestUpdateOfMore(t *testing.T) {
	f := newFake(t)
	f.on("POST /containers/web/update", map[string]any{"Warnings": nil, "Berth": map[string]string{"Way": "changed live"}})
	f.on("POST /containers/db/update", map[string]any{"Berth": map[string]string{"Way": "recreated"}})
	got := f.berth("update", "--env-add", "A=1", "--env-rm", "B", "--label-add", "c=d", "--label-rm", "e", "--publish-add", "8080:80", "--publish-rm", "90",
		"--mount-add", "type=tmpfs,dst=/t", "--mount-rm", "/m", "--health-cmd", "x", "--health-retries", "2", "web", "db")
	if want := (ran{0, "web\ndb\n", "web: changed live\ndb: recreated: it was ended and started again, with its writable layer and volumes\n"}); got != want {
		t.Errorf("%+v", got)
	}
	var body struct{ Berth any }
	if err := json.Unmarshal([]byte(f.take()[0].body), &body); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"EnvAdd": []any{"A=1"}, "EnvRemove": []any{"B"}, "LabelAdd": map[string]any{"c": "d"}, "LabelRemove": []any{"e"}, "PublishRemove": []any{"90"}, "MountRemove": []any{"/m"},
		"PublishAdd": map[string]any{"80/tcp": []any{map[string]any{"HostIp": "", "HostPort": "8080"}}},
		"MountAdd":   []any{map[string]any{"Type": "tmpfs", "Target": "/t"}}, "Health": map[string]any{"Test": []any{"CMD-SHELL", "x"}, "Retries": 2.0},
	}
	if diff := cmp.Diff(plain(want), plain(body.Berth)); diff != "" {
		t.Error(diff)
	}
	f.on("POST /containers/other/update", map[string]any{"Warnings": nil})
	if got := f.berth("update", "--label-add", "a=b", "other"); got.code != 1 || got.out != "" || !strings.Contains(got.err, "this engine changes only limits and restart policy") {
		t.Errorf("an engine that does not know it: %+v", got)
	}
	for line, want := range map[string]string{
		"update --no-healthcheck --health-cmd x web": "--no-healthcheck conflicts", "update --health-interval -1s web": "cannot be negative",
		"update --publish-add x web": "x", "update --mount-add type=tmpfs web": "target is required", "update --label-add =x web": "invalid label",
	} {
		if got := f.berth(strings.Fields(line)...); got.code == 0 || !strings.Contains(got.err, want) {
			t.Errorf("%s: %+v", line, got)
		}
	}
}
