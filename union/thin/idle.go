package thin

import (
	"errors"
	"time"

	"berth/fault"
)

// A device that Mount made is there for somebody who is going to mount it, and nobody tells when that happens or ends. So those are
// looked at from time to time: one that is held goes with its last holder, which the kernel sees to whatever dies, and one
// that nobody took for a while goes too. Who wants it later asks Mount again.
const (
	grace = 10 * time.Minute
	round = 5 * time.Second
)

// lend notes that the device of a tree was given out.
func (t *Trees) lend(name string, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lent[name] = at
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
		case now := <-tick.C:
			t.tidy(now.Add(-grace)) // what fails is tried again
		}
	}
}

// tidy has the devices go that are not needed longer than they are held; those that nobody holds if they were given out before
// the moment.
func (t *Trees) tidy(before time.Time) error {
	t.mu.Lock()
	lent := make(map[*tree]time.Time, len(t.lent))
	for name, at := range t.lent {
		if r := t.trees[name]; r != nil {
			lent[r] = at
		} else {
			delete(t.lent, name)
		}
	}
	t.mu.Unlock()
	var failed error
	for r, at := range lent {
		gone, err := t.letGo(r, at.Before(before))
		if gone {
			t.mu.Lock()
			if t.lent[r.name].Equal(at) {
				delete(t.lent, r.name)
			}
			t.mu.Unlock()
		}
		failed = errors.Join(failed, err)
	}
	return failed
}

// letGo tells whether the device of r goes by itself, or is gone. idle: also when nobody holds it.
func (t *Trees) letGo(r *tree, idle bool) (gone bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	info, err := t.dm.Info(t.prefix + r.name)
	switch {
	case errors.Is(err, fault.NotFound):
		return true, nil
	case err != nil:
		return false, err
	case info.Open == 0 && !idle, info.Open > 0 && !t.options.deferred:
		return false, nil
	}
	err = t.deactivate(r, t.options.deferred)
	return err == nil, err
}
