package volume

import (
	"errors"
	"fmt"
	"io"
	"os"

	"berth/cli/session"
	"berth/cli/terminal"
	"berth/fault"

	"github.com/spf13/cobra"
)

const pauseUsage = "Pause the containers that have the volume meanwhile"

// Rename is the command "volume rename".
func Rename(s *session.Session) *cobra.Command {
	return &cobra.Command{
		Use: "rename VOLUME NEW_NAME", Args: session.Exactly(2), Example: "volume rename data data-2024",
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := s.API()
			if err != nil {
				return err
			}
			return s.OnlyOurs(api.Volumes.Rename(cmd.Context(), args[0], args[1]), "volume rename")
		},
	}
}

// Clone is the command "volume clone".
func Clone(s *session.Session) *cobra.Command {
	var pause bool
	cmd := &cobra.Command{
		Use: "clone [OPTIONS] VOLUME NEW_VOLUME", Args: session.Exactly(2), Example: "volume clone data data-test\nvolume clone --pause db db-copy",
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := s.API()
			if err != nil {
				return err
			}
			made, err := api.Volumes.Clone(cmd.Context(), args[0], args[1], pause)
			if err != nil {
				return s.OnlyOurs(err, "volume clone")
			}
			s.Warn(made.Warnings)
			_, err = fmt.Fprintln(s.Out, made.Name)
			return err
		},
	}
	cmd.Flags().BoolVar(&pause, "pause", false, pauseUsage)
	return cmd
}

// Export is the command "volume export".
func Export(s *session.Session) *cobra.Command {
	var output string
	var pause bool
	cmd := &cobra.Command{
		Use: "export [OPTIONS] VOLUME", Args: session.Exactly(1), Example: "volume export -o data.tar data\nvolume export data | gzip >data.tar.gz",
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if output == "" && terminal.Is(s.Out) {
				return errors.New("cowardly refusing to save to a terminal. Use the -o flag or redirect")
			}
			if err := session.CheckOutput(output); err != nil {
				return err
			}
			api, err := s.API()
			if err != nil {
				return err
			}
			r, err := api.Volumes.Export(cmd.Context(), args[0], pause)
			if err != nil {
				return s.OnlyOurs(err, "volume export")
			}
			defer fault.Close(r, &err)
			if output == "" {
				_, err = io.Copy(s.Out, r)
				return err
			}
			return session.ToFile(output, r)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "Write to a file, instead of STDOUT")
	cmd.Flags().BoolVar(&pause, "pause", false, pauseUsage)
	return cmd
}

// Import is the command "volume import".
func Import(s *session.Session) *cobra.Command {
	var replace bool
	cmd := &cobra.Command{
		Use: "import [OPTIONS] VOLUME [FILE|-]", Args: session.Between(1, 2), Example: "volume import data data.tar.gz\nvolume import --replace data - <data.tar",
		RunE: func(cmd *cobra.Command, args []string) error {
			var body io.Reader = s.In
			if len(args) == 2 && args[1] != "-" {
				f, err := os.Open(args[1])
				if err != nil {
					return err
				}
				defer f.Close()
				body = f
			} else if terminal.Is(s.In) {
				return errors.New("an archive is wanted, and the input is a terminal: name a file, or redirect")
			}
			api, err := s.API()
			if err != nil {
				return err
			}
			if err := api.Volumes.Import(cmd.Context(), args[0], body, replace); err != nil {
				return s.OnlyOurs(err, "volume import")
			}
			_, err = fmt.Fprintln(s.Out, args[0])
			return err
		},
	}
	cmd.Flags().BoolVar(&replace, "replace", false, "Remove what is in the volume now")
	return cmd
}
