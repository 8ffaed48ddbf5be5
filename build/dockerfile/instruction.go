package dockerfile

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	"github.com/moby/buildkit/util/suggest"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/fault"
)

// comment is in every line of history that a build makes, and by it tools know one.
const comment = "buildkit.dockerfile.v0"

// writing is one instruction on its way into a stage.
type writing struct {
	*planner
	s       *stage
	c       instructions.Command
	onBuild bool
	lint    *linter.Linter
}

// instruction adds one instruction to s.
func (p *planner) instruction(s *stage, c instructions.Command) error {
	w := &writing{planner: p, s: s, c: c}
	if t, ok := c.(onBuildCommand); ok {
		w.c, w.onBuild = t.Command, true
	}
	w.lint = p.lint.WithMergedConfigFromComments(w.c.Comments())
	w.checkJSON()
	if err := w.expand(); err != nil {
		return err
	}
	switch c := w.c.(type) {
	case *instructions.RunCommand:
		return w.run(c)
	case *instructions.CopyCommand:
		return w.copy(c)
	case *instructions.AddCommand:
		return w.add(c)
	case *instructions.WorkdirCommand:
		return w.workdir(c)
	case *instructions.EnvCommand:
		return w.setEnv(c)
	case *instructions.ArgCommand:
		return w.arg(c)
	case *instructions.LabelCommand:
		return w.label(c)
	case *instructions.ExposeCommand:
		return w.expose(c)
	case *instructions.VolumeCommand:
		return w.volume(c)
	case *instructions.OnbuildCommand:
		w.s.Image.Config.OnBuild = append(w.s.Image.Config.OnBuild, c.Expression)
		w.setting("ONBUILD " + c.Expression)
		return nil
	}
	return w.program()
}

// program takes the instructions that say how containers of the image run.
func (w *writing) program() error {
	config := &w.s.Image.Config
	switch c := w.c.(type) {
	case *instructions.CmdCommand:
		w.once()
		config.Cmd = w.commandLine(c.ShellDependantCmdLine)
		w.setting(fmt.Sprintf("CMD %q", config.Cmd))
	case *instructions.EntrypointCommand:
		w.once()
		config.Entrypoint = w.commandLine(c.ShellDependantCmdLine)
		if w.s.once["CMD"] == nil {
			config.Cmd = nil
		}
		w.setting(fmt.Sprintf("ENTRYPOINT %q", config.Entrypoint))
	case *instructions.HealthCheckCommand:
		w.once()
		h := dockerspec.HealthcheckConfig(*c.Health)
		config.Healthcheck = &h
		w.setting(fmt.Sprintf("HEALTHCHECK %+v", h))
	case *instructions.UserCommand:
		config.User = c.User
		w.setting("USER " + c.User)
	case *instructions.StopSignalCommand:
		if w.o.Signal != nil {
			if err := w.o.Signal(c.Signal); err != nil {
				return err
			}
		}
		config.StopSignal = c.Signal
		w.setting("STOPSIGNAL " + c.Signal)
	case *instructions.ShellCommand:
		config.Shell = c.Shell
		w.setting(fmt.Sprintf("SHELL %v", c.Shell))
	case *instructions.MaintainerCommand:
		w.s.Image.Author = c.Maintainer
		w.setting("MAINTAINER " + c.Maintainer)
	default:
		return fault.New(fault.Unsupported, "the instruction %s is not supported", strings.ToUpper(c.Name()))
	}
	return nil
}

// expand puts values in the place of variables.
func (w *writing) expand() error {
	expander := func(lex *shell.Lex) instructions.SingleWordExpander {
		return func(word string) (string, error) {
			value, unknown, err := lex.ProcessWord(word, w.s.env)
			w.checkVariables(unknown)
			return value, err
		}
	}
	_, isArg := w.c.(*instructions.ArgCommand) // whether its default counts is known later
	if e, ok := w.c.(instructions.SupportsSingleWordExpansion); ok && !isArg {
		if err := e.Expand(expander(shell.NewLex(w.escape))); err != nil {
			return err
		}
	}
	if e, ok := w.c.(instructions.SupportsSingleWordExpansionRaw); ok {
		lex := shell.NewLex('\\')
		lex.SkipProcessQuotes = true
		return e.ExpandRaw(expander(lex))
	}
	return nil
}

func (w *writing) checkVariables(unknown map[string]struct{}) {
	for name := range unknown {
		if w.s.blind {
			return // the base image may have it
		}
		if slices.ContainsFunc(w.s.args, func(a instructions.KeyValuePairOptional) bool { return a.Key == name }) {
			continue
		}
		like, _ := suggest.Search(name, w.s.env.Keys(), true)
		w.lint.Run(&linter.RuleUndefinedVar, w.c.Location(), linter.RuleUndefinedVar.Format(name, like))
	}
}

