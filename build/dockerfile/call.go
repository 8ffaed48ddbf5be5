package dockerfile

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"berth/build/progress"
	"berth/fault"
)

// What a Dockerfile can be asked beside being built. The JSON is that of BuildKit's subrequests frontend.lint, frontend.outline and frontend.targets,
// version 1.0.0 of each (frontend/subrequests of moby/buildkit v0.33.0).

// Place is where something is.
type Place struct {
	Source int32             `json:"sourceIndex,omitempty"`
	Ranges []*progress.Range `json:"ranges,omitempty"`
}

func (p *Place) line() int32 {
	if p == nil || len(p.Ranges) == 0 {
		return 0
	}
	return p.Ranges[0].Start.Line
}

// Finding is one thing that a check found.
type Finding struct {
	Rule   string `json:"ruleName"`
	About  string `json:"description,omitempty"`
	URL    string `json:"url,omitempty"`
	Detail string `json:"detail,omitempty"`
	At     *Place `json:"location,omitempty"`
}

// Fault is why a Dockerfile can't be built.
type Fault struct {
	Message string `json:"message"`
	At      Place  `json:"location"`

	quote string // its lines, with the word that is meant
}

// Findings are what the checks found of a Dockerfile, by line.
type Findings struct {
	Warnings []Finding              `json:"warnings"`
	Sources  []*progress.SourceInfo `json:"sources"`
	Error    *Fault                 `json:"buildError,omitempty"`
}

// Check runs all checks on a Dockerfile: of all stages unless o has a target. Whatever is wrong with it is in the result.
func Check(ctx context.Context, data []byte, o Options, find Resolver) *Findings {
	if o.Name == "" {
		o.Name = "Dockerfile"
	}
	all := &Findings{Warnings: []Finding{}, Sources: []*progress.SourceInfo{{Filename: o.Name, Data: data, Language: "Dockerfile"}}}
	o.Warn = func(w Warning) {
		all.Warnings = append(all.Warnings, Finding{Rule: w.Rule, About: w.About, URL: w.URL, Detail: w.Detail, At: &Place{Ranges: w.At}})
	}
	if err := check(ctx, data, o, find); err != nil {
		all.Error = &Fault{Message: err.Error()}
		if at := (*Error)(nil); errors.As(err, &at) && at.Line > 0 {
			all.Error.quote = at.Quote
			all.Error.At.Ranges = []*progress.Range{{Start: progress.Position{Line: int32(at.Line)}, End: progress.Position{Line: int32(at.End)}}}
		}
	}
	slices.SortStableFunc(all.Warnings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.At.line(), b.At.line()), strings.Compare(a.Rule, b.Rule))
	})
	return all
}

func check(ctx context.Context, data []byte, o Options, find Resolver) error {
	f, err := Parse(data, o)
	if err != nil {
		return err
	}
	p, err := f.planner(ctx, find)
	if err != nil {
		return err
	}
	stages := slices.Clone(p.stages)
	if o.Target != "" {
		s, err := p.target()
		if err != nil {
			return err
		}
		stages = []*stage{s}
	}
	for _, s := range stages {
		if err := p.finish(s); err != nil {
			return err
		}
	}
	return nil
}

// JSON is the result as programs read it.
func (l *Findings) JSON() ([]byte, error) { return json.MarshalIndent(l, "", "  ") }

// Text is the result as people read it: each finding with the lines that it is about.
func (l *Findings) Text() string {
	var b strings.Builder
	for _, w := range l.Warnings {
		fmt.Fprintf(&b, "\nWARNING: %s\n%s\n%s", w.Rule, w.Detail, l.quote(w.At, ""))
	}
	if e := l.Error; e != nil {
		fmt.Fprintf(&b, "\nERROR: %s\n%s", e.Message, l.quote(&e.At, e.quote))
	}
	return b.String()
}

// quote shows a place: text, or its lines.
func (l *Findings) quote(at *Place, text string) string {
	if at.line() == 0 {
		return ""
	}
	src := l.Sources[at.Source]
	end := at.line()
	for _, r := range at.Ranges {
		end = max(end, r.End.Line)
	}
	if text == "" {
		text = Quote(src.Data, int(at.line()), int(end))
	}
	const rule = "--------------------\n"
	return fmt.Sprintf("%s:%d\n%s%s%s", src.Filename, at.line(), rule, text, rule)
}

