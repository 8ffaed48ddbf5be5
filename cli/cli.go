// Package cli is the tree of commands: which there are, their help, their completion, and what runs when one is asked for.
//
// It is not the commands, which packages below it have by what they are about, and it is not the engine: whatever a command
// does, it does by requests that any other program may send. A process runs one command, so only that one's flags are ever built.
// Invariant: nothing here runs before Main is called, as the time to start is part of every command's time.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"berth/cli/session"
	"berth/cli/terminal"
	"berth/fault"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Main runs the command line and returns the exit code.
func Main(p *session.Program) int {
	if len(p.Args) == 1 && (p.Args[0] == "--version" || p.Args[0] == "-v") {
		return printVersion(p)
	}
	s := &session.Session{Program: p}
	rest, err := parseGlobals(s, p.Args)
	if err == nil {
		switch {
		case s.Global.Version:
			return printVersion(p)
		case s.Global.TLS:
			err = fault.New(fault.Unsupported, "TLS connections are not supported by this client; use a unix socket, or tcp:// to a host that forwards to one")
		case len(rest) == 0 || s.Global.Help:
			err = help(s, rest)
		default:
			err = dispatch(s, rest)
		}
	}
	if s.Conn != nil {
		s.Conn.Close()
	}
	return finish(s, err)
}

func printVersion(p *session.Program) int {
	fmt.Fprintf(p.Out, "berth version %s, build %s\n", p.Version, p.Commit)
	return 0
}

// finish prints err and gives the exit code that goes with it.
func finish(s *session.Session, err error) int {
	if err == nil {
		return 0
	}
	var e *session.Exit
	var i *terminal.Interrupt
	if errors.As(err, &i) {
		e = &session.Exit{Code: i.Code(), Message: i.Note}
	} else if !errors.As(err, &e) {
		e = &session.Exit{Code: 1, Message: err.Error()}
	}
	if e.Message != "" {
		fmt.Fprintln(s.Err, e.Message)
	}
	return e.Code
}

func parseGlobals(s *session.Session, args []string) ([]string, error) {
	fs := pflag.NewFlagSet(session.Name, pflag.ContinueOnError)
	fs.SetInterspersed(false)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	globalFlags(s, fs)
	args, warnings := longOptions(fs, args, false)
	s.Warn(warnings)
	if err := fs.Parse(args); err != nil {
		return nil, &session.Exit{Code: 125, Message: fmt.Sprintf("%s\n\nUsage:  %s [OPTIONS] COMMAND\n\nRun '%s --help' for more information", suggestFlag(fs, err), session.Name, session.Name)}
	}
	return fs.Args(), nil
}

func globalFlags(s *session.Session, fs *pflag.FlagSet) {
	g := &s.Global
	fs.StringVar(&g.Config, "config", "", "Location of client config files")
	fs.StringVarP(&g.Context, "context", "c", "", "Name of the context to use; only \"default\" exists")
	fs.BoolVarP(&g.Debug, "debug", "D", false, "Enable debug mode")
	fs.StringArrayVarP(&g.Hosts, "host", "H", nil, "Daemon socket to connect to")
	fs.StringVarP(&g.LogLevel, "log-level", "l", "info", `Set the logging level ("debug", "info", "warn", "error", "fatal")`)
	fs.BoolVar(&g.TLS, "tls", false, "Use TLS; implied by --tlsverify")
	fs.BoolVar(&g.TLS, "tlsverify", false, "Use TLS and verify the remote")
	for _, f := range []string{"tlscacert", "tlscert", "tlskey"} {
		fs.String(f, "", "Path of a TLS file")
	}
	fs.BoolVarP(&g.Version, "version", "v", false, "Print version information and quit")
	fs.BoolVarP(&g.Help, "help", "h", false, "Print usage")
}