// once warns of the one before when an instruction of which the last one counts is there again.
func (w *writing) once() {
	name := strings.ToUpper(w.c.Name())
	if at := w.s.once[name]; at != nil {
		w.lint.Run(&linter.RuleMultipleInstructionsDisallowed, at, linter.RuleMultipleInstructionsDisallowed.Format(w.c.Name()))
	}
	w.s.once[name] = w.c.Location()
}

// setting ends an instruction that only changes the image's settings.
func (w *writing) setting(text string) { w.step(text, text, nil) }

// step ends an instruction. text is how it is shown, by what history has.
func (w *writing) step(text, by string, do Doing) {
	st := &Step{Text: text, OnBuild: w.onBuild, Do: do, History: len(w.s.Image.History)}
	st.Line, st.End = lines(w.c.Location())
	if do != nil {
		st.Number = 1
		for _, before := range w.s.Steps {
			if before.Do != nil {
				st.Number++
			}
		}
	}
	w.s.Steps = append(w.s.Steps, st)
	w.s.Image.History = append(w.s.Image.History, ocispec.History{CreatedBy: by, Comment: comment, EmptyLayer: do == nil, Created: w.epoch})
}

// shown is an instruction as it is shown while it is at work.
func (w *writing) shown() string {
	text := w.c.Name()
	if c, ok := w.c.(fmt.Stringer); ok {
		text = c.String()
	}
	lex := shell.NewLex(w.escape)
	lex.RawQuotes, lex.SkipUnsetEnv = true, true
	if expanded, _, err := lex.ProcessWord(text, w.s.env); err == nil {
		text = expanded
	}
	name, rest, _ := strings.Cut(text, " ")
	return strings.TrimSpace(strings.ToUpper(name) + " " + rest)
}

// shell is what the image runs scripts by.
func (w *writing) shell() []string {
	if s := w.s.Image.Config.Shell; len(s) > 0 {
		return slices.Clone(s)
	}
	return []string{"/bin/sh", "-c"}
}

// commandLine is that of CMD and ENTRYPOINT.
func (w *writing) commandLine(c instructions.ShellDependantCmdLine) []string {
	if !c.PrependShell {
		return c.CmdLine
	}
	if len(w.s.Image.Config.Shell) == 0 {
		w.lint.Run(&linter.RuleJSONArgsRecommended, w.c.Location(), linter.RuleJSONArgsRecommended.Format(w.c.Name()))
	}
	return append(w.shell(), strings.Join(c.CmdLine, " "))
}

func (w *writing) setEnv(c *instructions.EnvCommand) error {
	text := "ENV"
	for _, kv := range c.Env {
		if kv.NoDelim {
			w.lint.Run(&linter.RuleLegacyKeyValueFormat, c.Location(), linter.RuleLegacyKeyValueFormat.Format(c.Name()))
		}
		w.checkSecret("ENV", kv.Key)
		text += " " + kv.String()
		w.s.env.set(kv.Key, kv.Value)
		w.s.Image.Config.Env = withVariable(w.s.Image.Config.Env, kv.Key, kv.Value)
	}
	w.setting(text)
	return nil
}

func withVariable(env []string, key, value string) []string {
	for k, kv := range env {
		if name, _, _ := strings.Cut(kv, "="); name == key {
			env[k] = key + "=" + value
			return env
		}
	}
	return append(env, key+"="+value)
}

func (w *writing) arg(c *instructions.ArgCommand) error {
	text := "ARG"
	for _, a := range c.Args {
		w.checkSecret("ARG", a.Key)
		if v, ok := w.o.Args[a.Key]; ok {
			a.Value = &v
		} else if a.Value != nil {
			v, unknown, err := shell.NewLex(w.escape).ProcessWord(*a.Value, w.s.env)
			w.checkVariables(unknown)
			if err != nil {
				return err
			}
			a.Value = &v
		} else if v, ok := w.globals.Get(a.Key); ok {
			a.Value = &v
		}
		text += " " + a.Key
		if a.Value != nil {
			if !slices.ContainsFunc(w.s.Image.Config.Env, func(kv string) bool { return strings.HasPrefix(kv, a.Key+"=") }) {
				w.s.env.set(a.Key, *a.Value) // ENV wins
			}
			text += "=" + *a.Value
		}
		w.s.args = append(w.s.args, a)
	}
	w.setting(text)
	return nil
}

