package manifest

import (
	"context"
	"fmt"

	"berth/cli/reference"
	"berth/cli/session"
	"berth/client"

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
	up, moved, err := upload(all, list)
	if err != nil {
		return err
	}
	api, err := s.API()
	if err != nil {
		return err
	}
	digest, err := api.Images.PutManifest(ctx, list.String(), up, s.Auth(ctx, list.Domain), insecure)
	if err != nil {
		return s.OnlyOurs(err, "manifest")
	}
	for _, e := range moved {
		fmt.Fprintf(s.Out, "Pushed ref %s@%s with digest: %[2]s\n", list.Repository(), e.Descriptor.Digest)
	}
	fmt.Fprintln(s.Out, digest)
	if purge {
		return kept.remove(list.String())
	}
	return nil
}

// upload is the list as the registry gets it; moved are the manifests that are in another repository yet.
func upload(all []entry, list reference.Name) (up client.ManifestUpload, moved []entry, err error) {
	var found []ocispec.Descriptor
	for _, e := range all {
		if p := e.Descriptor.Platform; p == nil || p.OS == "" || p.Architecture == "" {
			return up, nil, fmt.Errorf("manifest %s must have an OS and Architecture to be pushed to a registry", e.Ref)
		}
		if err := sameRegistry(e, list); err != nil {
			return up, nil, err
		}
		if _, err := reference.Parse(list.Repository() + "@" + e.Descriptor.Digest.String()); err != nil {
			return up, nil, fmt.Errorf("digest parse of image %q failed: %w", e.Ref, err)
		}
		found = append(found, e.Descriptor)
		if r, err := reference.Parse(e.Ref); err == nil && r.Path != list.Path {
			moved = append(moved, e)
			up.From = append(up.From, r.Repository()+"@"+e.Descriptor.Digest.String())
		}
	}
	up.MediaType, up.Raw, err = newIndex(found)
	return up, moved, err
}
