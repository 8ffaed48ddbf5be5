package buildkit

import (
	"context"
	"sync"
	"time"

	"berth/build/progress"
	"berth/engine/builds"
	"berth/fault"

	control "github.com/moby/buildkit/api/services/control"
)

// jobPatience is how long calls that name a build wait for it to begin, and what it told waits for who wants to hear it: clients make these
// calls side by side.
const jobPatience = 30 * time.Second

// maxHeld is how many bytes of output wait for a client that doesn't take them; more is left out.
const maxHeld = 16 << 20

// job is a build of a client.
type job struct {
	ref     string
	request *control.SolveRequest
	ctx     context.Context
	cancel  context.CancelCauseFunc
	open    chan struct{} // closed when there is a client
	client  *asker
	status  *builds.Status // makes of what happens what is told

	mu       sync.Mutex
	told     []*control.StatusResponse // that nobody has heard yet
	held     int                       // bytes of output in them
	changed  chan struct{}             // closed and replaced when there is more to hear
	stopped  bool                      // nothing more may begin
	ended    bool                      // nothing more is told
	work     sync.WaitGroup            // what works for it beside its own call
	solved   map[string]*builds.Solved // by the names under which the client has them
	looks    map[string]string         // addresses whose content the client may look at, by the names that it has for them
	returned chan returned             // what the client makes of its graph, once

	record *record
}

// returned is what a client gives back that composes its build itself.
type returned struct {
	solved *builds.Solved // nil: nothing is to be put out
	err    error
}

// jobs are the builds under way, and those that ended just now.
type jobs struct {
	mu      sync.Mutex
	byRef   map[string]*job
	changed chan struct{} // closed and replaced when one was added
	records []*record     // of builds that ended, oldest first
	heard   chan struct{} // closed and replaced when the records change
}

func (all *jobs) add(j *job) error {
	all.mu.Lock()
	defer all.mu.Unlock()
	if all.byRef == nil {
		all.byRef = map[string]*job{}
	}
	if all.byRef[j.ref] != nil {
		return fault.New(fault.Exists, "there is a build %s already", j.ref)
	}
	all.byRef[j.ref] = j
	notify(&all.changed)
	notify(&all.heard)
	return nil
}

// notify wakes who waits.
func notify(c *chan struct{}) {
	if *c != nil {
		close(*c)
		*c = nil
	}
}

// waiter gives what is closed at the next change. The lock is held.
func waiter(c *chan struct{}) <-chan struct{} {
	if *c == nil {
		*c = make(chan struct{})
	}
	return *c
}

// get gives a build, which may be about to begin.
func (all *jobs) get(ctx context.Context, ref string) (*job, error) {
	ctx, cancel := context.WithTimeout(ctx, jobPatience)
	defer cancel()
	for {
		all.mu.Lock()
		j, changed := all.byRef[ref], waiter(&all.changed)
		all.mu.Unlock()
		if j != nil {
			return j, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fault.New(fault.NotFound, "no such job %s", ref)
		}
	}
}

// begin tells that something works for the build until done is called; false: the build has ended.
func (j *job) begin() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.stopped {
		j.work.Add(1)
	}
	return !j.stopped
}

// stop ends all that works for the build.
func (j *job) stop() {
	j.mu.Lock()
	j.stopped = true
	j.mu.Unlock()
	j.cancel(context.Canceled)
	j.work.Wait()
}

// end lets go of a job that was stopped. What it told stays for a while, for a client that comes to hear it only now.
func (all *jobs) end(j *job, response map[string]string, err error) {
	j.mu.Lock()
	j.ended = true
	for _, s := range j.solved {
		s.Release()
	}
	j.solved = nil
	notify(&j.changed)
	j.mu.Unlock()
	all.remember(j, response, err)
	time.AfterFunc(jobPatience, func() {
		all.mu.Lock()
		defer all.mu.Unlock()
		if all.byRef[j.ref] == j {
			delete(all.byRef, j.ref)
		}
	})
}

// tell takes what is new of a build.
func (j *job) tell(s *progress.Status) {
	j.record.count(s)
	j.mu.Lock()
	defer j.mu.Unlock()
	output := 0
	for _, l := range s.Logs {
		output += len(l.Data)
	}
	if j.held+output > maxHeld {
		return
	}
	j.held += output
	j.told = append(j.told, wireStatus(s))
	notify(&j.changed)
}

// hear gives what a build tells, until it has ended.
func (j *job) hear(ctx context.Context, take func(*control.StatusResponse) error) error {
	for {
		j.mu.Lock()
		told, ended, changed := j.told, j.ended, waiter(&j.changed)
		j.told, j.held = nil, 0
		j.mu.Unlock()
		for _, s := range told {
			if err := take(s); err != nil {
				return err
			}
		}
		if len(told) > 0 {
			continue
		}
		if ended {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// keep holds a result for the client, which knows it by ref.
func (j *job) keep(ref string, s *builds.Solved) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.solved == nil {
		j.solved = map[string]*builds.Solved{}
	}
	j.solved[ref] = s
}

func (j *job) result(ref string) (*builds.Solved, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if s := j.solved[ref]; s != nil {
		return s, nil
	}
	return nil, fault.New(fault.NotFound, "no such result %s", ref)
}

// asks gives the client of the build, once its session is open.
func (j *job) asks(ctx context.Context) (*asker, error) {
	select {
	case <-j.open:
		return j.client, nil
	case <-j.ctx.Done():
		return nil, fault.Wrap(fault.Canceled, context.Cause(j.ctx))
	case <-ctx.Done():
		return nil, fault.Wrap(fault.Canceled, ctx.Err())
	}
}
