// Package disk accounts for the data root: what takes its space, what can be freed, and whether it is all right.
//
// It is not a store, and decides nothing of containers: it asks the stores, and they remove what is theirs. Invariant: what an image, a
// container or an operation that is under way refers to is never freed.
package disk

import (
	"context"
	"sync"

	"berth/blob"
	"berth/build"
	"berth/container"
	"berth/engine/images"
	"berth/engine/journal"
	"berth/image"
	"berth/network"
	"berth/registry"
	"berth/union"
	"berth/volume"

	"github.com/distribution/reference"
	api "github.com/moby/moby/api/types/container"
	wireregistry "github.com/moby/moby/api/types/registry"
	wire "github.com/moby/moby/api/types/volume"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/singleflight"
)

// Service accounts, frees and checks. The fields are set once, before it is used.
type Service struct {
	Root    string // the data root
	Blobs   *blob.Store
	Layers  union.Driver
	Images  *images.Service
	Volumes *volume.Store
	Records *container.Store
	Events  *journal.Journal

	// Cache lists the results of builds' steps that are kept, and Forget drops some of them.
	Cache  func() []build.Entry
	Forget func(ids []string) error
	// Keepers have the rest of what is kept for builds.
	Keepers []Keeper
	// Containers lists those that there are.
	Containers func() []Container
	// Making tells whether a container of that ID is there or in the making.
	Making func(id string) bool
	// Summaries describes all containers, without their sizes.
	Summaries func(ctx context.Context) ([]api.Summary, error)
	// Prune removes stopped containers, or tells which.
	Prune func(ctx context.Context, f journal.Filters, dry bool) (api.PruneReport, error)
	// Networks lists those that a prune of networks would take if the containers in gone were not there.
	Networks func(f journal.Filters, gone map[string]bool) ([]network.Spec, error)
	// Kept waits for the verb that works on a container, and tells whether it is there afterwards.
	Kept func(id string) bool
	// Rewrite writes the record of a container that is known in memory.
	Rewrite func(id string) error
	// Describe gives a volume in the API's words.
	Describe func(*volume.Volume) wire.Volume
	// RemoveVolume removes one that no container has.
	RemoveVolume func(name string) error
	// Settle waits for what removed containers leave.
	Settle func()

	sizes   sizes
	runs    singleflight.Group
	pruning sync.Mutex // one prune of images or volumes at a time
	checks  sync.Mutex // one check at a time
}

// Container is what accounts need to know of one.
type Container struct {
	ID, Name  string
	Image     digest.Digest // its ID
	ImageName string        // as whoever made the container named it
	Alive     bool          // it runs, is paused or restarts
	Volumes   []string
	Shows     map[digest.Digest]string // images that it has mounted, and how they were named
}

// inventory is the layers' other side.
func (s *Service) inventory() union.Inventory { return union.InventoryOf(s.Layers) }

func (s *Service) store() *image.Store { return s.Images.Store }

// Auth gives the user's credentials for a registry; the zero value for none.
type Auth func(name reference.Named) registry.Auth

// ByHost takes credentials by host as the API's X-Registry-Config has them.
func ByHost(all map[string]wireregistry.AuthConfig) Auth {
	return func(name reference.Named) registry.Auth {
		return images.Credentials(images.ForHost(all, name))
	}
}
