package system

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"berth/cli/format"
	"berth/cli/session"
	"berth/cli/terminal"
	"berth/client"

	"github.com/spf13/cobra"
)

type checkOptions struct {
	repair, deep bool
	format       string
}

// Check is the command "system fsck".
func Check(s *session.Session) *cobra.Command {
	var o checkOptions
	cmd := &cobra.Command{
		Use: "fsck [OPTIONS]", Args: session.NoArgs, Example: "system fsck\nsystem fsck --deep --repair",
		Long: `Content is compared with its digests, unpacked layers with what was unpacked,
records are read, and what nobody needs is found. Nothing is changed without
--repair. With it, content is fetched again from the repository that it came
from, layers are unpacked again, and what nobody needs is removed.
Exits with 1 when a problem is left.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context(), s) },
	}
	fs := cmd.Flags()
	fs.BoolVar(&o.deep, "deep", false, "Compare every file of the unpacked layers with the content that it came from")
	fs.StringVar(&o.format, "format", "", "Format output: 'json' for one finding a line")
	fs.BoolVar(&o.repair, "repair", false, "Mend what can be mended")
	return cmd
}

func (o *checkOptions) run(ctx context.Context, s *session.Session) error {
	if o.format != "" && o.format != "json" {
		return fmt.Errorf("unknown format %q: the only one is json", o.format)
	}
	api, err := s.API()
	if err != nil {
		return err
	}
	var header map[string]string
	if o.repair {
		header = s.Registries(ctx)
	}
	steps, err := api.System.Check(ctx, o.repair, o.deep, header)
	if err != nil {
		return s.OnlyOurs(err, "system fsck")
	}
	defer steps.Close()
	status := ""
	show := func(text string) {
		if terminal.Is(s.Err) && o.format == "" {
			fmt.Fprintf(s.Err, "\r%-*s\r%s", len(status), "", text)
			status = text
		}
	}
	for {
		step, err := steps.Next()
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return errors.New("the check broke off: the daemon ended or failed, which its log tells")
		case err != nil:
			return err
		case step.Failure != "":
			return errors.New(step.Failure)
		case step.Summary != nil:
			show("")
			return o.end(s, *step.Summary)
		case step.Finding != nil:
			show("")
			o.print(s.Out, *step.Finding)
		case step.Total > 0:
			show(fmt.Sprintf("checking %s: %d of %d", step.Stage, step.Done, step.Total))
		default:
			show("checking " + step.Stage)
		}
	}
}

func (o *checkOptions) print(w io.Writer, f client.Finding) {
	if o.format == "json" {
		_ = json.NewEncoder(w).Encode(f)
		return
	}
	about := ""
	if len(f.Images) > 0 {
		about = " of " + strings.Join(f.Images, ", ")
	}
	if f.Size > 0 {
		about += ", " + format.FineSize(f.Size)
	}
	fmt.Fprintf(w, "%s: %s%s\n    %s\n", f.Kind, f.Object, about, f.Cause)
	switch {
	case f.Repaired != "":
		fmt.Fprintf(w, "    -> %s\n", f.Repaired)
	case f.Advice != "":
		fmt.Fprintf(w, "    next: %s\n", f.Advice)
	}
}

func (o *checkOptions) end(s *session.Session, sum client.CheckSummary) error {
	if o.format == "json" {
		if err := json.NewEncoder(s.Out).Encode(sum); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(s.Out, "Checked: %s, %s, %s, %s, %s\n", format.Count(sum.Blobs, "blob"), format.Count(sum.Layers, "layer"),
			format.Count(sum.Images, "image"), format.Count(sum.Containers, "container"), format.Count(sum.Volumes, "volume"))
		fmt.Fprintf(s.Out, "Problems: %d found, %d repaired\n", sum.Problems, sum.Repaired)
		fmt.Fprintf(s.Out, "Leftovers: %s, %s freed\n", format.FineSize(sum.LeftoverSize), format.FineSize(sum.Freed))
	}
	if !sum.Clean {
		return &session.Exit{Code: 1}
	}
	return nil
}
