package dockerfile

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"berth/fault"
)

// proxies are the variables that every RUN sees and that are no part of what its result is kept under.
var proxies = []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "FTP_PROXY", "ftp_proxy", "NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"}

func (w *writing) run(c *instructions.RunCommand) error {
	r := &Run{Env: w.s.env.list(), Dir: w.absolute("."), User: w.s.Image.Config.User, Shell: c.PrependShell,
		Network: instructions.GetNetwork(c), Security: instructions.GetSecurity(c)}
	if len(instructions.GetDevices(c)) > 0 {
		return fault.New(fault.Unsupported, "RUN --device is not supported: give devices to a container by run --device")
	}
	if err := w.allowed(r); err != nil {
		return err
	}
	if r.Network == instructions.NetworkDefault && w.o.Network != "" {
		r.Network = w.o.Network
	}
	for _, name := range proxies {
		if v, ok := w.o.Args[name]; ok {
			r.Proxies = append(r.Proxies, name+"="+v)
		}
	}
	for _, a := range w.s.args {
		r.FromArgs = append(r.FromArgs, a.Key)
	}
	shown := w.shown()
	args, err := w.script(c, r, &shown)
	if err != nil {
		return err
	}
	if c.PrependShell {
		args = append(w.shell(), strings.Join(args, " "))
	}
	r.Args = args
	if r.Mounts, err = w.mounts(c, r.Dir); err != nil {
		return err
	}
	w.step(shown, "RUN "+w.withArgs(args)+" # buildkit", r)
	return nil
}

// script puts the text of heredocs where it belongs.
func (w *writing) script(c *instructions.RunCommand, r *Run, shown *string) ([]string, error) {
	if len(c.Files) == 0 {
		return c.CmdLine, nil
	}
	if len(c.CmdLine) != 1 || !c.PrependShell {
		return nil, fault.New(fault.Invalid, "a here-document can't be used with a JSON command line")
	}
	doc, err := parser.ParseHeredoc(c.CmdLine[0])
	if err != nil {
		return nil, err
	}
	if doc == nil { // there is a command before it: the shell reads the documents itself
		var b strings.Builder
		b.WriteString(c.CmdLine[0])
		for _, f := range c.Files {
			b.WriteString("\n" + f.Data + f.Name)
		}
		return []string{b.String()}, nil
	}
	text := c.Files[0].Data
	if c.Files[0].Chomp {
		text = parser.ChompHeredocContent(text)
	}
	*shown += " (" + firstLine(text) + ")"
	if !strings.HasPrefix(text, "#!") {
		return []string{text}, nil
	}
	r.Script = &Inline{Name: c.Files[0].Name, Data: text}
	return []string{path.Join(ScriptDir, c.Files[0].Name)}, nil
}

// ScriptDir is where a Run sees its Script.
const ScriptDir = "/dev/pipes"

func firstLine(text string) string {
	first, rest, _ := strings.Cut(strings.TrimSpace(text), "\n")
	if strings.TrimSpace(rest) != "" {
		first += "..."
	}
	return strings.TrimSuffix(first, "\r")
}

// withArgs is a command line as history has it, after the build's arguments that it saw.
func (w *writing) withArgs(args []string) string {
	var seen []string
	for _, a := range w.s.args {
		v, ok := w.s.env.Get(a.Key)
		if !ok {
			v = a.ValueString()
		}
		if k := slices.IndexFunc(seen, func(s string) bool { return strings.HasPrefix(s, a.Key+"=") }); k >= 0 {
			seen[k] = a.Key + "=" + v
		} else {
			seen = append(seen, a.Key+"="+v)
		}
	}
	if len(seen) > 0 {
		seen = append([]string{fmt.Sprintf("|%d", len(seen))}, seen...)
	}
	return strings.Join(append(seen, args...), " ")
}

func (w *writing) mounts(c *instructions.RunCommand, dir string) (all []Mount, err error) {
	for _, m := range instructions.GetMounts(c) {
		mount := Mount{Type: string(m.Type), Source: m.Source, ReadOnly: m.ReadOnly, Size: m.SizeLimit, ID: m.CacheID, Sharing: string(m.CacheSharing), Required: m.Required}
		for _, id := range []struct {
			from *uint64
			to   **uint32
		}{{m.UID, &mount.UID}, {m.GID, &mount.GID}} {
			if id.from != nil {
				n := uint32(*id.from)
				*id.to = &n
			}
		}
		if m.Mode != nil {
			mode := os.FileMode(*m.Mode)
			mount.Mode = &mode
		}
		if m.From != "" {
			if mount.From, err = w.from(w.s, m.From); err != nil {
				return nil, err
			}
		}
		if m.Target != "" {
			if mount.Target = path.Join("/", dir, m.Target); path.IsAbs(m.Target) {
				mount.Target = path.Clean(m.Target)
			}
		}
		number := 0
		for _, before := range all {
			if before.Type == mount.Type {
				number++
			}
		}
		if err := mount.complete(m, number); err != nil {
			return nil, err
		}
		if mount.Type == "cache" {
			mount.ID = path.Join(w.o.Args["BUILDKIT_CACHE_MOUNT_NS"], mount.ID)
		}
		all = append(all, mount)
	}
	return all, nil
}

// allowed tells whether a program may have what it asks for.
func (w *writing) allowed(r *Run) error {
	var asked []string
	if r.Network == instructions.NetworkHost && w.o.Network != r.Network {
		asked = append(asked, NetworkHost)
	}
	if r.Security == instructions.SecurityInsecure {
		asked = append(asked, SecurityInsecure)
	}
	for _, entitlement := range asked {
		if w.o.Allow == nil {
			return fault.New(fault.Denied, "%s is not allowed", entitlement)
		}
		if err := w.o.Allow(entitlement); err != nil {
			return err
		}
	}
	return nil
}

// The entitlements that a RUN can need.
const (
	NetworkHost      = "network.host"
	SecurityInsecure = "security.insecure"
)

// complete sets what a mount has when the line doesn't say. number is how many of its type come before it.
func (m *Mount) complete(from *instructions.Mount, number int) error {
	switch from.Type {
	case instructions.MountTypeCache:
		if m.ID == "" {
			m.ID = path.Clean(from.Target)
		}
		if m.Sharing == "" {
			m.Sharing = "shared"
		}
	case instructions.MountTypeSecret:
		if m.ID == "" {
			if m.ID = path.Base(m.Source); m.Source == "" {
				m.ID = path.Base(m.Target)
			}
		}
		if m.ID == "" || m.ID == "." || m.ID == "/" {
			return fault.New(fault.Invalid, "one of source, target required: a secret mount needs an id")
		}
		if from.Env != nil {
			if m.Env = *from.Env; m.Env == "" {
				m.Env = m.ID
			}
		}
		if m.Target == "" && m.Env == "" {
			m.Target = path.Join("/run/secrets", m.ID)
		}
		return nil
	case instructions.MountTypeSSH:
		if m.ID == "" {
			m.ID = "default"
		}
		if m.Target == "" {
			m.Target = fmt.Sprintf("/run/buildkit/ssh_agent.%d", number)
		}
		return nil
	}
	if m.Target == "" || m.Target == "/" {
		return fault.New(fault.Invalid, "invalid mount target %q", m.Target)
	}
	return nil
}
