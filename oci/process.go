package oci

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"berth/fault"
	"berth/kernel"
	"berth/kernel/cgroup"
)

// Process is a container's first process or one executed in it, a child of the caller.
type Process struct {
	child    *kernel.Child
	pidfd    *os.File
	gate     *os.File // a byte lets the process go on
	console  *os.File
	group    *cgroup.Group
	owns     bool // the group is the container's own: Delete removes it
	program  string
	after    func() error // what follows a start
	root     *os.File     // the container's root: as long as it is open, its file system's last sync doesn't hold the exit up
	warnings []string
	starting sync.Mutex
}

// Pid is the process's number as the caller sees it.
func (p *Process) Pid() int { return p.child.Pid }

// Console is the master of the terminal when Stdio.Console was set, else nil. The caller closes it.
func (p *Process) Console() *os.File { return p.console }

// Warnings tells what was cut down to what this machine allows.
func (p *Process) Warnings() []string { return p.warnings }

// Start opens the gate. It returns when the program was executed, or a
// StartError when it could not be. After Exec it is not needed.
func (p *Process) Start() error {
	p.starting.Lock()
	defer p.starting.Unlock()
	if p.gate == nil {
		return fault.New(fault.Conflict, "the process was started already")
	}
	_, err := p.gate.Write([]byte{1})
	err = errors.Join(err, p.gate.Close())
	p.gate = nil
	if errors.Is(err, os.ErrClosed) || kernel.IsBrokenPipe(err) {
		err = nil // it was killed meanwhile: Wait tells
	}
	if err := errors.Join(err, p.child.Started()); err != nil {
		p.discard()
		return execError(p.program, err)
	}
	if p.after != nil {
		return p.after()
	}
	return nil
}

// discard ends and reaps a process that never became the program.
func (p *Process) discard() {
	kernel.SignalPid(p.pidfd, int(kill))
	kernel.Reap(p.pidfd)
}

const kill = 9 // SIGKILL

// Wait reaps the process and tells how it ended. It is called once.
func (p *Process) Wait() (Exit, error) {
	e, err := kernel.Reap(p.pidfd)
	if err != nil {
		return Exit{}, err
	}
	exit := Exit{Code: e.Code, Signal: e.Signal, At: time.Now()}
	if p.owns {
		if n, err := p.group.OOMKills(); err == nil {
			exit.OOMKilled = n > 0
		}
	} else {
		p.pidfd.Close()
	}
	return exit, nil
}

// Signal sends signal n; fault.NotFound when the process has ended.
func (p *Process) Signal(n int) error {
	err := kernel.SignalPid(p.pidfd, n)
	if kernel.IsGone(err) || errors.Is(err, os.ErrClosed) {
		return fault.New(fault.NotFound, "process %d has ended", p.Pid())
	}
	return err
}

// Pids lists the processes of the container, as the caller sees them.
func (p *Process) Pids() ([]int, error) {
	if p.group == nil {
		return []int{p.Pid()}, nil
	}
	return p.group.Procs()
}

// Pause freezes the container and returns when all of it stands still.
func (p *Process) Pause() error {
	if p.group == nil {
		return fault.New(fault.Unsupported, "the container has no cgroup to be frozen by")
	}
	return p.group.Freeze()
}

// Resume undoes Pause.
func (p *Process) Resume() error {
	if p.group == nil {
		return fault.New(fault.Unsupported, "the container has no cgroup to be frozen by")
	}
	return p.group.Thaw()
}

// KillRest ends what the first process left behind: there is something only when the container shares its pid
// namespace with others. It is called after Wait.
func (p *Process) KillRest() error {
	if !p.owns || p.group == nil {
		return nil
	}
	return p.group.Kill()
}

// Delete kills what is left of the container, removes its cgroups and frees
// what Create holds; the root file system is unmounted, and an overlay synced, here at the latest. It is idempotent, and called after Wait or instead of Start.
func (p *Process) Delete() error {
	p.starting.Lock()
	defer p.starting.Unlock()
	if p.gate != nil {
		p.gate.Close()
		p.gate = nil
		p.child.Close()
		p.discard()
	}
	kernel.CloseAll([]*os.File{p.pidfd, p.root})
	if !p.owns {
		return nil
	}
	return remove(p.group)
}

// remove kills what is in the group and removes it.
func remove(g *cgroup.Group) error {
	if g == nil {
		return nil
	}
	return errors.Join(g.Kill(), g.Delete())
}

// Create sets the container up: cgroups, namespaces, mounts, and a first process that waits at its gate
// until Start. netns, when not nil, is the network namespace to join instead of what
// Spec.Linux.Namespaces says; it stays the caller's. When ctx ends before
// that, everything is taken down again. On failure nothing is left.
func Create(ctx context.Context, b *Bundle, io Stdio, netns *os.File) (*Process, error) {
	return create(ctx, b, io, netns, options{})
}
