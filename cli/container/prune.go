package container

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"berth/cli/flag"
	"berth/cli/format"
	"berth/cli/session"

	"github.com/spf13/cobra"
)

type pruneOptions struct {
	filters    []string
	force, dry bool
}

// Prune is the command "container prune".
func Prune(s *session.Session) *cobra.Command {
	var o pruneOptions
	cmd := &cobra.Command{
		Use: "prune [OPTIONS]", Args: session.NoArgs, Example: "container prune --dry-run\ncontainer prune -f --filter until=24h",
		RunE: func(cmd *cobra.Command, _ []string) error { return pruneContainers(cmd.Context(), s, o) },
	}
	fs := cmd.Flags()
	fs.Var(flag.Filters(&o.filters), "filter", `Provide filter values (e.g. "until=<timestamp>")`)
	fs.BoolVarP(&o.force, "force", "f", false, "Do not prompt for confirmation")
	fs.BoolVar(&o.dry, "dry-run", false, "Show what would be removed, and remove nothing")
	return cmd
}

func pruneContainers(ctx context.Context, s *session.Session, o pruneOptions) error {
	// "label!" is a key too: label!=KEY takes the others.
	filters := session.Filters(append(slices.Clone(s.Config().PruneFilters), o.filters...))
	if !o.force && !o.dry {
		if !s.Confirm("WARNING! This will remove all stopped containers.\nAre you sure you want to continue?") {
			return errors.New("container prune has been cancelled")
		}
	}
	api, err := s.API()
	if err != nil {
		return err
	}
	report, err := api.Containers.Prune(ctx, filters, o.dry)
	if err != nil {
		return err
	}
	done, total := "Deleted Containers:", "Total reclaimed space:"
	if o.dry {
		done, total = "Would delete Containers:", "Would reclaim space:"
	}
	if len(report.ContainersDeleted) > 0 {
		fmt.Fprintln(s.Out, done)
		for _, id := range report.ContainersDeleted {
			fmt.Fprintln(s.Out, id)
		}
		fmt.Fprintln(s.Out)
	}
	fmt.Fprintln(s.Out, total, format.FineSize(int64(report.SpaceReclaimed)))
	return nil
}
