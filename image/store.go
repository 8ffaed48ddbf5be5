package image

import (
	"context"
	"io"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/blob"
	"berth/fault"
	"berth/union"
)

// Store is the images of one data root.
type Store struct {
	dir    string
	blobs  *blob.Store
	layers union.Driver
}

var errUnfinished = fault.New(fault.Unsupported, "image: not written yet")

// Open reads the names kept in dir, which it creates when missing. The store uses blobs
// and layers from now on, as their only user for adding and removing; it closes neither.
func Open(dir string, blobs *blob.Store, layers union.Driver) (*Store, error) {
	return &Store{dir, blobs, layers}, nil
}

// Get finds an image by name (without tag: latest), digest reference (name@sha256:…), full
// ID or unique beginning of an ID, with or without "sha256:". A name wins over an ID.
// fault.NotFound: "No such image: busybox:latest"; fault.Invalid: a bad reference or an ambiguous ID.
func (s *Store) Get(ref string) (*Image, error) { return nil, errUnfinished }

// GetPlatform is Get for the content of a platform other than the preferred one.
// fault.NotFound when the image's content for p is not here.
func (s *Store) GetPlatform(ref string, p ocispec.Platform) (*Image, error) {
	return nil, errUnfinished
}

// List returns all images, the newest first, those without names included.
func (s *Store) List() ([]*Image, error) { return nil, errUnfinished }

// Tag gives the image that src means a further name; whichever image had that name loses it.
func (s *Store) Tag(src string, target reference.NamedTagged) error { return errUnfinished }

// RemoveOptions say what Remove may do.
type RemoveOptions struct {
	Force   bool // remove all names, and do not mind stopped containers
	NoPrune bool // leave the content for a later Sweep
	// InUse returns the full ids of containers made from the image; nil means none.
	InUse func(id digest.Digest) (running, stopped []string)
}

// Removed is one step of a removal; one of the fields is set.
type Removed struct {
	Untagged string // a familiar name
	Deleted  string // an image ID
}

// Remove takes away a name, or the image when that was its last name or ref is an ID,
// and frees content that nothing else refers to. Refusals are fault.Conflict in Docker's words.
func (s *Store) Remove(ref string, o RemoveOptions) ([]Removed, error) { return nil, errUnfinished }

// Freed tells what a Sweep removed.
type Freed struct {
	Blobs, Layers int
	Bytes         int64 // on disk: blobs and unpacked layers
}

// Sweep frees content that no image and no running pull, load or import refers to, such as
// the leftovers of failed pulls. Layers that containers stand on stay.
func (s *Store) Sweep(ctx context.Context) (Freed, error) { return Freed{}, errUnfinished }

// Pull copies the graph below root from src: the manifest of the given platform (nil: this
// machine's), its config and its layers, which are unpacked while they download. Layers already here are
// not fetched. Then the image gets the names, and for each also the digest reference of its
// repository. A failure leaves names as they were; what arrived serves the next try.
//
// fault.NotFound: no content for the platform; fault.Corrupt: content that does not fit its digest.
func (s *Store) Pull(ctx context.Context, src Source, root ocispec.Descriptor, names []reference.Named, platform *ocispec.Platform, p Progress) (*Image, error) {
	return nil, errUnfinished
}

// Loaded is one image that Load brought; Name is nil when the archive had none for it.
type Loaded struct {
	Name reference.Named
	ID   digest.Digest
}

// Load reads a docker-archive or an OCI layout as a tar of any compression, in one pass.
// A docker-archive without manifests gets canonical ones, the same for the same content. On failure no
// name has changed. fault.Invalid, fault.Corrupt: not such an archive, or a broken one.
func (s *Store) Load(ctx context.Context, r io.Reader, p Progress) ([]Loaded, error) {
	return nil, errUnfinished
}

// Save writes images as a tar that is both an OCI layout and a docker-archive. A name in refs goes
// into the archive with the image; an ID goes in without names.
func (s *Store) Save(ctx context.Context, w io.Writer, refs []string) error { return errUnfinished }

// ImportOptions describe the image that Import makes.
type ImportOptions struct {
	Ref      reference.NamedTagged // nil: the image gets no name
	Message  string                // the history's comment; "" = "Imported from -"
	Changes  []string              // Dockerfile instructions: CMD, ENV, EXPOSE …
	Platform *ocispec.Platform     // nil: this machine's
}

// Import makes an image of one layer from a root file system's tar of any compression.
func (s *Store) Import(ctx context.Context, r io.Reader, o ImportOptions) (*Image, error) {
	return nil, errUnfinished
}

// HistoryItem is one line of an image's history, the newest first.
type HistoryItem struct {
	ID        string // the image's ID on the first line, else "<missing>"
	Created   int64  // Unix seconds
	CreatedBy string
	Comment   string
	Tags      []string // on the first line
	Size      int64    // bytes of the unpacked layer; 0 for a line without one
}

// History returns what the image's config tells of its making.
func (s *Store) History(img *Image) ([]HistoryItem, error) { return nil, errUnfinished }

// Hello returns the built-in hello-world image, docker.io/library/hello-world:latest. It is registered when
// nothing has that name yet; an image that has it already is returned as it is.
func (s *Store) Hello(ctx context.Context) (*Image, error) { return nil, errUnfinished }