// dispatch finds the verb and runs it.
func dispatch(s *session.Session, args []string) error {
	if special := map[string]func([]string) error{"help": func(args []string) error { return help(s, args) }, "completion": completer{s}.script,
		cobra.ShellCompRequestCmd: completer{s}.complete, cobra.ShellCompNoDescRequestCmd: completer{s}.complete}[args[0]]; special != nil {
		return special(args)
	}
	path, v, rest := lookup(args)
	if v == nil {
		if g, ok := groups[args[0]]; ok {
			return groupUsage(s.Out, args[0], g, args[1:])
		}
		return unknownCommand(args[:1])
	}
	return execute(s, path, v, rest)
}

// lookup finds the verb that args begin with; path is how the user wrote it.
func lookup(args []string) (path string, v *verb, rest []string) {
	for n := min(2, len(args)); n > 0; n-- {
		path := strings.Join(args[:n], " ")
		for i := range verbs {
			for _, known := range verbs[i].paths {
				if known == path {
					return path, &verbs[i], args[n:]
				}
			}
		}
	}
	return "", nil, nil
}

func unknownCommand(args []string) error {
	all := map[string]bool{}
	parent := ""
	if len(args) == 2 {
		parent = args[0] + " "
	}
	for _, v := range verbs {
		for _, p := range v.paths {
			if rest, ok := strings.CutPrefix(p, parent); ok && !strings.Contains(rest, " ") {
				all[rest] = true
			}
		}
	}
	said := args[len(args)-1]
	hint := ""
	if near := nearest(said, all); near != "" {
		hint = fmt.Sprintf("\n\nDid you mean '%s %s%s'?", session.Name, parent, near)
	}
	return &session.Exit{Code: 1, Message: fmt.Sprintf("%s: unknown command: %s %s%s\n\nRun '%s --help' for more information", session.Name, session.Name, strings.Join(args, " "), hint, strings.TrimSpace(session.Name+" "+parent))}
}

// execute builds the one command and runs it.
func execute(s *session.Session, path string, v *verb, args []string) error {
	cmd := command(s, v, path)
	fs := cmd.Flags()
	args, warnings := longOptions(fs, args, v.interspersed())
	s.Warn(warnings)
	if err := cmd.ParseFlags(args); err != nil {
		return flagError(cmd, err)
	}
	if help, err := fs.GetBool("help"); err == nil && help {
		if slices.Contains(args, "-h") {
			fmt.Fprintln(s.Err, "Flag shorthand -h has been deprecated, use --help")
		}
		return commandHelp(s.Out, cmd, v)
	}
	deprecated(s, fs)
	args = fs.Args()
	if err := cmd.ValidateArgs(args); err != nil {
		return err
	}
	cmd.SetContext(context.Background())
	return cmd.RunE(cmd, args)
}

// command builds a verb's command under parents that give it its full name.
func command(s *session.Session, v *verb, path string) *cobra.Command {
	cmd := v.build(s)
	words := strings.Fields(path)
	_, params, _ := strings.Cut(cmd.Use, " ")
	cmd.Use = strings.TrimSpace(words[len(words)-1] + " " + params)
	parent := &cobra.Command{Use: session.Name}
	if len(words) == 2 {
		group := &cobra.Command{Use: words[0]}
		parent.AddCommand(group)
		parent = group
	}
	parent.AddCommand(cmd)
	cmd.DisableFlagsInUseLine = true
	fs := cmd.Flags()
	fs.SetInterspersed(v.interspersed())
	fs.SetOutput(io.Discard)
	fs.SortFlags = false
	if fs.ShorthandLookup("h") == nil {
		fs.BoolP("help", "h", false, "Print usage")
	} else {
		fs.Bool("help", false, "Print usage")
	}
	fs.Lookup("help").Hidden = true
	return cmd
}

func flagError(cmd *cobra.Command, err error) error {
	return &session.Exit{Code: 125, Message: fmt.Sprintf("%s\n\nUsage:  %s\n\nRun '%s --help' for more information", suggestFlag(cmd.Flags(), err), cmd.UseLine(), cmd.CommandPath())}
}
