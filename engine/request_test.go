package engine

import (
	"errors"
	"testing"
	"time"

	"berth/container"
	"berth/engine/stream"
	"berth/fault"
)

func TestSignalMasks(t *testing.T) {
	status := "Name:\tx\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001000\nSigCgt:\t0000000000004002\n"
	for n, want := range map[int]bool{2: true, 15: true, 1: false, 9: false} {
		if got := maskHas(status, "SigCgt:", n); got != want {
			t.Errorf("signal %d: %v", n, got)
		}
	}
	if !maskHas("", "SigCgt:", 1) || !maskHas("\nSigCgt:\tx\n", "SigCgt:", 1) {
		t.Error("what can't be read must count as handled")
	}
}

func TestDetachKeys(t *testing.T) {
	for s, want := range map[string]string{"": "\x10\x11", "ctrl-a": "\x01", "a,ctrl-b,z": "a\x02z", "ctrl-@,ctrl-[": "\x00\x1b", "ctrl-\\": "\x1c"} {
		if got, err := stream.ParseKeys(s); err != nil || string(got) != want {
			t.Errorf("%q: %q, %v", s, got, err)
		}
	}
	for _, s := range []string{",", "ctrl-", "ctrl-aa", "ab", "ctrl-1", "ctrl-A,a"} {
		if _, err := stream.ParseKeys(s); !errors.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestStatusText(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	ago := now.Add(-5 * time.Minute)
	for want, s := range map[string]container.State{
		"Created":                      {Status: container.Created},
		"Up 5 minutes":                 {Status: container.Running, StartedAt: ago},
		"Up 5 minutes (Paused)":        {Status: container.Paused, StartedAt: ago},
		"Exited (3) 5 minutes ago":     {Status: container.Exited, FinishedAt: ago, ExitCode: 3},
		"Restarting (1) 5 minutes ago": {Status: container.Restarting, FinishedAt: ago, ExitCode: 1},
		"Removal In Progress":          {Status: container.Removing},
		"Dead":                         {Status: container.Dead},
	} {
		if got := statusText(s, now); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
