package registry

import (
	"context"
	"errors"
	"io"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Has tells whether the repository has the content that desc names.
func (r *Repository) Has(ctx context.Context, desc ocispec.Descriptor) (bool, error) {
	return false, errors.ErrUnsupported
}

// Mount makes content of another repository of the same registry available in this one, without sending it. False:
// the registry doesn't do it, or lacks the content, and it has to be sent.
func (r *Repository) Mount(ctx context.Context, desc ocispec.Descriptor, from reference.Named) (bool, error) {
	return false, errors.ErrUnsupported
}

// Put sends a blob. open gives its bytes from the beginning and is called again for another try; what it opens is closed here.
func (r *Repository) Put(ctx context.Context, desc ocispec.Descriptor, open func() (io.ReadCloser, error)) error {
	return errors.ErrUnsupported
}

// PutManifest stores a manifest or index whose content is there already, and gives it the tag unless that is "".
func (r *Repository) PutManifest(ctx context.Context, desc ocispec.Descriptor, data []byte, tag string) error {
	return errors.ErrUnsupported
}
