package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"berth/cli/format"

	"github.com/spf13/cobra"
)

type pruneOptions struct {
	filters    []string
	force, dry bool
}

func pruneContainersCommand(s *session) *cobra.Command {
	var o pruneOptions
	cmd := &cobra.Command{
		Use: "prune [OPTIONS]", Args: noArgs, Example: "container prune --dry-run\ncontainer prune -f --filter until=24h",
		RunE: func(cmd *cobra.Command, _ []string) error { return s.pruneContainers(cmd.Context(), o) },
	}
	fs := cmd.Flags()
	fs.Var(filterFlag(&o.filters), "filter", `Provide filter values (e.g. "until=<timestamp>")`)
	fs.BoolVarP(&o.force, "force", "f", false, "Do not prompt for confirmation")
	fs.BoolVar(&o.dry, "dry-run", false, "Show what would be removed, and remove nothing")
	return cmd
}

func (s *session) pruneContainers(ctx context.Context, o pruneOptions) error {
	// "label!" is a key too: label!=KEY takes the others.
	filters := toFilters(append(slices.Clone(s.config().PruneFilters), o.filters...))
	if !o.force && !o.dry {
		if !s.confirm("WARNING! This will remove all stopped containers.\nAre you sure you want to continue?") {
			return errors.New("container prune has been cancelled")
		}
	}
	api, err := s.api()
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

// confirm asks a question; only y and yes, in any case, mean yes.
func (s *session) confirm(question string) bool {
	fmt.Fprintf(s.Out, "%s [y/N] ", question)
	line, _ := bufio.NewReader(s.In).ReadString('\n') // what can't be read is no yes
	answer := strings.ToLower(strings.TrimSpace(line))
	return answer == "y" || answer == "yes"
}
