package manifest

import (
	"context"
	"fmt"
	"strings"

	"berth/cli/reference"
	"berth/cli/session"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
)

// Push is the command "manifest push".
func Push(s *session.Session) *cobra.Command {
	var purge, insecure bool
	cmd := &cobra.Command{
		Use: "push [OPTIONS] MANIFEST_LIST", Args: session.Exactly(1), Example: "manifest push --purge registry.example.org/tool:v1",
		RunE: func(cmd *cobra.Command, args []string) error { return push(cmd.Context(), s, purge, insecure, args[0]) },
	}
	fs := cmd.Flags()
	fs.BoolVar(&insecure, "insecure", false, "Allow push to an insecure registry")
	fs.BoolVarP(&purge, "purge", "p", false, "Remove the local manifest list after push")
	return cmd
}

func push(ctx context.Context, s *session.Session, purge, insecure bool, listName string) error {
	list, err := name(listName)
	if err != nil {
		return err
	}
	kept := newStore(s)
	all, err := kept.list(list.String())
	if err != nil {
		return err
	}
	found, moved, err := members(all, list)
	if err != nil {
		return err
	}
	mediaType, text, err := newIndex(found)
	if err != nil {
		return err
	}
	there, err := registries(ctx, s, list, insecure)
	if err != nil {
		return err
	}
	desc, err := there.PutManifest(ctx, list.String(), mediaType, text, moved)
	if err != nil {
		return s.OnlyOurs(err, "manifest")
	}
	for _, from := range moved {
		_, digest, _ := strings.Cut(from, "@")
		fmt.Fprintf(s.Out, "Pushed ref %s@%s with digest: %[2]s\n", list.Repository(), digest)
	}
	fmt.Fprintln(s.Out, desc.Digest)
	if purge {
		return kept.remove(list.String())
	}
	return nil
}

// members are what a list names; moved are those of another repository, as REPOSITORY@DIGEST.
func members(all []entry, list reference.Name) (found []ocispec.Descriptor, moved []string, err error) {
	for _, e := range all {
		if p := e.Descriptor.Platform; p == nil || p.OS == "" || p.Architecture == "" {
			return nil, nil, fmt.Errorf("manifest %s must have an OS and Architecture to be pushed to a registry", e.Ref)
		}
		if err := sameRegistry(e, list); err != nil {
			return nil, nil, err
		}
		r, err := reference.Parse(e.Ref)
		if err != nil {
			return nil, nil, fmt.Errorf("manifest %s: %w", e.Ref, err)
		}
		from := r.Repository() + "@" + e.Descriptor.Digest.String()
		if _, err := reference.Parse(from); err != nil {
			return nil, nil, fmt.Errorf("digest parse of image %q failed: %w", e.Ref, err)
		}
		found = append(found, e.Descriptor)
		if r.Path != list.Path {
			moved = append(moved, from)
		}
	}
	return found, moved, nil
}
