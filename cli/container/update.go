package container

import (
	"fmt"
	"strings"

	"berth/cli/create"
	"berth/cli/session"
	"berth/fault"

	"github.com/spf13/cobra"
)

// Update is the command "container update".
func Update(s *session.Session) *cobra.Command {
	cmd := &cobra.Command{
		Use: "update [OPTIONS] CONTAINER [CONTAINER...]", Args: session.AtLeast(1),
		Example: "update -m 512m --restart unless-stopped web\nupdate --publish-add 8443:443 --label-add stage=live web\nupdate --env-add LOG=debug web",
	}
	options := create.NewUpdate(cmd.Flags(), s.Getenv)
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return update(s, cmd, options, args) }
	return cmd
}

// update changes containers, one after the other. How a change of ours reached a container goes to stderr: the names on
// stdout are what scripts read.
func update(s *session.Session, cmd *cobra.Command, options *create.Update, args []string) error {
	request, err := options.Request()
	if err != nil {
		return err
	}
	api, err := s.API()
	if err != nil {
		return err
	}
	var warnings []string
	err = s.Each(args, func(id string) error {
		answer, err := api.Containers.Update(cmd.Context(), id, request)
		if err != nil {
			return err
		}
		warnings = append(warnings, answer.Warnings...)
		if request.Berth.Any() && answer.Berth.Way == "" {
			return fault.New(fault.Unsupported, "%s: this engine changes only limits and restart policy; the rest was passed over", id)
		}
		fmt.Fprintln(s.Out, id)
		if way := answer.Berth.Way; way == "recreated" {
			fmt.Fprintf(s.Err, "%s: recreated: it was ended and started again, with its writable layer and volumes\n", id)
		} else if way != "" && request.Berth.Any() {
			fmt.Fprintf(s.Err, "%s: %s\n", id, way)
		}
		return nil
	})
	if len(warnings) > 0 {
		fmt.Fprintln(s.Out, strings.Join(warnings, "\n"))
	}
	return err
}
