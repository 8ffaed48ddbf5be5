package cli

import (
	"fmt"
	"io"
	"sort"
	"strings"

	"berth/cli/session"
	"berth/cli/terminal"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"
)

// help prints what there is to say about the command named after the word help, or about all of them.
func help(s *session.Session, args []string) error {
	if len(args) > 0 && args[0] == "help" {
		args = args[1:]
	}
	if len(args) == 0 {
		overview(s.Out)
		return nil
	}
	path, v, rest := lookup(args)
	if v != nil && len(rest) == 0 {
		return commandHelp(s.Out, command(s, v, path), v)
	}
	if about, ok := groups[args[0]]; ok && v == nil {
		return groupUsage(s.Out, args[0], about, args[1:])
	}
	return unknownCommand(args[:min(len(args), 2)])
}

func overview(w io.Writer) {
	fmt.Fprintf(w, "Usage:  %s [OPTIONS] COMMAND\n\nA container engine: run programs in containers of their own\n\nCommon Commands:\n", session.Name)
	short := func(v *verb) string { return v.paths[len(v.paths)-1] }
	commandLines(func(v *verb) string {
		if v.common {
			return short(v)
		}
		return ""
	}).print(w)
	fmt.Fprintln(w, "\nManagement Commands:")
	var lines helpLines
	for g, about := range groups {
		lines = append(lines, [2]string{g, about})
	}
	lines.sorted().print(w)
	fmt.Fprintln(w, "\nCommands:")
	rest := commandLines(func(v *verb) string {
		if p := short(v); !v.common && !strings.Contains(p, " ") {
			return p
		}
		return ""
	})
	append(rest, [2]string{"completion", "Generate the completion script for a shell"}, [2]string{"help", "Help about a command"}).sorted().print(w)
	fmt.Fprintln(w, "\nGlobal Options:")
	fs := pflag.NewFlagSet(session.Name, pflag.ContinueOnError)
	globalFlags(new(session.Session), fs)
	fs.SortFlags = true
	printFlags(w, fs)
	fmt.Fprintf(w, "\nTry '%s run --rm hello-world'. Run '%s COMMAND --help' for more information on a command.\n", session.Name, session.Name)
}

type helpLines [][2]string

func commandLines(pick func(*verb) string) helpLines {
	var lines helpLines
	for i := range verbs {
		if n := pick(&verbs[i]); n != "" {
			lines = append(lines, [2]string{n, verbs[i].short})
		}
	}
	return lines
}

func (l helpLines) sorted() helpLines {
	sort.Slice(l, func(i, j int) bool { return l[i][0] < l[j][0] })
	return l
}

func (l helpLines) print(w io.Writer) {
	width := 11
	for _, line := range l {
		width = max(width, len(line[0]))
	}
	for _, line := range l {
		fmt.Fprintf(w, "  %-*s %s\n", width, line[0], line[1])
	}
}

// groupUsage lists a noun's commands; with a word after the noun that is no command of it, it is an error.
func groupUsage(w io.Writer, group, about string, args []string) error {
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		return unknownCommand([]string{group, args[0]})
	}
	fmt.Fprintf(w, "Usage:  %s %s COMMAND\n\n%s\n\nCommands:\n", session.Name, group, about)
	commandLines(func(v *verb) string {
		if rest, ok := strings.CutPrefix(v.paths[0], group+" "); ok {
			return rest
		}
		return ""
	}).sorted().print(w)
	fmt.Fprintf(w, "\nRun '%s %s COMMAND --help' for more information on a command.\n", session.Name, group)
	if len(args) > 0 && args[0] != "--help" && args[0] != "-h" {
		return &session.Exit{Code: 125, Message: "unknown flag: " + args[0]}
	}
	return nil
}

// commandHelp prints a command's page.
func commandHelp(w io.Writer, cmd *cobra.Command, v *verb) error {
	fmt.Fprintf(w, "Usage:  %s\n\n%s\n", cmd.UseLine(), v.short)
	if cmd.Long != "" {
		fmt.Fprintf(w, "\n%s\n", cmd.Long)
	}
	if len(v.paths) > 1 {
		fmt.Fprintf(w, "\nAliases:\n  %s\n", session.Name+" "+strings.Join(v.paths, ", "+session.Name+" "))
	}
	if cmd.Example != "" {
		fmt.Fprintln(w, "\nExamples:")
		for _, line := range strings.Split(cmd.Example, "\n") {
			if !strings.Contains(line, "| "+session.Name+" ") {
				line = session.Name + " " + line
			}
			fmt.Fprintln(w, "  "+line)
		}
	}
	if fs := cmd.Flags(); fs.HasAvailableFlags() {
		fmt.Fprintln(w, "\nOptions:")
		fs.SortFlags = true
		printFlags(w, fs)
	}
	return nil
}

// printFlags lists options, folded to the terminal's width.
func printFlags(w io.Writer, fs *pflag.FlagSet) {
	width := 80
	if terminal.Is(w) {
		if got, _, err := term.GetSize(int(terminal.File(w).Fd())); err == nil && got > 40 {
			width = got
		}
	}
	type option struct{ left, text string }
	var all []option
	column := 0
	fs.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		left := "      --" + f.Name
		if f.Shorthand != "" {
			left = "  -" + f.Shorthand + ", --" + f.Name
		}
		if kind := f.Value.Type(); kind != "bool" {
			left += " " + strings.TrimSuffix(strings.Replace(kind, "stringArray", "list", 1), "64")
		}
		text := f.Usage
		if d := f.DefValue; d != "" && d != "false" && d != "0" && d != "[]" && d != "0s" && f.Value.Type() != "list" {
			if f.Value.Type() == "string" {
				d = fmt.Sprintf("%q", d)
			}
			text += " (default " + d + ")"
		}
		all = append(all, option{left, text})
		column = max(column, len(left))
	})
	column += 3
	for _, o := range all {
		for i, line := range fold(o.text, max(width-column, 20)) {
			if i > 0 {
				o.left = ""
			}
			fmt.Fprintf(w, "%-*s%s\n", column, o.left, line)
		}
	}
}

// fold breaks text at blanks into lines of at most width columns.
func fold(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
