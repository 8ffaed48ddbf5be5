package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"berth/fault"
)

// Launch starts a daemon for a client that finds none.
//
// The daemon is told by its environment: BERTH_AUTOSTARTED=1 asks it to leave
// the client's cgroup, BERTH_READY_FD=3 names a pipe into which it
// writes "ready\n" when its sockets listen, or the reason why it can't, and which it then closes.
type Launch struct {
	Program  string                                  // the daemon
	Args     []string                                // its arguments
	Dir      string                                  // its run directory; made when missing
	Log      string                                  // file that its output is added to
	Lock     func(path string) (func() error, error) // waits for an exclusive lock on a file that is made when missing, and gives its release
	Patience time.Duration                           // how long it may take to be ready; 0 is a minute
}

// run starts the daemon unless another client has done so in the meantime.
func (l *Launch) run(ctx context.Context, dial func(context.Context) (net.Conn, error)) (err error) {
	if err := os.MkdirAll(l.Dir, 0o711); err != nil {
		return fmt.Errorf("start the daemon: %w", err)
	}
	unlock, err := l.Lock(filepath.Join(l.Dir, "start.lock"))
	if err != nil {
		return fmt.Errorf("start the daemon: %w", err)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if c, err := dial(ctx); err == nil {
		return c.Close()
	}
	return l.start(ctx)
}

func (l *Launch) start(ctx context.Context) error {
	ready, theirs, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	defer theirs.Close()
	log, err := os.OpenFile(l.Log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("start the daemon: open its log: %w", err)
	}
	defer log.Close()
	begin, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	env := append(os.Environ(), "BERTH_AUTOSTARTED=1", "BERTH_READY_FD=3")
	p, err := os.StartProcess(l.Program, append([]string{l.Program}, l.Args...), &os.ProcAttr{
		Dir: "/", Env: env, Files: []*os.File{null, log, log, theirs},
		Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("start the daemon: %w", err)
	}
	if err := p.Release(); err != nil {
		return err
	}
	theirs.Close()
	word, err := l.await(ctx, ready)
	if err != nil {
		return err
	}
	if word == "ready" {
		return nil
	}
	if word == "" {
		word = "it ended without saying why"
	}
	return fault.New(fault.Unavailable, "the daemon did not start: %s%s", word, l.tail(begin))
}

// await reads what the daemon says about its start.
func (l *Launch) await(ctx context.Context, ready *os.File) (string, error) {
	patience := l.Patience
	if patience == 0 {
		patience = time.Minute
	}
	if err := ready.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	stop := context.AfterFunc(ctx, func() { ready.Close() })
	defer stop()
	said, err := io.ReadAll(io.LimitReader(ready, 4<<10))
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "", fault.New(fault.Unavailable, "the daemon was started, but is not ready after %v; its log is %s", patience, l.Log)
	case err != nil:
		return "", err
	}
	return strings.TrimSpace(string(said)), nil
}

// tail gives the last lines that the daemon wrote to its log since begin.
func (l *Launch) tail(begin int64) string {
	f, err := os.Open(l.Log)
	if err != nil {
		return ""
	}
	defer f.Close()
	text, err := io.ReadAll(io.NewSectionReader(f, begin, 256<<10))
	if err != nil || len(text) == 0 {
		return "; its log is " + l.Log
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	lines = lines[max(0, len(lines)-8):]
	return "\nThe last lines of " + l.Log + ":\n  " + strings.Join(lines, "\n  ")
}
