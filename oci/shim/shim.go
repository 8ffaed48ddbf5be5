package shim

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"berth/fault"
	"berth/kernel"
	"berth/oci"
)

// Shim is the engine's end of one container's supervisor. Its methods may be
// called at the same time. Once the container has ended they return
// fault.Conflict, and when the supervisor died fault.Unavailable; Wait then still tells what was recorded.
type Shim struct {
	dir   string // the run directory
	state State
	conn  *os.File
	child *os.Process // the supervisor, when this process started it, else nil
	done  chan struct{}
	left  func(container, exec string) // may be nil

	writing sync.Mutex
	mu      sync.Mutex
	number  uint64
	waiting map[uint64]chan *answer // nil once the connection has ended
}

// newShim takes conn and child over.
func newShim(dir string, conn *os.File, child *os.Process) *Shim {
	return &Shim{dir: dir, conn: conn, child: child, done: make(chan struct{}), waiting: make(map[uint64]chan *answer)}
}

// listen gives answers to those who wait for them, until the connection ends.
func (s *Shim) listen() {
	for {
		m, err := receiveAnswer(s.conn)
		if err != nil {
			break
		}
		if m.Left != nil && s.left != nil {
			s.left(s.ID(), *m.Left)
		}
		s.mu.Lock()
		c := s.waiting[m.Number]
		delete(s.waiting, m.Number)
		s.mu.Unlock()
		if c != nil {
			c <- m
		}
	}
	s.conn.Close()
	s.mu.Lock()
	for _, c := range s.waiting {
		close(c)
	}
	s.waiting = nil
	s.mu.Unlock()
	close(s.done)
	if s.child != nil {
		s.child.Wait() // its connection closes with its end, so this doesn't take long
	}
}

// call sends a request and waits for its answer. Files that the request hands over are closed.
func (s *Shim) call(ctx context.Context, m *call) (*answer, error) {
	m.collect()
	reply, err := s.post(m)
	for _, a := range m.attachments() {
		a.Conn.Close()
	}
	if err != nil {
		return nil, err
	}
	select {
	case a, open := <-reply:
		if !open {
			return nil, s.lost()
		}
		return a, a.Error.error()
	case <-ctx.Done():
		s.mu.Lock()
		delete(s.waiting, m.Number)
		s.mu.Unlock()
		return nil, context.Cause(ctx)
	}
}

// post sends a request; its answer comes on the channel, or nothing when the connection ends before.
func (s *Shim) post(m *call) (<-chan *answer, error) {
	reply := make(chan *answer, 1)
	s.mu.Lock()
	if s.waiting == nil {
		s.mu.Unlock()
		return nil, s.lost()
	}
	s.number++
	m.Number = s.number
	s.waiting[m.Number] = reply
	s.mu.Unlock()

	s.writing.Lock()
	err := sendCall(s.conn, m)
	s.writing.Unlock()
	if fault.Of(err) == fault.Invalid {
		s.mu.Lock()
		delete(s.waiting, m.Number)
		s.mu.Unlock()
		return nil, err
	}
	if err != nil {
		s.conn.Close() // listen ends, and all who wait with it
	}
	return reply, nil
}

// lost is why nobody answers any more.
func (s *Shim) lost() error {
	if _, err := loadExit(s.dir); err == nil {
		return fault.New(fault.Conflict, "container %s is not running", s.ID())
	}
	return fault.New(fault.Unavailable, "container %s: its supervisor (process %d) is gone", s.ID(), s.state.Shim)
}

// ID is the container's.
func (s *Shim) ID() string { return filepath.Base(s.dir) }

// Pid is the container's first process as the caller sees it.
func (s *Shim) Pid() int { return s.state.Pid }

// StartedAt is when the program was executed.
func (s *Shim) StartedAt() time.Time { return s.state.StartedAt }

// Warnings tells what oci cut down to what this machine allows.
func (s *Shim) Warnings() []string { return s.state.Warnings }

// Done is closed when the connection to the supervisor is: it has ended or died, or Close was called.
func (s *Shim) Done() <-chan struct{} { return s.done }

