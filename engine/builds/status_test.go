package builds

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"berth/build"
	"berth/build/dockerfile"
	"berth/build/progress"

	"github.com/moby/moby/api/types/jsonstream"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

type anyImage struct{}

func (anyImage) Image(_ context.Context, name string, _ ocispec.Platform) (*dockerfile.Image, error) {
	return &dockerfile.Image{Name: name, Digest: "sha256:1"}, nil
}

func planOf(t *testing.T, text string) *dockerfile.Plan {
	t.Helper()
	f, err := dockerfile.Parse([]byte(text), dockerfile.Options{Host: ocispec.Platform{OS: "linux", Architecture: "amd64"}})
	if err != nil {
		t.Fatal(err)
	}
	p, err := f.Plan(context.Background(), anyImage{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// told is a Status and the last that it told of each vertex, with all that it told beside.
func told() (*Status, map[string]*progress.Vertex, *progress.Status) {
	last, all := map[string]*progress.Vertex{}, &progress.Status{}
	return &Status{Out: func(s *progress.Status) {
		for _, v := range s.Vertexes {
			last[v.Name] = v
		}
		all.Statuses = append(all.Statuses, s.Statuses...)
		all.Logs = append(all.Logs, s.Logs...)
		all.Warnings = append(all.Warnings, s.Warnings...)
		all.Quotes = append(all.Quotes, s.Quotes...)
	}}, last, all
}

const twoStages = "FROM busybox AS tools\nWORKDIR /w\nRUN make\nFROM scratch\nENV A=1\nCOPY --from=tools /w /w\nCOPY a b /c/\n"

// TestGraph shows the names and edges of a build, and that they are the same each time.
func TestGraph(t *testing.T) {
	s, last, _ := told()
	s.Teller().Read("Dockerfile", []byte(twoStages), 1)
	s.Teller().Plan(planOf(t, twoStages))
	Teller{Work: s.work}.Begin(LoadContext)
	digests := map[string]string{}
	for name, inputs := range map[string][]string{
		"[tools 1/3] FROM docker.io/library/busybox:latest": nil,
		"[tools 2/3] WORKDIR /w":                            {"[tools 1/3] FROM docker.io/library/busybox:latest"},
		"[tools 3/3] RUN make":                              {"[tools 2/3] WORKDIR /w"},
		"[stage-1 1/2] COPY --from=tools /w /w":             {"[tools 3/3] RUN make"},
		"[stage-1 2/2] COPY a b /c/":                        {"[stage-1 1/2] COPY --from=tools /w /w", LoadContext},
	} {
		v := last[name]
		if v == nil {
			t.Fatalf("%s is missing of %v", name, last)
		}
		digests[name] = v.Digest.String()
		if len(v.Inputs) != len(inputs) {
			t.Errorf("%s: %v, wanted %v", name, v.Inputs, inputs)
			continue
		}
		for k, in := range inputs {
			if v.Inputs[k] != last[in].Digest {
				t.Errorf("%s: input %d is not %s", name, k, in)
			}
		}
	}
	again, same, _ := told()
	again.Teller().Plan(planOf(t, twoStages))
	for name, d := range digests {
		if same[name] == nil || same[name].Digest.String() != d {
			t.Errorf("%s has another digest", name)
		}
	}
	several, both, _ := told()
	several.Teller().Read("Dockerfile", nil, 2)
	several.Teller().Plan(planOf(t, twoStages))
	if both["[linux/amd64 tools 3/3] RUN make"] == nil {
		t.Errorf("without a platform: %v", both)
	}
}

// TestStatusJSON is what --progress=rawjson prints, with fixed times.
func TestStatusJSON(t *testing.T) {
	const text = "FROM busybox\nRUN make\nRUN false\n"
	p := planOf(t, text)
	var out bytes.Buffer
	lines := json.NewEncoder(&out)
	s := &Status{Out: func(s *progress.Status) {
		if err := lines.Encode(s); err != nil {
			t.Fatal(err)
		}
	}}
	at := func(ms int) time.Time { return time.UnixMilli(1_700_000_000_000 + int64(ms)).UTC() }
	w := s.Teller()
	w.Read("Dockerfile", []byte(text), 1)
	w.Work(Work{Name: LoadContext, Time: at(0)})
	w.Work(Work{Name: LoadContext, Part: Transferring, Bytes: 123, Time: at(10)})
	w.Work(Work{Name: LoadContext, Part: Transferring, Bytes: 1234, Done: true, Time: at(20)})
	w.Work(Work{Name: LoadContext, Done: true, Time: at(30)})
	w.Plan(p)
	stage := p.Target
	first, second := stage.Steps[0], stage.Steps[1]
	w.Event(build.Event{Kind: build.Began, Stage: stage, Time: at(40)})
	w.Event(build.Event{Kind: build.Cached, Stage: stage, Time: at(50)})
	w.Event(build.Event{Kind: build.Cached, Stage: stage, Step: first, Time: at(60)})
	w.Event(build.Event{Kind: build.Began, Stage: stage, Step: second, Reason: "ARG VERSION differs", Time: at(70)})
	w.Event(build.Event{Kind: build.Stderr, Stage: stage, Step: second, Output: []byte("no\n"), Time: at(80)})
	failed := &build.StepError{Stage: stage, Step: second, Code: 1}
	w.Event(build.Event{Kind: build.Failed, Stage: stage, Step: second, Err: failed, Time: at(90)})
	w.Warn(dockerfile.Warning{Rule: "R", About: "about", Detail: "detail", Line: 2, End: 3})
	w.Fail(failed)
	want := strings.NewReplacer(
		"CONTEXT", nameOf("work", LoadContext).String(), "BASE", s.bases[stage].String(), "FIRST", s.steps[first].String(), "SECOND", s.steps[second].String(),
		"DEFINITION", nameOf("work", loadDefinition+"Dockerfile").String(), "TEXT", "RlJPTSBidXN5Ym94ClJVTiBtYWtlClJVTiBmYWxzZQo=", "DAY", "2023-11-14T22:13:20",
	).Replace(`{"vertexes":[{"digest":"CONTEXT","name":"[internal] load build context","started":"DAYZ"}]}
{"statuses":[{"id":"transferring context:","vertex":"CONTEXT","current":123,"timestamp":"DAY.01Z","started":"DAY.01Z"}]}
{"statuses":[{"id":"transferring context:","vertex":"CONTEXT","current":1234,"timestamp":"DAY.02Z","started":"DAY.01Z","completed":"DAY.02Z"}]}
{"vertexes":[{"digest":"CONTEXT","name":"[internal] load build context","started":"DAYZ","completed":"DAY.03Z"}]}
{"vertexes":[{"digest":"BASE","name":"[1/3] FROM docker.io/library/busybox:latest"},{"digest":"FIRST","inputs":["BASE"],"name":"[2/3] RUN make"},{"digest":"SECOND","inputs":["FIRST"],"name":"[3/3] RUN false"}]}
{"vertexes":[{"digest":"BASE","name":"[1/3] FROM docker.io/library/busybox:latest","started":"DAY.04Z"}]}
{"vertexes":[{"digest":"BASE","name":"[1/3] FROM docker.io/library/busybox:latest","started":"DAY.04Z","completed":"DAY.05Z","cached":true}]}
{"vertexes":[{"digest":"FIRST","inputs":["BASE"],"name":"[2/3] RUN make","started":"DAY.06Z","completed":"DAY.06Z","cached":true}]}
{"vertexes":[{"digest":"SECOND","inputs":["FIRST"],"name":"[3/3] RUN false","started":"DAY.07Z","reason":"ARG VERSION differs"}]}
{"logs":[{"vertex":"SECOND","stream":2,"data":"bm8K","timestamp":"DAY.08Z"}]}
{"vertexes":[{"digest":"SECOND","inputs":["FIRST"],"name":"[3/3] RUN false","started":"DAY.07Z","completed":"DAY.09Z","error":"process \"/bin/sh -c false\" did not complete successfully: exit code: 1","reason":"ARG VERSION differs"}]}
{"warnings":[{"vertex":"DEFINITION","level":1,"short":"UjogZGV0YWlsIChsaW5lIDIp","detail":["YWJvdXQ="],"sourceInfo":{"filename":"Dockerfile","data":"TEXT","language":"Dockerfile"},"range":[{"start":{"line":2},"end":{"line":3}}]}]}
{"quotes":[{"vertex":"SECOND","file":"Dockerfile","line":3,"text":"   1 |     FROM busybox\n   2 |     RUN make\n   3 | \u003e\u003e\u003e RUN false\n","hint":"exit code 1; the steps before it stay in the cache\nto look at what it began with: write \"AS before\" behind its FROM, put a line \"FROM before\" before it, build --target before -t look ., then run -it --rm look sh"}]}
`)
	if got := out.String(); got != want {
		t.Errorf("got\n%s\nwanted\n%s", got, want)
	}
}

// TestFailureOfAnother shows that who waited for what failed is canceled, not failed.
func TestFailureOfAnother(t *testing.T) {
	s, last, _ := told()
	p := planOf(t, twoStages)
	s.Teller().Plan(p)
	made, waits := p.Stages[0].Steps[1], p.Target.Steps[1]
	err := &build.StepError{Stage: p.Stages[0], Step: made, Code: 2}
	for _, st := range []*dockerfile.Step{made, waits} {
		s.Teller().Event(build.Event{Kind: build.Failed, Stage: p.Target, Step: st, Err: err})
	}
	if v := last["[stage-1 1/2] COPY --from=tools /w /w"]; v.Error != "context canceled" {
		t.Errorf("%+v", v)
	}
	if v := last["[tools 3/3] RUN make"]; !strings.Contains(v.Error, "exit code: 2") {
		t.Errorf("%+v", v)
	}
	if q := QuoteOf(errors.Join(err), "Dockerfile", []byte(twoStages)); q == nil || q.Line != 3 || !strings.Contains(q.Hint, `put a line "FROM tools" before it, build --target tools`) {
		t.Errorf("%+v", q)
	}
}

// TestPullIsPartOfItsWork shows what is told of a layer while it comes.
func TestPullIsPartOfItsWork(t *testing.T) {
	s, last, all := told()
	name := metadata("busybox")
	end := Teller{Work: s.work}.Begin(name)
	hear := Teller{Work: s.work}.pulling(name)
	for _, m := range []jsonstream.Message{
		{ID: "latest", Status: "Pulling from library/busybox"}, {ID: "abc", Status: "Pulling fs layer", Progress: &jsonstream.Progress{}},
		{ID: "abc", Status: "Downloading", Progress: &jsonstream.Progress{Current: 5, Total: 10}}, {ID: "abc", Status: "Pull complete", Progress: &jsonstream.Progress{}},
	} {
		hear(m)
	}
	end(nil)
	if v := last["[internal] load metadata for docker.io/library/busybox:latest"]; v == nil || v.Completed == nil {
		t.Errorf("%+v", v)
	}
	if n := len(all.Statuses); n != 3 || all.Statuses[1].Current != 5 || all.Statuses[2].Current != 10 || all.Statuses[2].Completed == nil {
		t.Errorf("%d %+v", n, all.Statuses)
	}
}
