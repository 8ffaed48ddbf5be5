package builds

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"

	"berth/build"
	"berth/build/dockerfile"
	"berth/build/progress"
	"berth/fault"
	"berth/image"
)

// Status makes statuses of what is told of a build. The methods of its Teller may be called concurrently.
type Status struct {
	// Out takes what is new. Calls come one at a time.
	Out func(*progress.Status)

	mu      sync.Mutex
	several bool // names begin with the platform
	file    string
	text    []byte
	known   map[digest.Digest]*progress.Vertex
	steps   map[*dockerfile.Step]digest.Digest
	bases   map[*dockerfile.Stage]digest.Digest // of a FROM
	parts   map[string]*progress.Part
	plans   int
}

// Teller is who tells s.
func (s *Status) Teller() Teller {
	return Teller{Plan: s.plan, Event: s.event, Warn: s.warn, Work: s.work, Read: s.read, Fail: s.fail, Push: s.push, Put: s.put}
}

func (s *Status) read(file string, text []byte, platforms int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.file, s.text, s.several = file, text, platforms > 1
}

func nameOf(parts ...string) digest.Digest {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(h.Sum(nil)))
}

// vertex gives what is known of v, and makes it known.
func (s *Status) vertex(name digest.Digest, shown string, inputs []digest.Digest) *progress.Vertex {
	if s.known == nil {
		s.known, s.parts = map[digest.Digest]*progress.Vertex{}, map[string]*progress.Part{}
		s.steps, s.bases = map[*dockerfile.Step]digest.Digest{}, map[*dockerfile.Stage]digest.Digest{}
	}
	v := s.known[name]
	if v == nil {
		v = &progress.Vertex{Digest: name, Name: shown, Inputs: inputs}
		s.known[name] = v
	}
	return v
}

// copied is a vertex as it is now: those that were told stay as they were.
func copiedVertex(v *progress.Vertex) *progress.Vertex {
	c := *v
	return &c
}

func (s *Status) say(v *progress.Vertex) {
	s.Out(&progress.Status{Vertexes: []*progress.Vertex{copiedVertex(v)}})
}

// plan says what there is to do.
func (s *Status) plan(p *dockerfile.Plan) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.plans++
	scope := fmt.Sprint(s.plans, " ", image.FormatPlatform(p.Target.Platform))
	last := map[*dockerfile.Stage]digest.Digest{}
	out := &progress.Status{}
	for _, st := range p.Stages {
		n := numbering{stage: st, several: s.several}
		n.count()
		before := digest.Digest("")
		if st.Base.Stage != nil {
			before = last[st.Base.Stage]
		}
		if img := st.Base.Image; img != nil {
			text := n.prefix(1) + "FROM " + fullName(img.Name)
			v := s.vertex(nameOf(scope, text, img.Digest.String()), text, nil)
			s.bases[st], before = v.Digest, v.Digest
			out.Vertexes = append(out.Vertexes, copiedVertex(v))
		}
		if tree := st.Base.Files; tree != nil {
			text := "[context " + tree.Name + "] load"
			v := s.vertex(nameOf(scope, text), text, nil)
			s.bases[st], before = v.Digest, v.Digest
			out.Vertexes = append(out.Vertexes, copiedVertex(v))
		}
		for _, step := range st.Steps {
			if step.Do == nil {
				continue
			}
			inputs := s.inputs(before, step, last)
			text := n.of(step)
			v := s.vertex(nameOf(append([]string{scope, fmt.Sprint(st.Index), text}, words(inputs)...)...), text, inputs)
			s.steps[step], before = v.Digest, v.Digest
			out.Vertexes = append(out.Vertexes, copiedVertex(v))
		}
		last[st] = before
	}
	if len(out.Vertexes) > 0 {
		s.Out(out)
	}
}

func words(list []digest.Digest) (all []string) {
	for _, d := range list {
		all = append(all, d.String())
	}
	return all
}

// inputs are what a step waits for.
func (s *Status) inputs(before digest.Digest, step *dockerfile.Step, last map[*dockerfile.Stage]digest.Digest) (all []digest.Digest) {
	add := func(d digest.Digest) {
		if d != "" && !slices.Contains(all, d) {
			all = append(all, d)
		}
	}
	add(before)
	from := func(st *dockerfile.Stage, local bool) {
		if st != nil {
			add(last[st])
		} else if local {
			add(nameOf("work", LoadContext))
		}
	}
	switch do := step.Do.(type) {
	case *dockerfile.Copy:
		local := slices.ContainsFunc(do.Sources, func(src dockerfile.Source) bool { return src.Path != "" })
		from(do.From, local)
	case *dockerfile.Run:
		for _, m := range do.Mounts {
			from(m.From, m.Type == "bind")
		}
	}
	return all
}

func fullName(name string) string {
	if named, err := reference.ParseNormalizedNamed(name); err == nil {
		return reference.TagNameOnly(named).String()
	}
	return name
}

// numbering gives the steps of a stage the numbers that people see: FROM an image counts too.
type numbering struct {
	stage   *dockerfile.Stage
	several bool
	first   int // 1 when FROM has a number
	total   int
}

func (n *numbering) count() {
	if n.stage.Base.Image != nil {
		n.first = 1
	}
	n.total = n.first
	for _, st := range n.stage.Steps {
		if st.Do != nil {
			n.total++
		}
	}
}

