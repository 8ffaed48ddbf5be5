package engine

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"berth/fault"

	"github.com/moby/moby/api/types/events"
)

func TestEventFilters(t *testing.T) {
	m := events.Message{
		Type: events.ContainerEventType, Action: "exec_create: sh", Scope: "local",
		Actor: events.Actor{ID: "cafe01", Attributes: map[string]string{"name": "web", "image": "host:5000/busybox:1", "l": "v"}},
	}
	for name, c := range map[string]struct {
		f    Filters
		want bool
	}{
		"none":                 {nil, true},
		"empty":                {Filters{"type": {}}, true},
		"type":                 {Filters{"type": {"image", "container"}}, true},
		"other type":           {Filters{"type": {"image"}}, false},
		"event":                {Filters{"event": {"exec_create"}}, true},
		"container by name":    {Filters{"container": {"/web"}}, true},
		"container by prefix":  {Filters{"container": {"cafe"}}, true},
		"other container":      {Filters{"container": {"c0ffee"}}, false},
		"image":                {Filters{"image": {"host:5000/busybox:1"}}, true},
		"image, any tag":       {Filters{"image": {"host:5000/busybox"}}, true},
		"a part of a host":     {Filters{"image": {"host"}}, false},
		"label":                {Filters{"label": {"l"}}, true},
		"label, value":         {Filters{"label": {"l=v", "name=web"}}, true},
		"one label is missing": {Filters{"label": {"l=v", "m"}}, false},
		"both must hold":       {Filters{"type": {"container"}, "event": {"die"}}, false},
		"a network":            {Filters{"network": {"web"}}, false},
	} {
		if got := fits(m, c.f); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestSubscribersMissNothing(t *testing.T) {
	e := newEvents()
	begin := time.Now()
	for n := range eventHistory + 10 {
		e.publish(events.ContainerEventType, events.ActionCreate, fmt.Sprint(n), nil)
	}
	past, s, err := e.Subscribe(EventsRequest{Since: begin})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if len(past) != eventHistory || past[0].Actor.ID != "10" || past[len(past)-1].Actor.ID != fmt.Sprint(eventHistory+9) {
		t.Errorf("%d past ones from %s", len(past), past[0].Actor.ID)
	}
	middle := time.Unix(0, past[100].TimeNano)
	if some, sub, err := e.Subscribe(EventsRequest{Since: middle, Until: middle}); err != nil || len(some) != 1 {
		t.Errorf("since = until: %d, %v", len(some), err)
	} else {
		for m := range sub.C { // ends by itself, as its end is past
			t.Errorf("%+v", m)
		}
		sub.Close()
	}
	e.publish(events.ContainerEventType, events.ActionDie, "new", nil)
	if m := <-s.C; m.Actor.ID != "new" || m.TimeNano <= past[len(past)-1].TimeNano {
		t.Errorf("%+v", m)
	}
	for range eventBacklog + 1 { // a reader that sleeps is let go, and the writer never waits
		e.publish(events.ContainerEventType, events.ActionDie, "x", nil)
	}
	n := 0
	for range s.C {
		n++
	}
	if n != eventBacklog || e.listeners() != 0 {
		t.Errorf("%d delivered, %d listeners", n, e.listeners())
	}
	if _, _, err := e.Subscribe(EventsRequest{Filters: Filters{"x": {"y"}}}); !errors.Is(err, fault.Invalid) {
		t.Errorf("an unknown filter: %v", err)
	}
}
