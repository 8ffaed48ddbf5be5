// Package instruction changes an image's settings by lines of a Dockerfile, as commit and import take them.
//
// It is not a builder: it knows no layers and no images. Invariant: nothing is run, and a line that would have to be is refused.
package instruction

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"

	"berth/fault"
)

// changer applies Dockerfile instructions to an image's config, without running anything.
type changer struct {
	config *dockerspec.DockerOCIImageConfig
	cmdSet bool
}

// Apply applies Dockerfile lines such as `CMD ["sh"]` to a config. Variables stand for
// what the config's environment has. fault.Invalid: a line that doesn't parse or would have to run something.
func Apply(config *dockerspec.DockerOCIImageConfig, lines []string) error {
	if len(lines) == 0 {
		return nil
	}
	tree, err := parser.Parse(strings.NewReader(strings.Join(lines, "\n")))
	if err != nil {
		return fault.New(fault.Invalid, "change: %w", err)
	}
	c := &changer{config: config}
	for _, node := range tree.AST.Children {
		if !slices.Contains(changeable, strings.ToUpper(node.Value)) {
			return fault.New(fault.Invalid, "%s is not a valid change command: use one of %s", strings.ToUpper(node.Value), strings.Join(changeable, ", "))
		}
		command, err := instructions.ParseCommand(node)
		if err != nil {
			return fault.New(fault.Invalid, "change: %w", err)
		}
		if err := c.expand(command); err != nil {
			return fault.New(fault.Invalid, "change %q: %w", node.Original, err)
		}
		if err := c.apply(command); err != nil {
			return err
		}
	}
	return nil
}

var changeable = []string{"CMD", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL", "ONBUILD", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"}

func (c *changer) expand(command instructions.Command) error {
	lex, env := shell.NewLex('\\'), shell.EnvsFromSlice(c.config.Env)
	if e, ok := command.(*instructions.ExposeCommand); ok {
		var ports []string
		for _, p := range e.Ports {
			words, err := lex.ProcessWords(p, env)
			if err != nil {
				return err
			}
			ports = append(ports, words...)
		}
		e.Ports = ports
	}
	if e, ok := command.(instructions.SupportsSingleWordExpansion); ok {
		return e.Expand(func(word string) (string, error) {
			expanded, _, err := lex.ProcessWord(word, env)
			return expanded, err
		})
	}
	return nil
}

func (c *changer) apply(command instructions.Command) error {
	switch x := command.(type) {
	case *instructions.CmdCommand:
		c.config.Cmd, c.cmdSet = c.commandLine(x.ShellDependantCmdLine), true
	case *instructions.EntrypointCommand:
		c.config.Entrypoint = c.commandLine(x.ShellDependantCmdLine)
		if !c.cmdSet {
			c.config.Cmd = nil // it was meant for the entry point before
		}
	case *instructions.EnvCommand:
		for _, kv := range x.Env {
			c.setEnv(kv.Key, kv.Value)
		}
	case *instructions.ExposeCommand:
		return c.expose(x.Ports)
	case *instructions.HealthCheckCommand:
		c.config.Healthcheck = x.Health
	case *instructions.LabelCommand:
		if c.config.Labels == nil {
			c.config.Labels = map[string]string{}
		}
		for _, kv := range x.Labels {
			c.config.Labels[kv.Key] = kv.Value
		}
	case *instructions.OnbuildCommand:
		c.config.OnBuild = append(c.config.OnBuild, x.Expression)
	case *instructions.StopSignalCommand:
		c.config.StopSignal = x.Signal
	case *instructions.UserCommand:
		c.config.User = x.User
	case *instructions.VolumeCommand:
		if c.config.Volumes == nil {
			c.config.Volumes = map[string]struct{}{}
		}
		for _, v := range x.Volumes {
			if strings.TrimSpace(v) == "" {
				return fault.New(fault.Invalid, "VOLUME specified can not be an empty string")
			}
			c.config.Volumes[v] = struct{}{}
		}
	case *instructions.WorkdirCommand:
		c.config.WorkingDir = joinDir(c.config.WorkingDir, x.Path)
	}
	return nil
}

// commandLine returns the arguments, behind the image's shell when they were not a JSON list.
func (c *changer) commandLine(line instructions.ShellDependantCmdLine) []string {
	if !line.PrependShell {
		return line.CmdLine
	}
	sh := c.config.Shell
	if len(sh) == 0 {
		sh = []string{"/bin/sh", "-c"}
	}
	return slices.Concat(sh, []string{strings.Join(line.CmdLine, " ")})
}

func (c *changer) setEnv(key, value string) {
	entry := key + "=" + value
	for i, have := range c.config.Env {
		if k, _, _ := strings.Cut(have, "="); k == key {
			c.config.Env[i] = entry
			return
		}
	}
	c.config.Env = append(c.config.Env, entry)
}

func (c *changer) expose(ports []string) error {
	if c.config.ExposedPorts == nil {
		c.config.ExposedPorts = map[string]struct{}{}
	}
	for _, p := range ports {
		list, err := parsePorts(p)
		if err != nil {
			return err
		}
		for _, port := range list {
			c.config.ExposedPorts[port] = struct{}{}
		}
	}
	return nil
}

// parsePorts reads port[-port][/protocol] and returns one entry per port.
func parsePorts(s string) ([]string, error) {
	bad := func() ([]string, error) {
		return nil, fault.New(fault.Invalid, "invalid containerPort: %s: use PORT, FIRST-LAST or PORT/udp with ports from 1 to 65535", s)
	}
	ports, proto, given := strings.Cut(s, "/")
	if proto = strings.ToLower(proto); !given {
		proto = "tcp"
	}
	if proto != "tcp" && proto != "udp" && proto != "sctp" {
		return bad()
	}
	from, to, ranged := strings.Cut(ports, "-")
	first, err := strconv.ParseUint(from, 10, 16)
	if err != nil || first == 0 {
		return bad()
	}
	last := first
	if ranged {
		if last, err = strconv.ParseUint(to, 10, 16); err != nil || last < first {
			return bad()
		}
	}
	var list []string
	for p := first; p <= last; p++ {
		list = append(list, strconv.FormatUint(p, 10)+"/"+proto)
	}
	return list, nil
}

// joinDir resolves a WORKDIR against the one before.
func joinDir(old, dir string) string {
	if !strings.HasPrefix(dir, "/") {
		dir = "/" + strings.TrimPrefix(old, "/") + "/" + dir
	}
	return path.Clean(dir)
}
