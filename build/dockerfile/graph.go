package dockerfile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	"github.com/moby/buildkit/util/suggest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/fault"
	"berth/image"
)

// planner makes one plan of a file.
type planner struct {
	*File
	ctx     context.Context
	find    Resolver
	globals *environment // ARG before the first FROM, and what the platforms give
	names   map[string]bool
	stages  []*stage // by index; those of images that are only copied from come after
	outside map[string]*stage
	order   []*Stage
	epoch   *time.Time
}

// stage is a Stage on its way.
type stage struct {
	Stage
	file     *instructions.Stage // nil for an image that is only copied from
	base     *stage
	platform *ocispec.Platform // of FROM --platform
	state    int
	env      *environment // what its instructions see
	args     []instructions.KeyValuePairOptional
	workdir  bool                // an absolute WORKDIR was set, or one that follows such
	used     map[string]struct{} // the arguments that its FROM names
	blind    bool                // the settings of the image that it begins with are not known
	once     map[string][]parser.Range
}

// The states of a stage.
const (
	untouched = iota
	underWay
	done
)

// Plan works out what is to be done. It asks find for all images that are needed. Errors are as with Parse, or find's with the place in the file. A file
// gives one plan: its instructions are expanded in place.
func (f *File) Plan(ctx context.Context, find Resolver) (*Plan, error) {
	p, err := f.planner(ctx, find)
	if err != nil {
		return nil, err
	}
	target, err := p.target()
	if err != nil {
		return nil, err
	}
	if err := p.finish(target); err != nil {
		return nil, err
	}
	if err := f.violations(); err != nil {
		return nil, err
	}
	p.checkGiven()
	for k, v := range f.o.Labels {
		if target.Image.Config.Labels == nil {
			target.Image.Config.Labels = map[string]string{}
		}
		target.Image.Config.Labels[k] = v
	}
	return &Plan{Stages: p.order, Target: &target.Stage, Epoch: p.epoch}, nil
}

// planner is one that has read the stages.
func (f *File) planner(ctx context.Context, find Resolver) (*planner, error) {
	p := &planner{File: f, ctx: ctx, find: find, names: map[string]bool{}, outside: map[string]*stage{}}
	if err := p.platformArgs(); err != nil {
		return nil, err
	}
	return p, p.readStages()
}

// platformArgs sets what FROM lines can use.
func (p *planner) platformArgs() error {
	host, target := p.o.Host, p.o.Host
	if p.o.Platform != nil {
		target = *p.o.Platform
	}
	stage := p.o.Target
	if stage == "" {
		stage = p.File.stages[len(p.File.stages)-1].Name
	}
	if stage == "" {
		stage = "default"
	}
	p.globals = newEnvironment(nil)
	for _, kv := range [][2]string{
		{"BUILDPLATFORM", image.FormatPlatform(host)}, {"BUILDOS", host.OS}, {"BUILDOSVERSION", host.OSVersion}, {"BUILDARCH", host.Architecture}, {"BUILDVARIANT", host.Variant},
		{"TARGETPLATFORM", image.FormatPlatform(target)}, {"TARGETOS", target.OS}, {"TARGETOSVERSION", target.OSVersion}, {"TARGETARCH", target.Architecture}, {"TARGETVARIANT", target.Variant},
		{"TARGETSTAGE", stage},
	} {
		if v, ok := p.o.Args[kv[0]]; ok {
			kv[1] = v
		}
		p.globals.set(kv[0], kv[1])
	}
	p.checkDefaults()
	if err := p.globalArgs(p.globals, p.o.Args); err != nil {
		return err
	}
	return p.setEpoch()
}

// globalArgs adds the ARGs before the first FROM to env.
func (p *planner) globalArgs(env *environment, given map[string]string) error {
	lex := shell.NewLex(p.escape)
	for _, c := range p.File.args {
		for _, a := range c.Args {
			value := a.Value
			if v, ok := given[a.Key]; ok {
				value = &v
			} else if value != nil {
				v, _, err := lex.ProcessWord(*value, env)
				if err != nil {
					return p.wrong(err, c.Location())
				}
				value = &v
			}
			p.names[a.Key] = true
			if value != nil {
				env.set(a.Key, *value)
			}
		}
	}
	return nil
}

