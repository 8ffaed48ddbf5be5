package image

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"berth/cli/explore"
	"berth/cli/format"
	"berth/cli/reference"
	"berth/cli/session"
	"berth/cli/terminal"
	"berth/client"

	"github.com/spf13/cobra"
)

type exploreOptions struct {
	format, platform string
	json, merged     bool
	layer, top       int
}

// Explore is the command "image explore".
func Explore(s *session.Session) *cobra.Command {
	var o exploreOptions
	cmd := &cobra.Command{
		Use: "explore [OPTIONS] IMAGE", Args: session.Exactly(1),
		Example: "image explore debian\nimage explore --top 20 debian\nimage explore --layer 1 --json debian",
		RunE:    func(cmd *cobra.Command, args []string) error { return o.run(cmd, s, args[0]) },
	}
	fs := cmd.Flags()
	fs.StringVar(&o.format, "format", "", format.ObjectUsage)
	fs.BoolVar(&o.json, "json", false, "Same as --format json")
	fs.IntVar(&o.layer, "layer", -1, "List the files that this layer adds, changes and removes; 0 is the deepest")
	fs.Lookup("layer").DefValue = "" // which help would show
	fs.BoolVar(&o.merged, "merged", false, "List all files that are there with that layer on top; without --layer, all that a container sees")
	fs.StringVar(&o.platform, "platform", "", "Explore the given platform. Formatted as \"os[/arch[/variant]]\" (e.g., \"linux/amd64\")")
	fs.IntVar(&o.top, "top", 10, "Show this many of the largest files and of what later layers hide, and no browser")
	return cmd
}

func (o *exploreOptions) run(cmd *cobra.Command, s *session.Session, ref string) error {
	if o.json {
		o.format = "json"
	}
	if o.format != "" && o.format != "json" {
		if _, err := format.Parse(o.format); err != nil {
			return &session.Exit{Code: 64, Message: err.Error()}
		}
	}
	platform, err := reference.Platform(o.platform)
	if err != nil {
		return err
	}
	api, err := s.API()
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	if cmd.Flags().Changed("layer") || o.merged {
		return o.files(ctx, s, api, ref, platform)
	}
	raw, err := api.Images.Layers(ctx, ref, platform, max(o.top, 0))
	if err != nil {
		return s.OnlyOurs(err, "explore")
	}
	var r client.LayerReport
	if err := json.Unmarshal(raw, &r); err != nil {
		return fmt.Errorf("read the daemon's answer about image %s: %w", ref, err)
	}
	switch {
	case o.format == "json":
		_, err = fmt.Fprintln(s.Out, strings.TrimSpace(string(raw)))
		return err
	case o.format != "":
		return format.Object(s.Out, o.format, &r, raw)
	case terminal.Is(s.In) && terminal.Is(s.Out) && !cmd.Flags().Changed("top") && s.Env("TERM") != "dumb":
		return browse(ctx, s, api, ref, platform, r)
	}
	return summary(s.Out, ref, &r)
}

func browse(ctx context.Context, s *session.Session, api *client.Client, ref, platform string, r client.LayerReport) error {
	height, width := terminal.Size(s.Out)
	b := explore.New(ref, r, width, height)
	return explore.Run(ctx, terminal.File(s.In), terminal.File(s.Out), b, func(ctx context.Context, v explore.View) (list []client.LayerFile, err error) {
		// By its ID, as the name may come to mean another image.
		err = api.Images.LayerFiles(ctx, r.ID, platform, v.Layer, v.Merged, func(f client.LayerFile) error {
			list = append(list, f)
			return nil
		})
		return list, err
	})
}

// files lists what a layer has, one file a line.
func (o *exploreOptions) files(ctx context.Context, s *session.Session, api *client.Client, ref, platform string) error {
	out := bufio.NewWriter(s.Out)
	tell := func(f client.LayerFile) error {
		size, name := format.Size(f.Size), quoted(f.Path)
		if f.Change == "D" {
			size = format.Size(f.Was)
		}
		if f.Link != "" {
			name += " -> " + quoted(f.Link)
		}
		change := f.Change
		if change == "" {
			change = " "
		}
		_, err := fmt.Fprintf(out, "%s %s %5d:%-5d %8s %s\n", change, explore.Mode(f.Mode), f.UID, f.GID, size, name)
		return err
	}
	if o.format == "json" {
		e := json.NewEncoder(out)
		e.SetEscapeHTML(false)
		tell = func(f client.LayerFile) error { return e.Encode(f) }
	} else if o.format != "" {
		tell = func(f client.LayerFile) error {
			raw, err := json.Marshal(f)
			if err != nil {
				return err
			}
			return format.Object(out, o.format, &f, raw)
		}
	}
	err := api.Images.LayerFiles(ctx, ref, platform, o.layer, o.merged, tell)
	return errors.Join(out.Flush(), s.OnlyOurs(err, "explore"))
}

// quoted writes a path as it is unless it has characters that would not print; then as Go has strings.
func quoted(p string) string {
	if q := strconv.Quote(p); q != `"`+p+`"` {
		return q
	}
	return p
}

// summary answers in plain text what the layers weigh and why.
func summary(out io.Writer, ref string, r *client.LayerReport) error {
	var rows [][]string
	for i, l := range r.Layers {
		rows = append(rows, []string{
			strconv.Itoa(i), format.Size(l.Unpacked), format.Size(l.Hidden), strconv.FormatInt(l.Added.Files, 10), strconv.FormatInt(l.Changed.Files, 10),
			strconv.FormatInt(l.Removed.Files, 10), format.Ellipsis(explore.Command(l.CreatedBy), 60),
		})
	}
	if err := format.Columns(out, []string{"LAYER", "SIZE", "HIDDEN", "ADDED", "CHANGED", "REMOVED", "CREATED BY"}, rows); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "\n%s: %s, %s unpacked, %s as distributed\nA container sees %s in %s. Later layers hide %s. Efficiency %s\n",
		ref, format.Count(int64(len(r.Layers)), "layer"), format.Size(r.Unpacked), format.Size(r.Size), format.Size(r.Shown.Bytes), format.Count(r.Shown.Files, "file"), format.Size(r.Hidden), explore.Percent(r.Efficiency))
	if err != nil {
		return err
	}
	for _, part := range []struct {
		heading string
		list    []client.PathWeight
	}{{"LARGEST FILE", r.Largest}, {"HIDDEN BY A LATER LAYER", r.Wasteful}} {
		if len(part.list) == 0 {
			continue
		}
		fmt.Fprintln(out)
		var rows [][]string
		for _, w := range part.list {
			rows = append(rows, []string{format.Size(w.Bytes), strconv.Itoa(w.Layer), quoted(w.Path)})
		}
		if err := format.Columns(out, []string{"SIZE", "LAYER", part.heading}, rows); err != nil {
			return err
		}
	}
	return nil
}
