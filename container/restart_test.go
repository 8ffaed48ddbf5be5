package container

import (
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
)

func TestAfterExit(t *testing.T) {
	always, unless := container.RestartPolicy{Name: "always"}, container.RestartPolicy{Name: "unless-stopped"}
	failure, thrice := container.RestartPolicy{Name: "on-failure"}, container.RestartPolicy{Name: "on-failure", MaximumRetryCount: 3}
	for name, c := range map[string]struct {
		p     container.RestartPolicy
		s     State
		code  int
		ran   time.Duration
		again bool
		delay time.Duration
	}{
		"no policy":                    {p: container.RestartPolicy{}, code: 1},
		"no":                           {p: container.RestartPolicy{Name: "no"}, code: 1},
		"always":                       {p: always, again: true, delay: FirstDelay},
		"always, failed":               {p: always, code: 1, again: true, delay: FirstDelay},
		"always, stopped":              {p: always, s: State{ManualStop: true}},
		"always, second":               {p: always, s: State{RestartDelay: FirstDelay}, again: true, delay: 2 * FirstDelay},
		"always, many":                 {p: always, s: State{RestartDelay: 40 * time.Second, RestartCount: 1000}, again: true, delay: LongestDelay},
		"always, longest":              {p: always, s: State{RestartDelay: LongestDelay}, again: true, delay: LongestDelay},
		"always, nearly steady":        {p: always, s: State{RestartDelay: 8 * time.Second}, ran: SteadyAfter - 1, again: true, delay: 16 * time.Second},
		"always, was steady":           {p: always, s: State{RestartDelay: LongestDelay}, ran: SteadyAfter, again: true, delay: FirstDelay},
		"unless-stopped":               {p: unless, again: true, delay: FirstDelay},
		"unless-stopped, stopped":      {p: unless, s: State{ManualStop: true}, code: 137},
		"on-failure, well":             {p: failure},
		"on-failure":                   {p: failure, s: State{RestartCount: 99}, code: 1, again: true, delay: FirstDelay},
		"on-failure, stopped":          {p: failure, s: State{ManualStop: true}, code: 143},
		"on-failure, third":            {p: thrice, s: State{RestartCount: 2, RestartDelay: 2 * FirstDelay}, code: 1, again: true, delay: 4 * FirstDelay},
		"on-failure, fourth":           {p: thrice, s: State{RestartCount: 3}, code: 1},
		"on-failure, clock ran behind": {p: failure, ran: -time.Hour, code: 2, again: true, delay: FirstDelay},
	} {
		if again, delay := AfterExit(c.p, c.s, c.code, c.ran); again != c.again || delay != c.delay {
			t.Errorf("%s: %v after %v", name, again, delay)
		}
	}
}

func TestAtStart(t *testing.T) {
	began := time.Unix(1, 0)
	for name, c := range map[string]struct {
		policy container.RestartPolicyMode
		most   int
		s      State
		want   bool
	}{
		"no":                      {"no", 0, State{StartedAt: began, ExitCode: 1}, false},
		"never started":           {"always", 0, State{}, false},
		"always":                  {"always", 0, State{StartedAt: began}, true},
		"always, stopped":         {"always", 0, State{StartedAt: began, ManualStop: true}, true},
		"unless-stopped":          {"unless-stopped", 0, State{StartedAt: began}, true},
		"unless-stopped, stopped": {"unless-stopped", 0, State{StartedAt: began, ManualStop: true}, false},
		"on-failure, well":        {"on-failure", 0, State{StartedAt: began}, false},
		"on-failure, rebooted":    {"on-failure", 0, State{StartedAt: began, ExitCode: 255}, true},
		"on-failure, stopped":     {"on-failure", 0, State{StartedAt: began, ExitCode: 143, ManualStop: true}, false},
		"on-failure, all tried":   {"on-failure", 2, State{StartedAt: began, ExitCode: 1, RestartCount: 2}, false},
	} {
		if got := AtStart(container.RestartPolicy{Name: c.policy, MaximumRetryCount: c.most}, c.s); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestWaitForRestart(t *testing.T) {
	now := time.Unix(1000, 0)
	s := State{Status: Running, Pid: 7}
	if err := s.Again(now, time.Second); err != nil || s.Status != Restarting || s.Pid != 0 {
		t.Fatalf("%+v, %v", s, err)
	}
	for at, want := range map[time.Duration]time.Duration{
		0: time.Second, 400 * time.Millisecond: 600 * time.Millisecond, 2 * time.Second: 0,
		-time.Hour: time.Second, // the clock was set back
	} {
		if got := s.Wait(now.Add(at)); got != want {
			t.Errorf("at %v: %v", at, got)
		}
	}
	if err := (&State{Status: Removing}).Again(now, 0); err == nil {
		t.Error("a container that goes is restarted")
	}
}
