package engine

import (
	"slices"
	"strings"
	"sync"
	"time"

	"berth/fault"

	"github.com/moby/moby/api/types/events"
)

const (
	eventHistory = 256  // events that a late subscriber can still ask for
	eventBacklog = 1024 // events that a subscriber may lag behind
)

// Events tells what happens, and remembers the last of it.
type Events struct {
	mu          sync.Mutex
	history     []events.Message // a ring once it is full
	next        int
	last        int64
	subscribers map[*Subscription]struct{}
}

func newEvents() *Events { return &Events{subscribers: map[*Subscription]struct{}{}} }

// Subscription delivers events until it is closed or its end has come. Then, and when its reader falls too far behind,
// C is closed.
type Subscription struct {
	C <-chan events.Message

	c      chan events.Message
	events *Events
	filter Filters
	end    *time.Timer // nil: none
}

// Close ends it.
func (s *Subscription) Close() {
	s.events.mu.Lock()
	defer s.events.mu.Unlock()
	s.events.drop(s)
}

func (e *Events) drop(s *Subscription) {
	if _, ok := e.subscribers[s]; ok {
		delete(e.subscribers, s)
		close(s.c)
		if s.end != nil {
			s.end.Stop()
		}
	}
}

// publish tells everyone. It never waits for a reader. attributes belong to the event afterwards.
func (e *Events) publish(kind events.Type, action events.Action, id string, attributes map[string]string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now().UnixNano()
	if now <= e.last { // two events never share their time, so that since and until can tell them apart
		now = e.last + 1
	}
	e.last = now
	m := events.Message{
		Type: kind, Action: action, Actor: events.Actor{ID: id, Attributes: attributes},
		Scope: "local", Time: now / 1e9, TimeNano: now,
	}
	if len(e.history) < eventHistory {
		e.history = append(e.history, m)
	} else {
		e.history[e.next] = m
		e.next = (e.next + 1) % eventHistory
	}
	for s := range e.subscribers {
		if !fits(m, s.filter) {
			continue
		}
		select {
		case s.c <- m:
		default:
			e.drop(s)
		}
	}
}

// Subscribe returns the past events that fit and a subscription to the coming ones, with none lost
// or doubled between. The caller closes it. fault.Invalid for an unknown filter.
func (e *Events) Subscribe(r EventsRequest) (past []events.Message, s *Subscription, err error) {
	for key := range r.Filters {
		if !slices.Contains(eventFilters(), key) {
			return nil, nil, fault.New(fault.Invalid, "invalid filter '%s'", key)
		}
	}
	s = &Subscription{c: make(chan events.Message, eventBacklog), events: e, filter: r.Filters}
	s.C = s.c
	e.mu.Lock()
	defer e.mu.Unlock()
	if !r.Since.IsZero() || !r.Until.IsZero() {
		since := int64(0)
		if !r.Since.IsZero() {
			since = r.Since.UnixNano()
		}
		for n := range e.history {
			m := e.history[(e.next+n)%len(e.history)]
			if m.TimeNano >= since && (r.Until.IsZero() || m.TimeNano <= r.Until.UnixNano()) && fits(m, r.Filters) {
				past = append(past, m)
			}
		}
	}
	e.subscribers[s] = struct{}{}
	if !r.Until.IsZero() {
		s.end = time.AfterFunc(time.Until(r.Until), s.Close)
	}
	return past, s, nil
}

// listeners is the number of subscriptions.
func (e *Events) listeners() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.subscribers)
}

func eventFilters() []string {
	return []string{"config", "container", "daemon", "event", "image", "label", "network", "node", "plugin", "scope", "secret", "service", "type", "volume"}
}

// fits tells whether an event passes the filters: all keys must hold, any value of each, but every label.
func fits(m events.Message, f Filters) bool {
	for key, values := range f {
		ok := len(values) == 0 || key == "label" && !slices.ContainsFunc(values, func(v string) bool { return !labelMatches(m.Actor.Attributes, v) })
		for _, v := range values {
			switch key {
			case "event":
				action, _, _ := strings.Cut(string(m.Action), ":") // "health_status: healthy" is of health_status too
				ok = ok || string(m.Action) == v || action == v
			case "type":
				ok = ok || string(m.Type) == v
			case "scope":
				ok = ok || m.Scope == v
			case "image":
				ok = ok || m.Type == events.ImageEventType && refersTo(m, v) || imageMatches(m.Actor.Attributes["image"], v)
			case "label":
			default: // the object's own kind
				ok = ok || string(m.Type) == key && refersTo(m, v)
			}
		}
		if !ok {
			return false
		}
	}
	return true
}

// refersTo tells whether ref names the event's object, by ID, its beginning or name.
func refersTo(m events.Message, ref string) bool {
	return ref != "" && (strings.HasPrefix(m.Actor.ID, ref) || m.Actor.Attributes["name"] == strings.TrimPrefix(ref, "/"))
}

// imageMatches compares image names, where one without tag fits any tag.
func imageMatches(name, want string) bool {
	if name == want {
		return name != ""
	}
	colon := strings.LastIndexByte(name, ':')
	return colon > strings.LastIndexByte(name, '/') && name[:colon] == want
}

// labelMatches reads "key" or "key=value".
func labelMatches(labels map[string]string, want string) bool {
	key, value, hasValue := strings.Cut(want, "=")
	have, ok := labels[key]
	return ok && (!hasValue || have == value)
}
