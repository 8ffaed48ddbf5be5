// Package prune has the commands that remove what is not used any more.
//
// It decides nothing: the engine chooses what goes. Invariant: without --force nothing is removed before somebody said yes.
package prune

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"berth/cli/flag"
	"berth/cli/format"
	"berth/cli/session"
	"berth/client"

	"github.com/spf13/cobra"
)

// options are those that all prunes have.
type options struct {
	all, force, dry bool
	filters         []string
}

func (o *options) declare(cmd *cobra.Command, all, filter string) {
	fs := cmd.Flags()
	if all != "" {
		fs.BoolVarP(&o.all, "all", "a", false, all)
	}
	fs.Var(flag.Filters(&o.filters), "filter", filter)
	fs.BoolVarP(&o.force, "force", "f", false, "Do not prompt for confirmation")
	fs.BoolVar(&o.dry, "dry-run", false, "Show what would be removed, and remove nothing")
}

// wanted are the filters given and those of the user's configuration. "label!" is a key too: label!=KEY takes the others.
func (o *options) wanted(s *session.Session) client.Filters {
	return session.Filters(append(slices.Clone(s.Config().PruneFilters), o.filters...))
}

// sure asks unless it need not.
func (o *options) sure(s *session.Session, what, question string) error {
	if o.force || o.dry || s.Confirm(question) {
		return nil
	}
	return errors.New(what + " prune has been cancelled")
}

// result is what a prune did, or would do.
type result struct {
	title string // "Images"
	lines []string
	bytes uint64
}

// print writes it; the sum is for those that free space.
func (o *options) print(w io.Writer, r result, sum bool) {
	done, total := "Deleted ", "Total reclaimed space:"
	if o.dry {
		done, total = "Would delete ", "Would reclaim space:"
	}
	if len(r.lines) > 0 {
		fmt.Fprintf(w, "%s%s:\n%s\n\n", done, r.title, strings.Join(r.lines, "\n"))
	}
	if sum {
		fmt.Fprintln(w, total, format.FineSize(int64(r.bytes)))
	}
}

// step is one kind of prune.
type step func(ctx context.Context, api *client.Client, f client.Filters, dry bool) (result, error)

func containers(ctx context.Context, api *client.Client, f client.Filters, dry bool) (result, error) {
	r, err := api.Containers.Prune(ctx, f, dry)
	return result{"Containers", r.ContainersDeleted, r.SpaceReclaimed}, err
}

func networks(ctx context.Context, api *client.Client, f client.Filters, dry bool) (result, error) {
	r, err := api.System.PruneNetworks(ctx, f, dry)
	return result{"Networks", r.NetworksDeleted, 0}, err
}

func volumes(ctx context.Context, api *client.Client, f client.Filters, dry bool) (result, error) {
	r, err := api.System.PruneVolumes(ctx, f, dry)
	return result{"Volumes", r.VolumesDeleted, r.SpaceReclaimed}, err
}

// images prunes those without a name, or all that no container has.
func images(all bool) step {
	return func(ctx context.Context, api *client.Client, f client.Filters, dry bool) (result, error) {
		f = maps.Clone(f)
		f["dangling"] = append(slices.Clone(f["dangling"]), fmt.Sprint(!all))
		r, err := api.Images.Prune(ctx, f, dry)
		out := result{title: "Images", bytes: r.SpaceReclaimed}
		for _, one := range r.ImagesDeleted {
			if one.Untagged != "" {
				out.lines = append(out.lines, "untagged: "+one.Untagged)
			} else {
				out.lines = append(out.lines, "deleted: "+one.Deleted)
			}
		}
		return out, err
	}
}

// run asks and does one step.
func (o *options) run(ctx context.Context, s *session.Session, what, question string, do step, f client.Filters, sum bool) error {
	if err := o.sure(s, what, question); err != nil {
		return err
	}
	api, err := s.API()
	if err != nil {
		return err
	}
	r, err := do(ctx, api, f, o.dry)
	if err == nil {
		o.print(s.Out, r, sum)
	}
	return err
}

// Containers is the command "container prune".
func Containers(s *session.Session) *cobra.Command {
	var o options
	cmd := &cobra.Command{Use: "prune [OPTIONS]", Args: session.NoArgs, Example: "container prune --dry-run\ncontainer prune -f --filter until=24h"}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return o.run(cmd.Context(), s, "container", "WARNING! This will remove all stopped containers.\nAre you sure you want to continue?", containers, o.wanted(s), true)
	}
	o.declare(cmd, "", `Provide filter values (e.g. "until=<timestamp>")`)
	return cmd
}

// Images is the command "image prune".
func Images(s *session.Session) *cobra.Command {
	var o options
	cmd := &cobra.Command{Use: "prune [OPTIONS]", Args: session.NoArgs, Example: "image prune\nimage prune -a --dry-run"}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		what := "all dangling images"
		if o.all {
			what = "all images without at least one container associated to them"
		}
		return o.run(cmd.Context(), s, "image", "WARNING! This will remove "+what+".\nAre you sure you want to continue?", images(o.all), o.wanted(s), true)
	}
	o.declare(cmd, "Remove all unused images, not just dangling ones", `Provide filter values (e.g. "until=<timestamp>")`)
	return cmd
}

// Volumes is the command "volume prune".
func Volumes(s *session.Session) *cobra.Command {
	var o options
	cmd := &cobra.Command{Use: "prune [OPTIONS]", Args: session.NoArgs, Example: "volume prune\nvolume prune -a --dry-run"}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		f, what := o.wanted(s), "anonymous local volumes"
		if o.all {
			if _, twice := f["all"]; twice {
				return errors.New("conflicting options: cannot specify both --all and --filter all=1")
			}
			f["all"], what = []string{"true"}, "all local volumes"
		}
		return o.run(cmd.Context(), s, "volume", "WARNING! This will remove "+what+" not used by at least one container.\nAre you sure you want to continue?", volumes, f, true)
	}
	o.declare(cmd, "Remove all unused volumes, not just anonymous ones", `Provide filter values (e.g. "label=<label>")`)
	return cmd
}

// Networks is the command "network prune".
func Networks(s *session.Session) *cobra.Command {
	var o options
	cmd := &cobra.Command{Use: "prune [OPTIONS]", Args: session.NoArgs, Example: "network prune"}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return o.run(cmd.Context(), s, "network", "WARNING! This will remove all custom networks not used by at least one container.\nAre you sure you want to continue?", networks, o.wanted(s), false)
	}
	o.declare(cmd, "", `Provide filter values (e.g. "until=<timestamp>")`)
	return cmd
}
