package engine

import (
	"debug/elf"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"berth/engine/bundle"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
)

func TestWhatAContainerSees(t *testing.T) {
	w := newWorld(t)
	for name, c := range map[string]struct {
		change func(*CreateRequest)
		script string
		want   string
	}{
		"defaults":            {nil, "id; echo $HOME $PATH; hostname | wc -c; ls -a / | grep -c dockerenv", ""},
		"groups of the image": {nil, "id -G", "0 10\n"},
		"a user":              {func(r *CreateRequest) { r.Config.User = "guest"; r.HostConfig.GroupAdd = []string{"wheel"} }, "id -u; id -G; echo $HOME", "1000\n1000 10\n/tmp\n"},
		"hostname":            {func(r *CreateRequest) { r.Config.Hostname = "boat" }, "hostname; cat /etc/hostname; echo $HOSTNAME", "boat\nboat\nboat\n"},
		"working directory":   {func(r *CreateRequest) { r.Config.WorkingDir = "/made/up" }, "pwd", "/made/up\n"},
		"read-only":           {func(r *CreateRequest) { r.HostConfig.ReadonlyRootfs = true }, "touch /x 2>/dev/null || echo no; touch /dev/shm/x && echo yes", "no\nyes\n"},
		"process 1":           {nil, "echo $$; grep -c . /proc/1/cmdline", "1\n1\n"},
		"init":                {func(r *CreateRequest) { r.HostConfig.Init = new(true) }, "test $$ -gt 1 && echo behind", "behind\n"},
		"no new privileges":   {func(r *CreateRequest) { r.HostConfig.SecurityOpt = []string{"no-new-privileges"} }, "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t1\n"},
		"seccomp":             {nil, "grep -w Seccomp: /proc/self/status", "Seccomp:\t2\n"},
		"no seccomp":          {func(r *CreateRequest) { r.HostConfig.SecurityOpt = []string{"seccomp=unconfined"} }, "grep -w Seccomp: /proc/self/status", "Seccomp:\t0\n"},
		"capabilities": {func(r *CreateRequest) {
			r.HostConfig.CapDrop = []string{"ALL"}
			r.HostConfig.CapAdd = []string{"CHOWN"}
		}, "grep CapEff /proc/self/status", "CapEff:\t0000000000000001\n"},
		"shared memory's size":  {func(r *CreateRequest) { r.HostConfig.ShmSize = 1 << 20 }, "dd if=/dev/zero of=/dev/shm/x bs=1M count=2 2>/dev/null || echo full", "full\n"},
		"masked and read-only":  {nil, "echo x 2>/dev/null >/proc/sysrq-trigger || echo no; cat /proc/timer_list 2>/dev/null | grep -c .", "no\n0\n"},
		"privileged":            {func(r *CreateRequest) { r.HostConfig.Privileged = true }, "grep -w Seccomp: /proc/self/status; mount -t tmpfs x /tmp && echo mounted", "Seccomp:\t0\nmounted\n"},
		"ulimit":                {func(r *CreateRequest) { r.HostConfig.Ulimits = []*api.Ulimit{{Name: "nofile", Soft: 100, Hard: 200}} }, "ulimit -n; ulimit -Hn", "100\n200\n"},
		"sysctl":                {func(r *CreateRequest) { r.HostConfig.Sysctls = map[string]string{"net.ipv4.ip_forward": "1"} }, "cat /proc/sys/net/ipv4/ip_forward", "1\n"},
		"oom score":             {func(r *CreateRequest) { r.HostConfig.OomScoreAdj = 500 }, "cat /proc/self/oom_score_adj", "500\n"},
		"host name of the host": {func(r *CreateRequest) { r.HostConfig.UTSMode = "host"; r.HostConfig.NetworkMode = "host" }, "hostname", hostname(t) + "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "init" && !loadable(t) {
				t.Skip("the test program needs a loader, which the container lacks: CGO_ENABLED=0 makes it static")
			}
			got := w.run(c.change, "sh", "-c", c.script)
			if c.want == "" && (got.code != 0 || !strings.HasPrefix(got.out, "uid=0(root) gid=0(root) groups=0(root),10(wheel)\n/root "+bundle.DefaultPath)) || c.want != "" && got.out != c.want {
				t.Errorf("%+v", got)
			}
		})
	}
}

