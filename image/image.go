// Package image keeps images: names, the graph of manifests, configs and
// layers below them, and the garbage that is left when names go.
//
// It is not a registry client and runs nothing: content comes through a
// Source and goes to a Target, layers become directories in a union.Driver.
// Invariant: an image that Get or List shows is whole. Every blob of its
// platform is in the blob store, verified, and its chain of layers is
// unpacked; whatever died when.
package image

import (
	"context"
	"io"
	"slices"
	"time"

	"github.com/distribution/reference"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Image is what is known of one image, for the platform that this machine
// would run. It is a snapshot: nobody changes it after it was handed out.
type Image struct {
	ID       digest.Digest             // of Target, as on current Docker
	Target   ocispec.Descriptor        // the manifest or index that names mean
	Manifest ocispec.Descriptor        // the manifest of the platform chosen; Target when that is no index
	Config   dockerspec.DockerOCIImage // with Healthcheck, OnBuild and Shell
	ConfigID digest.Digest             // of the config blob
	Layers   []ocispec.Descriptor      // as in the manifest, deepest first
	DiffIDs  []digest.Digest           // of the uncompressed layers, deepest first
	Artifact string                    // the type of content that is no container image and can't be run; "": it is one
	Chain    digest.Digest             // of all layers, the key in union.Driver; "" without layers
	Names    []reference.Named         // sorted; tagged names, and digest references that it was pulled by
	Content  int64                     // bytes of the manifests, config and layer blobs held here
	Unpacked int64                     // bytes of the files in the unpacked layers
	Size     int64                     // Content and the unpacked layers of all its platforms: what it takes on disk if nothing is shared
	Sources  []reference.Canonical     // digest references of the repositories that it was pulled from or pushed to, the newest last
	Tagged   time.Time                 // when its newest name was given; zero when it never had one
}

// Tags returns the tagged names as Docker shows them, such as "busybox:latest".
func (i *Image) Tags() []string {
	var list []string
	for _, n := range i.Names {
		if _, digested := n.(reference.Digested); !digested {
			list = append(list, reference.FamiliarString(n))
		}
	}
	return list
}

// Digests returns the digest references as Docker shows them, such as
// "busybox@sha256:…": one for each repository that it has a name in, whether a registry knows of it or not. It has
// the digest that the registry knows, where the image was converted.
func (i *Image) Digests() []string {
	var list []string
	for _, n := range i.Names {
		if _, digested := n.(reference.Digested); !digested {
			canonical, err := withDigest(n, i.ID)
			if err != nil {
				continue
			}
			of := func(r reference.Canonical) bool { return r.Name() == n.Name() }
			if at := slices.IndexFunc(i.Sources, of); at >= 0 && !slices.ContainsFunc(i.Sources, func(s reference.Canonical) bool { return s.String() == canonical.String() }) {
				canonical = i.Sources[at]
			}
			n = canonical
		}
		if s := reference.FamiliarString(n); !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list
}

// Dangling tells whether the image has no name: no tag, and it was not pulled by its digest.
func (i *Image) Dangling() bool { return len(i.Names) == 0 }

// Platform returns the platform of the image's config.
func (i *Image) Platform() ocispec.Platform { return i.Config.Platform }

// Created returns when the image was made, or the zero time.
func (i *Image) Created() time.Time {
	if i.Config.Created == nil {
		return time.Time{}
	}
	return *i.Config.Created
}

// Source is a place of content: a registry's repository, an archive, a layout.
// It may be called from several goroutines at once.
type Source interface {
	// Fetch opens the content that desc names, from byte offset on. The caller
	// closes it and verifies size and digest. fault.NotFound: the place lacks it.
	Fetch(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error)
}

// Target is a place that content can be copied to. It may be called from several goroutines at once.
type Target interface {
	// Has tells whether the place has the content that desc names.
	Has(ctx context.Context, desc ocispec.Descriptor) (bool, error)
	// Mount makes content of the repository from of the same place available here, without sending it; false: it can't, send it.
	Mount(ctx context.Context, desc ocispec.Descriptor, from reference.Named) (bool, error)
	// Put stores content. open gives its bytes from the beginning, and may be called again for another try; the callee closes what it opens.
	Put(ctx context.Context, desc ocispec.Descriptor, open func() (io.ReadCloser, error)) error
	// PutManifest stores a manifest or index, and gives it the tag unless that is "".
	PutManifest(ctx context.Context, desc ocispec.Descriptor, data []byte, tag string) error
}
