package builds

import (
	"fmt"
	"strings"

	"berth/build"
	"berth/build/dockerfile"
)

// Classic writes a build's events as the classic builder's output: stage after stage, however they were made.
type Classic struct {
	Out   func(string)
	Quiet bool

	file    string // the Dockerfile's name and text
	text    []byte
	awaited int                 // plans that are still to come, one for each platform
	stages  []*dockerfile.Stage // of all plans
	total   int
	first   map[*dockerfile.Stage]int // number of its FROM
	current int                       // of stages
	held    map[*dockerfile.Stage][]build.Event
	left    map[*dockerfile.Stage]int // steps that have not ended
}

// Read takes the Dockerfile, which comes first.
func (c *Classic) Read(file string, text []byte, platforms int) {
	c.file, c.text, c.awaited = file, text, platforms
	c.first, c.held, c.left = map[*dockerfile.Stage]int{}, map[*dockerfile.Stage][]build.Event{}, map[*dockerfile.Stage]int{}
}

// Fail quotes the lines that an error comes from.
func (c *Classic) Fail(err error) {
	if q := QuoteOf(err, c.file, c.text); q != nil {
		c.say("%s:%d\n--------------------\n%s--------------------\n", q.File, q.Line, q.Text)
		if q.Hint != "" {
			c.say("%s\n", q.Hint)
		}
	}
}

// Plan says what will come, once for each platform.
func (c *Classic) Plan(p *dockerfile.Plan) {
	c.stages = append(c.stages, p.Stages...)
	for _, s := range p.Stages {
		if s.Index < 0 {
			continue
		}
		c.first[s] = c.total + 1
		c.total += 1 + len(s.Steps)
		c.left[s] = len(s.Steps)
	}
	if c.awaited--; c.awaited == 0 {
		c.begin()
	}
}

func (c *Classic) say(format string, args ...any) {
	if !c.Quiet {
		c.Out(fmt.Sprintf(format, args...))
	}
}

// begin announces the stage that is shown now.
func (c *Classic) begin() {
	for ; c.current < len(c.stages); c.current++ {
		s := c.stages[c.current]
		if s.Index < 0 {
			continue
		}
		c.say("Step %d/%d : %s\n", c.first[s], c.total, s.Text)
		held := c.held[s]
		delete(c.held, s)
		for _, e := range held {
			c.show(e)
		}
		if c.left[s] > 0 {
			return
		}
	}
}

// Event takes one event.
func (c *Classic) Event(e build.Event) {
	if e.Step == nil || e.Stage.Index < 0 {
		return
	}
	if c.current >= len(c.stages) || c.stages[c.current] != e.Stage {
		c.held[e.Stage] = append(c.held[e.Stage], copied(e))
		return
	}
	c.show(e)
	if c.left[e.Stage] == 0 {
		c.current++
		c.begin()
	}
}

// copied has output that stays.
func copied(e build.Event) build.Event {
	e.Output = append([]byte(nil), e.Output...)
	return e
}

func (c *Classic) show(e build.Event) {
	number := c.first[e.Stage]
	for k, st := range e.Stage.Steps {
		if st == e.Step {
			number += k + 1
		}
	}
	head := func() { c.say("Step %d/%d : %s\n", number, c.total, e.Step.Text) }
	switch e.Kind {
	case build.Began:
		head()
		if e.Reason != "" {
			c.say(" ---> Not in the cache: %s\n", e.Reason)
		}
		if _, is := e.Step.Do.(*dockerfile.Run); is {
			c.say(" ---> Running\n")
		}
	case build.Cached:
		head()
		c.say(" ---> Using cache\n")
		c.left[e.Stage]--
	case build.Finished:
		if e.Step.Do == nil {
			head()
		}
		c.left[e.Stage]--
	case build.Failed:
		c.left[e.Stage]--
	case build.Stdout, build.Stderr:
		c.say("%s", strings.ToValidUTF8(string(e.Output), "\uFFFD"))
	}
}
