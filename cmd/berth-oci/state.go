package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"

	"berth/fault"
	"berth/kernel"
	"berth/oci"
)

// state is the runtime-spec's state with what other runtimes add to it.
type state struct {
	specs.State
	Rootfs  string    `json:"rootfs"`
	Created time.Time `json:"created"`
	Owner   string    `json:"owner"`
}

func stateOf(c *oci.Container) state {
	s := state{State: c.State(), Created: c.Created, Owner: "root"}
	if c.Bundle.Spec != nil && c.Bundle.Spec.Root != nil {
		s.Rootfs = c.Bundle.Spec.Root.Path
	}
	return s
}

func print(v any) error {
	e := json.NewEncoder(os.Stdout)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func stateCommand(f *flag.FlagSet) func(*oci.Runtime, []string) (int, error) {
	return func(r *oci.Runtime, args []string) (int, error) {
		c, err := open(r, args)
		if err != nil {
			return 1, err
		}
		return 0, print(stateOf(c))
	}
}

func killCommand(f *flag.FlagSet) func(*oci.Runtime, []string) (int, error) {
	var all bool
	f.BoolVar(&all, "all", false, "all processes of the container")
	f.BoolVar(&all, "a", false, "all processes of the container")
	return func(r *oci.Runtime, args []string) (int, error) {
		if len(args) == 0 || len(args) > 2 {
			return 1, errors.New("want a container id and at most one signal")
		}
		name := "TERM"
		if len(args) == 2 {
			name = args[1]
		}
		n, known := kernel.SignalNumber(name)
		if !known {
			return 1, fmt.Errorf("%q is no signal", name)
		}
		c, err := r.Open(args[0])
		if err != nil {
			return 1, err
		}
		return 0, c.Signal(n, all)
	}
}

func deleteCommand(f *flag.FlagSet) func(*oci.Runtime, []string) (int, error) {
	var force bool
	f.BoolVar(&force, "force", false, "kill it when it runs; no error when it is not there")
	f.BoolVar(&force, "f", false, "kill it when it runs; no error when it is not there")
	return func(r *oci.Runtime, args []string) (int, error) {
		c, err := open(r, args)
		if force && errors.Is(err, fault.NotFound) {
			return 0, nil
		}
		if err != nil {
			return 1, err
		}
		return 0, c.Delete(force)
	}
}

func listCommand(f *flag.FlagSet) func(*oci.Runtime, []string) (int, error) {
	var format string
	var quiet bool
	f.StringVar(&format, "format", "table", "table or json")
	f.StringVar(&format, "f", "table", "table or json")
	f.BoolVar(&quiet, "quiet", false, "only ids")
	f.BoolVar(&quiet, "q", false, "only ids")
	return func(r *oci.Runtime, args []string) (int, error) {
		containers, err := r.List()
		if err != nil {
			return 1, err
		}
		states := make([]state, 0, len(containers))
		for _, c := range containers {
			states = append(states, stateOf(c))
		}
		if format == "json" {
			return 0, print(states)
		}
		if quiet {
			for _, s := range states {
				fmt.Println(s.ID)
			}
			return 0, nil
		}
		return 0, table(os.Stdout, states)
	}
}

func table(w io.Writer, states []state) error {
	t := tabwriter.NewWriter(w, 12, 1, 3, ' ', 0)
	fmt.Fprintln(t, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER")
	for _, s := range states {
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\troot\n", s.ID, s.Pid, s.Status, s.Bundle, s.Created.Format(time.RFC3339Nano))
	}
	return t.Flush()
}

func psCommand(f *flag.FlagSet) func(*oci.Runtime, []string) (int, error) {
	var format string
	f.StringVar(&format, "format", "table", "table or json")
	f.StringVar(&format, "f", "table", "table or json")
	return func(r *oci.Runtime, args []string) (int, error) {
		c, err := open(r, args)
		if err != nil {
			return 1, err
		}
		pids, err := c.Pids()
		if err != nil {
			return 1, err
		}
		if format == "json" {
			return 0, print(pids)
		}
		fmt.Println("PID      CMD")
		for _, pid := range pids {
			line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			fmt.Printf("%-8d %s\n", pid, strings.TrimSpace(strings.ReplaceAll(string(line), "\x00", " ")))
		}
		return 0, nil
	}
}

func pauseCommand(f *flag.FlagSet) func(*oci.Runtime, []string) (int, error) {
	return func(r *oci.Runtime, args []string) (int, error) {
		c, err := open(r, args)
		if err != nil {
			return 1, err
		}
		if status := c.Status(); status != specs.StateRunning && status != specs.StateCreated {
			return 1, fmt.Errorf("container %s is %s, not running", c.ID, status)
		}
		return 0, c.Pause()
	}
}

func resumeCommand(f *flag.FlagSet) func(*oci.Runtime, []string) (int, error) {
	return func(r *oci.Runtime, args []string) (int, error) {
		c, err := open(r, args)
		if err != nil {
			return 1, err
		}
		if status := c.Status(); status != "paused" {
			return 1, fmt.Errorf("container %s is %s, not paused", c.ID, status)
		}
		return 0, c.Resume()
	}
}

func updateCommand(f *flag.FlagSet) func(*oci.Runtime, []string) (int, error) {
	var from string
	f.StringVar(&from, "resources", "", "file with resources as JSON, - for stdin")
	f.StringVar(&from, "r", "", "file with resources as JSON, - for stdin")
	return func(r *oci.Runtime, args []string) (int, error) {
		c, err := open(r, args)
		if err != nil {
			return 1, err
		}
		var data []byte
		switch from {
		case "":
			return 1, errors.New("want --resources FILE")
		case "-":
			data, err = io.ReadAll(os.Stdin)
		default:
			data, err = os.ReadFile(from)
		}
		var resources specs.LinuxResources
		if err == nil {
			err = json.Unmarshal(data, &resources)
		}
		if err != nil {
			return 1, err
		}
		warnings, err := c.Update(&resources)
		for _, w := range warnings {
			fmt.Fprintln(os.Stderr, "berth-oci: warning:", w)
		}
		return 0, err
	}
}

func featuresCommand(f *flag.FlagSet) func(*oci.Runtime, []string) (int, error) {
	return func(r *oci.Runtime, args []string) (int, error) {
		yes := true
		return 0, print(features.Features{
			OCIVersionMin: "1.0.0", OCIVersionMax: specs.Version,
			Hooks:        []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"},
			MountOptions: oci.MountOptions(),
			Linux: &features.Linux{
				Namespaces:      []string{"cgroup", "ipc", "mount", "network", "pid", "user", "uts"},
				Capabilities:    (^kernel.CapSet(0)).Names(),
				Cgroup:          &features.Cgroup{V1: &yes, V2: &yes},
				Seccomp:         &features.Seccomp{Enabled: &yes},
				MountExtensions: &features.MountExtensions{IDMap: &features.IDMap{Enabled: &yes}},
			},
		})
	}
}
