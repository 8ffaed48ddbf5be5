package container

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"

	"berth/cli/format"
	"berth/cli/session"
	"berth/client"

	"github.com/spf13/cobra"
)

// Explain is the command "container explain".
func Explain(s *session.Session) *cobra.Command {
	var template string
	cmd := &cobra.Command{
		Use: "explain [OPTIONS] CONTAINER [CONTAINER...]", Args: session.AtLeast(1),
		Example: `explain web
explain --format '{{range .Namespaces}}{{.Kind}} {{.Inode}}{{println}}{{end}}' web`,
		RunE: func(cmd *cobra.Command, args []string) error { return explain(cmd.Context(), s, template, args) },
	}
	cmd.Flags().StringVarP(&template, "format", "f", "", format.ObjectUsage)
	return cmd
}

func explain(ctx context.Context, s *session.Session, template string, args []string) error {
	if template != "" && template != "json" {
		if _, err := format.Parse(template); err != nil {
			return &session.Exit{Code: 64, Message: err.Error()}
		}
	}
	api, err := s.API()
	if err != nil {
		return err
	}
	first := true
	return s.Each(args, func(ref string) error {
		raw, err := api.Containers.Explain(ctx, ref)
		if err != nil {
			return s.OnlyOurs(err, "explain")
		}
		var e client.Explanation
		if err := json.Unmarshal(raw, &e); err != nil {
			return fmt.Errorf("read the daemon's answer about container %s: %w", ref, err)
		}
		switch {
		case template == "json":
			_, err = fmt.Fprintln(s.Out, strings.TrimSpace(string(raw)))
			return err
		case template != "":
			return format.Object(s.Out, template, &e, raw)
		}
		if !first {
			fmt.Fprintln(s.Out)
		}
		first = false
		return (&explainer{out: s.Out}).print(&e)
	})
}

// explainer prints sections: a heading, aligned rows, and where to look by hand.
type explainer struct {
	out  io.Writer
	rows [][]string
	err  error
}

func (x *explainer) line(text string) {
	if x.err == nil {
		_, x.err = fmt.Fprintln(x.out, text)
	}
}

func (x *explainer) row(cells ...string) { x.rows = append(x.rows, cells) }

// section prints the rows that were added, below a heading, and then the commands that tell the same.
func (x *explainer) section(title string, look ...string) {
	rows := x.rows
	x.rows = nil
	if len(rows) == 0 {
		return
	}
	x.line("")
	x.line(title)
	widths := []int{}
	for _, r := range rows {
		for i, c := range r {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], len(c))
		}
	}
	for _, r := range rows {
		text := " "
		for i, c := range r {
			text += " " + fmt.Sprintf("%-*s ", widths[i], c)
		}
		x.line(strings.TrimRight(text, " "))
	}
	for _, l := range look {
		x.line("  $ " + l)
	}
}

func (x *explainer) print(e *client.Explanation) error {
	x.line(fmt.Sprintf("%s  %s  %s", e.Name, format.ShortID(e.ID), e.Status))
	if e.Note != "" {
		x.line(e.Note)
	}
	if p := e.Process; p != nil {
		x.process(p)
		for _, n := range e.Namespaces {
			beside := "the host's"
			if n.Own {
				beside = "host " + strconv.FormatUint(n.Host, 10)
			}
			x.row(n.Kind, strconv.FormatUint(n.Inode, 10), beside)
		}
		x.section("Namespaces", "ls -l /proc/"+strconv.Itoa(p.Pid)+"/ns", "nsenter -t "+strconv.Itoa(p.Pid)+" -a")
	}
	x.groups(e.Groups)
	for _, l := range e.Layers {
		x.row(l.Role, l.Dir)
	}
	x.section("Layers, the topmost first")
	x.mounts(e)
	if e.Network != nil {
		x.network(e.Network)
	}
	for _, f := range e.Files {
		x.row(f.What, f.Path)
	}
	x.section("Files")
	return x.err
}

