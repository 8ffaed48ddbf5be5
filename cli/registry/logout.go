package registry

import (
	"fmt"

	"berth/cli/credential"
	"berth/cli/session"

	"github.com/spf13/cobra"
)

// Logout is the command "logout".
func Logout(s *session.Session) *cobra.Command {
	return &cobra.Command{
		Use: "logout [SERVER]", Args: session.Between(0, 1), Example: "logout\nlogout registry.example.org:5000",
		RunE: func(cmd *cobra.Command, args []string) error {
			server := credential.DefaultServer
			if len(args) == 1 {
				server = credential.Key(args[0])
			}
			fmt.Fprintln(s.Out, "Removing login credentials for", server)
			if err := s.Credentials().Erase(cmd.Context(), server); err != nil {
				fmt.Fprintf(s.Err, "WARNING: could not erase credentials:\n%v\n", err)
			}
			return nil
		},
	}
}
