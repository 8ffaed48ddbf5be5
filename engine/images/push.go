package images

import (
	"context"
	"encoding/json"
	"fmt"

	"berth/fault"
	"berth/image"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/auxprogress"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/jsonstream"
	wire "github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// PushRequest names what to send to the registry that is in the name.
type PushRequest struct {
	Ref      reference.Named   // without a tag: every tag that its repository has here
	Platform *ocispec.Platform // nil: the whole image
	Auth     wire.AuthConfig   // zero: anonymous
}

// pushed is the last record of each name's push, which other tools read the digest from.
type pushed struct {
	Tag    string
	Digest string
	Size   int64
}

// Push sends an image, or all of a repository. Errors are as with Pull.
func (i *Service) Push(ctx context.Context, r PushRequest, out func(jsonstream.Message)) error {
	out = oneAtATime(out)
	out(jsonstream.Message{Status: fmt.Sprintf("The push refers to repository [%s]", r.Ref.Name())})
	if !reference.IsNameOnly(r.Ref) {
		return i.push(ctx, r.Ref, r, out)
	}
	tags := i.Store.Tags(r.Ref)
	if len(tags) == 0 {
		return fault.New(fault.NotFound, "An image does not exist locally with the tag: %s", reference.FamiliarName(r.Ref))
	}
	for _, tagged := range tags {
		if err := i.push(ctx, tagged, r, out); err != nil {
			return err
		}
	}
	return nil
}

func (i *Service) push(ctx context.Context, named reference.Named, r PushRequest, out func(jsonstream.Message)) error {
	sent, err := i.Store.Push(ctx, i.telling(out).Repository(named, Credentials(r.Auth)), named, r.Platform, showProgress(out))
	if err != nil {
		return err
	}
	if sent.Index != nil {
		aux(out, auxprogress.ManifestPushedInsteadOfIndex{ManifestPushedInsteadOfIndex: true, OriginalIndex: *sent.Index, SelectedManifest: sent.Target})
	}
	if tagged, ok := named.(reference.Tagged); ok {
		out(jsonstream.Message{Status: fmt.Sprintf("%s: digest: %s size: %d", tagged.Tag(), sent.Target.Digest, sent.Target.Size)})
		aux(out, pushed{tagged.Tag(), sent.Target.Digest.String(), sent.Target.Size})
	}
	i.Announce(events.ActionPush, reference.FamiliarString(named), reference.FamiliarName(named))
	return nil
}

// aux sends a record for programs.
func aux(out func(jsonstream.Message), v any) {
	if data, err := json.Marshal(v); err == nil {
		raw := json.RawMessage(data)
		out(jsonstream.Message{Aux: &raw})
	}
}

// PushDraft sends what a draft holds below target to the registry that is in r.Ref, and gives it r.Ref's tag there, if it has one. No name here is
// asked for or changed. insecure is for a registry without TLS that can be verified. Errors are as with Pull.
func (i *Service) PushDraft(ctx context.Context, d *image.Draft, target ocispec.Descriptor, r PushRequest, insecure bool, out func(jsonstream.Message)) error {
	out = oneAtATime(out)
	s := i
	if insecure {
		other, done, err := i.Insecurely(r.Ref.Name())
		if err != nil {
			return err
		}
		defer done()
		s = other
	}
	out(jsonstream.Message{Status: fmt.Sprintf("The push refers to repository [%s]", r.Ref.Name())})
	if err := d.Push(ctx, s.telling(out).Repository(r.Ref, Credentials(r.Auth)), r.Ref, target, showProgress(out)); err != nil {
		return err
	}
	tag := "latest"
	if tagged, ok := r.Ref.(reference.Tagged); ok {
		tag = tagged.Tag()
	}
	out(jsonstream.Message{Status: fmt.Sprintf("%s: digest: %s size: %d", tag, target.Digest, target.Size)})
	i.Announce(events.ActionPush, reference.FamiliarString(r.Ref), reference.FamiliarName(r.Ref))
	return nil
}
