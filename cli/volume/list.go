// Package volume has the commands about volumes.
//
// It is not the tree of commands, which package cli puts them in, and touches no file of a volume. Invariant: a command does by the engine's API what it does.
package volume

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"berth/cli/flag"
	"berth/cli/format"
	"berth/cli/session"
	"berth/client"
	"berth/fault"

	"github.com/moby/moby/api/types/volume"
	"github.com/spf13/cobra"
)

// List is the command "volume ls".
func List(s *session.Session) *cobra.Command {
	var filters []string
	var layout string
	var quiet, cluster bool
	cmd := &cobra.Command{
		Use: "ls [OPTIONS]", Args: session.NoArgs, Example: "volume ls\nvolume ls --filter dangling=true\nvolume ls --format '{{.Name}} {{.Mountpoint}}'",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if layout == "" && !quiet {
				layout = s.Config().VolumesFormat
			}
			api, err := s.API()
			if err != nil {
				return err
			}
			all, err := api.Volumes.List(cmd.Context(), session.Filters(filters))
			if err != nil {
				return err
			}
			s.Warn(all.Warnings)
			slices.SortFunc(all.Volumes, func(a, b volume.Volume) int { return strings.Compare(a.Name, b.Name) })
			rows := []row{}
			for _, v := range all.Volumes {
				if !cluster || v.ClusterVolume != nil {
					rows = append(rows, rowOf(v))
				}
			}
			return table.Print(s.Out, layout, quiet, rows)
		},
	}
	fs := cmd.Flags()
	fs.BoolVar(&cluster, "cluster", false, "Display only cluster volumes, and use cluster volume list formatting")
	fs.VarP(flag.Filters(&filters), "filter", "f", `Provide filter values (e.g. "dangling=true")`)
	fs.StringVar(&layout, "format", "", format.Usage)
	fs.BoolVarP(&quiet, "quiet", "q", false, "Only display volume names")
	return cmd
}

// row is one volume; the fields are what templates may use.
type row struct {
	Availability string
	Driver       string
	Group        string
	Labels       string
	Links        string
	Mountpoint   string
	Name         string
	Scope        string
	Size         string
	Status       string

	labels map[string]string
}

// Label is the value of one label.
func (r row) Label(name string) string { return r.labels[name] }

var table = &format.Table[row]{
	Columns: []string{"DRIVER", "VOLUME NAME"},
	Cells:   func(r row) []string { return []string{r.Driver, r.Name} },
	Heading: row{
		Availability: "AVAILABILITY", Driver: "DRIVER", Group: "GROUP", Labels: "LABELS", Links: "LINKS", Mountpoint: "MOUNTPOINT", Name: "VOLUME NAME",
		Scope: "SCOPE", Size: "SIZE", Status: "STATUS",
	},
	Quiet: func(r row) string { return r.Name },
}

const unknown = "N/A"

func rowOf(v volume.Volume) row {
	r := row{
		Availability: unknown, Driver: v.Driver, Group: unknown, Links: unknown, Mountpoint: v.Mountpoint, Name: v.Name, Scope: v.Scope,
		Size: unknown, Status: unknown, labels: v.Labels,
	}
	if u := v.UsageData; u != nil {
		r.Links = fmt.Sprint(u.RefCount)
		if u.Size >= 0 {
			r.Size = format.Size(u.Size)
		}
	}
	var labels []string
	for _, k := range slices.Sorted(maps.Keys(v.Labels)) {
		labels = append(labels, k+"="+v.Labels[k])
	}
	r.Labels = strings.Join(labels, ",")
	return r
}

// Remove is the command "volume rm".
func Remove(s *session.Session) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "rm [OPTIONS] VOLUME [VOLUME...]", Args: session.AtLeast(1), Example: "volume rm data",
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := s.API()
			if err != nil {
				return err
			}
			return s.Each(args, func(name string) error {
				err := api.Volumes.Remove(cmd.Context(), name, force)
				if errors.Is(err, fault.Conflict) {
					return usedBy(cmd, api, name, err)
				}
				if err == nil {
					_, err = fmt.Fprintln(s.Out, name)
				}
				return err
			})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force the removal of one or more volumes")
	return cmd
}

// usedBy adds the names of the containers that have a volume, and what can be done.
func usedBy(cmd *cobra.Command, api *client.Client, name string, cause error) error {
	all, err := api.Containers.List(cmd.Context(), client.Listing{All: true, Filters: client.Filters{"volume": {name}}})
	if err != nil || len(all) == 0 {
		return cause
	}
	var names []string
	for _, c := range all {
		for _, n := range c.Names {
			names = append(names, strings.TrimPrefix(n, "/"))
		}
	}
	list := strings.Join(names, " ")
	return fmt.Errorf("%w: it belongs to %s; remove what is not needed any more first ('%s rm %s')", cause, strings.Join(names, ", "), session.Name, list)
}
