package dockerfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/build/progress"
	"berth/fault"
)

// Options say what is built of a Dockerfile.
type Options struct {
	Name     string // of the file, for messages; "": Dockerfile
	Target   string // a stage's name or number; "": the last one
	Args     map[string]string
	Labels   map[string]string
	Platform *ocispec.Platform // nil: the machine's
	Host     ocispec.Platform
	NoCache  func(stage string) bool        // nil: no stage
	Ignored  func(path string) bool         // what the ignore file leaves out, for a warning; nil: nothing
	Network  string                         // of RUN without its own
	Runs     func(ocispec.Platform) error   // why programs for a platform can't be run; nil: it is not asked
	Allow    func(entitlement string) error // whether a RUN may have it; nil: it may not
	Signal   func(name string) error        // whether there is such a signal; nil: all are
	Warn     func(Warning)                  // nil: nobody listens

	// Named finds the build context that was given the name of an image or of a stage; nil when there is none, an empty Base for scratch. nil: there are none.
	Named func(ctx context.Context, name string, platform ocispec.Platform) (*Base, error)
}

// Warning is what a check found.
type Warning struct {
	Rule   string
	About  string
	URL    string
	Detail string
	Line   int // 0: none
	End    int
	At     []*progress.Range // the same, with columns
}

// File is a Dockerfile that was read.
type File struct {
	o      Options
	data   []byte
	escape rune
	stages []instructions.Stage
	args   []instructions.ArgCommand
	lint   *linter.Linter
}

// Parse reads a Dockerfile. Errors are of type *Error and fault.Invalid.
func Parse(data []byte, o Options) (*File, error) {
	if o.Name == "" {
		o.Name = "Dockerfile"
	}
	f := &File{o: o, data: data}
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, fault.New(fault.Invalid, "the Dockerfile (%s) cannot be empty", o.Name)
	}
	if err := f.configureChecks(); err != nil {
		return nil, f.wrong(err, nil)
	}
	tree, err := parser.Parse(bytes.NewReader(data))
	if err != nil {
		return nil, f.wrong(err, nil)
	}
	f.escape = tree.EscapeToken
	for _, w := range tree.Warnings {
		if w.Location != nil && w.URL == linter.RuleNoEmptyContinuation.URL {
			f.lint.Run(&linter.RuleNoEmptyContinuation, []parser.Range{*w.Location}, linter.RuleNoEmptyContinuation.Format())
		}
	}
	if f.stages, f.args, err = instructions.Parse(tree.AST, f.lint); err != nil {
		return nil, f.wrong(err, nil)
	}
	if len(f.stages) == 0 {
		return nil, fault.New(fault.Invalid, "%s has no build stage: begin with FROM", o.Name)
	}
	f.checkNames()
	f.checkCasing()
	return f, nil
}

// configureChecks reads # check=.
func (f *File) configureChecks() error {
	text, _, _, _ := parser.ParseDirective("check", f.data)
	c, err := linter.ParseLintOptions(text)
	if err != nil {
		return fmt.Errorf("read the options of checks: %w", err)
	}
	c.Warn = func(rule, about, url, detail string, at []parser.Range) {
		if f.o.Warn != nil {
			from, to := lines(at)
			f.o.Warn(Warning{Rule: rule, About: about, URL: url, Detail: detail, Line: from, End: to, At: ranges(at)})
		}
	}
	f.lint = linter.New(c)
	return nil
}

// Error is what is wrong with a Dockerfile, and where.
type Error struct {
	File  string
	Line  int // 0: nowhere in particular
	End   int
	Quote string // the lines, numbered, the wrong ones marked, and the wrong word where it is known
	cause error
}

func (e *Error) Error() string {
	if e.Line == 0 || strings.HasPrefix(e.cause.Error(), "dockerfile parse error on line") {
		return e.cause.Error()
	}
	return fmt.Sprintf("%s:%d: %v", e.File, e.Line, e.cause)
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.cause }

// wrong says where in the file err comes from; at is used when err doesn't know.
func (f *File) wrong(err error, at []parser.Range) error {
	var known *Error
	if err == nil || errors.As(err, &known) {
		return err
	}
	var located *parser.LocationError
	if errors.As(err, &located) && len(located.Locations) > 0 {
		at = located.Locations[0]
	}
	if fault.Of(err) == "" {
		err = fault.Wrap(fault.Invalid, err)
	}
	e := &Error{File: f.o.Name, cause: err}
	e.Line, e.End = lines(at)
	if e.Line > 0 {
		line, column, width := column(f.data, err.Error(), e.Line, e.End)
		e.Quote = quote(f.data, e.Line, e.End, line, column, width)
	}
	return e
}

// lines are the first and the last line of a place; 0 for none.
func lines(at []parser.Range) (from, to int) {
	for k, r := range at {
		if k == 0 || r.Start.Line < from {
			from = r.Start.Line
		}
		to = max(to, r.End.Line)
	}
	return from, to
}

// checkNames warns of stages that can't be told apart, or are called what means something else.
func (f *File) checkNames() {
	var seen []string
	for _, s := range f.stages {
		if s.Name == "" {
			continue
		}
		if s.Name == "scratch" || s.Name == "context" {
			f.lint.Run(&linter.RuleReservedStageName, s.Location, linter.RuleReservedStageName.Format(s.Name))
		}
		if slices.Contains(seen, s.Name) {
			f.lint.Run(&linter.RuleDuplicateStageName, s.Location, linter.RuleDuplicateStageName.Format(s.Name))
		}
		seen = append(seen, s.Name)
	}
}

// checkCasing warns of instructions that are written unlike most.
func (f *File) checkCasing() {
	type word struct {
		name string
		at   []parser.Range
	}
	var all []word
	for _, s := range f.stages {
		all = append(all, word{s.OrigCmd, s.Location})
		for _, c := range s.Commands {
			all = append(all, word{c.Name(), c.Location()})
		}
	}
	lower, upper := 0, 0
	for _, w := range all {
		switch w.name {
		case strings.ToLower(w.name):
			lower++
		case strings.ToUpper(w.name):
			upper++
		}
	}
	change, casing := strings.ToUpper, "uppercase"
	if lower > upper {
		change, casing = strings.ToLower, "lowercase"
	}
	for _, w := range all {
		if change(w.name) != w.name {
			f.lint.Run(&linter.RuleConsistentInstructionCasing, w.at, linter.RuleConsistentInstructionCasing.Format(w.name, casing))
		}
	}
}
