// Package shim keeps one supervisor process per container, apart from the daemon, so that
// containers, their output and their exit codes outlive it.
//
// It is not a runtime (package oci makes the processes) and holds no policy: what to run, with what, and what
// a failure means is the engine's. Invariant: an exit is on disk before anyone is told of it, and from the request
// on a supervisor depends on no other process.
package shim

import (
	"context"

	"berth/oci"
)

// Launcher starts supervisors and finds those that run.
type Launcher struct{}

// NewLauncher returns a Launcher that keeps each container's run state in dir/ID and has the given number of
// spare supervisors waiting. exe is the program that calls Main when its first argument
// is "shim"; a sealed copy of it is what runs. Close it.
func NewLauncher(exe, dir string, spares int) (*Launcher, error) { return &Launcher{}, nil }

// Start runs a container and returns when its program was executed, or why it could not be
// (then nothing is left; an *oci.StartError is found by errors.As).
func (l *Launcher) Start(ctx context.Context, r Request) (*Shim, error) { return nil, errUnfinished }

// Open finds a supervisor that an earlier Launcher started. fault.NotFound: the container has no run state;
// fault.Unavailable: it has, but nobody serves it any more: Exit and Reap are next.
func (l *Launcher) Open(id string) (*Shim, error) { return nil, errUnfinished }

// Exit returns what the supervisor recorded; fault.NotFound when nothing is.
func (l *Launcher) Exit(id string) (oci.Exit, error) { return oci.Exit{}, errUnfinished }

// Reap kills what a dead supervisor left: its processes, unless their
// numbers belong to others by now, and its cgroup. It records exit code 137 when there is no record, and is idempotent.
func (l *Launcher) Reap(id string) error { return errUnfinished }

// List returns the IDs of all containers with run state, alive or not.
func (l *Launcher) List() ([]string, error) { return nil, errUnfinished }

// Forget removes a container's run state, after its exit was taken; idempotent. fault.Conflict while the container runs.
func (l *Launcher) Forget(id string) error { return errUnfinished }

// Close ends the spare supervisors. Those in use stay, and so do their Shims.
func (l *Launcher) Close() error { return nil }