func (w *writing) label(c *instructions.LabelCommand) error {
	text := "LABEL"
	if w.s.Image.Config.Labels == nil {
		w.s.Image.Config.Labels = map[string]string{}
	}
	for _, kv := range c.Labels {
		if kv.NoDelim {
			w.lint.Run(&linter.RuleLegacyKeyValueFormat, c.Location(), linter.RuleLegacyKeyValueFormat.Format(c.Name()))
		}
		w.s.Image.Config.Labels[kv.Key] = kv.Value
		text += " " + kv.String()
	}
	w.setting(text)
	return nil
}

func (w *writing) volume(c *instructions.VolumeCommand) error {
	if w.s.Image.Config.Volumes == nil {
		w.s.Image.Config.Volumes = map[string]struct{}{}
	}
	for _, v := range c.Volumes {
		if v == "" {
			return fault.New(fault.Invalid, "VOLUME specified can not be an empty string")
		}
		w.s.Image.Config.Volumes[v] = struct{}{}
	}
	w.setting(fmt.Sprintf("VOLUME %v", c.Volumes))
	return nil
}

func (w *writing) workdir(c *instructions.WorkdirCommand) error {
	if !w.s.workdir && !path.IsAbs(c.Path) {
		w.lint.Run(&linter.RuleWorkdirRelativePath, c.Location(), linter.RuleWorkdirRelativePath.Format(c.Path))
	}
	w.s.workdir = true
	dir := w.absolute(c.Path)
	w.s.Image.Config.WorkingDir = dir
	if dir == "/" {
		w.setting("WORKDIR /")
		return nil
	}
	w.step(w.shown(), "WORKDIR "+dir, &Mkdir{Path: dir, User: w.s.Image.Config.User})
	return nil
}

// absolute is a path as seen from the working directory.
func (w *writing) absolute(p string) string {
	if path.IsAbs(p) {
		return path.Clean(p)
	}
	return path.Join("/", w.s.Image.Config.WorkingDir, p)
}

func (w *writing) expose(c *instructions.ExposeCommand) error {
	var all []string
	lex := shell.NewLex(w.escape)
	for _, p := range c.Ports {
		words, err := lex.ProcessWords(p, w.s.env)
		if err != nil {
			return err
		}
		for _, word := range words {
			ports, err := w.ports(word)
			if err != nil {
				return err
			}
			all = append(all, ports...)
		}
	}
	if w.s.Image.Config.ExposedPorts == nil {
		w.s.Image.Config.ExposedPorts = map[string]struct{}{}
	}
	for _, p := range all {
		w.s.Image.Config.ExposedPorts[p] = struct{}{}
	}
	w.setting(fmt.Sprintf("EXPOSE %v", all))
	return nil
}

// ports reads [[ip:]host:]port[-port][/protocol].
func (w *writing) ports(word string) (all []string, err error) {
	text, proto, given := strings.Cut(word, "/")
	if !given {
		proto = "tcp"
	}
	if lower := strings.ToLower(proto); lower != proto {
		w.lint.Run(&linter.RuleExposeProtoCasing, w.c.Location(), linter.RuleExposeProtoCasing.Format(word))
		proto = lower
	}
	if proto != "tcp" && proto != "udp" && proto != "sctp" {
		return nil, fault.New(fault.Invalid, "invalid port: %q: invalid proto: %s: use tcp, udp or sctp", word, proto)
	}
	if k := strings.LastIndex(text, ":"); k >= 0 {
		w.lint.Run(&linter.RuleExposeInvalidFormat, w.c.Location(), linter.RuleExposeInvalidFormat.Format(word))
		text = text[k+1:]
	}
	from, to, isRange := strings.Cut(text, "-")
	if !isRange {
		to = from
	}
	first, err1 := strconv.ParseUint(from, 10, 16)
	last, err2 := strconv.ParseUint(to, 10, 16)
	if err1 != nil || err2 != nil || first > last {
		return nil, fault.New(fault.Invalid, "invalid containerPort: %s", text)
	}
	for n := first; n <= last; n++ {
		all = append(all, fmt.Sprintf("%d/%s", n, proto))
	}
	return all, nil
}

// secretWords make the name of a variable look like that of a secret, unless one of plainWords is in it too.
var (
	secretWords = []string{"apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"}
	plainWords  = []string{"public", "file", "version"}
)

// checkSecret warns of what would be readable in the image for ever.
func (w *writing) checkSecret(instruction, key string) {
	words := strings.Split(strings.ToLower(key), "_")
	has := func(list []string) bool {
		return slices.ContainsFunc(words, func(word string) bool { return slices.Contains(list, word) })
	}
	if has(secretWords) && !has(plainWords) {
		w.lint.Run(&linter.RuleSecretsUsedInArgOrEnv, w.c.Location(), linter.RuleSecretsUsedInArgOrEnv.Format(instruction, key))
	}
}
