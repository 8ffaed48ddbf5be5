// Package images pulls, keeps and removes images for the engine, and tells the journal of it.
//
// It is not the store of images (package image) nor the registry's protocol: it introduces them to each other, and
// speaks the API's types. Invariant: what it announces is in the store.
package images

import (
	"context"
	"errors"
	"maps"
	"strings"

	"berth/engine/journal"
	"berth/fault"
	"berth/image"
	"berth/registry"

	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Service is all that can be done with images.
type Service struct {
	Store     *image.Store
	Registry  *registry.Client
	Events    *journal.Journal
	Driver    string                             // of the layers
	LayerDirs func(chain digest.Digest) []string // where an image's layers lie, top first
	// Settle waits for what containers leave, as that may still stand on layers.
	Settle func()
	// UsedBy lists the containers of an image, by whether they run.
	UsedBy func(image string) (running, stopped []string)
	// ManifestOf is the manifest that a container was made of, by the container's full ID.
	ManifestOf func(container string) digest.Digest
}

func invalid(format string, args ...any) error { return fault.New(fault.Invalid, format, args...) }

// helloWorld is the image that is built in.
const helloWorld = "docker.io/library/hello-world:latest"

// ForCreate finds the image of a new container; the built-in one needs no registry.
func (i *Service) ForCreate(ctx context.Context, ref string, platform *ocispec.Platform) (*image.Image, error) {
	if ref == "" {
		return nil, invalid("no image given")
	}
	img, err := i.variant(ref, platform)
	if errors.Is(err, fault.NotFound) && platform == nil {
		if named, parseErr := image.ParseName(ref); parseErr == nil && named.String() == helloWorld {
			return i.Store.Hello(ctx)
		}
	}
	if err == nil && img.Artifact != "" {
		return nil, invalid("image %s can't be run: it is an artifact of type %s, made for other tools", ref, img.Artifact)
	}
	if err == nil {
		err = image.Unpack(ctx, i.Store, img)
	}
	return img, err
}

// ID is the image ID that ref means.
func (i *Service) ID(ref string) (string, error) {
	img, err := i.Store.Get(ref)
	if err != nil {
		return "", err
	}
	return img.ID.String(), nil
}

// Names maps every name of an image, with and without its tag where that is latest, to its ID.
func (i *Service) Names() map[string]string {
	m := map[string]string{}
	list, err := i.Store.List()
	if err != nil {
		return m
	}
	for _, img := range list {
		for _, tag := range img.Tags() {
			m[tag] = img.ID.String()
			if bare, ok := strings.CutSuffix(tag, ":latest"); ok {
				m[bare] = img.ID.String()
			}
		}
	}
	return m
}

// Announce tells of an image that is here. The event is about subject, as the API has it: an ID, or the name that was pulled or pushed.
// It carries the image's labels and name.
func (i *Service) Announce(action events.Action, subject, name string) {
	attributes := map[string]string{}
	if img, err := i.Store.Get(subject); err == nil {
		maps.Copy(attributes, img.Config.Config.Labels)
	}
	if name != "" {
		attributes["name"] = name
	}
	i.Events.Publish(events.ImageEventType, action, subject, attributes)
}

// Origin is the container that an image was made of.
func (i *Service) Origin(ref string) (image.Origin, error) {
	img, err := i.Store.Get(ref)
	if err != nil {
		return image.Origin{}, err
	}
	return i.Store.OriginOf(img)
}

func nonNil(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}
