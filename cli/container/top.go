package container

import (
	"fmt"
	"slices"
	"strings"

	"berth/cli/format"
	"berth/cli/session"

	"github.com/moby/moby/api/types/network"
	"github.com/spf13/cobra"
)

// Top is the command "container top".
func Top(s *session.Session) *cobra.Command {
	return &cobra.Command{
		Use: "top CONTAINER [ps OPTIONS]", Args: session.AtLeast(1), Example: "top web\ntop web -o pid,cmd",
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := s.API()
			if err != nil {
				return err
			}
			list, err := api.Containers.Top(cmd.Context(), args[0], strings.Join(args[1:], " "))
			if err != nil {
				return err
			}
			var b strings.Builder
			for _, line := range append([][]string{list.Titles}, list.Processes...) {
				b.WriteString(strings.Join(line, "\t") + "\n")
			}
			return format.Align(s.Out, b.String(), format.Layout{Least: 20, Gap: 3})
		},
	}
}

// Port is the command "container port".
func Port(s *session.Session) *cobra.Command {
	return &cobra.Command{
		Use: "port CONTAINER [PRIVATE_PORT[/PROTO]]", Args: session.Between(1, 2), Example: "port web\nport web 80",
		RunE: func(cmd *cobra.Command, args []string) error { return port(s, cmd, args) },
	}
}

func port(s *session.Session, cmd *cobra.Command, args []string) error {
	api, err := s.API()
	if err != nil {
		return err
	}
	c, err := api.Containers.Get(cmd.Context(), args[0])
	if err != nil {
		return err
	}
	bindings := network.PortMap{}
	if c.NetworkSettings != nil {
		bindings = c.NetworkSettings.Ports
	}
	var lines []string
	if len(args) == 2 {
		p, err := network.ParsePort(args[1])
		if err != nil {
			return fmt.Errorf("invalid port %q: use a number, or a number and a protocol such as 53/udp", args[1])
		}
		if len(bindings[p]) == 0 {
			return fmt.Errorf("no public port '%s' published for %s", p, args[0])
		}
		for _, b := range bindings[p] {
			lines = append(lines, bound(b))
		}
	} else {
		for p, all := range bindings {
			for _, b := range all {
				lines = append(lines, fmt.Sprintf("%s -> %s", p, bound(b)))
			}
		}
	}
	slices.SortFunc(lines, comparePortLines)
	for _, l := range lines {
		fmt.Fprintln(s.Out, l)
	}
	return nil
}

func bound(b network.PortBinding) string {
	if !b.HostIP.IsValid() {
		return ":" + b.HostPort
	}
	return joinHost(b.HostIP, b.HostPort)
}

// comparePortLines sorts lines by the numbers that they begin with.
func comparePortLines(a, b string) int {
	number := func(s string) (n int) {
		fmt.Sscanf(s, "%d", &n)
		return n
	}
	if d := number(a) - number(b); d != 0 {
		return d
	}
	return strings.Compare(a, b)
}