func (x *explainer) process(p *client.ExplainedProcess) {
	x.row("pid", fmt.Sprintf("%d, %d inside", p.Pid, p.Inside))
	x.row("supervisor", strconv.Itoa(p.Supervisor))
	x.row("command", oneLine(p.Command))
	x.row("uid, gid", fmt.Sprintf("%s, %s", effective(p.UID), effective(p.GID)))
	x.row("groups", strings.Trim(fmt.Sprint(p.Groups), "[]"))
	x.row("OOM score", fmt.Sprintf("%d, adjusted by %d", p.OOMScore, p.OOMScoreAdj))
	x.section("Process", p.Look...)
	c := p.Capabilities
	for _, s := range []struct {
		name  string
		names []string
	}{{"effective", c.Effective}, {"permitted", c.Permitted}, {"inheritable", c.Inheritable}, {"bounding", c.Bounding}, {"ambient", c.Ambient}} {
		x.row(s.name, short(s.names))
	}
	x.row("seccomp", fmt.Sprintf("%s, %d filters", p.Seccomp, p.Filters))
	x.row("no_new_privs", strconv.FormatBool(p.NoNewPrivs))
	x.section("Rights", fmt.Sprintf("grep -E 'Cap|Sec|NoNew' /proc/%d/status", p.Pid), fmt.Sprintf("getpcaps %d", p.Pid))
	for _, m := range []struct {
		name string
		maps []struct{ Container, Host, Size uint32 }
	}{{"uid", p.UIDMap}, {"gid", p.GIDMap}} {
		for _, r := range m.maps {
			x.row(m.name, fmt.Sprintf("%d-%d inside", r.Container, uint64(r.Container)+uint64(r.Size)-1), fmt.Sprintf("%d-%d on the host", r.Host, uint64(r.Host)+uint64(r.Size)-1))
		}
	}
	x.section("Ids", fmt.Sprintf("cat /proc/%d/uid_map /proc/%d/gid_map", p.Pid, p.Pid))
	for _, l := range p.Limits {
		x.row(l.Name, l.Soft, l.Hard, l.Unit)
	}
	x.section("Limits: soft, hard", fmt.Sprintf("cat /proc/%d/limits", p.Pid))
}

func effective(ids []int) string {
	if len(ids) < 2 {
		return "unknown"
	}
	return strconv.Itoa(ids[1])
}

// short lists capabilities without their common beginning.
func short(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.ReplaceAll(strings.Join(names, " "), "CAP_", "")
}

// oneLine is text for a cell: what a program chose for itself may hold anything, escape sequences too.
func oneLine(s string) string {
	q := strconv.Quote(s)
	return strings.ReplaceAll(strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`), `\\`, `\`)
}

func (x *explainer) groups(all []client.ExplainedGroup) {
	for _, g := range all {
		if len(g.Files) == 0 {
			continue
		}
		for _, f := range g.Files {
			name := strings.TrimPrefix(f.File, g.Dir+"/")
			for i, line := range strings.Split(f.Value, "\n") {
				if i > 0 {
					name = ""
				}
				x.row(name, line)
			}
		}
		title := fmt.Sprintf("Control group %s (v%d)", strings.Join(g.Controllers, ","), g.Version)
		x.section(title, "cd "+g.Dir)
	}
}

func (x *explainer) mounts(e *client.Explanation) {
	for _, m := range e.Mounts {
		access := "rw"
		for _, o := range m.Options {
			if o == "ro" {
				access = o
			}
		}
		from := m.Host
		if from == "" {
			from = m.Source
		}
		if m.Propagation != "" {
			access += " " + m.Propagation
		}
		x.row(oneLine(m.Target), m.Type, access, oneLine(from))
	}
	if e.Process == nil {
		x.section("Volumes")
		return
	}
	x.section("Mounts", "cat /proc/"+strconv.Itoa(e.Process.Pid)+"/mountinfo")
}

func (x *explainer) network(n *client.ExplainedNetwork) {
	if n.Shared != "" {
		x.row("shared", "with "+strings.Replace(n.Shared, "host", "the host", 1))
	}
	for _, l := range n.Links {
		peer := ""
		if l.Peer != "" {
			peer = "wired to " + l.Peer
			if l.Bridge != "" {
				peer += " of " + l.Bridge
			}
		}
		state := "down"
		if l.Up {
			state = "up"
		}
		x.row("link", l.Name, state, l.MAC, peer)
		for _, a := range l.Addresses {
			x.row("address", a, l.Name)
		}
	}
	for _, r := range n.Routes {
		x.row("route", r.To, r.Link, r.Gateway)
	}
	for _, f := range n.Firewall {
		x.row("firewall", f.Table+" "+f.Map, f.Element)
	}
	x.section("Network", n.Look...)
}
