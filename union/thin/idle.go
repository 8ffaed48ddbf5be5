package thin

import (
	"errors"
	"time"

	"berth/fault"
)

// A device that Mount made is there for somebody who is going to mount it, perhaps several times, and who doesn't tell when that
// begins. So it has a time, and then goes with its last holder, which the kernel sees to whatever dies. Who wants it later asks Mount again.
const (
	grace  = 10 * time.Minute // after Mount
	linger = time.Minute      // after Unmounted: somebody else may have asked for it just now
	round  = 5 * time.Second
)

// lend notes until when the device of a tree is there in any case.
func (t *Trees) lend(name string, until time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lent[name] = until
}

// watch tidies until Close.
func (t *Trees) watch() {
	defer close(t.done)
	tick := time.NewTicker(round)
	defer tick.Stop()
	for {
		select {
		case <-t.stop:
			return
		case <-tick.C:
			t.tidy(time.Now()) // what fails is tried again
		}
	}
}

// tidy has the devices go, as soon as nobody holds them, whose time is over.
func (t *Trees) tidy(now time.Time) error {
	t.mu.Lock()
	over := map[*tree]time.Time{}
	for name, until := range t.lent {
		if r := t.trees[name]; r == nil {
			delete(t.lent, name)
		} else if until.Before(now) {
			over[r] = until
		}
	}
	t.mu.Unlock()
	var failed error
	for r, until := range over {
		gone, err := t.letGo(r, until)
		failed = errors.Join(failed, err)
		if !gone {
			continue
		}
		t.mu.Lock()
		if t.lent[r.name].Equal(until) {
			delete(t.lent, r.name)
		}
		t.mu.Unlock()
	}
	return failed
}

// letGo tells whether the device of r is gone, or goes by itself. One that was lent again meanwhile stays.
func (t *Trees) letGo(r *tree, until time.Time) (gone bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t.mu.Lock()
	again := !t.lent[r.name].Equal(until)
	t.mu.Unlock()
	if again {
		return false, nil
	}
	err = t.deactivate(r, t.options.deferred)
	if errors.Is(err, fault.Conflict) {
		return false, nil // until the next time
	}
	return err == nil, err
}
