package image

import (
	"context"
	"errors"
	"os"

	"berth/cli/progress"
	"berth/cli/reference"
	"berth/cli/session"
	"berth/cli/terminal"

	"github.com/spf13/cobra"
)

// Load is the command "image load".
func Load(s *session.Session) *cobra.Command {
	var input string
	var quiet bool
	var platforms []string
	cmd := &cobra.Command{
		Use: "load [OPTIONS]", Args: session.NoArgs, Example: "load -i myfile.tar\nload < myfile.tar.gz",
		RunE: func(cmd *cobra.Command, _ []string) error { return load(cmd.Context(), s, input, quiet, platforms) },
	}
	fs := cmd.Flags()
	fs.StringVarP(&input, "input", "i", "", "Read from tar archive file, instead of STDIN")
	fs.StringArrayVar(&platforms, "platform", nil, "Load only the given platform(s). Formatted as a comma-separated list of \"os[/arch[/variant]]\"")
	fs.BoolVarP(&quiet, "quiet", "q", false, "Suppress the load output")
	return cmd
}

func load(ctx context.Context, s *session.Session, input string, quiet bool, platforms []string) error {
	only, err := reference.Platforms(platforms)
	if err != nil {
		return err
	}
	in := s.In
	if input != "" && input != "-" {
		f, err := os.Open(input)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	} else if terminal.Is(s.In) {
		return errors.New("requested load from stdin, but stdin is empty")
	}
	// Without a terminal, progress would only be noise between the names.
	quiet = quiet || !terminal.Is(s.Out)
	api, err := s.API()
	if err != nil {
		return err
	}
	p, err := api.Images.Load(ctx, in, quiet, only)
	if err != nil {
		return err
	}
	view := progress.New(s.Out)
	view.Kept = "The load was interrupted. Images that it named as loaded are here; nothing is left of the others."
	return view.Show(p, nil)
}