// Target is a stage that can be asked for.
type Target struct {
	Name     string `json:"name,omitempty"`
	Default  bool   `json:"default,omitempty"`
	About    string `json:"description,omitempty"` // of the comment before it that begins with its name
	Base     string `json:"base,omitempty"`
	Platform string `json:"platform,omitempty"`
	At       *Place `json:"location,omitempty"`
}

// Targets are all stages of a Dockerfile.
type Targets struct {
	Targets []Target `json:"targets"`
	Sources [][]byte `json:"sources"`
}

// Targets lists the stages.
func (f *File) Targets() *Targets {
	t := &Targets{Sources: [][]byte{f.data}}
	for k, s := range f.stages {
		t.Targets = append(t.Targets, Target{Name: s.Name, Default: k == len(f.stages)-1, About: s.DocComment, Base: s.BaseName, Platform: s.Platform, At: place(s.Location)})
	}
	return t
}

// JSON is the list as programs read it.
func (t *Targets) JSON() ([]byte, error) { return json.MarshalIndent(t, "", "  ") }

// Text is the list as people read it.
func (t *Targets) Text() string {
	rows := [][]string{{"TARGET", "DESCRIPTION"}}
	for _, one := range t.Targets {
		name := one.Name
		if one.Default {
			name = strings.TrimSpace(name + " (default)")
		}
		rows = append(rows, []string{name, one.About})
	}
	return table(1, rows)
}

// Arg is an argument that a target knows.
type Arg struct {
	Name  string `json:"name"`
	About string `json:"description,omitempty"` // of the comment before it that begins with its name
	Value string `json:"value,omitempty"`
	At    *Place `json:"location,omitempty"`
}

// Need is a secret or an ssh agent that a target uses.
type Need struct {
	Name     string `json:"name"`
	Required bool   `json:"required,omitempty"`
	At       *Place `json:"location,omitempty"`
}

// Outline is what a target can be given.
type Outline struct {
	Name    string   `json:"name,omitempty"`
	About   string   `json:"description,omitempty"`
	Args    []Arg    `json:"args,omitempty"`
	Secrets []Need   `json:"secrets,omitempty"`
	Agents  []Need   `json:"ssh,omitempty"`
	Sources [][]byte `json:"sources,omitempty"`
}

// Outline lists what the target and the stages that it needs can be given. Like a plan it can be had of a file once.
func (f *File) Outline(ctx context.Context, find Resolver) (*Outline, error) {
	p, err := f.planner(ctx, find)
	if err != nil {
		return nil, err
	}
	target, err := p.target()
	if err != nil {
		return nil, err
	}
	o := &Outline{Name: target.file.Name, About: target.file.DocComment, Sources: [][]byte{f.data}}
	names := map[string]*Arg{} // those before the first FROM
	for k, c := range p.File.args {
		for _, a := range c.Args {
			value, _ := p.globals.Get(a.Key)
			names[a.Key] = &Arg{Name: a.Key, About: a.DocComment, Value: value, At: place(p.File.args[k].Location())}
		}
	}
	if err := p.finish(target); err != nil {
		return nil, err
	}
	for _, s := range p.stages {
		if s.state != done || s.file == nil {
			continue
		}
		for name := range s.used {
			if a := names[name]; a != nil {
				o.addArg(*a)
			}
		}
		o.addStage(s, names)
	}
	slices.SortStableFunc(o.Args, func(a, b Arg) int {
		return cmp.Or(cmp.Compare(a.At.line(), b.At.line()), strings.Compare(a.Name, b.Name))
	})
	return o, nil
}

func (o *Outline) addArg(a Arg) {
	if !slices.ContainsFunc(o.Args, func(b Arg) bool { return a.Name == b.Name }) {
		o.Args = append(o.Args, a)
	}
}

// addStage adds what a stage's own instructions know.
func (o *Outline) addStage(s *stage, names map[string]*Arg) {
	for _, c := range s.file.Commands {
		if t, ok := c.(onBuildCommand); ok {
			c = t.Command
		}
		switch c := c.(type) {
		case *instructions.ArgCommand:
			for _, a := range c.Args {
				one := Arg{Name: a.Key, About: a.DocComment, At: place(c.Location())}
				if global := names[a.Key]; global != nil {
					one.About = cmp.Or(one.About, global.About)
				}
				for _, known := range s.args { // their values are worked out
					if known.Key == a.Key {
						one.Value = known.ValueString()
					}
				}
				o.addArg(one)
			}
		case *instructions.RunCommand:
			for _, m := range instructions.GetMounts(c) {
				full := Mount{ID: m.CacheID, Source: m.Source, Target: m.Target}
				if full.complete(m, 0) != nil {
					continue
				}
				need := Need{Name: full.ID, Required: m.Required, At: place(c.Location())}
				switch m.Type {
				case instructions.MountTypeSecret:
					o.Secrets = addNeed(o.Secrets, need)
				case instructions.MountTypeSSH:
					o.Agents = addNeed(o.Agents, need)
				}
			}
		}
	}
}

