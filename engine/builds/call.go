package builds

import (
	"context"
	"errors"
	"path"

	"berth/build/dockerfile"
	"berth/engine/request"
	"berth/fault"
	"berth/image"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Call answers what o.Dockerfile can be asked: "check", "outline" or "targets". Nothing is fetched for it: images that are not here are taken as they come.
func (s *Service) Call(ctx context.Context, what string, o Options) (dockerfile.Answer, error) {
	ignored, err := o.ignored()
	if err != nil {
		return nil, err
	}
	var platform *ocispec.Platform
	if t := o.targets(); len(t) > 0 {
		platform = t[0]
	}
	return dockerfile.Call(ctx, what, o.Text, dockerfile.Options{
		Name: path.Base(o.Dockerfile), Target: o.Target, Args: o.Args, Platform: platform, Host: image.Host(), Network: o.Network, Ignored: ignored,
		Signal: func(name string) error { _, err := request.Signal(name); return err },
	}, local{s})
}

// local is a Resolver of the images that are here.
type local struct{ *Service }

// Image implements dockerfile.Resolver.
func (l local) Image(ctx context.Context, name string, platform ocispec.Platform) (*dockerfile.Image, error) {
	if _, err := image.ParseName(name); err != nil {
		return nil, err
	}
	img, err := l.Images.ForCreate(ctx, name, foreign(platform))
	switch {
	case errors.Is(err, fault.NotFound):
		return &dockerfile.Image{Name: name, Unknown: true}, nil
	case err != nil:
		return nil, err
	}
	return &dockerfile.Image{Name: name, Digest: img.ID, Config: img.Config, Handle: img}, nil
}