// checkDefaults warns of a FROM that names no image when nobody gives arguments.
func (p *planner) checkDefaults() {
	env := newEnvironment(p.globals)
	if p.globalArgs(env, nil) != nil {
		return // told when it counts
	}
	lex := shell.NewLex(p.escape)
	for _, s := range p.File.stages {
		if !strings.Contains(s.BaseName, "$") { // a wrong name is an error of its own
			continue
		}
		name, _, err := lex.ProcessWord(s.BaseName, env)
		if err != nil {
			return
		}
		if _, err := reference.ParseNormalizedNamed(name); err != nil && name != s.BaseName {
			p.lint.Run(&linter.RuleInvalidDefaultArgInFrom, s.Location, linter.RuleInvalidDefaultArgInFrom.Format(s.BaseName))
		}
	}
}

// setEpoch reads SOURCE_DATE_EPOCH, from when on nothing has a later time.
func (p *planner) setEpoch() error {
	text, ok := p.o.Args["SOURCE_DATE_EPOCH"]
	if !ok {
		text, _ = p.globals.Get("SOURCE_DATE_EPOCH")
	}
	if text == "" {
		return nil
	}
	sec, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return fault.New(fault.Invalid, "invalid SOURCE_DATE_EPOCH %q: it is a number of seconds since 1970", text)
	}
	t := time.Unix(sec, 0).UTC()
	p.epoch = &t
	return nil
}

// readStages expands the FROM lines.
func (p *planner) readStages() error {
	lex := shell.NewLex(p.escape)
	for k := range p.File.stages {
		file := &p.File.stages[k]
		lint := p.lint.WithMergedConfigFromComments(file.Comments)
		s := &stage{file: file, once: map[string][]parser.Range{}}
		s.Index, s.Name, s.Text = k, file.Name, file.SourceCode
		s.Line, _ = lines(file.Location)
		found, err := lex.ProcessWordWithMatches(file.BaseName, p.globals)
		if err != nil {
			return p.wrong(err, file.Location)
		}
		p.checkFrom(found.Unmatched, file.Location, lint)
		s.used = found.Matched
		if found.Result == "" {
			return p.wrong(fault.New(fault.Invalid, "base name (%s) should not be blank: give the ARG a default before the first FROM, or --build-arg", file.BaseName), file.Location)
		}
		file.BaseName = found.Result
		if file.Platform != "" {
			if err := p.readPlatform(s, lex, lint); err != nil {
				return p.wrong(err, file.Location)
			}
		}
		if s.Name == "" && len(p.File.stages) > 1 {
			s.Name = fmt.Sprintf("stage-%d", k)
		}
		if p.o.NoCache != nil {
			s.NoCache = p.o.NoCache(file.Name)
		}
		if before := p.byName(file.BaseName); before != nil {
			s.base = before
		}
		p.stages = append(p.stages, s)
	}
	return nil
}

func (p *planner) readPlatform(s *stage, lex *shell.Lex, lint *linter.Linter) error {
	text := s.file.Platform
	found, err := lex.ProcessWordWithMatches(text, p.globals)
	if err != nil {
		return fmt.Errorf("failed to process arguments for platform %s: %w", text, err)
	}
	p.checkFrom(found.Unmatched, s.file.Location, lint)
	if found.Result == "" {
		return fault.New(fault.Invalid, "empty platform value from expression %s", text)
	}
	pl, err := image.ParsePlatform(found.Result)
	if err != nil {
		return fmt.Errorf("failed to parse platform %s: %w", text, err)
	}
	s.platform = &pl
	_, named := found.Matched["TARGETPLATFORM"]
	target, _ := p.globals.Get("TARGETPLATFORM")
	switch {
	case named && len(found.Matched) == 1 && len(found.Unmatched) == 0 && found.Result == target:
		lint.Run(&linter.RuleRedundantTargetPlatform, s.file.Location, linter.RuleRedundantTargetPlatform.Format(text))
	case len(found.Matched) == 0 && len(found.Unmatched) == 0 && !strings.Contains(s.file.Name, pl.OS) && !strings.Contains(s.file.Name, pl.Architecture):
		lint.Run(&linter.RuleFromPlatformFlagConstDisallowed, s.file.Location, linter.RuleFromPlatformFlagConstDisallowed.Format(found.Result))
	}
	return nil
}

