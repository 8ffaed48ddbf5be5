package image

import (
	"context"
	"sync"
)

// flights lets operations that need the same layer share one run of the work.
type flights struct {
	mu  sync.Mutex
	all map[string]*flight
}

// flight is one run; it goes on as long as somebody waits for it.
type flight struct {
	done   chan struct{}
	err    error // set before done is closed
	cancel context.CancelCauseFunc
	subs   map[int]func(Event)
	next   int
	last   Event // told to those who come later
}

// do runs work under key, or joins the run under way, and reports its events to sub. shared tells that the
// run was begun by somebody else. When ctx ends, the caller leaves; the last one to leave
// stops the work and waits for its end.
func (f *flights) do(ctx context.Context, key string, sub func(Event), work func(context.Context, func(Event)) error) (shared bool, err error) {
	f.mu.Lock()
	run, shared := f.all[key]
	if !shared {
		run = f.begin(ctx, key, work)
	}
	me := run.next
	run.next++
	run.subs[me] = sub
	late := run.last
	f.mu.Unlock()
	if shared && late.Status != "" {
		sub(late)
	}
	select {
	case <-run.done:
		return shared, run.err
	case <-ctx.Done():
	}
	f.mu.Lock()
	delete(run.subs, me)
	alone := len(run.subs) == 0
	if alone && f.all[key] == run {
		delete(f.all, key) // who comes now begins anew
	}
	f.mu.Unlock()
	if alone {
		run.cancel(context.Cause(ctx))
		<-run.done
	}
	return shared, context.Cause(ctx)
}

// begin starts a run; the caller holds f.mu.
func (f *flights) begin(ctx context.Context, key string, work func(context.Context, func(Event)) error) *flight {
	if f.all == nil {
		f.all = map[string]*flight{}
	}
	own, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	run := &flight{done: make(chan struct{}), cancel: cancel, subs: map[int]func(Event){}}
	f.all[key] = run
	go func() {
		defer cancel(nil)
		err := work(own, func(e Event) { f.tell(run, e) })
		f.mu.Lock()
		if f.all[key] == run {
			delete(f.all, key)
		}
		f.mu.Unlock()
		run.err = err
		close(run.done)
	}()
	return run
}

func (f *flights) tell(run *flight, e Event) {
	f.mu.Lock()
	run.last = e
	subs := make([]func(Event), 0, len(run.subs))
	for _, sub := range run.subs {
		subs = append(subs, sub)
	}
	f.mu.Unlock()
	for _, sub := range subs {
		sub(e)
	}
}
