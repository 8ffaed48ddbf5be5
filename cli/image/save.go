package image

import (
	"context"
	"errors"
	"fmt"
	"io"

	"berth/cli/progress"
	"berth/cli/reference"
	"berth/cli/session"
	"berth/cli/terminal"
	"berth/fault"

	"github.com/spf13/cobra"
)

// Save is the command "image save".
func Save(s *session.Session) *cobra.Command {
	var output string
	var platforms []string
	cmd := &cobra.Command{
		Use: "save [OPTIONS] IMAGE [IMAGE...]", Args: session.AtLeast(1), Example: "save -o myfile.tar busybox:latest\nsave debian | gzip > debian.tar.gz",
		RunE: func(cmd *cobra.Command, args []string) error { return save(cmd.Context(), s, output, args, platforms) },
	}
	fs := cmd.Flags()
	fs.StringVarP(&output, "output", "o", "", "Write to a file, instead of STDOUT")
	fs.StringArrayVar(&platforms, "platform", nil, "Save only the given platform(s). Formatted as a comma-separated list of \"os[/arch[/variant]]\"")
	return cmd
}

func save(ctx context.Context, s *session.Session, output string, refs, platforms []string) (err error) {
	only, err := reference.Platforms(platforms)
	if err != nil {
		return err
	}
	if output == "" && terminal.Is(s.Out) {
		return errors.New("cowardly refusing to save to a terminal. Use the -o flag or redirect")
	}
	if err := session.CheckOutput(output); err != nil {
		return fmt.Errorf("failed to save image: %w", err)
	}
	api, err := s.API()
	if err != nil {
		return err
	}
	r, err := api.Images.Save(ctx, refs, only)
	if err != nil {
		return err
	}
	defer fault.Close(r, &err)
	if output == "" {
		_, err = io.Copy(s.Out, r)
		return err
	}
	shown := progress.Count(s.Err, "Saving", r)
	defer shown.Done()
	if err := session.ToFile(output, shown); err != nil {
		return fmt.Errorf("failed to save image: %w", err)
	}
	return nil
}
