// Package cli is the command line: one file per verb, over the public API.
//
// It is not the engine: whatever a verb does, it does by requests that any
// other program may send. A process runs one verb, so only that verb's flags are ever built.
// Invariant: nothing here runs before Main is called, as the time to start is part of every command's time.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"berth/client"
	"berth/fault"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"
)

// name is how the program calls itself in messages.
const name = "berth"

// Program is one run of the command line.
type Program struct {
	Args    []string // without the program's own name
	In      io.Reader
	Out     io.Writer
	Err     io.Writer
	Getenv  func(string) (string, bool) // as os.LookupEnv
	Version string
	Commit  string
	// Launch tells how to start a daemon when the default socket has none; nil: never.
	Launch func() *client.Launch
}

// session is a program whose global options are known.
type session struct {
	*Program
	global globals
	conn   *client.Client
	file   *configFile // nil: not read yet
}

// globals are the options before the verb.
type globals struct {
	hosts    []string
	config   string
	context  string
	logLevel string
	debug    bool
	version  bool
	help     bool
	tls      bool
}

// exit is an error that sets the process's exit code. With an empty message nothing is printed.
type exit struct {
	code    int
	message string
}

func (e *exit) Error() string { return e.message }

// Main runs the command line and returns the exit code.
func Main(p *Program) int {
	if len(p.Args) == 1 && (p.Args[0] == "--version" || p.Args[0] == "-v") {
		return p.printVersion()
	}
	s := &session{Program: p}
	rest, err := s.parseGlobals(p.Args)
	if err == nil {
		switch {
		case s.global.version:
			return p.printVersion()
		case s.global.tls:
			err = fault.New(fault.Unsupported, "TLS connections are not supported by this client; use a unix socket, or tcp:// to a host that forwards to one")
		case len(rest) == 0 || s.global.help:
			err = s.help(rest)
		default:
			err = s.dispatch(rest)
		}
	}
	if s.conn != nil {
		s.conn.Close()
	}
	return s.finish(err)
}

func (p *Program) printVersion() int {
	fmt.Fprintf(p.Out, "berth version %s, build %s\n", p.Version, p.Commit)
	return 0
}

// finish prints err and gives the exit code that goes with it.
func (s *session) finish(err error) int {
	if err == nil {
		return 0
	}
	var e *exit
	if !errors.As(err, &e) {
		e = &exit{1, err.Error()}
	}
	if e.message != "" {
		fmt.Fprintln(s.Err, e.message)
	}
	return e.code
}

func (s *session) parseGlobals(args []string) ([]string, error) {
	fs := pflag.NewFlagSet(name, pflag.ContinueOnError)
	fs.SetInterspersed(false)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	s.globalFlags(fs)
	args, warnings := longOptions(fs, args, false)
	s.warn(warnings)
	if err := fs.Parse(args); err != nil {
		return nil, &exit{125, fmt.Sprintf("%s\n\nUsage:  %s [OPTIONS] COMMAND\n\nRun '%s --help' for more information", suggestFlag(fs, err), name, name)}
	}
	return fs.Args(), nil
}

func (s *session) globalFlags(fs *pflag.FlagSet) {
	g := &s.global
	fs.StringVar(&g.config, "config", "", "Location of client config files")
	fs.StringVarP(&g.context, "context", "c", "", "Name of the context to use; only \"default\" exists")
	fs.BoolVarP(&g.debug, "debug", "D", false, "Enable debug mode")
	fs.StringArrayVarP(&g.hosts, "host", "H", nil, "Daemon socket to connect to")
	fs.StringVarP(&g.logLevel, "log-level", "l", "info", `Set the logging level ("debug", "info", "warn", "error", "fatal")`)
	fs.BoolVar(&g.tls, "tls", false, "Use TLS; implied by --tlsverify")
	fs.BoolVar(&g.tls, "tlsverify", false, "Use TLS and verify the remote")
	for _, f := range []string{"tlscacert", "tlscert", "tlskey"} {
		fs.String(f, "", "Path of a TLS file")
	}
	fs.BoolVarP(&g.version, "version", "v", false, "Print version information and quit")
	fs.BoolVarP(&g.help, "help", "h", false, "Print usage")
}

func (s *session) env(key string) string {
	v, _ := s.Getenv(key)
	return v
}