// checkFrom warns of variables that a FROM line can't know.
func (p *planner) checkFrom(unknown map[string]struct{}, at []parser.Range, lint *linter.Linter) {
	for name := range unknown {
		if !p.names[name] {
			like, _ := suggest.Search(name, p.globals.Keys(), true)
			lint.Run(&linter.RuleUndefinedArgInFrom, at, linter.RuleUndefinedArgInFrom.Format(name, like))
		}
	}
}

// byName finds a stage that was read already, the latest of a name.
func (p *planner) byName(name string) *stage {
	for _, s := range slices.Backward(p.stages) {
		if s.file != nil && s.file.Name != "" && strings.EqualFold(s.file.Name, name) {
			return s
		}
	}
	return nil
}

// target is the stage that is asked for.
func (p *planner) target() (*stage, error) {
	if p.o.Target == "" {
		return p.stages[len(p.stages)-1], nil
	}
	if s := p.byName(p.o.Target); s != nil {
		return s, nil
	}
	if n, err := strconv.Atoi(p.o.Target); err == nil && n >= 0 && n < len(p.stages) {
		return p.stages[n], nil
	}
	var names []string
	for _, s := range p.stages {
		if s.file.Name != "" {
			names = append(names, s.file.Name)
		}
	}
	err := suggest.WrapError(fmt.Errorf("target stage %q could not be found", p.o.Target), p.o.Target, names, true)
	return nil, fault.Wrap(fault.Invalid, err)
}

// finish plans a stage after all that it needs, once.
func (p *planner) finish(s *stage) error {
	switch s.state {
	case done:
		return nil
	case underWay:
		return p.wrong(fault.New(fault.Invalid, "circular dependency detected on stage: %s", s.Name), s.location())
	}
	s.state = underWay
	if err := p.begin(s); err != nil {
		return p.wrong(err, s.location())
	}
	if s.file != nil {
		for _, c := range s.file.Commands {
			err := p.instruction(s, c)
			if err == nil {
				err = p.runs(s)
			}
			if err != nil {
				return p.wrong(err, c.Location())
			}
		}
	}
	s.state = done
	p.order = append(p.order, &s.Stage)
	return nil
}

// runs refuses a last step that is a program which nothing here can run.
func (p *planner) runs(s *stage) error {
	if n := len(s.Steps); n > 0 && p.o.Runs != nil {
		if _, is := s.Steps[n-1].Do.(*Run); is {
			return p.o.Runs(s.Platform)
		}
	}
	return nil
}

func (s *stage) location() []parser.Range {
	if s.file == nil {
		return nil
	}
	return s.file.Location
}

// begin gives a stage what it has before its first instruction.
func (p *planner) begin(s *stage) error {
	s.Platform = p.o.Host
	if p.o.Platform != nil {
		s.Platform = *p.o.Platform
	}
	if s.platform != nil {
		s.Platform = *s.platform
	}
	var triggers []string
	if replaced, err := p.replace(s); replaced || err != nil {
		return err
	}
	if s.base != nil {
		if err := p.finish(s.base); err != nil {
			return err
		}
		s.Base.Stage, s.Image, s.Platform = &s.base.Stage, cloneImage(s.base.Image), s.base.Platform
		s.env, s.workdir = newEnvironment(s.base.env), s.base.workdir
		s.args, s.blind = slices.Clone(s.base.args), s.base.blind
		triggers = s.base.onBuild()
	} else {
		if err := p.beginWith(s, s.source()); err != nil {
			return err
		}
		triggers = s.Image.Config.OnBuild
	}
	s.Image.Config.OnBuild = nil
	if s.file == nil {
		return nil
	}
	return p.addTriggers(s, triggers)
}

