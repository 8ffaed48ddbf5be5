package image

import (
	"errors"

	"berth/cli/reference"
	"berth/cli/session"

	"github.com/spf13/cobra"
)

// Tag is the command "image tag".
func Tag(s *session.Session) *cobra.Command {
	return &cobra.Command{
		Use: "tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", Args: session.Exactly(2), Example: "tag debian registry.example.org/base:v1",
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := reference.Parse(args[1])
			if err != nil {
				return err
			}
			if r.Digest != "" {
				return errors.New("refusing to create a tag with a digest reference")
			}
			api, err := s.API()
			if err != nil {
				return err
			}
			return api.Images.Tag(cmd.Context(), args[0], r.Repository(), r.Tagged().Tag)
		},
	}
}
