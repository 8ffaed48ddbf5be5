package container

import (
	"errors"
	"slices"
	"testing"
	"time"

	"berth/fault"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
)

func TestProbesOf(t *testing.T) {
	defaults := Probes{Interval: 30 * time.Second, Timeout: 30 * time.Second, StartInterval: 5 * time.Second, Retries: 3}
	for name, c := range map[string]struct {
		config  container.Config
		command []string
	}{
		"none":            {},
		"empty":           {config: container.Config{Healthcheck: &container.HealthConfig{}}},
		"switched off":    {config: container.Config{Healthcheck: &container.HealthConfig{Test: []string{"NONE"}}}},
		"of another kind": {config: container.Config{Healthcheck: &container.HealthConfig{Test: []string{"HTTP", "/"}}}},
		"without command": {config: container.Config{Healthcheck: &container.HealthConfig{Test: []string{"CMD"}}}},
		"command":         {config: container.Config{Healthcheck: &container.HealthConfig{Test: []string{"CMD", "a", "b c"}}}, command: []string{"a", "b c"}},
		"shell":           {config: container.Config{Healthcheck: &container.HealthConfig{Test: []string{"CMD-SHELL", "a b"}}}, command: []string{"/bin/sh", "-c", "a b"}},
		"its own shell":   {config: container.Config{Shell: []string{"bash", "-lc"}, Healthcheck: &container.HealthConfig{Test: []string{"CMD-SHELL", "a"}}}, command: []string{"bash", "-lc", "a"}},
	} {
		got, ok := ProbesOf(&c.config)
		want := Probes{}
		if c.command != nil {
			want = defaults
			want.Command = c.command
		}
		if diff := cmp.Diff(want, got); diff != "" || ok != (c.command != nil) {
			t.Errorf("%s: %v\n%s", name, ok, diff)
		}
	}
	all := container.HealthConfig{Test: []string{"CMD", "x"}, Interval: 1e6, Timeout: 2e6, StartPeriod: 3e6, StartInterval: 4e6, Retries: 5}
	if got, _ := ProbesOf(&container.Config{Healthcheck: &all}); got.Interval != 1e6 || got.Timeout != 2e6 || got.StartPeriod != 3e6 || got.StartInterval != 4e6 || got.Retries != 5 {
		t.Errorf("%+v", got)
	}
	if err := CheckHealth(&all); err != nil {
		t.Error(err)
	}
	for _, bad := range []container.HealthConfig{{Interval: 1}, {Timeout: -1}, {StartPeriod: 999}, {StartInterval: 999_999}, {Retries: -1}} {
		if err := CheckHealth(&bad); !errors.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func TestJudge(t *testing.T) {
	begin := time.Unix(1000, 0)
	p := Probes{Interval: 30 * time.Second, StartInterval: time.Second, StartPeriod: 10 * time.Second, Retries: 2}
	at := func(seconds, code int) *container.HealthcheckResult {
		when := begin.Add(time.Duration(seconds) * time.Second)
		return &container.HealthcheckResult{Start: when, End: when.Add(time.Second), ExitCode: code}
	}
	type step struct {
		result *container.HealthcheckResult
		status container.HealthStatus
		streak int
		pause  time.Duration // after it
	}
	for name, steps := range map[string][]step{
		"fails while it starts, and afterwards": {
			{at(1, 1), container.Starting, 0, time.Second}, {at(9, 1), container.Starting, 0, 30 * time.Second},
			{at(10, 1), container.Starting, 1, 30 * time.Second}, {at(40, -1), container.Unhealthy, 2, 30 * time.Second},
			{at(70, 1), container.Unhealthy, 3, 30 * time.Second}, {at(100, 0), container.Healthy, 0, 30 * time.Second},
			{at(130, 1), container.Healthy, 1, 30 * time.Second}, {at(160, 7), container.Unhealthy, 2, 30 * time.Second},
		},
		"a success ends the start period": {
			{at(1, 0), container.Healthy, 0, 30 * time.Second}, {at(2, 1), container.Healthy, 1, 30 * time.Second}, {at(3, 1), container.Unhealthy, 2, 30 * time.Second},
		},
	} {
		h := HealthAtStart(nil)
		if got := p.Pause(h, begin, begin); got != time.Second {
			t.Errorf("%s: the first probe comes after %v", name, got)
		}
		for n, s := range steps {
			before := slices.Clone(h.Log)
			h = p.Judge(h, begin, s.result)
			if h.Status != s.status || h.FailingStreak != s.streak || p.Pause(h, begin, s.result.End) != s.pause {
				t.Errorf("%s, %d: %+v, pause %v", name, n, h, p.Pause(h, begin, s.result.End))
			}
			if len(h.Log) != min(len(before)+1, 5) || h.Log[len(h.Log)-1] != s.result {
				t.Errorf("%s, %d: log of %d", name, n, len(h.Log))
			}
		}
	}
}

func TestHealthOverRunsAndEngines(t *testing.T) {
	begin := time.Unix(1000, 0)
	p := Probes{Interval: 30 * time.Second, Retries: 1}
	h := p.Judge(HealthAtStart(nil), begin, &container.HealthcheckResult{Start: begin, End: begin.Add(5 * time.Second)})
	for after, want := range map[time.Duration]time.Duration{
		5 * time.Second: 30 * time.Second, 15 * time.Second: 20 * time.Second, time.Hour: 0, -time.Hour: 30 * time.Second,
	} {
		if got := p.Resume(h, begin, begin.Add(after)); got != want {
			t.Errorf("resumed after %v: %v", after, got)
		}
	}
	if got := p.Resume(HealthAtStart(h), begin.Add(time.Minute), begin.Add(time.Minute)); got != 30*time.Second {
		t.Errorf("a result of the run before counts: %v", got)
	}
	if end := HealthAtEnd(h); end.Status != container.Unhealthy || len(end.Log) != 1 || HealthAtEnd(nil) != nil {
		t.Errorf("%+v", end)
	}
	if again := HealthAtStart(h); again.Status != container.Starting || again.FailingStreak != 0 || len(again.Log) != 1 {
		t.Errorf("%+v", again)
	}
}
