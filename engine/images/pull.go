package images

import (
	"context"

	"berth/fault"
	"berth/image"
	"berth/registry"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/jsonstream"
)

// Pull fetches an image. An error before the first call of out is an answer of its own; one after it belongs
// into the stream.
func (i *Service) Pull(ctx context.Context, r PullRequest, out func(jsonstream.Message)) error {
	if r.All {
		return fault.New(fault.Unsupported, "pulling all tags is not supported yet: name one, such as %s:latest", r.Ref)
	}
	named, err := image.ParseName(r.Ref)
	if err != nil {
		return err
	}
	auth := registry.Auth{Username: r.Auth.Username, Password: r.Auth.Password, IdentityToken: r.Auth.IdentityToken, RegistryToken: r.Auth.RegistryToken}
	root, err := i.Registry.Resolve(ctx, named, auth)
	if err != nil {
		return err
	}
	familiar := reference.FamiliarString(named)
	out(jsonstream.Message{Status: "Pulling from " + reference.Path(named), ID: tagOrDigest(named)})
	before, _ := i.ID(named.String()) // "" when it is not here
	img, err := i.Store.Pull(ctx, i.Registry.Repository(named, auth), root, []reference.Named{named}, r.Platform, showProgress(out))
	if err != nil {
		return err
	}
	out(jsonstream.Message{Status: "Digest: " + root.Digest.String()})
	if before == img.ID.String() {
		out(jsonstream.Message{Status: "Status: Image is up to date for " + familiar})
	} else {
		out(jsonstream.Message{Status: "Status: Downloaded newer image for " + familiar})
	}
	i.Announce(events.ActionPull, familiar, reference.FamiliarName(named))
	return nil
}

func tagOrDigest(n reference.Named) string {
	if d, ok := n.(reference.Digested); ok {
		return d.Digest().String()
	}
	if t, ok := n.(reference.Tagged); ok {
		return t.Tag()
	}
	return "latest"
}
