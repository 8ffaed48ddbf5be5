package daemon

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/events"
)

func TestEventTypeIsNegotiated(t *testing.T) {
	for _, c := range []struct {
		version apiVersion
		accept  []string
		want    string
	}{
		{52, nil, "application/json"},
		{52, []string{"*/*"}, "application/json"},
		{52, []string{"application/x-ndjson"}, "application/x-ndjson"},
		{56, []string{"text/html, application/json-seq"}, "application/json-seq"},
		{56, []string{"application/jsonl;q=0.5", "application/json-seq; q=0.8, application/x-ndjson;q=0.1"}, "application/json-seq"},
		{56, []string{"application/json, application/jsonl"}, "application/json"},
		{56, []string{"Application/JSON-Seq;q=0"}, "application/json"},
		{56, []string{"application/x-ndjson;q=x"}, "application/x-ndjson"},
		{56, []string{"text/plain"}, "application/json"},
		{51, []string{"application/x-ndjson"}, "application/json"},
	} {
		r := httptest.NewRequest(http.MethodGet, "/events", nil)
		r = r.WithContext(context.WithValue(r.Context(), versionKey{}, c.version))
		for _, a := range c.accept {
			r.Header.Add("Accept", a)
		}
		if got := eventType(r); got != c.want {
			t.Errorf("%s %q: %s, want %s", c.version, c.accept, got, c.want)
		}
	}
}

func TestEventForms(t *testing.T) {
	m := events.Message{Type: "container", Action: "die", Actor: events.Actor{ID: "x", Attributes: map[string]string{"image": "<b>"}}, Scope: "local", Time: 1, TimeNano: 1e9}
	const now = `{"Type":"container","Action":"die","Actor":{"ID":"x","Attributes":{"image":"<b>"}},"scope":"local","time":1,"timeNano":1000000000`
	for kind, want := range map[string]string{
		"application/json-seq": "\x1e" + now + "}\n", "application/x-ndjson": now + "}\n", "application/json": now + "}\n",
	} {
		var b strings.Builder
		if err := eventWriter(&b, kind, 52)(m); err != nil || b.String() != want {
			t.Errorf("%s: %q, %v", kind, b.String(), err)
		}
	}
	var b strings.Builder
	if err := eventWriter(&b, "application/json", 51)(m); err != nil || b.String() != now+`,"status":"die","id":"x","from":"<b>"}`+"\n" {
		t.Errorf("%q, %v", b.String(), err)
	}
}

func FuzzAccept(f *testing.F) {
	for _, seed := range []string{"application/json-seq", "application/jsonl;q=0.5, */*;q=1", ";;q=,=", "application/x-ndjson;Q=0.000"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		r := &http.Request{Header: http.Header{"Accept": {header}}}
		switch kind := eventType(r); kind {
		case "application/json", "application/x-ndjson", "application/jsonl", "application/json-seq":
		default:
			t.Errorf("%q: %s", header, kind)
		}
	})
}
