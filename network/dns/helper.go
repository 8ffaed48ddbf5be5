package dns

import (
	"errors"
	"os"
	"sync"
	"time"

	"berth/fault"
	"berth/kernel"
	"berth/kernel/namespace"
	"berth/network/names"
)

// Helper serves all containers of an engine. It gets its orders over a socket, from one daemon and then its successor.
type Helper struct {
	Listener *os.File      // Serve closes it
	Idle     time.Duration // without a daemon and a container before Serve returns

	directory *directory
	busy      chan struct{}
	over      chan struct{} // closed to end
	once      sync.Once
	idle      *time.Timer

	mu       sync.Mutex
	daemons  map[*names.Conn]bool
	master   *names.Conn          // the one whose word counts
	former   map[*names.Conn]bool // whose word doesn't any more: there is another daemon
	stations map[string]*post
	served   sync.WaitGroup // connections
	watching sync.WaitGroup
}

// post is a station and who it depends on.
type post struct {
	*station
	by      *names.Conn // who has it, until the process is known
	process *os.File    // nil before that
}

func invalid(format string, args ...any) error { return fault.New(fault.Invalid, format, args...) }

// Serve takes orders until it is told to end, or has been idle for long enough.
func (h *Helper) Serve() error {
	h.directory, h.busy, h.over = newDirectory(), make(chan struct{}, allQuestions), make(chan struct{})
	h.former = map[*names.Conn]bool{}
	h.daemons, h.stations = map[*names.Conn]bool{}, map[string]*post{}
	h.idle = time.AfterFunc(h.Idle, h.end)
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			sock, err := kernel.Accept(h.Listener)
			if err != nil {
				return
			}
			h.served.Go(func() { h.talk(names.NewConn(sock)) })
		}
	})
	<-h.over
	h.idle.Stop()
	err := h.Listener.Close()
	accepting.Wait()
	h.mu.Lock()
	for conn := range h.daemons {
		conn.Close()
	}
	h.mu.Unlock()
	h.served.Wait()
	h.mu.Lock()
	for id := range h.stations {
		h.leave(id)
	}
	h.mu.Unlock()
	h.watching.Wait()
	return err
}

func (h *Helper) end() { h.once.Do(func() { close(h.over) }) }

// rest lets the time run as long as there is nobody to serve and nobody who could tell. The caller holds mu.
func (h *Helper) rest() {
	if len(h.daemons) == 0 && len(h.stations) == 0 {
		h.idle.Reset(h.Idle)
	} else {
		h.idle.Stop()
	}
}

// talk takes orders from one daemon.
func (h *Helper) talk(conn *names.Conn) {
	h.mu.Lock()
	h.daemons[conn] = true
	h.rest()
	hello := names.Hello{Version: names.Version}
	for id := range h.stations {
		hello.Served = append(hello.Served, id)
	}
	h.mu.Unlock()
	defer h.hangUp(conn)
	if err := conn.Send(hello); err != nil {
		return
	}
	for {
		r := &names.Request{}
		files, err := conn.Receive(r)
		if err != nil {
			return
		}
		a := &names.Answer{}
		a.Trace, err = h.do(conn, r, files)
		if err != nil {
			a.Error, a.Kind = err.Error(), string(fault.Of(err))
		}
		if err := conn.Send(a); err != nil {
			return
		}
		if r.Op == names.OpQuit {
			h.end()
		}
	}
}

// hangUp drops a daemon that is gone, with the containers that it didn't get to start.
func (h *Helper) hangUp(conn *names.Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.daemons, conn)
	delete(h.former, conn)
	conn.Close()
	for id, p := range h.stations {
		if p.process == nil && p.by == conn {
			h.leave(id)
		}
	}
	h.rest()
}

