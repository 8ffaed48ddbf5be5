package shim

import (
	"errors"
	"os"
	"sync"
	"time"

	"berth/fault"
	"berth/kernel"
)

// pause is how long the filling of a pool that isn't empty waits after a start, which would have to share the processor with it.
const pause = 20 * time.Millisecond

// environment is a supervisor's, with procs of the scheduler's processors. They need not follow the cgroup's quota. A
// collection of garbage costs more memory for good than a start makes garbage, so there is none until there is
// a lot (memory.go). The rest of our environment is none of its business.
func environment(procs string) []string {
	return []string{"GOMAXPROCS=" + procs, "GODEBUG=containermaxprocs=0,updatemaxprocs=0", "GOGC=off", "GOMEMLIMIT=16MiB"}
}

const (
	// A thread that builds a container is in one system call after the other. With a single processor, the scheduler
	// would take it away in each that lasts 20 µs, and look for another thread to give it to.
	procsToStart = "2"
	// Then it waits, and each processor is memory.
	procsToWait = "1"
)

// spare is a supervisor that waits for its request at the other end of conn. It ends when that is closed.
type spare struct {
	conn    *os.File
	process *os.Process
}

// spares is the pool of them. One goroutine fills it.
type spares struct {
	program *os.File
	dir     string
	want    int

	mu     sync.Mutex
	idle   []*spare
	closed bool
	wake   chan struct{}
	filler sync.WaitGroup
}

func newSpares(program *os.File, dir string, want int) *spares {
	p := &spares{program: program, dir: dir, want: want, wake: make(chan struct{}, 1)}
	if want > 0 {
		p.filler.Add(1)
		go p.fill()
		p.refill()
	}
	return p
}

// refill has the pool filled up in the background.
func (p *spares) refill() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *spares) fill() {
	defer p.filler.Done()
	for range p.wake {
		for {
			p.mu.Lock()
			n, closed := len(p.idle), p.closed
			p.mu.Unlock()
			if closed {
				return
			}
			if n >= p.want || n > 0 && p.disturbed() {
				break
			}
			s, err := p.spawn()
			if err != nil {
				break // take will try again, and tell
			}
			p.mu.Lock()
			p.idle = append(p.idle, s)
			p.mu.Unlock()
		}
	}
}

// disturbed waits for a quiet moment and tells whether there was another start in it; then the loop begins again.
func (p *spares) disturbed() bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-p.wake:
		p.refill()
		return true
	case <-timer.C:
		return false
	}
}

// take returns a living spare, or a new one when there is none.
func (p *spares) take() (*spare, error) {
	for {
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			return nil, fault.New(fault.Unavailable, "the launcher is closed")
		}
		if len(p.idle) == 0 {
			p.mu.Unlock()
			return p.spawn()
		}
		s := p.idle[0] // the oldest: it is ready
		p.idle = p.idle[1:]
		p.mu.Unlock()
		if !kernel.HungUp(s.conn) {
			return s, nil
		}
		s.end()
	}
}

// spawn starts a spare; it gets ready on its own time, and a request may be sent to it at once.
func (p *spares) spawn() (*spare, error) {
	mine, its, err := kernel.SocketPair("supervisor")
	if err != nil {
		return nil, err
	}
	defer its.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		mine.Close()
		return nil, err
	}
	defer null.Close()
	process, err := os.StartProcess(kernel.ProcFD(p.program), []string{"berth-oci", "shim", p.dir}, &os.ProcAttr{
		Dir: "/", Env: environment(procsToStart), Files: []*os.File{null, null, null, its},
	})
	if err != nil {
		mine.Close()
		return nil, err
	}
	return &spare{mine, process}, nil
}

// end lets a spare go.
func (s *spare) end() error {
	s.conn.Close()
	_, err := s.process.Wait()
	return err
}

func (p *spares) close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closed = true
	p.mu.Unlock()
	p.refill()
	p.filler.Wait()
	var errs []error
	for _, s := range p.idle {
		errs = append(errs, s.end())
	}
	return errors.Join(append(errs, p.program.Close())...)
}
