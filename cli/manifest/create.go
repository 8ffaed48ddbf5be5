package manifest

import (
	"context"
	"errors"
	"fmt"

	"berth/cli/reference"
	"berth/cli/session"
	"berth/client"
	"berth/fault"

	"github.com/spf13/cobra"
)

// Create is the command "manifest create".
func Create(s *session.Session) *cobra.Command {
	var amend, insecure bool
	cmd := &cobra.Command{
		Use: "create MANIFEST_LIST MANIFEST [MANIFEST...]", Args: session.AtLeast(2),
		Example: "manifest create registry.example.org/tool:v1 registry.example.org/tool:v1-amd64 registry.example.org/tool:v1-arm64",
		RunE:    func(cmd *cobra.Command, args []string) error { return create(cmd.Context(), s, amend, insecure, args) },
	}
	fs := cmd.Flags()
	fs.BoolVarP(&amend, "amend", "a", false, "Amend an existing manifest list")
	fs.BoolVar(&insecure, "insecure", false, "Allow communication with an insecure registry")
	return cmd
}

func create(ctx context.Context, s *session.Session, amend, insecure bool, args []string) error {
	list, err := name(args[0])
	if err != nil {
		return fmt.Errorf("error parsing name for manifest list %s: %w", args[0], err)
	}
	kept := newStore(s)
	_, err = kept.list(list.String())
	switch {
	case errors.Is(err, fault.NotFound):
	case err != nil:
		return err
	case !amend:
		return errors.New("refusing to amend an existing manifest list with no --amend flag")
	}
	for _, arg := range args[1:] {
		r, err := name(arg)
		if err != nil {
			return err
		}
		e, err := kept.get(list.String(), r.String())
		if errors.Is(err, fault.NotFound) {
			var m client.Manifest
			if m, err = fetch(ctx, s, r, insecure); err == nil {
				e, err = newEntry(r.String(), m)
			}
		}
		if err != nil {
			return err
		}
		if err := kept.save(list.String(), r.String(), e); err != nil {
			return err
		}
	}
	fmt.Fprintln(s.Out, "Created manifest list", list)
	return nil
}

// fetch asks the engine for what a registry has under a name.
func fetch(ctx context.Context, s *session.Session, r reference.Name, insecure bool) (client.Manifest, error) {
	api, err := s.API()
	if err != nil {
		return client.Manifest{}, err
	}
	m, err := api.Images.Manifest(ctx, r.String(), s.Auth(ctx, r.Domain), insecure)
	return m, s.OnlyOurs(err, "manifest")
}
