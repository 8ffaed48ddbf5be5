package shim

import (
	"context"
	"errors"
	"time"

	"berth/oci"
)

var errUnfinished = errors.New("not there yet")

// Shim is the engine's end of one container's supervisor. Its methods may be
// called at the same time. Once the container has ended they return
// fault.Conflict, and when the supervisor died fault.Unavailable; Wait then still tells what was recorded.
type Shim struct{ id string }

// ID is the container's.
func (s *Shim) ID() string { return s.id }

// Pid is the container's first process as the caller sees it.
func (s *Shim) Pid() int { return 0 }

// StartedAt is when the program was executed.
func (s *Shim) StartedAt() time.Time { return time.Time{} }

// Warnings tells what oci cut down to what this machine allows.
func (s *Shim) Warnings() []string { return nil }

// Done is closed when the connection to the supervisor is: it has ended or died.
func (s *Shim) Done() <-chan struct{} { return nil }

// Close drops the connection; the container goes on.
func (s *Shim) Close() error { return nil }

// Signal sends signal n to the container's first process; fault.Conflict when it has ended.
func (s *Shim) Signal(ctx context.Context, n int) error { return errUnfinished }

// Resize sets the terminal's size, and the program gets SIGWINCH; fault.Conflict without a terminal.
func (s *Shim) Resize(ctx context.Context, size ConsoleSize) error { return errUnfinished }

// Attach hands a client's connection over.
func (s *Shim) Attach(ctx context.Context, a Attachment) error { return errUnfinished }

// Wait returns how the container ended, once that is recorded and its output delivered. It may be called any number
// of times. A supervisor that died without a record is fault.Unavailable: Launcher.Reap is next.
func (s *Shim) Wait(ctx context.Context) (oci.Exit, error) { return oci.Exit{}, errUnfinished }

// Exec starts one more process in the container and returns its number. Errors are those of oci.Exec;
// fault.Conflict when the container has ended or is paused.
func (s *Shim) Exec(ctx context.Context, r ExecRequest) (pid int, err error) { return 0, errUnfinished }

// ExecWait returns how the process of an ExecRequest ended. The last results
// are kept for callers that come late; fault.NotFound for others.
func (s *Shim) ExecWait(ctx context.Context, id string) (oci.Exit, error) {
	return oci.Exit{}, errUnfinished
}

// ExecResize is Resize for an exec.
func (s *Shim) ExecResize(ctx context.Context, id string, size ConsoleSize) error {
	return errUnfinished
}

// ExecSignal is Signal for an exec.
func (s *Shim) ExecSignal(ctx context.Context, id string, n int) error { return errUnfinished }

// Pids lists the processes of the container, as the caller sees them.
func (s *Shim) Pids(ctx context.Context) ([]int, error) { return nil, errUnfinished }

// Pause freezes the container and returns when all of it stands still.
func (s *Shim) Pause(ctx context.Context) error { return errUnfinished }

// Resume undoes Pause.
func (s *Shim) Resume(ctx context.Context) error { return errUnfinished }