// loadable tells whether this test program runs in a root without a loader, as berth-oci does.
func loadable(t *testing.T) bool {
	t.Helper()
	f, err := elf.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return !slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
}

func hostname(t *testing.T) string {
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func TestMemoryLimitKills(t *testing.T) {
	w := newWorld(t)
	_, s, err := w.Events.Subscribe(EventsRequest{Filters: Filters{"event": {"oom"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	id := w.create(func(r *CreateRequest) { r.HostConfig.Memory = 16 << 20 }, "dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1")
	w.start(id)
	code := w.wait(id, "")
	d, err := w.Containers.Inspect(t.Context(), id, false)
	if err != nil || code != 137 || !d.State.OOMKilled {
		t.Errorf("code %d, %+v, %v", code, d.State, err)
	}
	if m := <-s.C; m.Actor.ID != id {
		t.Errorf("%+v", m)
	}
}

func TestTerminal(t *testing.T) {
	w := newWorld(t)
	id := w.create(func(r *CreateRequest) {
		r.Config.Tty, r.Config.OpenStdin = true, true
		r.HostConfig.ConsoleSize = [2]uint{30, 90}
	}, "sh", "-c", "stty size; read x; stty size; echo $TERM got $x")
	if tty, err := w.Containers.CheckAttach(id, ""); err != nil || !tty {
		t.Errorf("%v, %v", tty, err)
	}
	client := w.attach(id, AttachRequest{Stream: true, Stdin: true})
	w.start(id)
	w.awaitLog(id, "30 90")
	if err := w.Containers.Resize(t.Context(), id, 40, 100); err != nil {
		t.Fatal(err)
	}
	io.WriteString(client, "word\n")
	text, err := io.ReadAll(client)
	if want := "30 90\r\nword\r\n40 100\r\nxterm got word\r\n"; err != nil || string(text) != want {
		t.Errorf("%q, %v", text, err)
	}
	w.wait(id, "")
}

// TestManyAtOnce runs, stops and removes from several clients, and looks at what is left.
func TestManyAtOnce(t *testing.T) {
	w := newWorld(t)
	var clients sync.WaitGroup
	for client := range 6 {
		clients.Add(1)
		go func() {
			defer clients.Done()
			for n := range 3 {
				name := fmt.Sprintf("c-%d-%d", client, n)
				id, _, err := w.Containers.Create(t.Context(), name, CreateRequest{Config: &api.Config{Image: "busybox", Cmd: []string{"sleep", "1000"}}})
				if err != nil {
					t.Error(err)
					return
				}
				if err := w.Containers.Start(t.Context(), name); err != nil {
					t.Error(err)
				}
				if _, err := w.Containers.List(t.Context(), ListRequest{}); err != nil {
					t.Error(err)
				}
				if err := w.Containers.Remove(t.Context(), id, RemoveOptions{Force: true}); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	clients.Wait()
	w.Containers.jobs.drain()
	for what, dir := range map[string]string{"record": w.config.DataRoot + "/containers", "run state": w.config.ExecRoot + "/containers"} {
		entries, err := os.ReadDir(dir)
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), ".") {
				t.Errorf("%s is left: %s", what, e.Name())
			}
		}
		if err != nil {
			t.Error(err)
		}
	}
	if roots, err := w.Containers.layers.Roots(); err != nil || len(roots) != 0 {
		t.Errorf("roots left: %v, %v", roots, err)
	}
}

func TestEventsOfALife(t *testing.T) {
	w := newWorld(t)
	_, s, err := w.Events.Subscribe(EventsRequest{Filters: Filters{"type": {"container"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	w.run(func(r *CreateRequest) { r.Config.Labels = map[string]string{"l": "v"} }, "sh", "-c", "exit 3")
	for _, want := range []events.Action{events.ActionCreate, events.ActionAttach, events.ActionStart, events.ActionDie, events.ActionDestroy} {
		m := <-s.C
		if m.Action != want || m.Actor.Attributes["image"] != "busybox" || m.Actor.Attributes["l"] != "v" {
			t.Errorf("%+v; want %s", m, want)
		}
		if want == events.ActionDie && m.Actor.Attributes["exitCode"] != "3" {
			t.Errorf("%+v", m)
		}
	}
}