// Close drops the connection and returns when nothing uses it any more; the container goes on.
func (s *Shim) Close() error {
	err := s.conn.Close()
	<-s.done
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// Pipe returns the two ends of a connection: one to hand over as an Attachment's, and the other for a client that has none of its own.
func Pipe() (conn, client *os.File, err error) { return kernel.SocketPair("client") }

// State asks for the current state.
func (s *Shim) State(ctx context.Context) (State, error) {
	a, err := s.call(ctx, &call{Op: opState})
	if err != nil {
		return State{}, err
	}
	if a.State == nil {
		return State{}, io.ErrUnexpectedEOF
	}
	return *a.State, nil
}

// Signal sends signal n to the container's first process; fault.Conflict when it has ended.
func (s *Shim) Signal(ctx context.Context, n int) error { return s.ExecSignal(ctx, "", n) }

// Resize sets the terminal's size, and the program gets SIGWINCH; without a terminal nothing happens.
func (s *Shim) Resize(ctx context.Context, size ConsoleSize) error {
	return s.ExecResize(ctx, "", size)
}

// Attach hands a client's connection over.
func (s *Shim) Attach(ctx context.Context, a Attachment) error {
	_, err := s.call(ctx, &call{Op: opAttach, Attach: &a})
	return err
}

// Wait returns how the container ended, once that is recorded and its output delivered. It may be called any number
// of times. A supervisor that died without a record is fault.Unavailable: Launcher.Reap is next.
func (s *Shim) Wait(ctx context.Context) (oci.Exit, error) {
	a, err := s.call(ctx, &call{Op: opWait})
	if err == nil && a.Exit != nil {
		return *a.Exit, nil
	}
	if ctx.Err() != nil {
		return oci.Exit{}, err
	}
	if exit, err := loadExit(s.dir); err == nil {
		return exit, nil
	}
	return oci.Exit{}, s.lost()
}

// Exec starts one more process in the container and returns its number. Errors are those of oci.Exec;
// fault.Conflict when the container has ended or is paused.
func (s *Shim) Exec(ctx context.Context, r ExecRequest) (pid int, err error) {
	a, err := s.call(ctx, &call{Op: opExec, Exec: &r})
	if err != nil {
		return 0, err
	}
	return a.Pid, nil
}

// ExecWait returns how the process of an ExecRequest ended. The last results
// are kept for callers that come late; fault.NotFound for others.
func (s *Shim) ExecWait(ctx context.Context, id string) (oci.Exit, error) {
	a, err := s.call(ctx, &call{Op: opExecWait, ExecID: id})
	if err != nil {
		return oci.Exit{}, err
	}
	if a.Exit == nil {
		return oci.Exit{}, io.ErrUnexpectedEOF
	}
	return *a.Exit, nil
}

// ExecResize is Resize for an exec.
func (s *Shim) ExecResize(ctx context.Context, id string, size ConsoleSize) error {
	_, err := s.call(ctx, &call{Op: opResize, ExecID: id, Size: &size})
	return err
}

// ExecSignal is Signal for an exec.
func (s *Shim) ExecSignal(ctx context.Context, id string, n int) error {
	_, err := s.call(ctx, &call{Op: opSignal, ExecID: id, Signal: n})
	return err
}

// ClearLog drops what is logged up to now. Who reads it loses nothing that was read, and goes on.
func (s *Shim) ClearLog(ctx context.Context) error {
	_, err := s.call(ctx, &call{Op: opClearLog})
	return err
}

// Pids lists the processes of the container, as the caller sees them.
func (s *Shim) Pids(ctx context.Context) ([]int, error) {
	a, err := s.call(ctx, &call{Op: opPids})
	if err != nil {
		return nil, err
	}
	return a.Pids, nil
}

// Pause freezes the container and returns when all of it stands still.
func (s *Shim) Pause(ctx context.Context) error {
	_, err := s.call(ctx, &call{Op: opPause})
	return err
}

// Resume undoes Pause.
func (s *Shim) Resume(ctx context.Context) error {
	_, err := s.call(ctx, &call{Op: opResume})
	return err
}
