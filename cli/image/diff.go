package image

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"berth/cli/explore"
	"berth/cli/format"
	"berth/cli/reference"
	"berth/cli/session"
	"berth/client"

	"github.com/spf13/cobra"
)

type diffOptions struct {
	format, platform string
	quiet, exitCode  bool
}

// Diff is the command "image diff".
func Diff(s *session.Session) *cobra.Command {
	var o diffOptions
	cmd := &cobra.Command{
		Use: "diff [OPTIONS] IMAGE IMAGE", Args: session.Exactly(2),
		Example: "image diff debian:12 debian:13\nimage diff --exit-code --quiet app:1 app:2",
		RunE:    func(cmd *cobra.Command, args []string) error { return o.run(cmd, s, args[0], args[1]) },
	}
	fs := cmd.Flags()
	fs.BoolVar(&o.exitCode, "exit-code", false, "Exit with 1 when the images differ")
	fs.StringVar(&o.format, "format", "", format.ObjectUsage)
	fs.StringVar(&o.platform, "platform", "", "Compare the given platform. Formatted as \"os[/arch[/variant]]\" (e.g., \"linux/amd64\")")
	fs.BoolVarP(&o.quiet, "quiet", "q", false, "Only show what happened to which path, as the command diff does")
	return cmd
}

func (o *diffOptions) run(cmd *cobra.Command, s *session.Session, from, to string) error {
	if o.format != "" && o.format != "json" {
		if _, err := format.Parse(o.format); err != nil {
			return &session.Exit{Code: 64, Message: err.Error()}
		}
	}
	platform, err := reference.Platform(o.platform)
	if err != nil {
		return err
	}
	api, err := s.API()
	if err != nil {
		return err
	}
	raw, err := api.Images.Diff(cmd.Context(), from, to, platform)
	if err != nil {
		return s.OnlyOurs(err, "image diff")
	}
	var d client.ImageDiff
	if err := json.Unmarshal(raw, &d); err != nil {
		return fmt.Errorf("read the daemon's answer about images %s and %s: %w", from, to, err)
	}
	switch {
	case o.format == "json":
		_, err = fmt.Fprintln(s.Out, strings.TrimSpace(string(raw)))
	case o.format != "":
		err = format.Object(s.Out, o.format, &d, raw)
	case o.quiet:
		for _, f := range d.Files {
			if _, err = fmt.Fprintln(s.Out, f.Change, quoted(f.Path)); err != nil {
				break
			}
		}
	default:
		err = printDiff(s.Out, &d)
	}
	if err == nil && o.exitCode && (len(d.Files) > 0 || len(d.Config) > 0) {
		return &session.Exit{Code: 1}
	}
	return err
}

func printDiff(out io.Writer, d *client.ImageDiff) error {
	if len(d.Config) > 0 {
		var rows [][]string
		for _, c := range d.Config {
			mark, from, to := "C", "", ""
			if c.From != nil {
				from = *c.From
			} else {
				mark = "A"
			}
			if c.To != nil {
				to = *c.To
			} else {
				mark = "D"
			}
			rows = append(rows, []string{mark, strings.TrimSpace(c.Field + " " + quoted(c.Name)), format.Ellipsis(quoted(from), 60), format.Ellipsis(quoted(to), 60)})
		}
		if err := columns(out, []string{"", "CONFIG", "FROM", "TO"}, rows); err != nil {
			return err
		}
	}
	if len(d.Files) == 0 {
		_, err := fmt.Fprintln(out, "No file differs.")
		return err
	}
	if len(d.Config) > 0 {
		fmt.Fprintln(out)
	}
	rows := make([][]string, len(d.Files))
	for i, f := range d.Files {
		rows[i] = []string{f.Change, quoted(f.Path), strings.Join(f.What, ","), looks(&f, f.From), looks(&f, f.To)}
	}
	if err := columns(out, []string{"", "PATH", "WHAT", "FROM", "TO"}, rows); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "\nAdded %s, removed %s, changed %s\n", sum(d.Added), sum(d.Removed), sum(d.Changed))
	return err
}

// columns is a table whose first column is a mark.
func columns(out io.Writer, heading []string, lines [][]string) error {
	var b strings.Builder
	for _, cells := range append([][]string{heading}, lines...) {
		b.WriteString(strings.Join(cells[1:], "\t") + "\n")
	}
	var table strings.Builder
	if err := format.Align(&table, b.String(), format.Wide); err != nil {
		return err
	}
	b.Reset()
	at := 0
	for line := range strings.Lines(table.String()) {
		mark := heading[0]
		if at > 0 {
			mark = lines[at-1][0]
		}
		at++
		b.WriteString(strings.TrimRight(fmt.Sprintf("%-2s%s", mark, line), " \n") + "\n")
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// looks tells of one side what is different, and of a path that only one image has, its size.
func looks(f *client.FileDiff, s *client.FileShape) string {
	if s == nil {
		return ""
	}
	var parts []string
	what := strings.Join(f.What, " ")
	if strings.Contains(what, "mode") || strings.Contains(what, "type") || s.Mode&0o170000 != 0o100000 && len(f.What) == 0 {
		parts = append(parts, explore.Mode(s.Mode))
	}
	if strings.Contains(what, "owner") {
		parts = append(parts, fmt.Sprintf("%d:%d", s.UID, s.GID))
	}
	if s.Mode&0o170000 == 0o100000 && (len(f.What) == 0 || strings.Contains(what, "content") || strings.Contains(what, "type")) {
		parts = append(parts, format.Size(s.Size))
	}
	if s.Link != "" {
		parts = append(parts, "-> "+quoted(s.Link))
	}
	return strings.Join(parts, " ")
}

func sum(s client.FileSum) string {
	return fmt.Sprintf("%s (%s)", format.Count(s.Files, "file"), format.Size(s.Bytes))
}
