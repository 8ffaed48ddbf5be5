package recovery

import (
	"errors"
	"testing"
	"time"

	"berth/container"
	"berth/oci"

	api "github.com/moby/moby/api/types/container"
)

func TestPlan(t *testing.T) {
	const immediately = -1
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	record := func(s container.Status, auto bool) *container.Record {
		return &container.Record{HostConfig: &api.HostConfig{AutoRemove: auto}, State: container.State{Status: s, Pid: 7, RemoveVolumes: s == container.Removing}}
	}
	restarts := func(s container.Status, policy api.RestartPolicyMode, manual bool) *container.Record {
		r := record(s, false)
		r.HostConfig.RestartPolicy.Name = policy
		r.State.StartedAt, r.State.ManualStop, r.State.RestartDelay = now.Add(-2*time.Hour), manual, time.Minute
		return r
	}
	exit := &oci.Exit{Code: 3, OOMKilled: true, At: now.Add(-time.Hour)}
	for name, c := range map[string]struct {
		o        Found
		want     Action
		code     int
		stopShim bool
		volumes  bool
		again    time.Duration // after which its policy starts it, or 0
	}{
		"always, ended meanwhile":           {o: Found{Record: restarts(container.Running, "always", false), Root: true, Shim: DeadShim, Exit: exit}, want: Finish, code: 3, again: container.FirstDelay},
		"always, stopped meanwhile":         {o: Found{Record: restarts(container.Running, "always", true), Root: true, Shim: DeadShim, Exit: exit}, want: Finish, code: 3, again: immediately},
		"unless-stopped, stopped meanwhile": {o: Found{Record: restarts(container.Running, "unless-stopped", true), Root: true, Shim: DeadShim, Exit: exit}, want: Finish, code: 3},
		"unless-stopped, supervisor killed": {o: Found{Record: restarts(container.Running, "unless-stopped", false), Root: true, Shim: DeadShim}, want: Finish, code: 137, again: container.FirstDelay},
		"on-failure, rebooted":              {o: Found{Record: restarts(container.Running, "on-failure", false), Root: true}, want: Finish, code: 255, again: immediately},
		"on-failure, stopped and rebooted":  {o: Found{Record: restarts(container.Running, "on-failure", true), Root: true}, want: Finish, code: 255},
		"always, rested":                    {o: Found{Record: restarts(container.Exited, "always", true), Root: true}, want: Finish, again: immediately},
		"unless-stopped, rested":            {o: Found{Record: restarts(container.Exited, "unless-stopped", false), Root: true}, want: Finish, again: immediately},
		"unless-stopped, stopped":           {o: Found{Record: restarts(container.Exited, "unless-stopped", true), Root: true}, want: Keep},
		"waiting for its restart":           {o: Found{Record: restarts(container.Restarting, "always", false), Root: true}, want: Keep},
		"its restart was not announced":     {o: Found{Record: restarts(container.Restarting, "always", false), Root: true, Shim: AliveShim}, want: Keep, stopShim: true},
		"rested, with a supervisor left":    {o: Found{Record: restarts(container.Exited, "always", false), Root: true, Shim: AliveShim}, want: Finish, stopShim: true, again: immediately},

		"unreadable":                       {o: Found{Broken: errors.New("x"), Root: true, Shim: AliveShim}, want: Leave},
		"a root alone":                     {o: Found{Root: true}, want: Sweep},
		"a supervisor alone":               {o: Found{Shim: AliveShim}, want: Sweep, stopShim: true},
		"a record without root":            {o: Found{Record: record(container.Created, false)}, want: Sweep},
		"created":                          {o: Found{Record: record(container.Created, false), Root: true}, want: Keep},
		"created, gone with its engine":    {o: Found{Record: record(container.Created, true), Root: true}, want: Remove, volumes: true},
		"started, not announced":           {o: Found{Record: record(container.Created, false), Root: true, Shim: AliveShim}, want: Keep, stopShim: true},
		"running":                          {o: Found{Record: record(container.Running, false), Root: true, Shim: AliveShim}, want: Adopt},
		"running, removes itself":          {o: Found{Record: record(container.Running, true), Root: true, Shim: AliveShim}, want: Adopt},
		"paused":                           {o: Found{Record: record(container.Paused, false), Root: true, Shim: AliveShim}, want: Adopt},
		"ended meanwhile":                  {o: Found{Record: record(container.Running, false), Root: true, Shim: DeadShim, Exit: exit}, want: Finish, code: 3},
		"supervisor killed":                {o: Found{Record: record(container.Running, false), Root: true, Shim: DeadShim}, want: Finish, code: 137},
		"rebooted":                         {o: Found{Record: record(container.Paused, false), Root: true}, want: Finish, code: 255},
		"ended meanwhile, removes itself":  {o: Found{Record: record(container.Running, true), Root: true, Shim: DeadShim, Exit: exit}, want: Remove, code: 3, volumes: true},
		"exited":                           {o: Found{Record: record(container.Exited, false), Root: true, Shim: DeadShim, Exit: exit}, want: Keep},
		"exited, not yet removed":          {o: Found{Record: record(container.Exited, true), Root: true}, want: Remove, volumes: true},
		"half removed":                     {o: Found{Record: record(container.Removing, false), Root: true}, want: Remove, volumes: true},
		"dead":                             {o: Found{Record: record(container.Dead, false), Root: true}, want: Remove},
		"dead, with a supervisor left":     {o: Found{Record: record(container.Dead, false), Root: true, Shim: AliveShim}, want: Remove, stopShim: true},
		"a half-made one with a dead shim": {o: Found{Root: true, Shim: DeadShim}, want: Sweep},
	} {
		t.Run(name, func(t *testing.T) {
			got := Plan(c.o, now)
			if got.Action != c.want || got.StopShim != c.stopShim || got.Volumes != c.volumes || got.State.ExitCode != c.code {
				t.Errorf("%+v", got)
			}
			if c.again != 0 {
				if got.State.Status != container.Restarting || got.State.RestartDelay != max(0, c.again) || got.State.Wait(now.Add(-time.Hour)) != max(0, c.again) {
					t.Errorf("state %+v", got.State)
				}
				return
			}
			if c.code != 0 && (got.State.Status != container.Exited || got.State.Pid != 0 || got.State.FinishedAt.IsZero()) {
				t.Errorf("state %+v", got.State)
			}
		})
	}
}
