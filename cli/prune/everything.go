package prune

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"berth/cli/flag"
	"berth/cli/format"
	"berth/cli/session"
	"berth/client"

	"github.com/spf13/cobra"
)

// Cache is the command "builder prune".
func Cache(s *session.Session) *cobra.Command {
	var o options
	var b bounds
	cmd := &cobra.Command{Use: "prune", Args: session.NoArgs, Example: "builder prune -f\nbuilder prune --dry-run --max-used-space 10GB\nbuilder prune -a --filter unused-for=48h"}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		what := "all dangling build cache"
		if o.all {
			what = "all build cache"
		}
		return o.run(cmd.Context(), s, "builder", "WARNING! This will remove "+what+". Are you sure you want to continue?", cache(o.all, b), o.wanted(s), true)
	}
	o.declare(cmd, "Remove all unused build cache, not just dangling ones", `Provide filter values (e.g. "until=24h")`)
	fs := cmd.Flags()
	fs.Var(flag.Size(&b.reserved, false), "keep-storage", "Amount of disk space to keep for cache")
	fs.Var(flag.Size(&b.reserved, false), "reserved-space", "Amount of disk space always allowed to keep for cache")
	fs.Var(flag.Size(&b.maxUsed, false), "max-used-space", "Maximum amount of disk space allowed to keep for cache")
	fs.Var(flag.Size(&b.minFree, false), "min-free-space", "Target amount of free disk space after pruning")
	return cmd
}

// bounds are how much a prune of the build cache leaves, in bytes; 0: it need not.
type bounds struct{ reserved, maxUsed, minFree int64 }

func cache(all bool, b bounds) step {
	return func(ctx context.Context, api *client.Client, f client.Filters, dry bool) (result, error) {
		q := url.Values{}
		if all {
			q.Set("all", "1")
		}
		for name, n := range map[string]int64{"keep-storage": b.reserved, "reserved-space": b.reserved, "max-used-space": b.maxUsed, "min-free-space": b.minFree} {
			if n > 0 {
				q.Set(name, strconv.FormatInt(n, 10))
			}
		}
		r, err := api.System.PruneCache(ctx, f, dry, q)
		return result{"build cache objects", r.CachesDeleted, r.SpaceReclaimed}, err
	}
}

// Everything is the command "system prune".
func Everything(s *session.Session) *cobra.Command {
	var o options
	var withVolumes bool
	cmd := &cobra.Command{
		Use: "prune [OPTIONS]", Args: session.NoArgs, Example: "system prune --dry-run\nsystem prune -a --volumes",
		RunE: func(cmd *cobra.Command, _ []string) error { return o.everything(cmd.Context(), s, withVolumes) },
	}
	o.declare(cmd, "Remove all unused images not just dangling ones", `Provide filter values (e.g. "label=<key>=<value>")`)
	cmd.Flags().BoolVar(&withVolumes, "volumes", false, "Prune anonymous volumes")
	return cmd
}

func (o *options) everything(ctx context.Context, s *session.Session, withVolumes bool) error {
	given := session.Filters(o.filters)
	if _, until := given["until"]; until && withVolumes {
		return errors.New(`ERROR: The "until" filter is not supported with "--volumes"`)
	}
	f := o.wanted(s)
	api, err := s.API()
	if err != nil {
		return err
	}
	if o.dry {
		plan, err := api.System.Plan(ctx, o.all, withVolumes, f)
		if err != nil {
			return s.OnlyOurs(err, "system prune --dry-run")
		}
		return show(s.Out, plan)
	}
	if !o.force {
		sum := ""
		if plan, err := api.System.Plan(ctx, o.all, withVolumes, f); err == nil { // other engines have no plan
			sum = inWords(plan)
		}
		if err := o.sure(s, "system", o.warning(withVolumes, f, sum)); err != nil {
			return err
		}
	}
	steps := []step{containers, networks}
	if withVolumes {
		steps = append(steps, volumes)
	}
	var total uint64
	for _, do := range append(steps, images(o.all), cache(o.all, bounds{})) {
		r, err := do(ctx, api, f, false)
		if err != nil {
			return err
		}
		o.print(s.Out, r, false)
		total += r.bytes
	}
	o.print(s.Out, result{bytes: total}, true)
	return nil
}

// warning is what is asked before.
func (o *options) warning(withVolumes bool, f client.Filters, plan string) string {
	list := []string{"all stopped containers", "all networks not used by at least one container"}
	if withVolumes {
		list = append(list, "all anonymous volumes not used by at least one container")
	}
	if o.all {
		list = append(list, "all images without at least one container associated to them", "all build cache")
	} else {
		list = append(list, "all dangling images", "unused build cache")
	}
	var b strings.Builder
	b.WriteString("WARNING! This will remove:\n")
	for _, one := range list {
		b.WriteString("  - " + one + "\n")
	}
	var filters []string
	for _, key := range []string{"label", "label!", "until"} {
		for _, v := range f[key] {
			filters = append(filters, key+"="+v)
		}
	}
	if len(filters) > 0 {
		slices.Sort(filters)
		b.WriteString("\n  Items to be pruned will be filtered with:\n")
		for _, one := range filters {
			b.WriteString("  - " + one + "\n")
		}
	}
	if plan != "" {
		b.WriteString("\n  " + plan + "\n")
	}
	b.WriteString("\nAre you sure you want to continue?")
	return b.String()
}

// inWords sums a plan up.
func inWords(p client.Plan) string {
	n := map[string]int64{}
	for _, one := range p.Items {
		n[one.Kind]++
	}
	var parts []string
	for _, kind := range []string{"container", "network", "volume", "image"} {
		if n[kind] > 0 {
			parts = append(parts, format.Count(n[kind], kind))
		}
	}
	if len(parts) == 0 {
		parts = []string{"nothing that has a name"}
	}
	return fmt.Sprintf("That is now: %s, %s (--dry-run lists them).", strings.Join(parts, ", "), format.FineSize(p.SpaceReclaimed))
}

// show lists a plan.
func show(w io.Writer, p client.Plan) error {
	var lines [][]string
	for _, one := range p.Items {
		id, name := one.ID, strings.Join(one.Names, ", ")
		switch one.Kind {
		case "container", "image", "network", "tag":
			id = format.ShortID(id)
		}
		if name == "" {
			name = "-"
		}
		lines = append(lines, []string{one.Kind, id, name, strconv.FormatInt(one.Size, 10)})
	}
	if len(lines) > 0 {
		if err := format.Columns(w, []string{"WOULD DELETE", "ID", "NAMES", "BYTES"}, lines); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	_, err := fmt.Fprintf(w, "Would reclaim space: %s (%d bytes)\n", format.FineSize(p.SpaceReclaimed), p.SpaceReclaimed)
	return err
}
