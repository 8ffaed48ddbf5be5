package container

import (
	"slices"
	"time"

	"berth/fault"

	"github.com/moby/moby/api/types/container"
)

// What a health check has where its user, and the image, say nothing.
const (
	defaultProbeInterval = 30 * time.Second
	defaultProbeTimeout  = 30 * time.Second
	defaultStartInterval = 5 * time.Second
	defaultProbeRetries  = 3
)

// ProbeOutput is how many bytes of a probe's output are kept, and keptProbes how many results.
const (
	ProbeOutput = 4096
	keptProbes  = 5
)

// Probes are a container's health check, with all defaults filled in.
type Probes struct {
	Command                                       []string
	Interval, Timeout, StartPeriod, StartInterval time.Duration
	Retries                                       int
}

// ProbesOf reads the health check of a configuration; false when it has none, or one of a kind that nobody knows.
func ProbesOf(c *container.Config) (p Probes, ok bool) {
	h := c.Healthcheck
	if h == nil || len(h.Test) < 2 {
		return p, false
	}
	switch h.Test[0] {
	case "CMD":
		p.Command = h.Test[1:]
	case "CMD-SHELL":
		shell := []string{"/bin/sh", "-c"}
		if len(c.Shell) > 0 {
			shell = c.Shell
		}
		p.Command = slices.Concat(shell, h.Test[1:])
	default:
		return p, false
	}
	or := func(v, missing time.Duration) time.Duration {
		if v <= 0 {
			return missing
		}
		return v
	}
	p.Interval, p.Timeout = or(h.Interval, defaultProbeInterval), or(h.Timeout, defaultProbeTimeout)
	p.StartPeriod, p.StartInterval = max(0, h.StartPeriod), or(h.StartInterval, defaultStartInterval)
	if p.Retries = h.Retries; p.Retries <= 0 {
		p.Retries = defaultProbeRetries
	}
	return p, true
}

// CheckHealth refuses a health check that no engine runs. fault.Invalid.
func CheckHealth(h *container.HealthConfig) error {
	if h == nil {
		return nil
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"Interval", h.Interval}, {"Timeout", h.Timeout}, {"StartPeriod", h.StartPeriod}, {"StartInterval", h.StartInterval}} {
		if d.value != 0 && d.value < time.Millisecond {
			return fault.New(fault.Invalid, "%s in Healthcheck cannot be less than %v", d.name, time.Millisecond)
		}
	}
	if h.Retries < 0 {
		return fault.New(fault.Invalid, "Retries in Healthcheck cannot be negative")
	}
	return nil
}

// HealthAtStart is what a container's health begins with; it keeps the results of the run before.
func HealthAtStart(before *container.Health) *container.Health {
	h := &container.Health{Status: container.Starting}
	if before != nil {
		h.Log = before.Log
	}
	return h
}

// HealthAtEnd is the health of a container that has ended: unhealthy, as in every engine before. nil stays nil.
func HealthAtEnd(h *container.Health) *container.Health {
	if h == nil {
		return nil
	}
	return &container.Health{Status: container.Unhealthy, FailingStreak: h.FailingStreak, Log: h.Log}
}

// Judge adds a probe's result to what is known. Before the first success, failures within the start period don't count.
func (p Probes) Judge(h *container.Health, startedAt time.Time, result *container.HealthcheckResult) *container.Health {
	next := &container.Health{Status: h.Status, FailingStreak: h.FailingStreak}
	next.Log = append(slices.Clone(h.Log[max(0, len(h.Log)+1-keptProbes):]), result)
	switch {
	case result.ExitCode == 0:
		next.Status, next.FailingStreak = container.Healthy, 0
	case h.Status == container.Starting && result.Start.Sub(startedAt) < p.StartPeriod:
	default:
		next.FailingStreak++
		if next.FailingStreak >= p.Retries {
			next.Status = container.Unhealthy
		}
	}
	return next
}

// Pause is how long after the beginning of a run, or the last probe, the next probe comes: sooner while the container starts.
func (p Probes) Pause(h *container.Health, startedAt, now time.Time) time.Duration {
	if h.Status == container.Starting && now.Sub(startedAt) < p.StartPeriod {
		return p.StartInterval
	}
	return p.Interval
}

// Resume is Pause for an engine that finds the container running: what passed of the pause is not waited for again.
func (p Probes) Resume(h *container.Health, startedAt, now time.Time) time.Duration {
	last := startedAt
	if n := len(h.Log); n > 0 && h.Log[n-1].End.After(startedAt) {
		last = h.Log[n-1].End
	}
	pause := p.Pause(h, startedAt, now)
	return max(0, min(pause, last.Add(pause).Sub(now)))
}

// Health is what the checks last found; "none" without a check.
func (r *Record) Health() container.HealthStatus {
	if r.State.Health == nil {
		return container.NoHealthcheck
	}
	return r.State.Health.Status
}
