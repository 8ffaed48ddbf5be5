package oci

import (
	"context"
	"errors"
	"os"
)

// Process is a container's first process or one executed in it, a child of the caller.
type Process struct {
	pid int
}

var errUnfinished = errors.New("not there yet")

// Create sets the container up: cgroups, namespaces, mounts, and a first process that waits at its gate
// until Start. netns, when not nil, is the network namespace to join instead of what
// Spec.Linux.Namespaces says; it stays the caller's. When ctx ends before
// that, everything is taken down again. On failure nothing is left.
func Create(ctx context.Context, b *Bundle, io Stdio, netns *os.File) (*Process, error) {
	return nil, errUnfinished
}

// Exec starts one more process inside the container whose first process is pid (as the caller sees it).
func Exec(ctx context.Context, pid int, b *Bundle, e ExecSpec, io Stdio) (*Process, error) {
	return nil, errUnfinished
}

// Start opens the gate. It returns when the program was executed, or a
// StartError when it could not be. After Exec it is not needed.
func (p *Process) Start() error { return errUnfinished }

// Pid is the process's number as the caller sees it.
func (p *Process) Pid() int { return p.pid }

// Console is the master of the terminal when Stdio.Console was set, else nil. The caller closes it.
func (p *Process) Console() *os.File { return nil }

// Warnings tells what was cut down to what this machine allows.
func (p *Process) Warnings() []string { return nil }

// Wait reaps the process and tells how it ended. It is called once.
func (p *Process) Wait() (Exit, error) { return Exit{}, errUnfinished }

// Signal sends signal n.
func (p *Process) Signal(n int) error { return errUnfinished }

// Pids lists the processes of the container, as the caller sees them.
func (p *Process) Pids() ([]int, error) { return nil, errUnfinished }

// Pause freezes the container and returns when all of it stands still; Resume lets it go on.
func (p *Process) Pause() error { return errUnfinished }

// Resume undoes Pause.
func (p *Process) Resume() error { return errUnfinished }

// Delete kills what is left of the container, removes its cgroups and frees
// what Create holds. It is idempotent, and called after Wait or instead of Start.
func (p *Process) Delete() error { return errUnfinished }

// InitMain takes over when this program was executed by Create as the
// process that sets a container up from the inside; it returns at once otherwise. Every program
// that calls Create (tests included) calls it first thing in main.
func InitMain() {}
