package container

import (
	"fmt"
	"net/url"

	"berth/cli/flag"
	"berth/cli/reference"
	"berth/cli/session"

	"github.com/spf13/cobra"
)

// Commit is the command "container commit".
func Commit(s *session.Session) *cobra.Command {
	var author, message string
	var changes []string
	var pause, noPause bool
	cmd := &cobra.Command{
		Use: "commit [OPTIONS] CONTAINER [REPOSITORY[:TAG]]", Args: session.Between(1, 2),
		Example: "commit web mine:v2\ncommit -c 'CMD [\"httpd\"]' -m 'with a page' web mine:v3",
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("pause") && cmd.Flags().Changed("no-pause") {
				return fmt.Errorf("conflicting options: --no-pause and --pause cannot be used together")
			}
			q := url.Values{"container": {args[0]}, "author": {author}, "comment": {message}}
			if noPause || !pause {
				q.Set("pause", "0")
			}
			if len(changes) > 0 {
				q["changes"] = changes
			}
			if len(args) == 2 {
				r, err := reference.Parse(args[1])
				if err != nil {
					return err
				}
				if r.Digest != "" {
					return fmt.Errorf("refusing to create a tag with a digest reference")
				}
				r = r.Tagged()
				q.Set("repo", reference.Name{Domain: r.Domain, Path: r.Path}.Familiar())
				q.Set("tag", r.Tag)
			}
			api, err := s.API()
			if err != nil {
				return err
			}
			id, err := api.Containers.Commit(cmd.Context(), q)
			if err != nil {
				return err
			}
			fmt.Fprintln(s.Out, id)
			return nil
		},
	}
	fs := cmd.Flags()
	fs.StringVarP(&author, "author", "a", "", `Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")`)
	fs.VarP(flag.List(&changes), "change", "c", "Apply Dockerfile instruction to the created image")
	fs.StringVarP(&message, "message", "m", "", "Commit message")
	fs.BoolVar(&noPause, "no-pause", false, "Disable pausing container during commit")
	fs.BoolVarP(&pause, "pause", "p", true, "Pause container during commit")
	flag.Old(fs, "pause", "and enabled by default. Use --no-pause to disable pausing during commit.")
	return cmd
}
