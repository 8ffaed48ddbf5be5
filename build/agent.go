package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"berth/build/dockerfile"
	"berth/fault"
	"berth/union"
)

// agent shows a socket where an ssh agent of the client's listens.
func (m *mounting) agent(ctx context.Context, dm *dockerfile.Mount) error {
	first, err := m.Client.Agent(ctx, dm.ID)
	if errors.Is(err, fault.NotFound) {
		if !dm.Required {
			return nil
		}
		return fault.New(fault.Invalid, "no SSH key %q forwarded from the client: give it by --ssh %s", dm.ID, dm.ID)
	}
	if err == nil {
		err = first.Close()
	}
	if err != nil {
		return fmt.Errorf("ssh agent %s: %w", dm.ID, err)
	}
	dir, err := os.MkdirTemp(m.Dir, "agent-")
	if err != nil {
		return err
	}
	m.undo = append(m.undo, func() error { return os.RemoveAll(dir) })
	l, err := listen(dir)
	if err != nil {
		return err
	}
	socket := filepath.Join(dir, socketName)
	uid, gid, err := m.ids().Map.ToHost(id(dm.UID), id(dm.GID))
	if err := errors.Join(err, os.Chmod(socket, mode(dm, 0o600)), os.Chown(socket, int(uid), int(gid))); err != nil {
		return errors.Join(err, l.Close())
	}
	ctx, stop := context.WithCancel(ctx) // of what the client has not answered when the program ends
	f := &forward{l: l, stop: stop, dial: func() (io.ReadWriteCloser, error) { return m.Client.Agent(ctx, dm.ID) }, open: map[int]io.Closer{}}
	f.at.Go(func() { f.serve(m) })
	m.undo = append(m.undo, f.end)
	if !slices.ContainsFunc(m.env, func(kv string) bool { return strings.HasPrefix(kv, agentVariable) }) {
		m.env = append(m.env, agentVariable+dm.Target)
	}
	m.add(Mount{Kind: Treed, Tree: union.Mount{Type: "bind", Source: dir}, Path: socketName, Target: dm.Target, Shifted: true}, true)
	return nil
}

const (
	socketName    = "agent"
	agentVariable = "SSH_AUTH_SOCK="
)

// listen makes a socket in dir. A socket's address is shorter than a path may be (unix(7)), so it is named by way of the open directory.
func listen(dir string) (net.Listener, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	l, err := net.Listen("unix", fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), socketName))
	if err != nil {
		return nil, fmt.Errorf("listen for an ssh agent's clients: %w", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // that name leads nowhere soon; the directory goes as a whole
	return l, nil
}

// forward takes connections to an agent that is elsewhere.
type forward struct {
	l    net.Listener
	stop func()
	dial func() (io.ReadWriteCloser, error)
	at   sync.WaitGroup

	mu    sync.Mutex
	ended bool
	last  int
	open  map[int]io.Closer
}

// serve takes connections until end.
func (f *forward) serve(m *mounting) {
	for {
		c, err := f.l.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				m.Log.Warn("an ssh agent's socket in a build takes no more connections", "error", err)
			}
			return
		}
		f.at.Go(func() { f.connect(c) })
	}
}

// connect copies both ways until one side closes: the agent's protocol has no use for half a connection.
func (f *forward) connect(c net.Conn) {
	defer f.keep(c)()
	a, err := f.dial()
	if err != nil {
		return // the program sees that nobody answers
	}
	defer f.keep(a)()
	done := make(chan struct{}, 2)
	for _, way := range [][2]io.ReadWriter{{a, c}, {c, a}} {
		f.at.Go(func() {
			_, _ = io.Copy(way[0], way[1]) // either side may go at any time
			done <- struct{}{}
		})
	}
	<-done
}

// keep remembers what is open, for end; drop closes it.
func (f *forward) keep(c io.Closer) (drop func()) {
	f.mu.Lock()
	f.last++
	n, ended := f.last, f.ended
	f.open[n] = c
	f.mu.Unlock()
	if ended {
		c.Close()
	}
	return func() {
		c.Close()
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.open, n)
	}
}

// end closes all and waits until nobody is at work.
func (f *forward) end() error {
	err := f.l.Close()
	f.stop()
	f.mu.Lock()
	f.ended = true
	for _, c := range f.open {
		c.Close()
	}
	f.mu.Unlock()
	f.at.Wait()
	return err
}
