package dockerfile

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"

	"berth/fault"
)

// checkImageName says what is wrong with an image's name, and what may have been meant.
func checkImageName(name string) error {
	_, err := reference.ParseNormalizedNamed(name)
	if err == nil {
		return nil
	}
	meant := name
	if _, rest, ok := strings.Cut(name, "://"); ok {
		meant = rest
	}
	at := strings.LastIndex(meant, "/") + 1
	if tag := strings.Index(meant[at:], ":"); tag >= 0 { // "16:04" for "16.04"
		first := at + tag + 1
		meant = meant[:first] + strings.ReplaceAll(meant[first:], ":", ".")
		meant = strings.ToLower(meant[:first]) + meant[first:]
	} else {
		meant = strings.ToLower(meant)
	}
	if _, wrong := reference.ParseNormalizedNamed(meant); wrong == nil && meant != name {
		return fault.New(fault.Invalid, "failed to parse stage name %q: %w (did you mean %s?)", name, err, meant)
	}
	return fault.New(fault.Invalid, "failed to parse stage name %q: %w", name, err)
}

// ruleJSONArgsInvalid is a rule of ours: what begins like a JSON array and is none is taken as a shell's command line.
var ruleJSONArgsInvalid = linter.LinterRule[func(string) string]{
	Name:        "JSONArgsInvalid",
	Description: "What looks like JSON arguments and is no JSON is run by a shell as it stands",
	Format: func(instruction string) string {
		return instruction + " looks like JSON arguments but is no JSON, and is run by a shell as it stands: write strings in double quotes, with commas between them"
	},
}

// almostJSON is how a list begins that was meant as JSON. A space after the bracket makes it the shell's own test, which has no commas.
var almostJSON = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^\[(?:'|"|“|\\")|^\[\s*\]?$|^\[\s+(?:'[^']*'|"[^"]*"|“[^”]*”)\s*,`)
})

// checkJSON warns of arguments that were meant as JSON.
func (w *writing) checkJSON() {
	var c instructions.ShellDependantCmdLine
	switch cmd := w.c.(type) {
	case *instructions.RunCommand:
		c = cmd.ShellDependantCmdLine
	case *instructions.CmdCommand:
		c = cmd.ShellDependantCmdLine
	case *instructions.EntrypointCommand:
		c = cmd.ShellDependantCmdLine
	default:
		return
	}
	if c.PrependShell && len(c.CmdLine) == 1 && almostJSON().MatchString(c.CmdLine[0]) {
		w.lint.Run(&ruleJSONArgsInvalid, w.c.Location(), ruleJSONArgsInvalid.Format(strings.ToUpper(w.c.Name())))
	}
}

// known has what may be given although no ARG takes it: what FROM lines and builders read, and proxies.
var known = append([]string{"BUILDPLATFORM", "BUILDOS", "BUILDOSVERSION", "BUILDARCH", "BUILDVARIANT", "TARGETPLATFORM", "TARGETOS", "TARGETOSVERSION", "TARGETARCH",
	"TARGETVARIANT", "TARGETSTAGE", "SOURCE_DATE_EPOCH"}, proxies...)

// checkGiven warns of arguments that nothing takes, which may be misspelt. It is no rule: it is not about the Dockerfile.
func (p *planner) checkGiven() {
	taken := map[string]bool{}
	for _, c := range p.File.args {
		for _, a := range c.Args {
			taken[a.Key] = true
		}
	}
	for k := range p.File.stages {
		for _, c := range p.File.stages[k].Commands {
			if t, ok := c.(onBuildCommand); ok {
				c = t.Command
			}
			if c, ok := c.(*instructions.ArgCommand); ok {
				for _, a := range c.Args {
					taken[a.Key] = true
				}
			}
		}
	}
	var unused []string
	for name := range p.o.Args {
		if !taken[name] && !slices.Contains(known, name) && !strings.HasPrefix(name, "BUILDKIT_") {
			unused = append(unused, name)
		}
	}
	if len(unused) == 0 || p.o.Warn == nil {
		return
	}
	slices.Sort(unused)
	p.o.Warn(Warning{Rule: "UnusedBuildArg", About: "An argument that no ARG takes changes nothing", Detail: fmt.Sprintf("One or more build-args %v were not consumed", unused)})
}

// named are the words that a message quotes, or that stand after a colon.
var namedWords = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`"([^"]+)"|'([^']+)'|: ([^\s"'():]+)`) })

// column finds the longest word of a message in lines of a Dockerfile; line and column are from 1, and 0 when there is none.
func column(data []byte, message string, from, to int) (line, column, width int) {
	lines := strings.Split(string(data), "\n")
	for _, m := range namedWords().FindAllStringSubmatch(message, -1) {
		word := m[1] + m[2] + m[3]
		if len(word) <= width || len(word) < 2 {
			continue
		}
		for n := max(from, 1); n <= min(to, len(lines)); n++ {
			if k := strings.Index(lines[n-1], word); k >= 0 {
				line, column, width = n, k+1, len(word)
				break
			}
		}
	}
	return line, column, width
}
