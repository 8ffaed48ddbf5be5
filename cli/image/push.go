package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"berth/cli/flag"
	"berth/cli/progress"
	"berth/cli/reference"
	"berth/cli/session"

	"github.com/moby/moby/api/types/auxprogress"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/spf13/cobra"
)

type pushOptions struct {
	all, quiet bool
	platform   string
}

// Push is the command "image push".
func Push(s *session.Session) *cobra.Command {
	var o pushOptions
	cmd := &cobra.Command{
		Use: "push [OPTIONS] NAME[:TAG]", Args: session.Exactly(1), Example: "push localhost:5000/tool:v2\npush -a registry.example.org/base",
		RunE: func(cmd *cobra.Command, args []string) error { return push(cmd.Context(), s, o, args[0]) },
	}
	fs := cmd.Flags()
	fs.BoolVarP(&o.all, "all-tags", "a", false, "Push all tags of an image to the repository")
	fs.StringVar(&o.platform, "platform", "", "Push a platform-specific manifest as a single-platform image, without the index it is in. Formatted as os[/arch[/variant]]")
	fs.BoolVarP(&o.quiet, "quiet", "q", false, "Suppress verbose output")
	fs.Bool("disable-content-trust", true, "Skip image signing")
	flag.Old(fs, "disable-content-trust", "and is ignored.")
	return cmd
}

func push(ctx context.Context, s *session.Session, o pushOptions, name string) error {
	platform, err := reference.Platform(o.platform)
	if err != nil {
		return err
	}
	r, err := reference.Parse(name)
	switch {
	case err != nil:
		return err
	case o.all && (r.Tag != "" || r.Digest != ""):
		return errors.New("tag can't be used with --all-tags/-a")
	case r.Digest != "":
		return errors.New("cannot push a digest reference")
	case !o.all && r.Tag == "":
		r = r.Tagged()
		if !o.quiet {
			fmt.Fprintln(s.Out, "Using default tag:", r.Tag)
		}
	}
	api, err := s.API()
	if err != nil {
		return err
	}
	p, err := api.Images.Push(ctx, r.Repository(), r.Tag, platform, s.Auth(ctx, r.Domain))
	if err != nil {
		return err
	}
	out := s.Out
	if o.quiet {
		out = io.Discard
	}
	var notes []string
	view := progress.New(out)
	view.Kept = "The push was interrupted. Layers that were pushed are with the registry; the next push doesn't send them again."
	err = view.Show(p, func(m jsonstream.Message) {
		if n := pushNote(*m.Aux); n != "" {
			notes = append(notes, n)
		}
	})
	for _, n := range notes {
		fmt.Fprintf(s.Err, "\n%s\n", n)
	}
	if err == nil && o.quiet {
		fmt.Fprintln(s.Out, r)
	}
	return err
}

// pushNote is what the user should know of how an image was pushed; "" is nothing.
func pushNote(aux json.RawMessage) string {
	var one auxprogress.ManifestPushedInsteadOfIndex
	if json.Unmarshal(aux, &one) == nil && one.ManifestPushedInsteadOfIndex {
		return fmt.Sprintf("Not all multiplatform-content is present and only the available single-platform image was pushed\n%s -> %s",
			one.OriginalIndex.Digest, one.SelectedManifest.Digest)
	}
	var missing auxprogress.ContentMissing
	if json.Unmarshal(aux, &missing) == nil && missing.ContentMissing {
		return "The image has parts for several platforms, and neither this engine nor the registry has all of them.\n" +
			"Pull the missing ones with --platform, or push one platform alone with --platform."
	}
	return ""
}
