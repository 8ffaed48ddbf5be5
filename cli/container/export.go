package container

import (
	"context"
	"errors"
	"fmt"
	"io"

	"berth/cli/session"
	"berth/cli/terminal"
	"berth/fault"

	"github.com/spf13/cobra"
)

// Export is the command "container export".
func Export(s *session.Session) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "export [OPTIONS] CONTAINER", Args: session.Exactly(1), Example: "export -o web.tar web\nexport web | tar t",
		RunE: func(cmd *cobra.Command, args []string) error { return export(cmd.Context(), s, output, args[0]) },
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "Write to a file, instead of STDOUT")
	return cmd
}

func export(ctx context.Context, s *session.Session, output, id string) (err error) {
	if output == "" && terminal.Is(s.Out) {
		return errors.New("cowardly refusing to save to a terminal. Use the -o flag or redirect")
	}
	if err := session.CheckOutput(output); err != nil {
		return fmt.Errorf("failed to export container: %w", err)
	}
	api, err := s.API()
	if err != nil {
		return err
	}
	r, err := api.Containers.Export(ctx, id)
	if err != nil {
		return err
	}
	defer fault.Close(r, &err)
	if output == "" {
		_, err = io.Copy(s.Out, r)
		return err
	}
	if err := session.ToFile(output, r); err != nil {
		return fmt.Errorf("failed to export container: %w", err)
	}
	return nil
}
