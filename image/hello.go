package image

import (
	"context"
	"fmt"

	"github.com/distribution/reference"

	"berth/image/hello"
)

// Hello returns the built-in hello-world image, docker.io/library/hello-world:latest. It is registered when
// nothing has that name yet; an image that has it already is returned as it is.
func (s *Store) Hello(ctx context.Context) (*Image, error) {
	if img, err := s.Get(hello.Name); err == nil {
		return img, nil
	}
	name, err := reference.ParseNormalizedNamed(hello.Name)
	if err != nil {
		return nil, err
	}
	blobs, root, err := hello.Layout()
	if err != nil {
		return nil, err
	}
	c := s.newCopy(nowhere("the blob store"), nil)
	defer c.end()
	c.loading = true
	for _, data := range blobs {
		if _, err := c.put(data); err != nil {
			return nil, fmt.Errorf("register the built-in image: %w", err)
		}
	}
	target, _, err := c.graph(ctx, root)
	if err != nil {
		return nil, fmt.Errorf("register the built-in image: %w", err)
	}
	if err := c.keep([]named{{target: target, names: []reference.Named{name}}}); err != nil {
		return nil, fmt.Errorf("register the built-in image: %w", err)
	}
	return s.Get(hello.Name)
}
