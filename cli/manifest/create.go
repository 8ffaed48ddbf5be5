package manifest

import (
	"context"
	"errors"
	"fmt"

	"berth/cli/reference"
	"berth/cli/session"
	"berth/client"
	"berth/fault"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
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
			e, err = fetchImage(ctx, s, r, insecure)
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

// registries is the way to r's registry, which leads through the engine.
func registries(ctx context.Context, s *session.Session, r reference.Name, insecure bool) (client.Registries, error) {
	api, err := s.API()
	if err != nil {
		return client.Registries{}, err
	}
	return api.Images.Registries(s.Auth(ctx, r.Domain), insecure), nil
}

// fetch asks for what a registry has under a name.
func fetch(ctx context.Context, s *session.Session, r reference.Name, insecure bool) (ocispec.Descriptor, []byte, error) {
	there, err := registries(ctx, s, r, insecure)
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	desc, text, err := there.Manifest(ctx, r.String())
	return desc, text, s.OnlyOurs(err, "manifest")
}

// fetchImage makes an entry of what a registry has under a name, with the platform that the image's config says.
func fetchImage(ctx context.Context, s *session.Session, r reference.Name, insecure bool) (entry, error) {
	desc, text, err := fetch(ctx, s, r, insecure)
	if err != nil {
		return entry{}, err
	}
	return describe(ctx, s, r, desc, text, insecure)
}

// describe makes an entry of a registry's answer and asks for the platform.
func describe(ctx context.Context, s *session.Session, r reference.Name, desc ocispec.Descriptor, text []byte, insecure bool) (entry, error) {
	e, err := newEntry(r.String(), desc, text)
	if err != nil {
		return entry{}, err
	}
	there, err := registries(ctx, s, r, insecure)
	if err != nil {
		return entry{}, err
	}
	said, err := there.Distribution(ctx, r.Repository()+"@"+desc.Digest.String())
	if err != nil {
		return entry{}, err
	}
	e.Descriptor.Platform = &ocispec.Platform{}
	if len(said.Platforms) > 0 {
		e.Descriptor.Platform = &said.Platforms[0]
	}
	return e, nil
}
