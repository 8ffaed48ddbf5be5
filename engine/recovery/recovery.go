// Package recovery decides what an engine does, when it opens, with a container as it finds it: what is recorded, what is there, and what its restart
// policy wants.
//
// It looks at nothing and does nothing itself. Invariant: it is pure, so crash recovery is tested as a table.
package recovery

import (
	"time"

	"berth/container"
	"berth/oci"
)

// killedCode is the exit code of a container whose supervisor was killed with it.
const killedCode = 128 + 9

// Supervision is what there is of a container's supervisor.
type Supervision int

// The kinds of it.
const (
	NoShim    Supervision = iota // no run state: never started, cleared away, or before a reboot
	DeadShim                     // run state, but nobody serves it
	AliveShim                    // it answers
)

// Found is one container as it was found when the engine opened.
type Found struct {
	Record *container.Record // nil: none, so whatever else there is was left by a crash
	Broken error             // the record is there but can't be used
	Root   bool
	Apart  bool // it lies with another storage driver, and waits for that one
	Shim   Supervision
	Exit   *oci.Exit // as the supervisor recorded it
}

// Repair is what has to be done with it.
type Repair struct {
	Action   Action
	State    container.State // to record, with finish
	Volumes  bool            // with remove
	StopShim bool            // a run that nobody was told of
	Ended    bool            // its end is announced now
}

// Action is the main part of it.
type Action string

// The actions.
const (
	Leave  Action = "leave"  // touch nothing, show nothing
	Sweep  Action = "sweep"  // delete every trace
	Keep   Action = "keep"   // as recorded; one that waits for its restart goes on waiting
	Adopt  Action = "adopt"  // it runs
	Finish Action = "finish" // it ended while nobody looked, or its policy wants it now
	Remove Action = "remove" // it ended, or was about to go, and goes now
)

// lostCode is the exit code of a container that a reboot ended.
const lostCode = 255

// Plan decides what to do with a container. It is pure: crash recovery is tested as a table.
func Plan(o Found, now time.Time) Repair {
	switch {
	case o.Broken != nil:
		return Repair{Action: Leave}
	case o.Record == nil || !o.Root:
		// Records come after roots and go before them.
		return Repair{Action: Sweep, StopShim: o.Shim == AliveShim}
	}
	s := o.Record.State
	auto := o.Record.HostConfig.AutoRemove
	switch {
	case s.Status == container.Removing || s.Status == container.Dead:
		return Repair{Action: Remove, Volumes: s.RemoveVolumes, StopShim: o.Shim == AliveShim}
	case s.Status.Alive() && o.Shim == AliveShim:
		return Repair{Action: Adopt}
	case s.Status.Alive():
		s = endUnseen(o, now)
		if auto {
			return Repair{Action: Remove, Volumes: true, State: s, Ended: true}
		}
		return Repair{Action: Finish, State: s, Ended: true}
	case o.Apart:
		return Repair{Action: Keep, StopShim: o.Shim == AliveShim}
	case auto:
		return Repair{Action: Remove, Volumes: true, StopShim: o.Shim == AliveShim}
	case s.Status == container.Exited && container.AtStart(o.Record.HostConfig.RestartPolicy, s):
		s.RestartCount, s.RestartDelay = 0, 0
		if s.Again(now, 0) == nil {
			return Repair{Action: Finish, State: s, StopShim: o.Shim == AliveShim}
		}
	}
	// A supervisor of a container that is not recorded as running: its start was never announced.
	return Repair{Action: Keep, StopShim: o.Shim == AliveShim}
}

// endUnseen is the state of a container that ended while there was no engine. One whose code was recorded is judged by
// its policy as if it had just ended; of one that went down with the machine, the policy says whether it starts with the engine.
func endUnseen(o Found, now time.Time) container.State {
	policy, s := o.Record.HostConfig.RestartPolicy, o.Record.State
	ended := s
	ended.Status, ended.Pid, ended.Attachment, ended.Health = container.Exited, 0, nil, container.HealthAtEnd(s.Health)
	switch {
	case o.Exit != nil:
		ended.ExitCode, ended.OOMKilled, ended.FinishedAt = o.Exit.Code, o.Exit.OOMKilled, o.Exit.At.UTC()
	case o.Shim == DeadShim:
		ended.ExitCode, ended.FinishedAt = killedCode, now
	default:
		ended.ExitCode, ended.FinishedAt = lostCode, now
	}
	if o.Shim == NoShim {
		ended.RestartCount, ended.RestartDelay = 0, 0
		if container.AtStart(policy, ended) && ended.Again(now, 0) != nil {
			ended.Status = container.Exited
		}
		return ended
	}
	if again, delay := container.AfterExit(policy, s, ended.ExitCode, ended.FinishedAt.Sub(s.StartedAt)); again && ended.Again(ended.FinishedAt, delay) == nil {
		ended.RestartCount++
	} else if container.AtStart(policy, ended) && ended.Again(now, 0) == nil {
		ended.RestartCount, ended.RestartDelay = 0, 0
	}
	return ended
}
