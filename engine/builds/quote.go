package builds

import (
	"errors"
	"fmt"
	"strings"

	"berth/build"
	"berth/build/dockerfile"
	"berth/build/progress"
	"berth/fault"
)

// QuoteOf shows where in a Dockerfile an error comes from, and what may help; nil when it is of no place in it.
func QuoteOf(err error, file string, text []byte) *progress.Quote {
	if err == nil || errors.Is(err, fault.Canceled) {
		return nil
	}
	var wrong *dockerfile.Error
	if errors.As(err, &wrong) && wrong.Line > 0 {
		return &progress.Quote{File: wrong.File, Line: wrong.Line, Text: wrong.Quote}
	}
	var failed *build.StepError
	if errors.As(err, &failed) && failed.Step.Line > 0 {
		return &progress.Quote{File: file, Line: failed.Step.Line, Text: dockerfile.Quote(text, failed.Step.Line, failed.Step.End), Hint: hint(failed)}
	}
	return nil
}

// hint says what an exit code means, and how to look at what the step saw.
func hint(e *build.StepError) string {
	if e.Code == 0 {
		return ""
	}
	text := fmt.Sprintf("exit code %d", e.Code)
	switch {
	case e.Code == 126:
		text += ": the program was found and can't be executed: look at its mode and its first line"
	case e.Code == 127:
		text += ": a program was not found: install it in a step before, or look at PATH"
	case e.Code == 137:
		text += ": the program was killed: it may have needed more memory than there is"
	case e.Code == 139:
		text += ": the program accessed memory that is not its own"
	case e.Code > 128 && e.Code < 160:
		text += fmt.Sprintf(": signal %d ended the program", e.Code-128)
	}
	return text + "; the steps before it stay in the cache\nto look at what it began with: " + look(e) + " -t look ., then run -it --rm look sh"
}

// look says how a stage is had that ends before a step.
func look(e *build.StepError) string {
	if base := e.Stage.Base.Stage; base != nil && e.Step.Number == 1 {
		return "build --target " + base.Name
	}
	words := strings.Fields(e.Stage.Text)
	if n := len(words); n > 2 && strings.EqualFold(words[n-2], "AS") {
		return fmt.Sprintf("put a line \"FROM %s\" before it, build --target %[1]s", words[n-1])
	}
	return "write \"AS before\" behind its FROM, put a line \"FROM before\" before it, build --target before"
}

// fail tells of a build's error.
func (t Teller) fail(err error) {
	if err != nil && t.Fail != nil {
		t.Fail(err)
	}
}

// fail quotes the Dockerfile.
func (s *Status) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := QuoteOf(err, s.file, s.text)
	if q == nil {
		return
	}
	var failed *build.StepError
	if errors.As(err, &failed) {
		q.Vertex = s.steps[failed.Step]
	}
	s.Out(&progress.Status{Quotes: []*progress.Quote{q}})
}
