package build

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"berth/build/progress"
)

// plain shows a build in lines, in the form that people and programs know from BuildKit: "#5 [2/3] RUN make", "#5 0.123 output", "#5 DONE 0.2s".
// Of several things that are done at once one is shown, until it is silent for a while; the others' lines are held back.
type plain struct {
	out io.Writer

	mu      sync.Mutex
	trace   trace
	current *vertex
	said    time.Time // when the current one last said something
	first   bool      // something was printed
	numbers int
	touched []*vertex // of the status under way
}

// plainVertex is what plain has of a vertex.
type plainVertex struct {
	number  int
	held    bytes.Buffer // lines that are not printed yet
	open    []byte       // output without its end
	openAt  time.Duration
	parts   map[string]*progress.Part // as they were last printed
	later   []*progress.Part          // those without a figure are only printed when they take a while
	why     bool                      // the reason was told
	touched bool
	over    bool
}

// short is how long a part without figures may take unseen, silence how long the one that is shown may say nothing while others have something to say, and patience how long they wait in any case.
const (
	silence  = 2 * time.Second
	patience = 5 * time.Second
	short    = time.Second
)

// Show implements display.
func (p *plain) Show(s *progress.Status) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Time{}
	seen := func(t time.Time) {
		if t.After(now) {
			now = t
		}
	}
	p.trace.add(s, func(v *vertex, what any) {
		switch n := what.(type) {
		case *progress.Vertex:
			p.changed(v)
			if n.Completed != nil {
				seen(*n.Completed)
			} else {
				seen(*n.Started)
			}
		case *progress.Part:
			p.part(v, n)
			seen(n.Timestamp)
		case *progress.Log:
			p.log(v, n)
			seen(n.Timestamp)
		case *progress.Warning:
			if !v.done() { // else it is told at the end only
				fmt.Fprintf(&v.plain.held, "#%d WARN: %s\n", p.number(v), n.Short)
			}
		}
		if !v.plain.touched {
			v.plain.touched = true
			p.touched = append(p.touched, v)
		}
	})
	p.print(now)
}

func (p *plain) number(v *vertex) int {
	if v.plain.number == 0 {
		p.numbers++
		v.plain.number = p.numbers
	}
	return v.plain.number
}

// changed takes a vertex that began, or ended.
func (p *plain) changed(v *vertex) {
	n, pv := p.number(v), &v.plain
	if why := v.Why(); why != "" && !pv.why {
		pv.why = true
		fmt.Fprintf(&pv.held, "#%d why: %s\n", n, why)
	}
	if !v.done() {
		pv.over = false
		return
	}
	if pv.over {
		return
	}
	pv.over = true
	if len(pv.open) > 0 {
		p.line(v, nil)
	}
	switch {
	case v.canceled():
		fmt.Fprintf(&pv.held, "#%d CANCELED\n", n)
	case v.failed():
		fmt.Fprintf(&pv.held, "#%d ERROR: %s\n", n, v.Error)
	case v.Cached:
		fmt.Fprintf(&pv.held, "#%d CACHED\n", n)
	default:
		fmt.Fprintf(&pv.held, "#%d DONE %.1fs\n", n, v.spent(*v.Completed).Seconds())
	}
}

// part prints a part of a vertex when that is worth a line: at the beginning, at the end, and now and then.
func (p *plain) part(v *vertex, n *progress.Part) {
	pv := &v.plain
	if pv.parts == nil {
		pv.parts = map[string]*progress.Part{}
	}
	if old := pv.parts[n.ID]; old != nil {
		much := n.Total > 0 && float64(n.Current-old.Current)/float64(n.Total) >= 0.05
		if old.Completed != nil || n.Completed == nil && !much && n.Timestamp.Sub(old.Timestamp) < patience {
			return
		}
	}
	pv.parts[n.ID] = n
	pv.later = slices.DeleteFunc(pv.later, func(p *progress.Part) bool { return p.ID == n.ID })
	if n.Completed == nil && n.Current == 0 && n.Total == 0 && n.Started != nil && n.Timestamp.Sub(*n.Started) < short {
		pv.later = append(pv.later, n)
		return
	}
	p.partLine(v, n)
}

// partLine prints a part as it is.
func (p *plain) partLine(v *vertex, n *progress.Part) {
	pv := &v.plain
	end, after := n.Timestamp, ""
	if n.Completed != nil {
		end, after = *n.Completed, " done"
	}
	if n.Started != nil && end.Sub(*n.Started) > 10*time.Millisecond {
		after = fmt.Sprintf(" %.1fs", end.Sub(*n.Started).Seconds()) + after
	}
	fmt.Fprintf(&pv.held, "#%d %s%s%s\n", p.number(v), n.ID, amount(n), after)
}

// log takes output, line by line.
func (p *plain) log(v *vertex, l *progress.Log) {
	pv, at := &v.plain, time.Duration(0)
	if v.Started != nil {
		at = l.Timestamp.Sub(*v.Started)
	}
	data := l.Data
	for len(data) > 0 {
		if len(pv.open) == 0 {
			pv.openAt = at
		}
		one, rest, whole := bytes.Cut(data, []byte("\n"))
		if !whole && len(pv.open)+len(one) < maxLine {
			pv.open = append(pv.open, one...)
			return
		}
		p.line(v, one)
		data = rest
	}
}

// line ends the open line with text.
func (p *plain) line(v *vertex, text []byte) {
	pv := &v.plain
	fmt.Fprintf(&pv.held, "#%d %s %s%s\n", p.number(v), seconds(pv.openAt), pv.open, bytes.TrimSuffix(text, []byte("\r")))
	pv.open = pv.open[:0]
}

// print prints what it is time for: what has ended, then the one that is shown.
func (p *plain) print(now time.Time) {
	for _, v := range p.touched {
		v.plain.touched = false
	}
	for _, v := range p.trace.begun {
		for len(v.plain.later) > 0 && now.Sub(*v.plain.later[0].Started) >= short {
			p.partLine(v, v.plain.later[0])
			v.plain.later = v.plain.later[1:]
		}
	}
	if c := p.current; c != nil && c.plain.held.Len() > 0 {
		p.show(c, now)
	}
	for _, v := range p.trace.begun {
		if v.done() && v.plain.held.Len() > 0 {
			p.show(v, now)
		}
	}
	for _, v := range p.touched {
		if v.done() || v.Started == nil {
			continue
		}
		if c := p.current; c == nil || v == c || now.Sub(p.said) > silence {
			p.show(v, now)
		}
	}
	p.touched = p.touched[:0]
}

// show prints what is held of v, which is then the one that is shown, until it ends.
func (p *plain) show(v *vertex, now time.Time) {
	n := p.number(v)
	if v != p.current {
		if c := p.current; c != nil {
			fmt.Fprintf(p.out, "#%d ...\n", p.number(c))
		}
		if p.first {
			fmt.Fprintln(p.out)
		}
		p.first = true
		fmt.Fprintf(p.out, "#%d %s\n", n, v.Name)
	}
	p.out.Write(v.plain.held.Bytes())
	v.plain.held.Reset()
	if p.current, p.said = v, now; v.done() {
		p.current = nil
	}
}

// End implements display.
func (p *plain) End() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, v := range p.trace.begun {
		if len(v.plain.open) > 0 {
			p.line(v, nil)
		}
		if v.plain.held.Len() > 0 {
			p.show(v, p.said)
		}
	}
	p.trace.failures(p.out)
	p.trace.found(p.out)
}
