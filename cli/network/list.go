package network

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"berth/cli/flag"
	"berth/cli/format"
	"berth/cli/session"

	"github.com/moby/moby/api/types/network"
	"github.com/spf13/cobra"
)

// List is the command "network ls".
func List(s *session.Session) *cobra.Command {
	var filters []string
	var layout string
	var long, quiet bool
	cmd := &cobra.Command{
		Use: "ls [OPTIONS]", Args: session.NoArgs, Example: "network ls\nnetwork ls --filter dangling=true",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if layout == "" && !quiet {
				layout = s.Config().NetworksFormat
			}
			api, err := s.API()
			if err != nil {
				return err
			}
			all, err := api.Networks.List(cmd.Context(), session.Filters(filters))
			if err != nil {
				return err
			}
			slices.SortFunc(all, func(a, b network.Summary) int { return strings.Compare(a.Name, b.Name) })
			rows := make([]row, len(all))
			for k, n := range all {
				rows[k] = rowOf(n, long)
			}
			return table.Print(s.Out, layout, quiet, rows)
		},
	}
	fs := cmd.Flags()
	fs.VarP(flag.Filters(&filters), "filter", "f", `Provide filter values (e.g. "driver=bridge")`)
	fs.StringVar(&layout, "format", "", format.Usage)
	fs.BoolVar(&long, "no-trunc", false, "Do not truncate the output")
	fs.BoolVarP(&quiet, "quiet", "q", false, "Only display network IDs")
	return cmd
}

// row is one network; the fields are what templates may use.
type row struct {
	CreatedAt string
	Driver    string
	ID        string
	IPv4      string
	IPv6      string
	Internal  string
	Labels    string
	Name      string
	Scope     string

	labels map[string]string
}

// Label is the value of one label.
func (r row) Label(name string) string { return r.labels[name] }

var table = &format.Table[row]{
	Columns: []string{"NETWORK ID", "NAME", "DRIVER", "SCOPE"},
	Cells:   func(r row) []string { return []string{r.ID, r.Name, r.Driver, r.Scope} },
	Heading: row{
		CreatedAt: "CREATED AT", Driver: "DRIVER", ID: "NETWORK ID", IPv4: "IPV4", IPv6: "IPV6", Internal: "INTERNAL",
		Labels: "LABELS", Name: "NAME", Scope: "SCOPE",
	},
	Quiet: func(r row) string { return r.ID },
}

func rowOf(n network.Summary, long bool) row {
	r := row{
		CreatedAt: n.Created.String(), Driver: n.Driver, ID: n.ID, IPv4: strconv.FormatBool(n.EnableIPv4), IPv6: strconv.FormatBool(n.EnableIPv6),
		Internal: strconv.FormatBool(n.Internal), Name: n.Name, Scope: n.Scope, labels: n.Labels,
	}
	if !long {
		r.ID = format.ShortID(n.ID)
	}
	var labels []string
	for _, k := range slices.Sorted(maps.Keys(n.Labels)) {
		labels = append(labels, k+"="+n.Labels[k])
	}
	r.Labels = strings.Join(labels, ",")
	return r
}
