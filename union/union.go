// Package union stacks read-only layers under one writable directory.
//
// It is not an image store: it knows layers by the digest of their chain and
// roots by an id, nothing about names, tars or containers. Invariant: a layer or a
// root that is listed is whole, and a layer never changes after it was committed.
package union

import (
	"os"

	"github.com/opencontainers/go-digest"

	"berth/archive"
	"berth/fault"
)

// Driver is one way to stack layers. One process at a time has a driver's directory open.
type Driver interface {
	// Name is the driver's name as in --storage-driver.
	Name() string
	// Status returns the rows that `info` shows below the driver.
	Status() [][2]string
	// Has tells whether a layer is here.
	Has(chain digest.Digest) bool
	// Stage makes an empty directory to unpack one layer into. Stages are independent of each other.
	Stage() (*Stage, error)
	// Remove removes a layer: fault.Conflict while a child layer or a root uses it, fault.NotFound when absent.
	Remove(chain digest.Digest) error
	// Layers lists all layers, parents before children.
	Layers() ([]Layer, error)
	// Create makes a root over a chain ("" = no layers). init, when given, runs once per
	// chain in a mounted view; what it made is kept as a read-only layer
	// that all roots of the chain share. fault.NotFound: no such chain; fault.Exists: id taken.
	Create(id string, chain digest.Digest, init func(root *os.File) error) (Root, error)
	// Open returns a root, ready to be mounted again; fault.NotFound when absent.
	Open(id string) (Root, error)
	// Delete removes a root with all that was written to it. It returns at once, the bytes are freed in
	// the background. An absent root is no error.
	Delete(id string) error
	// Roots lists the ids of all roots, sorted.
	Roots() ([]string, error)
	// Sync makes all committed layers survive a power cut. Call it before something durable refers to them.
	Sync() error
	// Close waits for the background work to stop and lets another process open the directory. Roots stay usable.
	Close() error
}

// Layer is a committed read-only layer.
type Layer struct {
	Chain  digest.Digest
	Parent digest.Digest // "" at the bottom
	Size   int64         // of its own files, in bytes
}

// Root is a writable directory over a chain of layers.
type Root struct {
	ID     string
	Mount  Mount
	Lower  []string // directories, top first
	Upper  string   // what was written
	Work   string
	Merged string // where older tools expect the mounted root; nothing is mounted there on the host
}

// Mount says how a root is mounted: overlay takes one "lowerdir+=PATH" per layer, top first,
// "upperdir=", "workdir=" and flags such as "volatile".
type Mount struct {
	Type    string
	Source  string
	Options []string
}

// Stage is a layer in the making. One of Commit and Abort ends it.
type Stage struct{}

// Root is the directory to unpack into; it belongs to the stage.
func (s *Stage) Root() *os.File { return nil }

// Commit makes the stage the layer chain over parent ("" = none). Directories that u
// names as implied take mode, owner, times and attributes from the parent chain. When another stage
// was committed as the same chain before, this one is dropped and that is no error.
func (s *Stage) Commit(chain, parent digest.Digest, u archive.Unpacked) error { return errNotBuilt }

// Abort drops the stage. After Commit it does nothing.
func (s *Stage) Abort() error { return nil }

var errNotBuilt = fault.New(fault.Unsupported, "union: not built yet")

// Open opens the driver called name ("" = overlay2, "overlay" means the same) in dir, made when missing, and sweeps what a crash left.
// fault.Unsupported says why the driver can't work there, fault.Conflict that another process has it open.
func Open(name, dir string) (Driver, error) { return nil, errNotBuilt }

// View mounts r where no other process sees it, calls fn with its directory and unmounts it. The
// directory is fn's only for the call.
func View(r Root, fn func(dir *os.File) error) error { return errNotBuilt }