// do carries out an order. It takes the files over.
func (h *Helper) do(conn *names.Conn, r *names.Request, files []*os.File) (*names.Trace, error) {
	want := 0
	if r.Op == names.OpPut && r.Namespace {
		want++
	}
	if r.Op == names.OpPut && r.Process || r.Op == names.OpSettle {
		want++
	}
	if len(files) != want {
		kernel.CloseAll(files)
		return nil, invalid("%s with %d files, not %d", r.Op, len(files), want)
	}
	if r.Op == names.OpTrace {
		return h.trace(r)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	defer h.rest()
	if err := h.obey(conn); err != nil && r.Op != names.OpQuit {
		kernel.CloseAll(files)
		return nil, err
	}
	switch r.Op {
	case names.OpPut:
		if r.Member == nil {
			kernel.CloseAll(files)
			return nil, invalid("nobody to be put")
		}
		return nil, h.put(conn, r, files)
	case names.OpSettle:
		if h.stations[r.ID] == nil {
			kernel.CloseAll(files)
			return nil, fault.New(fault.NotFound, "container %s is not served", r.ID)
		}
		h.settle(r.ID, files[0])
	case names.OpDrop:
		h.leave(r.ID)
	case names.OpKeep:
		kept := map[string]bool{}
		for _, id := range r.IDs {
			kept[id] = true
		}
		for id := range h.stations {
			if !kept[id] {
				h.leave(id)
			}
		}
	case names.OpQuit:
	default:
		return nil, fault.New(fault.Unsupported, "unknown order %q", r.Op)
	}
	return nil, nil
}

// obey takes orders from whoever came last: one that is dead may have left an order in its socket. The caller holds mu.
func (h *Helper) obey(conn *names.Conn) error {
	if h.former[conn] {
		return fault.New(fault.Conflict, "another daemon has taken over")
	}
	if h.master != nil && h.master != conn && h.daemons[h.master] {
		h.former[h.master] = true
	}
	h.master = conn
	return nil
}

// put makes a member what it says, and serves it in its namespace unless it is there already. The caller holds mu.
func (h *Helper) put(conn *names.Conn, r *names.Request, files []*os.File) (err error) {
	id, p := r.Member.ID, h.stations[r.Member.ID]
	if r.Namespace && p != nil {
		same, err := namespace.Same(files[0], p.ns)
		if err != nil || !same {
			h.leave(id)
			p = nil
		} else {
			files[0].Close()
		}
	}
	switch {
	case r.Namespace && p == nil:
		s, err := newStation(r.Member, h.directory, h.busy, files[0])
		if err != nil {
			kernel.CloseAll(files[1:])
			return err
		}
		h.stations[id] = &post{station: s, by: conn}
	case p == nil:
		kernel.CloseAll(files)
		return fault.New(fault.NotFound, "container %s is not served", id)
	default:
		if err := p.lead(r.Member.Also); err != nil {
			kernel.CloseAll(files)
			return err
		}
	}
	h.directory.put(*r.Member)
	if r.Process {
		h.settle(id, files[len(files)-1])
	}
	return nil
}

// settle binds a station to the life of a process. The caller holds mu.
func (h *Helper) settle(id string, process *os.File) {
	p := h.stations[id]
	if p.process != nil {
		process.Close() // it lives in the same namespace
		return
	}
	p.process = process
	h.watching.Go(func() {
		watch(process, func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			if h.stations[id] == p {
				h.leave(id)
				h.rest()
			}
		})
	})
}

// leave ends a station; none is fine. The caller holds mu.
func (h *Helper) leave(id string) {
	p := h.stations[id]
	if p == nil {
		return
	}
	delete(h.stations, id)
	h.directory.drop(id)
	if p.process != nil {
		p.process.Close()
	}
	h.watching.Go(p.Close) // questions that wait take their time
}

// trace looks a name up; others don't wait for it.
func (h *Helper) trace(r *names.Request) (*names.Trace, error) {
	h.mu.Lock()
	p := h.stations[r.ID]
	h.mu.Unlock()
	if p == nil {
		return nil, fault.New(fault.NotFound, "container %s is not served", r.ID)
	}
	return p.trace(r.Name, r.Type)
}

// Main is the program berth-dns: it serves on the socket that it inherited as its fourth file.
func Main() int {
	const socket, idle = 3, time.Minute
	h := &Helper{Listener: kernel.Inherited(socket, "orders"), Idle: idle}
	if err := h.Serve(); err != nil && !errors.Is(err, os.ErrClosed) {
		os.Stderr.WriteString("berth-dns: " + err.Error() + "\n")
		return 1
	}
	return 0
}
