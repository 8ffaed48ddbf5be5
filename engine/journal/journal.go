// Package journal tells what happens, and remembers it: events go to whoever listens, and to a bounded history on disk, which
// outlives the engine.
//
// It is not a log of the program, and nothing is decided by it. Invariants: two events never share their time, also over the
// engine's restarts and small changes of the clock; a listener gets what happened and what comes without a gap or a double; nobody who tells waits
// for a listener or for the disk.
package journal

import (
	"iter"
	"sync"
	"time"

	"berth/fault"

	"github.com/moby/moby/api/types/events"
)

const (
	recent  = 256  // events that one who names an end but no beginning gets
	backlog = 1024 // events that a listener may lag behind

	// clockSlack is how far the clock may be set back and events still follow each other. A clock that was wrong by more is not held on to.
	clockSlack = 24 * time.Hour
)

// Journal is the events of one engine. It is safe for concurrent use.
type Journal struct {
	history *history

	mu        sync.Mutex
	ring      []events.Message // the last ones
	next      int              // where the ring goes on, once it is full
	last      int64
	listeners map[*Subscription]struct{}
}

// Request selects events.
type Request struct {
	Since, Until time.Time // zero: only new ones; no end
	Filters      Filters
}

// Open goes on with the history in dir, which is made when it is missing. warn hears of a history that can't be written; the
// events are told all the same. Close it.
func Open(dir string, warn func(error)) (*Journal, error) {
	h, last, err := openHistory(dir, warn)
	if err != nil {
		return nil, err
	}
	return &Journal{history: h, last: last, listeners: map[*Subscription]struct{}{}}, nil
}

// Close writes what is still to be written, and ends all subscriptions.
func (j *Journal) Close() error {
	j.mu.Lock()
	for s := range j.listeners {
		j.drop(s)
	}
	j.mu.Unlock()
	return j.history.close()
}

// Subscription delivers events until it is closed or its end has come. Then, and when its reader falls too far behind,
// C is closed.
type Subscription struct {
	C <-chan events.Message

	c       chan events.Message
	journal *Journal
	filter  Filters
	end     *time.Timer // nil: none
}

// Close ends it.
func (s *Subscription) Close() {
	s.journal.mu.Lock()
	defer s.journal.mu.Unlock()
	s.journal.drop(s)
}

func (j *Journal) drop(s *Subscription) {
	if _, ok := j.listeners[s]; ok {
		delete(j.listeners, s)
		close(s.c)
		if s.end != nil {
			s.end.Stop()
		}
	}
}

// Publish tells everyone. It never waits for a reader or the disk. attributes belong to the event afterwards.
func (j *Journal) Publish(kind events.Type, action events.Action, id string, attributes map[string]string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	now := time.Now().UnixNano()
	if ahead := j.last - now; ahead >= 0 && ahead < int64(clockSlack) { // so that since and until can tell them apart
		now = j.last + 1
	}
	j.last = now
	m := events.Message{
		Type: kind, Action: action, Actor: events.Actor{ID: id, Attributes: attributes},
		Scope: "local", Time: now / 1e9, TimeNano: now,
	}
	j.history.add(m)
	if len(j.ring) < recent {
		j.ring = append(j.ring, m)
	} else {
		j.ring[j.next] = m
		j.next = (j.next + 1) % recent
	}
	for s := range j.listeners {
		if !s.filter.fits(m) {
			continue
		}
		select {
		case s.c <- m:
		default:
			j.drop(s)
		}
	}
}

// Subscribe returns the past events that fit and a subscription to the coming ones, with none lost
// or doubled between. past reads the disk while it is ranged over, once. The caller closes the subscription.
// fault.Invalid for an unknown filter, or an end before the beginning.
func (j *Journal) Subscribe(r Request) (past iter.Seq[events.Message], s *Subscription, err error) {
	if err := r.Filters.check(); err != nil {
		return nil, nil, err
	}
	if !r.Until.IsZero() && r.Until.Before(r.Since) {
		return nil, nil, fault.New(fault.Invalid, "`since` time (%s) cannot be after `until` time (%s)", r.Since.Format(time.RFC3339Nano), r.Until.Format(time.RFC3339Nano))
	}
	s = &Subscription{c: make(chan events.Message, backlog), journal: j, filter: r.Filters}
	s.C = s.c
	j.mu.Lock()
	defer j.mu.Unlock()
	past = j.past(r)
	j.listeners[s] = struct{}{}
	if !r.Until.IsZero() {
		s.end = time.AfterFunc(time.Until(r.Until), s.Close)
	}
	return past, s, nil
}

// past gives the events until now. The caller holds mu.
func (j *Journal) past(r Request) iter.Seq[events.Message] {
	if r.Since.IsZero() && r.Until.IsZero() {
		return func(func(events.Message) bool) {}
	}
	since, until := int64(0), j.last
	if !r.Until.IsZero() {
		until = min(until, r.Until.UnixNano())
	}
	var source iter.Seq[events.Message]
	if r.Since.IsZero() {
		known := make([]events.Message, 0, len(j.ring))
		for n := range j.ring {
			known = append(known, j.ring[(j.next+n)%len(j.ring)])
		}
		source = func(yield func(events.Message) bool) {
			for _, m := range known {
				if !yield(m) {
					return
				}
			}
		}
	} else {
		since = r.Since.UnixNano()
		source = j.history.read(since, until)
	}
	return func(yield func(events.Message) bool) {
		for m := range source {
			if m.TimeNano >= since && m.TimeNano <= until && r.Filters.fits(m) && !yield(m) {
				return
			}
		}
	}
}

// Listeners is the number of subscriptions.
func (j *Journal) Listeners() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.listeners)
}
