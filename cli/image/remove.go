package image

import (
	"errors"
	"fmt"

	"berth/cli/reference"
	"berth/cli/session"
	"berth/fault"

	"github.com/spf13/cobra"
)

// Remove is the command "image rm".
func Remove(s *session.Session) *cobra.Command {
	var force, keep bool
	var platforms []string
	cmd := &cobra.Command{
		Use: "rmi [OPTIONS] IMAGE [IMAGE...]", Args: session.AtLeast(1), Example: "rmi busybox",
		RunE: func(cmd *cobra.Command, args []string) error {
			only, err := reference.Platforms(platforms)
			if err != nil {
				return err
			}
			api, err := s.API()
			if err != nil {
				return err
			}
			return s.Each(args, func(ref string) error {
				removed, err := api.Images.Remove(cmd.Context(), ref, force, keep, only)
				if force && errors.Is(err, fault.NotFound) {
					fmt.Fprintln(s.Err, err)
					return nil
				}
				if err != nil {
					return err
				}
				for _, r := range removed {
					if r.Untagged != "" {
						fmt.Fprintln(s.Out, "Untagged: "+r.Untagged)
					}
					if r.Deleted != "" {
						fmt.Fprintln(s.Out, "Deleted: "+r.Deleted)
					}
				}
				return nil
			})
		},
	}
	fs := cmd.Flags()
	fs.BoolVarP(&force, "force", "f", false, "Force removal of the image")
	fs.BoolVar(&keep, "no-prune", false, "Do not delete untagged parents")
	fs.StringArrayVar(&platforms, "platform", nil, "Remove only the given platform variant. Formatted as \"os[/arch[/variant]]\" (e.g., \"linux/amd64\")")
	return cmd
}