// prefix is "[stage 2/5] ". A tree that is only copied from has none.
func (n *numbering) prefix(k int) string {
	if n.stage.Index < 0 {
		return ""
	}
	words := []string{}
	if n.several {
		words = append(words, image.FormatPlatform(n.stage.Platform))
	}
	if n.stage.Name != "" {
		words = append(words, n.stage.Name)
	}
	words = append(words, fmt.Sprintf("%*d/%d", 1+int(math.Log10(float64(n.total))), k, n.total))
	return "[" + strings.Join(words, " ") + "] "
}

// of is a step as it is shown.
func (n *numbering) of(st *dockerfile.Step) string {
	text := n.prefix(n.first + st.Number)
	if st.OnBuild {
		text += "ONBUILD "
	}
	return text + st.Text
}

// event takes an event of the build.
func (s *Status) event(e build.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name, known := s.steps[e.Step]
	if e.Step == nil {
		name, known = s.bases[e.Stage]
	}
	if !known {
		return
	}
	v := s.known[name]
	now := e.Time.UTC()
	switch e.Kind {
	case build.Stdout, build.Stderr:
		stream := 1
		if e.Kind == build.Stderr {
			stream = 2
		}
		s.Out(&progress.Status{Logs: []*progress.Log{{Vertex: name, Stream: stream, Data: slices.Clone(e.Output), Timestamp: now}}})
		return
	case build.Progressed:
		if v.Started == nil {
			v.Started = &now
			s.say(v)
		}
		s.part(v, Work{Name: name.String(), Part: e.At.Part, Bytes: e.At.Current, Total: e.At.Total, Done: e.At.Done}, now)
		return
	case build.Began:
		v.Started, v.Reason = &now, e.Reason
	default:
		if v.Started == nil {
			v.Started = &now
		}
		v.Completed, v.Cached = &now, e.Kind == build.Cached
		if e.Err != nil {
			v.Error = Words(e.Err)
		}
		if other := (*build.StepError)(nil); errors.As(e.Err, &other) && other.Step != e.Step {
			v.Error = canceled // what it waited for failed
		}
	}
	s.say(v)
}

// canceled is an error by which programs know that it was not the step's own fault.
const canceled = "context canceled"

// Words are an error as builders say it that show a graph: a program's failure is called one of a process.
func Words(err error) string {
	var step *build.StepError
	if errors.As(err, &step) && step.Code != 0 {
		if run, is := step.Step.Do.(*dockerfile.Run); is {
			return fmt.Sprintf("process %q did not complete successfully: exit code: %d", strings.Join(run.Args, " "), step.Code)
		}
	}
	if errors.Is(err, fault.Canceled) {
		return canceled
	}
	return err.Error()
}

// Told is an error that says itself in Words.
func Told(err error) error { return worded{err} }

type worded struct{ error }

func (w worded) Error() string { return Words(w.error) }

// Unwrap gives what the words are of.
func (w worded) Unwrap() error { return w.error }

// work takes what is no step.
func (s *Status) work(w Work) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.vertex(nameOf("work", w.Name), w.Name, nil)
	now := w.Time.UTC()
	if w.Part != "" {
		s.part(v, w, now)
		return
	}
	if v.Completed != nil && v.Error == "" { // once more, for another stage or platform: it is known
		return
	}
	if v.Started == nil {
		v.Started = &now
	}
	if w.Done {
		v.Completed, v.Cached = &now, w.Cached
		if w.Err != nil {
			v.Error = Words(w.Err)
		}
	}
	s.say(v)
}

// put takes what is done for an output.
func (s *Status) put(output, what string) (end func(error)) {
	tell := Teller{Work: s.work}
	tell.Part(exporting(output), what, 0, 0, false)
	return func(err error) {
		if err == nil {
			tell.Part(exporting(output), what, 0, 0, true)
		}
	}
}

func exporting(output string) string {
	switch output {
	case "", "image":
		return Exporting
	case "registry":
		return "pushing to the registry"
	}
	return "exporting to " + output
}

// push takes what is told of a push.
func (s *Status) push(m jsonstream.Message) {
	Teller{Work: s.work}.layers(exporting("image"), m)
}

func (s *Status) part(v *progress.Vertex, w Work, now time.Time) {
	key := w.Name + "\x00" + w.Part
	p := s.parts[key]
	if p == nil {
		p = &progress.Part{ID: w.Part, Vertex: v.Digest, Started: &now}
		s.parts[key] = p
	}
	p.Timestamp = now
	if w.Bytes > 0 || w.Total > 0 {
		p.Current, p.Total = w.Bytes, w.Total
	}
	if w.Done && p.Completed == nil {
		p.Completed = &now
		p.Current = max(p.Current, p.Total)
	}
	c := *p
	s.Out(&progress.Status{Statuses: []*progress.Part{&c}})
}

// warn takes what a check found.
func (s *Status) warn(w dockerfile.Warning) {
	s.mu.Lock()
	defer s.mu.Unlock()
	short := w.Rule + ": " + w.Detail
	if w.Line > 0 {
		short += fmt.Sprintf(" (line %d)", w.Line)
	}
	one := &progress.Warning{
		Vertex: nameOf("work", loadDefinition+s.file), Level: 1, Short: []byte(short), Detail: [][]byte{[]byte(w.About)},
		SourceInfo: &progress.SourceInfo{Filename: s.file, Data: s.text, Language: "Dockerfile"},
	}
	if w.Line > 0 {
		one.Range = []*progress.Range{{Start: progress.Position{Line: int32(w.Line)}, End: progress.Position{Line: int32(w.End)}}}
	}
	s.Out(&progress.Status{Warnings: []*progress.Warning{one}})
}
