package network

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"time"

	"berth/cli/format"
	"berth/cli/session"
	"berth/client"

	"github.com/spf13/cobra"
)

// Lookup is the command "network dns".
func Lookup(s *session.Session) *cobra.Command {
	var from, kind, template string
	cmd := &cobra.Command{
		Use: "dns [OPTIONS] NAME", Args: session.Exactly(1), Example: "network dns web\nnetwork dns --from asks web\nnetwork dns --from asks --type TXT example.com",
		RunE: func(cmd *cobra.Command, args []string) error {
			if template != "" && template != "json" {
				if _, err := format.Parse(template); err != nil {
					return &session.Exit{Code: 64, Message: err.Error()}
				}
			}
			api, err := s.API()
			if err != nil {
				return err
			}
			l, raw, err := api.Networks.Lookup(cmd.Context(), args[0], from, kind)
			switch {
			case err != nil:
				return s.OnlyOurs(err, "network dns")
			case template == "json":
				_, err = fmt.Fprintln(s.Out, strings.TrimSpace(string(raw)))
				return err
			case template != "":
				return format.Object(s.Out, template, &l, raw)
			}
			_, err = io.WriteString(s.Out, told(l, from))
			return err
		},
	}
	fs := cmd.Flags()
	fs.StringVarP(&template, "format", "f", "", format.ObjectUsage)
	fs.StringVar(&from, "from", "", "Container whose view counts")
	fs.StringVar(&kind, "type", "A", "Type of records: A, AAAA, PTR, MX, TXT, …")
	return cmd
}

// told is a look-up for people: who has the name, who was asked in which order, and what came of it.
func told(l client.Lookup, from string) string {
	var b strings.Builder
	if len(l.Owners) == 0 {
		fmt.Fprintf(&b, "No container that runs has the name %s.\n", l.Name)
	}
	for _, o := range l.Owners {
		var all []string
		for _, a := range o.Addresses {
			all = append(all, a.String())
		}
		fmt.Fprintf(&b, "%s on network %s: %s, by its %s", o.Name, o.Network, strings.Join(all, ", "), o.As)
		if from != "" && !o.Sees {
			fmt.Fprintf(&b, "; %s is not on that network", from)
		}
		b.WriteByte('\n')
	}
	if l.Trace == nil {
		return b.String()
	}
	fmt.Fprintf(&b, "\n%s asks for %s %s:\n", from, l.Trace.Type, l.Trace.Name)
	for k, step := range l.Trace.Steps {
		where := "network " + step.Network
		switch {
		case step.Server != "":
			where = strings.TrimSpace("server " + step.Server + " " + step.Over)
		case step.Network == "":
			where = "itself"
		}
		fmt.Fprintf(&b, "%d. %s, for %s: %s", k+1, where, step.Asked, step.Result)
		if step.Took > 0 {
			fmt.Fprintf(&b, " (%s)", step.Took.Round(10*time.Microsecond))
		}
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "%s in %s\n", cmp.Or(l.Trace.Status, "no answer"), l.Trace.Took.Round(time.Microsecond))
	for _, a := range l.Trace.Answer {
		fmt.Fprintf(&b, "  %s\n", strings.ReplaceAll(a, "\t", " "))
	}
	return b.String()
}
