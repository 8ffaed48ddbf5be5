package create

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
)

// Unit prints a systemd service that makes the container unless it is there, and runs it. program is the absolute path
// of the command. The restart policy is systemd's to carry out: the container itself gets none.
func (o *Origin) Unit(program string) string {
	own := *o
	host := *o.Request.HostConfig
	own.Request.HostConfig = &host
	policy := host.RestartPolicy
	host.RestartPolicy = container.RestartPolicy{}
	c := own.Command()
	var b strings.Builder
	name := o.Name
	fmt.Fprintf(&b, "# %s.service: put this into /etc/systemd/system, and then\n#   systemctl daemon-reload && systemctl enable --now %s\n", name, name)
	if !policy.IsNone() {
		fmt.Fprintf(&b, "# The container has no restart policy of its own: %s is carried out by systemd.\n", restartText(policy))
	}
	for _, l := range c.Lost {
		fmt.Fprintf(&b, "# not said below: %s\n", oneLine(l))
	}
	fmt.Fprintf(&b, "[Unit]\nDescription=%s\n", unitText("Container "+name+" of "+o.Request.Image))
	o.unitDependencies(&b)
	if policy.MaximumRetryCount > 0 {
		fmt.Fprintf(&b, "StartLimitIntervalSec=1h\nStartLimitBurst=%d\n", policy.MaximumRetryCount+1)
	}
	fmt.Fprintf(&b, "\n[Service]\nType=exec\n")
	line := func(key, prefix string, words ...[]string) {
		text := key + "=" + prefix + unitWord(program)
		for _, group := range words {
			text += " \\\n "
			for _, w := range group {
				text += " " + unitWord(w)
			}
		}
		b.WriteString(text + "\n")
	}
	// Made apart from its start, so that a container that reads its input or has a terminal needs none from systemd.
	prefix := "-"
	if host.AutoRemove {
		line("ExecStartPre", "-", []string{"rm", "--force", name})
		prefix = ""
	} else {
		b.WriteString("# Makes the container when it isn't there; its files outlive restarts. After a change here: " + oneLine(program+" rm "+name) + "\n")
	}
	line("ExecStartPre", prefix, slices.Concat([][]string{{"create"}}, c.Options, [][]string{append([]string{c.Image}, c.Args...)})...)
	line("ExecStart", "", []string{"start", "--attach", name})
	line("ExecStop", "-", []string{"stop", name})
	timeout := 10
	if t := o.Request.StopTimeout; t != nil {
		timeout = *t
	}
	if timeout < 0 {
		b.WriteString("TimeoutStopSec=infinity\n")
	} else {
		fmt.Fprintf(&b, "TimeoutStopSec=%d\n", timeout+10)
	}
	fmt.Fprintf(&b, "# An image may have to be pulled first.\nTimeoutStartSec=infinity\n")
	fmt.Fprintf(&b, "# How programs end that are asked to: 128 and the signal's number.\nSuccessExitStatus=130 143\n")
	fmt.Fprintf(&b, "Restart=%s\nRestartSec=1\n\n[Install]\nWantedBy=multi-user.target\n", unitRestart(policy))
	return b.String()
}

// unitRestart is the policy in systemd's words (systemd.service(5)). A service that was stopped stays so under all of them.
func unitRestart(p container.RestartPolicy) string {
	switch {
	case p.IsAlways() || p.IsUnlessStopped():
		return "always"
	case p.IsOnFailure():
		return "on-failure"
	}
	return "no"
}

// unitDependencies says what has to be there before: the network, directories that are bound, and other containers,
// whose units have their names.
func (o *Origin) unitDependencies(b *strings.Builder) {
	h := o.Request.HostConfig
	fmt.Fprintf(b, "Wants=network-online.target berthd.service\nAfter=network-online.target berthd.service\n")
	var needs, wants []string
	for _, joined := range []string{string(h.NetworkMode), string(h.IpcMode), string(h.PidMode)} {
		if name, ok := strings.CutPrefix(joined, "container:"); ok {
			needs = append(needs, name)
		}
	}
	for _, v := range h.VolumesFrom {
		name, _, _ := strings.Cut(v, ":")
		wants = append(wants, name)
	}
	for _, l := range h.Links {
		name, _, _ := strings.Cut(l, ":")
		wants = append(wants, name)
	}
	for _, d := range o.Request.Berth.DependsOn {
		name, condition, _ := strings.Cut(d, ":")
		if condition == "healthy" {
			fmt.Fprintf(b, "# %s is started before; systemd can't wait until it is healthy.\n", oneLine(name))
		}
		wants = append(wants, name)
	}
	for _, d := range []struct {
		key   string
		names []string
	}{{"Requires", needs}, {"Wants", wants}} {
		slices.Sort(d.names)
		for _, n := range slices.Compact(d.names) {
			fmt.Fprintf(b, "%s=%s.service\nAfter=%s.service\n", d.key, unitText(n), unitText(n))
		}
	}
	for _, path := range bindSources(h) {
		fmt.Fprintf(b, "RequiresMountsFor=%s\n", strings.ReplaceAll(unitWord(path), "$$", "$")) // no variables there
	}
}

// bindSources are the directories of the host that the container sees, sorted.
func bindSources(h *container.HostConfig) []string {
	var all []string
	for _, v := range h.Binds {
		if source, _, ok := strings.Cut(v, ":"); ok && strings.HasPrefix(source, "/") {
			all = append(all, source)
		}
	}
	for _, m := range h.Mounts {
		if m.Type == mount.TypeBind {
			all = append(all, m.Source)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// unitText protects what systemd would replace: a "%" (systemd.unit(5), "Specifiers").
func unitText(s string) string { return strings.ReplaceAll(oneLine(s), "%", "%%") }

// unitWord writes one word of a command line (systemd.syntax(7), "Quoting"; systemd.service(5), "Command Lines"): "%" and "$" doubled,
// and in double quotes with escapes when it has anything unusual.
func unitWord(w string) string {
	bare := w != "" && strings.Trim(w, plain) == ""
	w = strings.ReplaceAll(w, "%", "%%")
	if bare {
		return w
	}
	var b strings.Builder
	b.WriteByte('"')
	for i := 0; i < len(w); {
		r, size := utf8.DecodeRuneInString(w[i:])
		switch {
		case r == '"' || r == '\\':
			b.WriteString(`\` + string(r))
		case r == '$':
			b.WriteString("$$")
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == utf8.RuneError && size == 1 || r < 0x80 && !unicode.IsPrint(r):
			fmt.Fprintf(&b, `\x%02x`, w[i])
		case !unicode.IsPrint(r):
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			b.WriteRune(r)
		}
		i += size
	}
	b.WriteByte('"')
	return b.String()
}
