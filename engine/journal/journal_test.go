package journal

import (
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"berth/fault"

	"github.com/moby/moby/api/types/events"
)

func TestFilters(t *testing.T) {
	m := events.Message{
		Type: events.ContainerEventType, Action: "exec_create: sh", Scope: "local",
		Actor: events.Actor{ID: "cafe01", Attributes: map[string]string{"name": "web", "image": "host:5000/busybox:1", "l": "v"}},
	}
	pulled := events.Message{Type: events.ImageEventType, Action: "pull", Scope: "local", Actor: events.Actor{ID: "sha256:1", Attributes: map[string]string{"name": "busybox:1"}}}
	for name, c := range map[string]struct {
		m    events.Message
		f    Filters
		want bool
	}{
		"none":                 {m, nil, true},
		"empty":                {m, Filters{"type": {}}, true},
		"type":                 {m, Filters{"type": {"image", "container"}}, true},
		"other type":           {m, Filters{"type": {"image"}}, false},
		"event":                {m, Filters{"event": {"exec_create"}}, true},
		"whole event":          {m, Filters{"event": {"exec_create: sh"}}, true},
		"scope":                {m, Filters{"scope": {"local"}}, true},
		"other scope":          {m, Filters{"scope": {"swarm"}}, false},
		"container by name":    {m, Filters{"container": {"/web"}}, true},
		"container by prefix":  {m, Filters{"container": {"cafe"}}, true},
		"other container":      {m, Filters{"container": {"c0ffee"}}, false},
		"image":                {m, Filters{"image": {"host:5000/busybox:1"}}, true},
		"image, any tag":       {m, Filters{"image": {"host:5000/busybox"}}, true},
		"a part of a host":     {m, Filters{"image": {"host"}}, false},
		"an image's own":       {pulled, Filters{"image": {"busybox"}}, true},
		"label":                {m, Filters{"label": {"l"}}, true},
		"label, value":         {m, Filters{"label": {"l=v", "name=web"}}, true},
		"one label is missing": {m, Filters{"label": {"l=v", "m"}}, false},
		"both must hold":       {m, Filters{"type": {"container"}, "event": {"die"}}, false},
		"a network":            {m, Filters{"network": {"web"}}, false},
		"a volume":             {m, Filters{"volume": {"web"}}, false},
		"a daemon":             {m, Filters{"daemon": {"web"}}, false},
		"a plugin":             {m, Filters{"plugin": {"web"}}, false},
		"of a swarm":           {m, Filters{"service": {"web"}, "node": {"web"}, "secret": {"web"}, "config": {"web"}}, false},
	} {
		if err := c.f.check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := c.f.fits(c.m); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if len(filterKeys()) != 14 {
		t.Errorf("%d filters", len(filterKeys()))
	}
}

func open(t *testing.T, dir string) *Journal {
	t.Helper()
	j, err := Open(dir, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func (j *Journal) say(id string) { j.Publish(events.ContainerEventType, events.ActionCreate, id, nil) }

func ids(past iter.Seq[events.Message]) (all []string) {
	for m := range past {
		all = append(all, m.Actor.ID)
	}
	return all
}

// subscribe is for what is past; the subscription is closed at the end of the test.
func subscribe(t *testing.T, j *Journal, r Request) ([]events.Message, *Subscription) {
	t.Helper()
	past, s, err := j.Subscribe(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return slices.Collect(past), s
}

func TestSubscribersMissNothing(t *testing.T) {
	j := open(t, t.TempDir())
	defer j.Close()
	begin := time.Now()
	for n := range recent + 10 {
		j.say(fmt.Sprint(n))
	}
	past, s := subscribe(t, j, Request{Since: begin})
	if len(past) != recent+10 || past[0].Actor.ID != "0" || past[len(past)-1].Actor.ID != fmt.Sprint(recent+9) {
		t.Fatalf("%d past ones", len(past))
	}
	if last, _ := subscribe(t, j, Request{Until: time.Now().Add(time.Hour)}); len(last) != recent || last[0].Actor.ID != "10" {
		t.Errorf("without a beginning: %d", len(last))
	}
	middle := time.Unix(0, past[100].TimeNano)
	some, sub := subscribe(t, j, Request{Since: middle, Until: middle})
	if len(some) != 1 {
		t.Errorf("since = until: %d", len(some))
	}
	for m := range sub.C { // ends by itself, as its end is past
		t.Errorf("%+v", m)
	}
	j.say("new")
	if m := <-s.C; m.Actor.ID != "new" || m.TimeNano <= past[len(past)-1].TimeNano {
		t.Errorf("%+v", m)
	}
	before := j.Listeners()
	for range backlog + 1 { // a reader that sleeps is let go, and the writer never waits
		j.say("x")
	}
	n := 0
	for range s.C {
		n++
	}
	if n != backlog || j.Listeners() >= before {
		t.Errorf("%d delivered, %d listeners", n, j.Listeners())
	}
	for _, bad := range []Request{{Filters: Filters{"x": {"y"}}}, {Since: time.Unix(2, 0), Until: time.Unix(1, 0)}} {
		if _, _, err := j.Subscribe(bad); !errors.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func TestNoGapAndNoDoubleWhileOthersTell(t *testing.T) {
	j := open(t, t.TempDir())
	defer j.Close()
	begin := time.Now()
	const all = 600
	told := make(chan struct{})
	go func() {
		defer close(told)
		for n := range all {
			j.say(fmt.Sprint(n))
		}
	}()
	past, s := subscribe(t, j, Request{Since: begin})
	<-told
	for len(past) < all {
		past = append(past, <-s.C)
	}
	for n, m := range past {
		if m.Actor.ID != fmt.Sprint(n) {
			t.Fatalf("%s stands where %d belongs", m.Actor.ID, n)
		}
	}
}

func TestHistoryOutlivesTheEngine(t *testing.T) {
	dir := t.TempDir()
	begin := time.Now()
	j := open(t, dir)
	j.say("first")
	j.say("second")
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	// The engine dies in the middle of a line, and the clock is set back.
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	if len(files) != 1 {
		t.Fatalf("files: %v", files)
	}
	f, err := os.OpenFile(files[0], os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	future := time.Now().Add(time.Hour).UnixNano()
	fmt.Fprintf(f, `{"Type":"container","Action":"die","Actor":{"ID":"third"},"timeNano":%d}`+"\n"+`{"Type":"contai`, future)
	f.Close()
	j = open(t, dir)
	j.say("fourth")
	past, s := subscribe(t, j, Request{Since: begin})
	if got := strings.Join(ids(slices.Values(past)), " "); got != "first second third fourth" {
		t.Errorf("%s", got)
	}
	if past[3].TimeNano <= future {
		t.Error("an event is told before the one that came before it")
	}
	s.Close()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "*")); len(files) != 1 {
		t.Errorf("files: %v", files)
	}
}

func TestHistoryIsBounded(t *testing.T) {
	dir := t.TempDir()
	begin := time.Now()
	j := open(t, dir)
	defer j.Close()
	j.history.fileSize = 1000
	for n := range 400 {
		j.say(fmt.Sprint(n))
		j.history.flush()
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	past, _ := subscribe(t, j, Request{Since: begin})
	if len(files) != keptFiles || len(past) == 0 || past[len(past)-1].Actor.ID != "399" || past[0].Actor.ID == "0" {
		t.Errorf("%d files, %d events from %s", len(files), len(past), past[0].Actor.ID)
	}
	middle, _ := subscribe(t, j, Request{Since: time.Unix(0, past[5].TimeNano), Until: time.Unix(0, past[20].TimeNano)})
	if len(middle) != 16 || middle[0].TimeNano != past[5].TimeNano {
		t.Errorf("%d in the middle", len(middle))
	}
}

func TestAHistoryThatCannotBeWrittenIsToldOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "events")
	warnings := 0
	j, err := Open(dir, func(error) { warnings++ })
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if err := os.Rename(dir, dir+".gone"); err != nil {
		t.Fatal(err)
	}
	_, s := subscribe(t, j, Request{})
	for range 3 {
		j.say("x")
		j.history.flush()
		if m := <-s.C; m.Actor.ID != "x" {
			t.Errorf("%+v", m)
		}
	}
	if warnings != 1 {
		t.Errorf("%d warnings", warnings)
	}
	if err := os.Rename(dir+".gone", dir); err != nil {
		t.Fatal(err)
	}
	j.say("y")
	if past, _ := subscribe(t, j, Request{Since: time.Unix(1, 0)}); len(past) != 1 {
		t.Errorf("%+v", past)
	}
}

func BenchmarkPublish(b *testing.B) {
	j, err := Open(b.TempDir(), func(err error) { b.Error(err) })
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	attributes := map[string]string{"name": "web", "image": "busybox"}
	for range b.N {
		j.Publish(events.ContainerEventType, events.ActionCreate, "cafe", attributes)
	}
}

// FuzzHistory reads files that a crash, or somebody else, left.
func FuzzHistory(f *testing.F) {
	f.Add([]byte(`{"Type":"container","Action":"die","Actor":{"ID":"x"},"timeNano":5}` + "\n{\n\n[]\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "1.jsonl"), content, 0o600); err != nil {
			t.Fatal(err)
		}
		j := open(t, dir)
		defer j.Close()
		j.say("after")
		past, _ := subscribe(t, j, Request{Since: time.Unix(0, 1)})
		if len(past) == 0 || past[len(past)-1].Actor.ID != "after" {
			t.Errorf("%+v", past)
		}
		j.history.flush()
	})
}

func TestAClockThatWasWrongIsNotHeldOnTo(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "1.jsonl"), []byte(`{"Type":"container","Action":"die","timeNano":9223372036854775807}`+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	j := open(t, dir)
	defer j.Close()
	j.say("now")
	past, _ := subscribe(t, j, Request{Since: time.Now().Add(-time.Minute), Until: time.Now().Add(time.Minute)})
	if len(past) != 1 || past[0].Actor.ID != "now" {
		t.Errorf("%+v", past)
	}
}