// source is the base's name as it is looked up.
func (s *stage) source() string {
	if s.file == nil {
		return s.Name
	}
	return s.file.BaseName
}

// beginWith sets a base that is no stage.
func (p *planner) beginWith(s *stage, name string) error {
	s.Image = emptyImage(s.Platform)
	defer func() {
		s.env = newEnvironment(nil)
		if _, ok := shell.EnvsFromSlice(s.Image.Config.Env).Get("PATH"); !ok {
			s.Image.Config.Env = append(s.Image.Config.Env, "PATH="+defaultPath)
		}
		for _, kv := range s.Image.Config.Env {
			k, v, _ := strings.Cut(kv, "=")
			s.env.set(k, v)
		}
	}()
	if name == "scratch" {
		return nil
	}
	base, err := p.named(name, s.Platform)
	if err != nil {
		return err
	}
	if base == nil {
		if err := checkImageName(name); err != nil {
			return err
		}
		base = &Base{}
		base.Image, err = p.find.Image(p.ctx, name, s.Platform)
	}
	if err != nil {
		var names []string
		for _, other := range p.stages {
			if other.Name != "" {
				names = append(names, other.Name)
			}
		}
		return suggest.WrapError(err, name, names, true)
	}
	if s.Base = *base; s.Base.Image == nil {
		return nil
	}
	s.Image, s.blind = cloneImage(s.Base.Image.Config), s.Base.Image.Unknown
	s.Image.Created = nil
	if have := s.Image.Platform; have.Architecture != "" && (have.OS != s.Platform.OS || have.Architecture != s.Platform.Architecture) {
		if s.platform == nil && p.o.Platform == nil {
			s.Platform = have // the only one there is
		}
		p.lint.Run(&linter.RuleInvalidBaseImagePlatform, s.location(),
			linter.RuleInvalidBaseImagePlatform.Format(name, image.FormatPlatform(s.Platform), image.FormatPlatform(have)))
	}
	return nil
}

// defaultPath is what a program finds others by when the image doesn't say.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// onBuild lists the triggers that a stage has for those that begin with it.
func (s *stage) onBuild() (all []string) {
	for _, c := range s.file.Commands {
		if o, ok := c.(*instructions.OnbuildCommand); ok {
			all = append(all, o.Expression)
		}
	}
	return all
}

// addTriggers puts the ONBUILD instructions of the base before the stage's own.
func (p *planner) addTriggers(s *stage, triggers []string) error {
	var all []instructions.Command
	for _, t := range triggers {
		tree, err := parser.Parse(strings.NewReader(t))
		if err != nil {
			return err
		}
		if len(tree.AST.Children) != 1 {
			return errors.New("an ONBUILD trigger should be a single instruction")
		}
		node := tree.AST.Children[0]
		node.StartLine, node.EndLine = lines(s.file.Location)
		c, err := instructions.ParseCommand(node)
		if err != nil {
			return err
		}
		all = append(all, onBuildCommand{c})
	}
	s.file.Commands = append(all, s.file.Commands...)
	return nil
}

// onBuildCommand is an instruction that came with the base.
type onBuildCommand struct{ instructions.Command }

// from finds what COPY --from or a mount's from names: a stage before s, or an image.
func (p *planner) from(s *stage, name string) (*Stage, error) {
	var other *stage
	if n, err := strconv.Atoi(name); err == nil {
		if n < 0 || n >= len(p.File.stages) {
			return nil, fault.New(fault.Invalid, "invalid stage index %d", n)
		}
		other = p.stages[n]
	} else if other = p.byName(name); other == nil {
		if other = p.outside[name]; other == nil {
			other = &stage{file: nil}
			other.Index, other.Name, other.Text = -1, name, name
			p.outside[name] = other
		}
	}
	if other == s {
		return nil, fault.New(fault.Invalid, "circular dependency detected on stage: %s", s.Name)
	}
	if other.Index > s.Index {
		return nil, fault.New(fault.Invalid, "cannot copy from stage %q, it needs to be defined before current stage %q", name, s.Name)
	}
	return &other.Stage, p.finish(other)
}
