// Command berth-oci is an OCI runtime on its own, and the supervisor of berth's containers.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/oci"
	"berth/oci/shim"
	"berth/volume/hold"
)

// version is set by the linker.
var version = "dev"

// command is one verb: it declares its flags and returns what does the work and gives the exit code.
type command struct {
	usage, help string
	flags       func(f *flag.FlagSet) func(r *oci.Runtime, args []string) (int, error)
}

func commands() map[string]command {
	return map[string]command{
		"create":   {"create [flags] ID", "make a container, its program not yet started", createCommand},
		"start":    {"start ID", "start the program of a created container", startCommand},
		"run":      {"run [flags] ID", "make and start a container, wait for it, remove it", runCommand},
		"state":    {"state ID", "print a container's state as JSON", stateCommand},
		"kill":     {"kill [flags] ID [SIGNAL]", "send a signal, TERM unless given", killCommand},
		"delete":   {"delete [flags] ID", "remove a stopped container", deleteCommand},
		"exec":     {"exec [flags] ID COMMAND [ARG...]", "start one more process in a container", execCommand},
		"list":     {"list [flags]", "print all containers", listCommand},
		"ps":       {"ps [flags] ID", "print a container's processes", psCommand},
		"pause":    {"pause ID", "freeze a container", pauseCommand},
		"resume":   {"resume ID", "let a frozen container go on", resumeCommand},
		"update":   {"update [flags] ID", "change a container's limits", updateCommand},
		"features": {"features", "print what this runtime can do as JSON", featuresCommand},
	}
}

func main() {
	oci.InitMain()
	if len(os.Args) > 1 && os.Args[1] == "shim" {
		os.Exit(shim.Main(os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == hold.Arg {
		os.Exit(hold.Main())
	}
	os.Exit(run(os.Args[1:]))
}

// global are the flags before the verb.
type global struct {
	root, log, format string
	systemd, version  bool
}

func run(args []string) int {
	var g global
	top := flag.NewFlagSet("berth-oci", flag.ContinueOnError)
	top.Usage = func() { usage(top.Output()) }
	top.StringVar(&g.root, "root", "/run/berth-oci", "state directory")
	top.StringVar(&g.log, "log", "", "file for errors, beside stderr")
	top.StringVar(&g.format, "log-format", "text", "text or json")
	top.BoolVar(&g.systemd, "systemd-cgroup", false, "cgroup paths are slice:prefix:name")
	top.BoolVar(&g.version, "version", false, "print the version")
	top.BoolVar(&g.version, "v", false, "print the version")
	top.Bool("debug", false, "accepted for other runtimes' sake")
	top.String("rootless", "", "accepted for other runtimes' sake")
	top.String("criu", "", "accepted for other runtimes' sake")
	if err := top.Parse(args); err != nil {
		return flagCode(err)
	}
	if g.version {
		fmt.Printf("berth-oci version %s\nspec: %s\n", version, specs.Version)
		return 0
	}
	c, known := commands()[top.Arg(0)]
	if !known {
		if top.NArg() == 0 || top.Arg(0) == "help" {
			usage(os.Stdout)
			return 0
		}
		return g.report(fmt.Errorf("%q is no command: see berth-oci help", top.Arg(0)), 1)
	}
	f := flag.NewFlagSet(c.usage, flag.ContinueOnError)
	work := c.flags(f)
	if err := f.Parse(top.Args()[1:]); err != nil {
		return flagCode(err)
	}
	code, err := work(&oci.Runtime{Root: g.root, Systemd: g.systemd}, f.Args())
	if err != nil {
		return g.report(err, code)
	}
	return code
}

func flagCode(err error) int {
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	return 1
}

// report tells an error on stderr and in the log, in the form that callers of a runtime read.
func (g *global) report(err error, code int) int {
	fmt.Fprintln(os.Stderr, "berth-oci:", err)
	if g.log != "" {
		if f, openErr := os.OpenFile(g.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600); openErr == nil {
			g.write(f, err)
			f.Close()
		}
	}
	if code == 0 {
		code = 1
	}
	return code
}

func (g *global) write(w io.Writer, err error) {
	now := time.Now().UTC().Format(time.RFC3339Nano)
	if g.format == "json" {
		json.NewEncoder(w).Encode(map[string]string{"level": "error", "msg": err.Error(), "time": now})
		return
	}
	fmt.Fprintf(w, "time=%q level=error msg=%q\n", now, err)
}

func usage(w io.Writer) {
	fmt.Fprint(w, "berth-oci is an OCI runtime.\n\nUsage: berth-oci [--root DIR] [--log FILE] [--log-format text|json] [--systemd-cgroup] COMMAND\n\nCommands:\n")
	for _, name := range []string{"create", "start", "run", "state", "kill", "delete", "exec", "list", "ps", "pause", "resume", "update", "features"} {
		fmt.Fprintf(w, "  %-10s %s\n", name, commands()[name].help)
	}
}

// one takes the single argument of most commands.
func one(args []string) (string, error) {
	if len(args) != 1 {
		return "", fmt.Errorf("want one container id, got %d arguments", len(args))
	}
	return args[0], nil
}

// codeOf is the exit code for an error: that of the program that could not be started, else 1.
func codeOf(err error) int {
	var s *oci.StartError
	if errors.As(err, &s) {
		return s.Code
	}
	return 1
}
