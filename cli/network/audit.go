package network

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"berth/cli/flag"
	"berth/cli/format"
	"berth/cli/session"
	"berth/client"

	"github.com/spf13/cobra"
)

// Audit is the command "network audit".
func Audit(s *session.Session) *cobra.Command {
	var layout string
	var reach []string
	cmd := &cobra.Command{
		Use: "audit [OPTIONS]", Args: session.NoArgs, Example: "network audit\nnetwork audit --from outside\nport audit --format json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, r := range reach {
				if !slices.Contains(reaches, r) {
					return fmt.Errorf("--from %s: choose from %s", r, strings.Join(reaches, ", "))
				}
			}
			api, err := s.API()
			if err != nil {
				return err
			}
			a, err := api.Networks.Audit(cmd.Context())
			if err != nil {
				return err
			}
			a.Ports = slices.DeleteFunc(a.Ports, func(p client.AuditPort) bool {
				return len(reach) > 0 && !slices.ContainsFunc(reach, func(r string) bool { return slices.Contains(p.Reach, r) })
			})
			if layout == "json" {
				return json.NewEncoder(s.Out).Encode(a)
			}
			rows := make([]auditRow, len(a.Ports))
			for k, p := range a.Ports {
				rows[k] = auditRowOf(p)
			}
			s.Warn(a.Notes)
			return auditTable.Print(s.Out, layout, false, rows)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&layout, "format", "", format.Usage)
	fs.Var(flag.List(&reach), "from", `Show only what can be reached from here ("host", "neighbours", "containers", "lan", "outside")`)
	return cmd
}

var reaches = []string{"host", "neighbours", "containers", "lan", "outside"}

// auditRow is one port; the fields are what templates may use.
type auditRow struct {
	Addresses string
	Container string
	Host      string
	ID        string
	Network   string
	Note      string
	Port      string
	Reach     string
	Stopped   string
}

var auditTable = &format.Table[auditRow]{
	Columns: []string{"CONTAINER", "NETWORK", "PORT", "PUBLISHED ON", "REACHED FROM", "NOTE"},
	Cells: func(r auditRow) []string {
		return []string{r.Container, r.Network, r.Port, r.Host, r.Reach, r.Note}
	},
	Heading: auditRow{Addresses: "ADDRESSES", Container: "CONTAINER", Host: "PUBLISHED ON", ID: "CONTAINER ID", Network: "NETWORK", Note: "NOTE", Port: "PORT",
		Reach: "REACHED FROM", Stopped: "STOPPED BY"},
}

func auditRowOf(p client.AuditPort) auditRow {
	r := auditRow{Container: p.Name, ID: format.ShortID(p.Container), Network: p.Network, Port: p.Port, Reach: strings.Join(p.Reach, ", "), Stopped: p.Stopped, Note: p.Note}
	switch {
	case p.HostPort != 0:
		r.Host = netip.AddrPortFrom(p.HostIP, p.HostPort).String()
	case strings.Contains(p.Note, "routed"):
		r.Host = "its own address"
	default:
		r.Host = "-"
	}
	if p.Stopped != "" {
		r.Note = "chain " + p.Stopped + " keeps out those from outside"
	}
	var all []string
	for _, a := range p.Addresses {
		all = append(all, a.String())
	}
	r.Addresses = strings.Join(all, ", ")
	return r
}
