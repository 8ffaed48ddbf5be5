package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"berth/container"
	"berth/fault"
	"berth/oci/shim"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
)

// prober runs the health checks of containers.
type prober struct{ *Containers }

// monitor asks a running container how it is, again and again. It ends with the run or with the engine, whose successor
// goes on, or when changed is closed.
func (c prober) monitor(i *instance, live *run, p container.Probes, changed <-chan struct{}) {
	r := i.record()
	timer := time.NewTimer(p.Resume(r.State.Health, r.State.StartedAt, time.Now()))
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-live.ended:
			return
		case <-changed:
			return
		case <-c.life.Done():
			return
		}
		// A frozen one can't answer.
		if i.record().State.Status == container.Running {
			result := c.probe(i, live, p)
			if c.life.Err() != nil {
				return
			}
			if became, ok := c.examine(i, live, p, result, changed); !ok {
				return
			} else if became == api.Unhealthy {
				c.treat(i, live)
			}
		}
		r := i.record()
		if r.State.Health == nil {
			return // it has ended and began anew with other settings
		}
		timer.Reset(p.Pause(r.State.Health, r.State.StartedAt, time.Now()))
	}
}

// probe runs the check once, in the container.
func (c prober) probe(i *instance, live *run, p container.Probes) *api.HealthcheckResult {
	result := &api.HealthcheckResult{Start: time.Now().UTC()}
	ctx, cancel := context.WithTimeout(c.life, p.Timeout)
	defer cancel()
	output, code, err := c.ask(ctx, i, live, p)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		result.ExitCode, result.Output = -1, fmt.Sprintf("Health check exceeded timeout (%v)", p.Timeout)
		if output != "" {
			result.Output += ": " + output
		}
	case err != nil:
		result.ExitCode, result.Output = -1, err.Error()
	default:
		result.ExitCode, result.Output = code, output
	}
	result.End = time.Now().UTC()
	return result
}

// ask runs the check's program until it ends, or kills it when ctx is done.
func (c prober) ask(ctx context.Context, i *instance, live *run, p container.Probes) (output string, code int, err error) {
	theirs, mine, err := shim.Pipe()
	if err != nil {
		return "", 0, err
	}
	defer fault.Close(mine, &err)
	e := c.prepare(i, live, api.ExecCreateRequest{Cmd: p.Command, AttachStdout: true, AttachStderr: true})
	defer c.forgetExec(e)
	if err := c.ExecStart(ctx, e.id, ExecStartRequest{Attach: &AttachRequest{Conn: theirs, Stdout: true, Stderr: true, Stream: true, HangUp: true}}); err != nil {
		return "", 0, err
	}
	stop := context.AfterFunc(ctx, func() { mine.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	output = readProbe(mine)
	select {
	case <-e.done:
		e.mu.Lock()
		defer e.mu.Unlock()
		return output, *e.code, nil
	case <-ctx.Done():
	}
	if c.life.Err() == nil {
		kill, cancel := context.WithTimeout(c.life, killPatience)
		defer cancel()
		if err := live.shim.ExecSignal(kill, e.id, sigKill); err != nil && fault.Of(err) != fault.Conflict {
			c.logged("end a health check", err)
		}
	}
	return output, 0, ctx.Err()
}

// readProbe reads to the end, or a deadline, and keeps the beginning.
func readProbe(f *os.File) string {
	kept := make([]byte, container.ProbeOutput)
	n, err := io.ReadFull(f, kept)
	text := string(kept[:n])
	if err == nil {
		if more, _ := io.Copy(io.Discard, f); more > 0 { // the error is the end that the deadline makes
			const cut = "..."
			text = text[:len(text)-len(cut)] + cut
		}
	}
	return text
}

// examine records a probe's result. became is the new status when it changed; ok is false when the run is over.
func (c prober) examine(i *instance, live *run, p container.Probes, result *api.HealthcheckResult, changed <-chan struct{}) (became api.HealthStatus, ok bool) {
	i.op.Lock()
	defer i.op.Unlock()
	if now, err := i.current(); err != nil || now != live {
		return "", false
	}
	select {
	case <-changed:
		return "", false
	default:
	}
	r := i.record().Clone()
	if r.State.Status != container.Running {
		return "", true // it was frozen meanwhile, so the result means nothing
	}
	before := r.State.Health
	r.State.Health = p.Judge(before, r.State.StartedAt, result)
	if err := c.saveState(i, r); err != nil {
		c.logged("record a health check", err)
		i.snap.Store(r)
	}
	if r.State.Health.Status == before.Status {
		return "", true
	}
	c.announce(r, events.Action(fmt.Sprintf("%s: %s", events.ActionHealthStatus, r.State.Health.Status)))
	return r.State.Health.Status, true
}

// treat does what the user wants done with a container that became unhealthy. What is killed is for its restart policy to
// judge; what is stopped rests.
func (c prober) treat(i *instance, live *run) {
	var err error
	switch i.record().Settings.HealthOnFailure {
	case "kill":
		err = c.signal(c.life, i, live, sigKill)
	case "stop":
		err = c.Stop(c.life, i.id, StopOptions{})
	case "restart":
		err = c.restart(c.life, i, StopOptions{}, byHealth)
	}
	if err != nil && fault.Of(err) != fault.NotModified && fault.Of(err) != fault.Conflict {
		c.logged("treat an unhealthy container", err)
	}
}

// healthText is what ps shows behind "Up".
func healthText(h *api.Health) string {
	switch {
	case h == nil:
		return ""
	case h.Status == api.Starting:
		return " (health: starting)"
	}
	return " (" + string(h.Status) + ")"
}
