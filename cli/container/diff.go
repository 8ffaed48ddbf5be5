package container

import (
	"fmt"

	"berth/cli/session"

	"github.com/spf13/cobra"
)

// Diff is the command "container diff".
func Diff(s *session.Session) *cobra.Command {
	return &cobra.Command{
		Use: "diff CONTAINER", Args: session.Exactly(1), Example: "diff web",
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] == "" {
				return fmt.Errorf("container name cannot be empty")
			}
			api, err := s.API()
			if err != nil {
				return err
			}
			list, err := api.Containers.Changes(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			for _, c := range list {
				fmt.Fprintln(s.Out, c.Kind, c.Path)
			}
			return nil
		},
	}
}
