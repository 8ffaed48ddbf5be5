package image

import (
	"errors"
	"fmt"

	"berth/cli/flag"
	"berth/cli/reference"
	"berth/cli/session"

	"github.com/spf13/cobra"
)

// Pull is the command "image pull".
func Pull(s *session.Session) *cobra.Command {
	var all, quiet bool
	var platform string
	cmd := &cobra.Command{
		Use: "pull [OPTIONS] NAME[:TAG|@DIGEST]", Args: session.Exactly(1), Example: "pull debian\npull localhost:5000/tool:v2",
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := reference.Parse(args[0])
			if err != nil {
				return err
			}
			switch {
			case all && (r.Tag != "" || r.Digest != ""):
				return errors.New("tag can't be used with --all-tags/-a")
			case !all && r.Tag == "" && r.Digest == "":
				r = r.Tagged()
				if !quiet {
					fmt.Fprintf(s.Out, "Using default tag: %s\n", r.Tag)
				}
			}
			if err := s.PullImage(cmd.Context(), s.Out, r, platform, quiet); err != nil {
				return err
			}
			fmt.Fprintln(s.Out, r)
			return nil
		},
	}
	fs := cmd.Flags()
	fs.BoolVarP(&all, "all-tags", "a", false, "Download all tagged images in the repository")
	fs.StringVar(&platform, "platform", s.Env("DOCKER_DEFAULT_PLATFORM"), "Set platform if server is multi-platform capable")
	fs.BoolVarP(&quiet, "quiet", "q", false, "Suppress verbose output")
	fs.Bool("disable-content-trust", true, "Skip image verification")
	flag.Old(fs, "disable-content-trust", "and is ignored.")
	return cmd
}
