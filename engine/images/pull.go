package images

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"berth/fault"
	"berth/image"
	"berth/registry"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/jsonstream"
	wire "github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// PullRequest names an image to fetch.
type PullRequest struct {
	Ref      string // as a user writes it; a name without tag is ":latest"
	All      bool   // every tag
	Platform *ocispec.Platform
	Auth     wire.AuthConfig // zero: anonymous
}

// Pull fetches an image, or every tag of a repository. An error before the first call of out is an answer of its own; one
// after it belongs into the stream. Calls of out come one at a time.
func (i *Service) Pull(ctx context.Context, r PullRequest, out func(jsonstream.Message)) error {
	named, err := image.ParseName(r.Ref)
	if err != nil {
		return err
	}
	if reference.FamiliarName(named) == "scratch" {
		return fault.New(fault.Denied, "'scratch' is a reserved name")
	}
	out = oneAtATime(out)
	if !r.All {
		return i.pull(ctx, named, r, out)
	}
	repository := reference.TrimNamed(named)
	tags, err := i.telling(out).Tags(ctx, repository, Credentials(r.Auth))
	if err != nil {
		return err
	}
	for _, tag := range tags {
		tagged, err := reference.WithTag(repository, tag)
		if err != nil {
			return fault.New(fault.Corrupt, "the registry names a tag %q, which no image can have: %w", tag, err)
		}
		if err := i.pull(ctx, tagged, r, out); err != nil {
			return fmt.Errorf("error pulling %s: %w", tagged, err)
		}
	}
	return nil
}

// pull fetches what one name means.
func (i *Service) pull(ctx context.Context, named reference.Named, r PullRequest, out func(jsonstream.Message)) error {
	repository := i.telling(out).Repository(named, Credentials(r.Auth))
	root, err := repository.Resolve(ctx, named)
	if err != nil {
		return err
	}
	familiar := reference.FamiliarString(named)
	out(jsonstream.Message{Status: "Pulling from " + reference.Path(named), ID: tagOrDigest(named)})
	before, _ := i.ID(named.String()) // "" when it is not here
	show := showProgress(out)
	progress := func(e image.Event) {
		if e.Status != image.StatusExists || before != root.Digest.String() { // an image that is here already has no layers to show
			show(e)
		}
	}
	img, err := i.Store.Pull(ctx, repository, root, []reference.Named{named}, r.Platform, progress)
	if errors.Is(err, fault.Corrupt) && repository.Distrust() { // what a mirror has wrong, the registry may have right
		img, err = i.Store.Pull(ctx, repository, root, []reference.Named{named}, r.Platform, progress)
	}
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

// Credentials are a user's, in the registry client's form.
func Credentials(a wire.AuthConfig) registry.Auth {
	return registry.Auth{Username: a.Username, Password: a.Password, IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken}
}

// ForHost finds the credentials for a name's registry in those of a request that may concern several, as X-Registry-Config has them; zero for none.
func ForHost(all map[string]wire.AuthConfig, name reference.Named) wire.AuthConfig {
	hosts := []string{reference.Domain(name)}
	if hosts[0] == "docker.io" {
		hosts = append(hosts, "https://index.docker.io/v1/", "index.docker.io")
	}
	for _, host := range hosts {
		if a, ok := all[host]; ok {
			return a
		}
	}
	return wire.AuthConfig{}
}

// telling is the registry client of one operation: why and how long it waits goes to out.
func (i *Service) telling(out func(jsonstream.Message)) *registry.Client {
	return i.Registry.Telling(func(host, reason string, pause time.Duration) {
		out(jsonstream.Message{ID: host, Status: fmt.Sprintf("Retrying in %s: %s", pause.Round(time.Second), reason)})
	})
}

// oneAtATime lets several goroutines write messages.
func oneAtATime(out func(jsonstream.Message)) func(jsonstream.Message) {
	var mu sync.Mutex
	return func(m jsonstream.Message) {
		mu.Lock()
		defer mu.Unlock()
		out(m)
	}
}
