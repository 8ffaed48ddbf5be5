package union

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"
)

// reaper removes trees in the background. What a kill leaves of its list is found again as trees without a record.
type reaper struct {
	trees trees

	mu   sync.Mutex
	dead map[string]bool

	wake  chan struct{}
	asked chan chan struct{} // a round that somebody waits for
	stop  chan struct{}
	done  chan struct{}
}

// again is when a tree that couldn't be removed, such as one that is mounted still, is tried again.
const again = 5 * time.Second

func newReaper(t trees) *reaper {
	r := &reaper{trees: t, dead: map[string]bool{}, wake: make(chan struct{}, 1), asked: make(chan chan struct{}), stop: make(chan struct{}), done: make(chan struct{})}
	go r.run()
	return r
}

// take has a tree removed that nobody refers to any more.
func (r *reaper) take(tree string) {
	r.mu.Lock()
	r.dead[tree] = true
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// list gives the trees that are being removed, sorted.
func (r *reaper) list() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.dead))
}

func (r *reaper) run() {
	defer close(r.done)
	timer := time.NewTimer(again)
	defer timer.Stop()
	for {
		var done chan struct{}
		select {
		case <-r.stop:
			return
		case <-r.wake:
		case <-timer.C:
		case done = <-r.asked:
		}
		r.round()
		if done != nil {
			close(done)
		}
		if len(r.list()) > 0 {
			timer.Reset(again)
		}
	}
}

// round tries each tree once.
func (r *reaper) round() {
	for _, tree := range r.list() {
		select {
		case <-r.stop:
			return
		default:
		}
		if r.trees.Remove(tree) == nil { // else it stays on the list
			r.mu.Lock()
			delete(r.dead, tree)
			r.mu.Unlock()
		}
	}
}

// settle waits for the round that begins after the call.
func (r *reaper) settle(ctx context.Context) error { return settled(ctx, r.asked, r.done) }

// close stops the removing and waits for the tree that is being removed.
func (r *reaper) close() {
	close(r.stop)
	<-r.done
}