func addNeed(all []Need, n Need) []Need {
	for k := range all {
		if all[k].Name == n.Name {
			all[k].Required = all[k].Required || n.Required
			return all
		}
	}
	return append(all, n)
}

// JSON is the outline as programs read it.
func (o *Outline) JSON() ([]byte, error) { return json.MarshalIndent(o, "", "  ") }

// Text is the outline as people read it.
func (o *Outline) Text() string {
	var b strings.Builder
	if o.Name != "" || o.About != "" {
		rows := [][]string{{"TARGET:", cmp.Or(o.Name, "(default)")}}
		if o.About != "" {
			rows = append(rows, []string{"DESCRIPTION:", o.About})
		}
		b.WriteString(table(1, rows) + "\n")
	}
	if len(o.Args) > 0 {
		rows := [][]string{{"BUILD ARG", "VALUE", "DESCRIPTION"}}
		for _, a := range o.Args {
			rows = append(rows, []string{a.Name, a.Value, a.About})
		}
		b.WriteString(table(3, rows) + "\n")
	}
	for _, list := range []struct {
		title string
		needs []Need
	}{{"SECRET", o.Secrets}, {"SSH", o.Agents}} {
		if len(list.needs) == 0 {
			continue
		}
		rows := [][]string{{list.title, "REQUIRED"}}
		for _, n := range list.needs {
			required := ""
			if n.Required {
				required = "true"
			}
			rows = append(rows, []string{n.Name, required})
		}
		b.WriteString(table(3, rows) + "\n")
	}
	return b.String()
}

// table aligns rows, with pad spaces between the columns.
func table(pad int, rows [][]string) string {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, pad, ' ', 0)
	for _, r := range rows {
		fmt.Fprintln(w, strings.Join(r, "\t"))
	}
	_ = w.Flush() // to memory
	return b.String()
}

// violations is the error that # check=error=true makes of what was found.
func (f *File) violations() error {
	if f.lint.Error() == nil {
		return nil
	}
	rules := slices.Sorted(slices.Values(*f.lint.CalledRules))
	return fault.New(fault.Invalid, "lint violation found for rules: %s", strings.Join(slices.Compact(rules), ", "))
}

func place(at []parser.Range) *Place {
	if len(at) == 0 {
		return nil
	}
	return &Place{Ranges: ranges(at)}
}

func ranges(at []parser.Range) (all []*progress.Range) {
	for _, r := range at {
		all = append(all, &progress.Range{
			Start: progress.Position{Line: int32(r.Start.Line), Character: int32(r.Start.Character)},
			End:   progress.Position{Line: int32(r.End.Line), Character: int32(r.End.Character)},
		})
	}
	return all
}

// Answer is what Call gives, by the names that BuildKit's frontends have for it.
type Answer map[string]string

// Call answers a question about a Dockerfile: "check" (or lint), "outline" or "targets".
func Call(ctx context.Context, what string, data []byte, o Options, find Resolver) (Answer, error) {
	var result interface {
		JSON() ([]byte, error)
		Text() string
	}
	answer := Answer{"version": "1.0.0"}
	switch what {
	case "check", "lint":
		l := Check(ctx, data, o, find)
		answer["result.statuscode"] = "0"
		if len(l.Warnings) > 0 || l.Error != nil {
			answer["result.statuscode"] = "1"
		}
		result = l
	case "outline", "targets":
		f, err := Parse(data, o)
		if err != nil {
			return nil, err
		}
		if result = f.Targets(); what == "outline" {
			if result, err = f.Outline(ctx, find); err != nil {
				return nil, err
			}
		}
	default:
		return nil, fault.New(fault.Invalid, "unknown call %q: there are build, check, outline and targets", what)
	}
	text, err := result.JSON()
	if err != nil {
		return nil, err
	}
	answer["result.json"], answer["result.txt"] = string(text), result.Text()
	return answer, nil
}
