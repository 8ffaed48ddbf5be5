package engine

import (
	"sync"
	"sync/atomic"

	"berth/container"
	"berth/engine/files"
	"berth/fault"
	"berth/network"
	"berth/oci/shim"

	api "github.com/moby/moby/api/types/container"
)

// instance is a container in the engine's hands.
//
// op is held by whoever changes the container: create, start, the end of a run,
// remove, rename, pause. It may be held over I/O; mu never is, but for the answer of a few bytes to a
// client that attaches (see streams.Attach). Nobody holds the locks of two
// containers. Readers take the record without any lock.
type instance struct {
	id string
	op sync.Mutex

	updating sync.Mutex // held from the first to the last step of an update, in which op is let go

	snap atomic.Pointer[container.Record] // never nil, never changed once published

	again chan struct{} // closed to give up the restart that is waited for; nil when none is. Under op

	mounted files.Mounted

	mu      sync.Mutex
	run     *run // of the running processes; nil when there are none
	pending []shim.Attachment
	waiters map[*Waiter]struct{}
	execs   []string
	active  []string      // those of execs that have not ended, which inspect shows
	keep    bool          // a restart is on its way: don't remove at the end
	settled chan struct{} // closed when the last run is cleared away; nil before the first
	removed bool
}

// run is one life of a container, from start to exit.
type run struct {
	shim       *shim.Shim
	attachment *network.Attachment // nil without a network of its own
	ended      chan struct{}       // closed when the exit is recorded and the log complete
	telling    sync.RWMutex        // read-locked from a signal to its event, which an end by that signal is told after
	recheck    chan struct{}       // closed when the health check is another one from now on. Under op
}

func newInstance(r *container.Record) *instance {
	i := &instance{id: r.ID, waiters: map[*Waiter]struct{}{}}
	i.snap.Store(r)
	return i
}

// record is how the container stands now. It is shared: clone it to change it.
func (i *instance) record() *container.Record { return i.snap.Load() }

// current is the life that goes on, or fault.Conflict.
func (i *instance) current() (*run, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.run == nil {
		return nil, fault.New(fault.Conflict, "container %s is not running", i.id)
	}
	return i.run, nil
}

// Waiter gets one answer, on C, which is never closed.
type Waiter struct {
	C <-chan api.WaitResponse

	c     chan api.WaitResponse
	until api.WaitCondition
	i     *instance
}

// Close gives the waiter up.
func (w *Waiter) Close() {
	w.i.mu.Lock()
	defer w.i.mu.Unlock()
	delete(w.i.waiters, w)
}

// Wait registers a waiter at once, so that headers can be sent before the end comes. The caller closes it. One
// for a container that has removed itself gets its code too, for a while.
func (c *shared) Wait(ref string, until api.WaitCondition) (*Waiter, error) {
	switch until {
	case "":
		until = api.WaitConditionNotRunning
	case api.WaitConditionNotRunning, api.WaitConditionNextExit, api.WaitConditionRemoved:
	default:
		return nil, fault.New(fault.Invalid, "invalid condition: %q", until)
	}
	i, err := c.index.Get(ref)
	if code, ok := c.gone.get(ref); err != nil && ok {
		w := &Waiter{c: make(chan api.WaitResponse, 1), i: newInstance(&container.Record{ID: ref})}
		w.C = w.c
		w.c <- api.WaitResponse{StatusCode: int64(code)}
		return w, nil
	}
	if err != nil {
		return nil, err
	}
	w := &Waiter{c: make(chan api.WaitResponse, 1), until: until, i: i}
	w.C = w.c
	i.mu.Lock()
	defer i.mu.Unlock()
	// The record is published before the waiters are told, and both under mu, so none is missed.
	r := i.record()
	if i.removed || until == api.WaitConditionNotRunning && !r.State.Status.Alive() && r.State.Status != container.Restarting {
		w.c <- api.WaitResponse{StatusCode: int64(r.State.ExitCode)}
		return w, nil
	}
	i.waiters[w] = struct{}{}
	return w, nil
}

// tell answers waiters. At an exit those of a removal go on waiting; at a removal none does.
func (i *instance) tell(removed bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if removed {
		i.removed = true
	}
	code := int64(i.record().State.ExitCode)
	for w := range i.waiters {
		if removed || w.until != api.WaitConditionRemoved {
			w.c <- api.WaitResponse{StatusCode: code}
			delete(i.waiters, w)
		}
	}
}
