package manifest

import (
	"berth/cli/session"

	"github.com/spf13/cobra"
)

// Remove is the command "manifest rm".
func Remove(s *session.Session) *cobra.Command {
	return &cobra.Command{
		Use: "rm MANIFEST_LIST [MANIFEST_LIST...]", Args: session.AtLeast(1), Example: "manifest rm registry.example.org/tool:v1",
		RunE: func(_ *cobra.Command, args []string) error {
			kept := newStore(s)
			return s.Each(args, func(arg string) error {
				list, err := name(arg)
				if err != nil {
					return err
				}
				return kept.remove(list.String())
			})
		},
	}
}
