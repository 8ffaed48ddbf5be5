// Package shim keeps one supervisor process per container, apart from the daemon, so that
// containers, their output and their exit codes outlive it.
//
// It is not a runtime (package oci makes the processes) and holds no policy: what to run, with what, and what
// a failure means is the engine's. Invariant: an exit is on disk before anyone is told of it, and from the request
// on a supervisor depends on no other process.
package shim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"berth/fault"
	"berth/kernel"
	"berth/oci"
)

// greetTimeout is how long a supervisor that listens may take to say so.
const greetTimeout = 10 * time.Second

// Launcher starts supervisors and finds those that run.
type Launcher struct {
	// Left hears of clients that detached by their keys: from a container, or from one of its execs. It must not wait. Set it before
	// the first Start or Open; nil: nobody listens.
	Left func(container, exec string)

	dir    string
	spares *spares
}

// NewLauncher returns a Launcher that keeps each container's run state in dir/ID, which is best on a tmpfs, and has the given number of
// spare supervisors waiting. exe is the program that calls Main when its first argument
// is "shim"; a sealed copy of it is what runs. Close it.
func NewLauncher(exe, dir string, spares int) (*Launcher, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, fmt.Errorf("make run directory: %w", err)
	}
	program, err := kernel.Sealed(exe)
	if err != nil {
		return nil, fmt.Errorf("copy supervisor: %w", err)
	}
	return &Launcher{dir: dir, spares: newSpares(program, dir, spares)}, nil
}

// path is the run directory of a container.
func (l *Launcher) path(id string) (string, error) {
	if id == "" || id == "." || id == ".." || strings.ContainsRune(id, '/') {
		return "", fault.New(fault.Invalid, "container ID %q is no file name", id)
	}
	return filepath.Join(l.dir, id), nil
}

// Start runs a container and returns when its program was executed, or why it could not be
// (then nothing is left; an *oci.StartError is found by errors.As). When ctx ends before that, what there is of the container is killed.
func (l *Launcher) Start(ctx context.Context, r Request) (*Shim, error) {
	dir, err := l.path(r.Bundle.ID)
	if err != nil {
		closeAll(r.Attach)
		return nil, err
	}
	spare, err := l.spares.take()
	if err != nil {
		closeAll(r.Attach)
		return nil, fmt.Errorf("start supervisor: %w", err)
	}
	defer l.spares.refill()
	s := newShim(dir, spare.conn, spare.process)
	s.left = l.Left
	go s.listen()
	a, err := s.call(ctx, &call{Op: opStart, Start: &r})
	if err == nil && a.State == nil {
		err = fault.New(fault.Corrupt, "start container %s: the supervisor's answer has no state", r.Bundle.ID)
	}
	if err == nil {
		s.state = *a.State
		return s, nil
	}
	if a == nil { // no answer: nobody there any more, or nobody to wait for it
		spare.process.Kill()
		s.Close()
		spare.process.Wait()
		return nil, errors.Join(err, l.abandon(r.Bundle.ID))
	}
	s.conn.Close()
	return nil, err
}

// abandon takes away what a start that was broken off left.
func (l *Launcher) abandon(id string) error {
	if err := l.Reap(id); err != nil && fault.Of(err) != fault.NotFound {
		return err
	}
	return l.Forget(id)
}

// Open finds a supervisor that an earlier Launcher started. fault.NotFound: the container has no run state;
// fault.Unavailable: it has, but nobody serves it any more: Exit and Reap are next.
func (l *Launcher) Open(id string) (*Shim, error) {
	path, err := l.path(id)
	if err != nil {
		return nil, err
	}
	dir, err := os.Open(path)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, fault.New(fault.NotFound, "container %s has no run state", id)
		}
		return nil, err
	}
	defer dir.Close()
	conn, err := kernel.DialUnix(dir, socketFile)
	if err != nil {
		if kernel.NobodyListens(err) {
			return nil, fault.New(fault.Unavailable, "container %s: no supervisor listens: %w", id, err)
		}
		return nil, err
	}
	conn.SetReadDeadline(time.Now().Add(greetTimeout))
	m, err := receiveAnswer(conn)
	if err == nil {
		err = m.Error.error()
	}
	if err == nil && m.State == nil {
		err = fault.New(fault.Corrupt, "container %s: the supervisor does not greet", id)
	}
	if err != nil {
		conn.Close()
		if fault.Of(err) == "" { // it has just ended, or stands still
			err = fault.New(fault.Unavailable, "container %s: the supervisor does not answer: %w", id, err)
		}
		return nil, err
	}
	conn.SetReadDeadline(time.Time{})
	s := newShim(path, conn, nil)
	s.state, s.left = *m.State, l.Left
	go s.listen()
	return s, nil
}

// Exit returns what the supervisor recorded; fault.NotFound when nothing is.
func (l *Launcher) Exit(id string) (oci.Exit, error) {
	dir, err := l.path(id)
	if err != nil {
		return oci.Exit{}, err
	}
	return loadExit(dir)
}

// List returns the IDs of all containers with run state, alive or not.
func (l *Launcher) List() ([]string, error) {
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		if e.IsDir() {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

// Close ends the spare supervisors. Those in use stay, and so do their Shims.
func (l *Launcher) Close() error { return l.spares.close() }
