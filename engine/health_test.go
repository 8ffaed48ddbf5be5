package engine

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"berth/container"
	"berth/fault"

	api "github.com/moby/moby/api/types/container"
)

// checked gives a container a health check that is asked often.
func checked(test string, change func(*CreateRequest)) func(*CreateRequest) {
	return func(r *CreateRequest) {
		r.Config.Healthcheck = &api.HealthConfig{Test: []string{"CMD-SHELL", test}, Interval: 20 * time.Millisecond, Retries: 2}
		if change != nil {
			change(r)
		}
	}
}

func (w *world) awaitHealth(id string, s api.HealthStatus) *container.Record {
	w.t.Helper()
	return w.await(id, "is not "+string(s), func(r *container.Record) bool { return r.State.Health != nil && r.State.Health.Status == s })
}

// do runs a command in a container to its end.
func (w *world) do(id string, args ...string) {
	w.t.Helper()
	exec, err := w.Containers.ExecCreate(w.t.Context(), id, api.ExecCreateRequest{Cmd: args})
	if err == nil {
		err = w.Containers.ExecStart(w.t.Context(), exec, ExecStartRequest{})
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func TestHealthFollowsTheProbes(t *testing.T) {
	w := newWorld(t)
	id := w.create(checked("echo asked; [ -e /tmp/good ]", func(r *CreateRequest) {
		r.Config.Healthcheck.StartPeriod, r.Config.Healthcheck.StartInterval = time.Hour, 10*time.Millisecond
	}), "sleep", "1000")
	if d, err := w.Containers.Inspect(t.Context(), id, false); err != nil || d.State.Health != nil {
		t.Errorf("before the start: %+v, %v", d.State.Health, err)
	}
	w.start(id)
	// Failures of the start period don't count.
	r := w.await(id, "no probes", func(r *container.Record) bool { return len(r.State.Health.Log) == 5 })
	if h := r.State.Health; h.Status != api.Starting || h.FailingStreak != 0 || h.Log[0].ExitCode != 1 || h.Log[0].Output != "asked\n" {
		t.Errorf("%+v", h)
	}
	list := func(filter string) string {
		t.Helper()
		all, err := w.Containers.List(t.Context(), ListRequest{Filters: Filters{"health": {filter}}})
		if err != nil {
			t.Fatal(err)
		}
		texts := ""
		for _, s := range all {
			texts += s.Status + " " + string(s.Health.Status)
		}
		return texts
	}
	if got := list("starting"); !strings.HasPrefix(got, "Up ") || !strings.HasSuffix(got, "(health: starting) starting") {
		t.Errorf("ps: %s", got)
	}
	w.do(id, "touch", "/tmp/good")
	w.awaitHealth(id, api.Healthy)
	if got := list("healthy"); !strings.HasSuffix(got, "(healthy) healthy") {
		t.Errorf("ps: %s", got)
	}
	w.do(id, "rm", "/tmp/good")
	if h := w.awaitHealth(id, api.Unhealthy).State.Health; h.FailingStreak < 2 {
		t.Errorf("%+v", h)
	}
	d, err := w.Containers.Inspect(t.Context(), id, false)
	if err != nil || d.State.Health == nil || len(d.State.Health.Log) != 5 || len(d.ExecIDs) > 3 {
		t.Errorf("%+v, execs %v, %v", d.State.Health, d.ExecIDs, err)
	}
	if err := w.Containers.Stop(t.Context(), id, StopOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := list("none"); got != "" {
		t.Errorf("health=none: %s", got)
	}
	all := w.actions(id)
	for _, want := range []string{"exec_create: /bin/sh -c echo asked; [ -e /tmp/good ]", "exec_start: /bin/sh -c echo asked; [ -e /tmp/good ]", "exec_die"} {
		if !slices.Contains(all, want) {
			t.Errorf("no event %q", want)
		}
	}
	healths := slices.DeleteFunc(all, func(a string) bool { return !strings.HasPrefix(a, "health_status") })
	if got := strings.Join(healths, ", "); got != "health_status: healthy, health_status: unhealthy" {
		t.Errorf("events: %s", got)
	}
}

func TestProbesAreBounded(t *testing.T) {
	w := newWorld(t)
	slow := w.create(checked("echo begun; exec sleep 77", func(r *CreateRequest) { r.Config.Healthcheck.Timeout = 500 * time.Millisecond }), "sleep", "1000")
	loud := w.create(checked("seq 5000", nil), "sleep", "1000")
	none := w.create(checked("none-such-program", func(r *CreateRequest) { r.Config.Healthcheck.Test = []string{"CMD", "none-such-program"} }), "sleep", "1000")
	for _, id := range []string{slow, loud, none} {
		w.start(id)
	}
	if h := w.awaitHealth(slow, api.Unhealthy).State.Health; h.Log[0].ExitCode != -1 || h.Log[0].Output != "Health check exceeded timeout (500ms): begun\n" {
		t.Errorf("%+v", h.Log[0])
	}
	if h := w.awaitHealth(loud, api.Healthy).State.Health; len(h.Log[0].Output) != container.ProbeOutput || !strings.HasSuffix(h.Log[0].Output, "...") {
		t.Errorf("%d bytes", len(h.Log[0].Output))
	}
	if h := w.awaitHealth(none, api.Unhealthy).State.Health; h.Log[0].ExitCode != -1 || !strings.Contains(h.Log[0].Output, "executable file not found") {
		t.Errorf("%+v", h.Log[0])
	}
	// A frozen container is not asked, and its probes don't fail.
	w.awaitHealth(loud, api.Healthy)
	if err := w.Containers.Pause(t.Context(), loud); err != nil {
		t.Fatal(err)
	}
	before := w.awaitHealth(loud, api.Healthy).State.Health
	w.await(slow, "stands still", func(r *container.Record) bool { return r.State.Health.FailingStreak >= 4 })
	if now := w.awaitHealth(loud, api.Healthy).State.Health; now != before {
		t.Errorf("asked while frozen: %+v", now)
	}
	if err := w.Containers.Unpause(t.Context(), loud); err != nil {
		t.Fatal(err)
	}
	w.await(loud, "is not asked again", func(r *container.Record) bool { return r.State.Health != before })
	// What ran out of time is gone.
	w.await(slow, "probes are left", func(*container.Record) bool {
		top, err := w.Containers.Top(t.Context(), slow, "")
		left := 0
		for _, p := range top.Processes {
			if strings.Contains(strings.Join(p, " "), "sleep 77") {
				left++
			}
		}
		return err == nil && left <= 1
	})
}

func TestHealthSurvivesTheEngine(t *testing.T) {
	w := newWorld(t)
	id := w.create(checked("[ ! -e /tmp/bad ]", nil), "sleep", "1000")
	w.start(id)
	w.awaitHealth(id, api.Healthy)
	slow := w.create(checked("exec sleep 78", nil), "sleep", "1000")
	w.start(slow)
	probing := func() bool {
		cmdlines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		return slices.ContainsFunc(cmdlines, func(path string) bool {
			text, err := os.ReadFile(path)
			return err == nil && string(text) == "sleep\x0078\x00"
		})
	}
	w.await(slow, "is not asked", func(*container.Record) bool { return probing() })
	if err := w.Engine.Close(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); probing(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a probe outlives its engine")
		}
	}
	w.open()
	if h := w.awaitStatus(id, container.Running).State.Health; h == nil || h.Status != api.Healthy {
		t.Errorf("%+v", h)
	}
	w.do(id, "touch", "/tmp/bad")
	w.awaitHealth(id, api.Unhealthy)
}

func TestHealthOnFailure(t *testing.T) {
	w := newWorld(t)
	treated := func(what string, more func(*CreateRequest)) string {
		id := w.create(checked("[ ! -e /tmp/bad ]", func(r *CreateRequest) {
			r.Settings.HealthOnFailure = what
			if more != nil {
				more(r)
			}
		}), "sh", "-c", "rm -f /tmp/bad; trap 'exit 5' TERM; while :; do sleep 0.02; done")
		w.start(id)
		w.awaitHealth(id, api.Healthy)
		w.do(id, "touch", "/tmp/bad")
		return id
	}
	nothing, killed, stopped := treated("none", nil), treated("kill", nil), treated("stop", policy("always", 0))
	restarted, byPolicy := treated("restart", nil), treated("kill", policy("on-failure", 0))
	w.awaitHealth(nothing, api.Unhealthy)
	if r := w.awaitStatus(killed, container.Exited); r.State.ExitCode != 137 || r.State.ManualStop {
		t.Errorf("killed: %+v", r.State)
	}
	if r := w.awaitStatus(stopped, container.Exited); r.State.ExitCode != 5 || !r.State.ManualStop {
		t.Errorf("stopped: %+v", r.State)
	}
	for _, id := range []string{restarted, byPolicy} {
		r := w.await(id, "is not healthy again", func(r *container.Record) bool {
			return r.State.RestartCount == 1 && r.State.Health.Status == api.Healthy
		})
		if r.State.Status != container.Running {
			t.Errorf("%+v", r.State)
		}
	}
	if s := w.status(nothing); s != api.StateRunning {
		t.Errorf("none: %s", s)
	}
	for _, bad := range []CreateRequest{
		{Config: &api.Config{Image: "busybox"}, Settings: container.Settings{HealthOnFailure: "stop"}},
		{Config: &api.Config{Image: "busybox", Healthcheck: &api.HealthConfig{Test: []string{"CMD", "x"}}}, Settings: container.Settings{HealthOnFailure: "pray"}},
		{Config: &api.Config{Image: "busybox", Healthcheck: &api.HealthConfig{Test: []string{"CMD", "x"}, Interval: 1}}},
	} {
		if _, _, err := w.Containers.Create(t.Context(), "", bad); !errors.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}