// api gives the client, made at its first use.
func (s *session) api() (*client.Client, error) {
	if s.conn != nil {
		return s.conn, nil
	}
	o := client.Options{Host: s.env("DOCKER_HOST"), Version: s.env("DOCKER_API_VERSION"), Agent: "Berth-Client/" + s.Version + " (linux)"}
	if v := s.env("DOCKER_TLS_VERIFY"); v != "" && strings.HasPrefix(o.Host, "tcp://") {
		return nil, fault.New(fault.Unsupported, "DOCKER_TLS_VERIFY is set, but this client has no TLS; use a unix socket")
	}
	if c := s.global.context; c != "" && c != "default" {
		return nil, fault.New(fault.NotFound, "context %q: context not found: only \"default\" exists; use -H to name a host", c)
	}
	if n := len(s.global.hosts); n > 1 {
		return nil, fault.New(fault.Invalid, "specify only one -H")
	} else if n == 1 {
		o.Host = s.global.hosts[0]
	}
	if o.Host == "" {
		o.Host = client.DefaultHost
	}
	if o.Host == client.DefaultHost && s.Launch != nil && s.env("BERTH_AUTOSTART") != "0" {
		o.Launch = s.Launch()
	}
	var err error
	if o.Header, err = s.config().headers(s.env("DOCKER_CUSTOM_HEADERS")); err != nil {
		return nil, err
	}
	s.conn, err = client.New(o)
	return s.conn, err
}

func (s *session) warn(lines []string) {
	for _, l := range lines {
		fmt.Fprintln(s.Err, "WARNING: "+l)
	}
}

// fileOf gives the file behind a stream; nil when it is none.
func fileOf(stream any) *os.File {
	f, _ := stream.(*os.File)
	return f
}

// isTerminal tells whether a stream is a terminal.
func isTerminal(stream any) bool {
	f := fileOf(stream)
	return f != nil && term.IsTerminal(int(f.Fd()))
}

// dispatch finds the verb and runs it.
func (s *session) dispatch(args []string) error {
	if special := map[string]func([]string) error{"help": s.help, "completion": completer{s}.script,
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
	return s.execute(path, v, rest)
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
		hint = fmt.Sprintf("\n\nDid you mean '%s %s%s'?", name, parent, near)
	}
	return &exit{1, fmt.Sprintf("%s: unknown command: %s %s%s\n\nRun '%s --help' for more information", name, name, strings.Join(args, " "), hint, strings.TrimSpace(name+" "+parent))}
}

// execute builds the one command and runs it.
func (s *session) execute(path string, v *verb, args []string) error {
	cmd := s.command(v, path)
	fs := cmd.Flags()
	args, warnings := longOptions(fs, args, v.interspersed())
	s.warn(warnings)
	if err := cmd.ParseFlags(args); err != nil {
		return flagError(cmd, err)
	}
	if help, err := fs.GetBool("help"); err == nil && help {
		if slices.Contains(args, "-h") {
			fmt.Fprintln(s.Err, "Flag shorthand -h has been deprecated, use --help")
		}
		return commandHelp(s.Out, cmd, v)
	}
	s.deprecated(fs)
	args = fs.Args()
	if err := cmd.ValidateArgs(args); err != nil {
		return err
	}
	cmd.SetContext(context.Background())
	return cmd.RunE(cmd, args)
}

// command builds a verb's command under parents that give it its full name.
func (s *session) command(v *verb, path string) *cobra.Command {
	cmd := v.build(s)
	words := strings.Fields(path)
	_, params, _ := strings.Cut(cmd.Use, " ")
	cmd.Use = strings.TrimSpace(words[len(words)-1] + " " + params)
	parent := &cobra.Command{Use: name}
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
	return &exit{125, fmt.Sprintf("%s\n\nUsage:  %s\n\nRun '%s --help' for more information", suggestFlag(cmd.Flags(), err), cmd.UseLine(), cmd.CommandPath())}
}

// failed wraps an error of run and its like: the program's name before it, where to read on after it.
func failed(cmd *cobra.Command, code int, err error) error {
	return &exit{code, fmt.Sprintf("%s: %s\n\nRun '%s --help' for more information", name, strings.TrimSuffix(err.Error(), "."), cmd.CommandPath())}
}

// tolerated is an error that is told and doesn't count.
type tolerated struct{ error }

// each runs do for every argument, goes on after failures, and reports them all.
func (s *session) each(args []string, do func(string) error) error {
	var all []string
	for _, a := range args {
		err := do(a)
		if _, ok := err.(tolerated); ok {
			fmt.Fprintln(s.Err, err)
		} else if err != nil {
			all = append(all, err.Error())
		}
	}
	if len(all) > 0 {
		return &exit{1, strings.Join(all, "\n")}
	}
	return nil
}
