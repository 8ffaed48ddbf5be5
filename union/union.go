// Package union stacks read-only layers under one writable directory.
//
// It is not an image store: it knows layers by the digest of their chain and
// roots by an id, nothing about names, tars or containers. Invariant: a layer or a
// root that is listed is whole, and a layer never changes after it was committed.
package union

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"

	"berth/archive"
	"berth/fault"
	"berth/kernel"
	"berth/union/btrfs"
	"berth/union/thin"
	"berth/union/vfs"
	"berth/union/zfs"
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
	// Sync makes all committed layers survive a power cut. Call it before something durable
	// refers to them; a layer that never was synced is dropped when the machine goes down.
	Sync() error
	// Close waits for the background work to stop and lets another process open the
	// directory. Roots stay usable; the driver's other methods do not. It may be called more than once.
	Close() error
}

// Layer is a committed read-only layer.
type Layer struct {
	Chain  digest.Digest
	Parent digest.Digest // "" at the bottom
	Size   int64         // of its own files, in bytes
	IDs    archive.IDMap `json:",omitzero"` // how their owners are shifted
}

// Root is a writable tree over a chain of layers.
type Root struct {
	ID      string
	Mount   Mount
	Merged  string        // where older tools expect the mounted root; nothing is mounted there on the host
	IDs     archive.IDMap // how owners on disk and in a View are shifted. Empty also for a container in a user namespace, unless its layers had to be copied
	Stacked *Stacked      // of drivers that stack directories; nil where every root is a whole tree
	tree    *wholeRoot    // the other case
}

// Stacked are the directories of a root whose layers are stacked when it is mounted.
type Stacked struct {
	Lower []string // top first
	Upper string   // what was written
	Work  string
	by    stacking
}

// Mount says how a root is mounted. It holds in every process of the machine and until the root is deleted or the machine goes down. Type "bind" shows the directory Source as it
// is; any other is a file system's, Source being what that one takes. Overlay takes one "lowerdir+=PATH" per layer, top first,
// "upperdir=", "workdir=" and flags such as "volatile" (see kernel.NewMount), aufs one "br:PATH=PERMISSION" (see kernel.Aufs).
type Mount struct {
	Type    string
	Source  string
	Options []string
}

// Stage is a layer in the making, for one goroutine. One of Commit and Abort ends it.
type Stage struct {
	root   *os.File      // nil when ended
	ids    archive.IDMap // how the owners of its files are shifted
	commit func(root *os.File, chain, parent digest.Digest, u archive.Unpacked) error
	abort  func() error
	once   sync.Once
}

// Root is the directory to unpack into; it belongs to the stage.
func (s *Stage) Root() *os.File { return s.root }

// Commit makes the stage the layer chain over parent ("" = none). Directories that u
// names as implied take mode, owner, times and attributes from the parent chain; where the parent
// chain has a symbolic link in place of such a directory, its content goes where the link leads. When
// another stage was committed as the same chain before, this one is dropped and that is no error.
func (s *Stage) Commit(chain, parent digest.Digest, u archive.Unpacked) (err error) {
	err = fault.New(fault.Conflict, "commit layer %s: the stage has ended", chain)
	s.once.Do(func() {
		err = s.commit(s.root, chain, parent, u)
		err = errors.Join(err, s.root.Close())
		if err != nil {
			err = errors.Join(fmt.Errorf("commit layer %s: %w", chain, err), s.abort())
		}
	})
	return err
}

// Abort drops the stage. After Commit it does nothing.
func (s *Stage) Abort() (err error) {
	s.once.Do(func() { err = errors.Join(s.root.Close(), s.abort()) })
	return err
}

// complete is what a driver of this package is beside Driver.
type complete interface {
	Driver
	inventory() Inventory
	openStack(chain digest.Digest) (*Stack, error)
	dirs(chain digest.Digest) []string
	beneath(id, of string) (Root, error)
	look(chain digest.Digest, fn func(dir *os.File) error) error
	idle(id string) error
	limit(id string, bytes int64) error
}

// drivers is the only way in: a driver's own directory is made when missing; options are those of --storage-opt that are the driver's, "KEY=VALUE" without
// its prefix, and fault.Invalid is for one that it doesn't know.
var drivers = map[string]func(dir string, options []string) (Driver, error){
	"aufs":           openAufs,
	"overlay2":       openOverlay,
	"fuse-overlayfs": openFuseOverlay,
	"btrfs":          wholeOver("btrfs", btrfs.Open),
	"devicemapper":   wholeOver("devicemapper", thin.Open),
	"vfs":            wholeOver("vfs", vfs.Open),
	"zfs":            wholeOver("zfs", zfs.Open),
}

// Drivers lists the names of all drivers, sorted.
func Drivers() []string { return slices.Sorted(maps.Keys(drivers)) }

// Home is where a driver's directory lies below an engine's data root. That of overlay2 has no name of its own.
func Home(dataRoot, name string) string {
	if name == "" || name == "overlay" || name == "overlay2" {
		return filepath.Join(dataRoot, "layers")
	}
	return filepath.Join(dataRoot, name)
}

// Open opens the driver called name ("" = overlay2, "overlay" means the same) in dir, made
// when missing, and sweeps what a crash left. The caller closes it. fault.Unsupported says why the
// driver can't work there, fault.Conflict that another process has it open, fault.Invalid that it has no such option.
func Open(name, dir string, options ...string) (Driver, error) {
	if name == "" || name == "overlay" {
		name = "overlay2"
	}
	open := drivers[name]
	if open == nil {
		return nil, fault.New(fault.Unsupported, "storage driver %q is not supported: use one of %s", name, strings.Join(Drivers(), ", "))
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	return open(dir, options)
}

// Beneath opens the root id with what the root of shows below its own writing. Neither may be in use. The layers of both are to be the same.
func Beneath(d Driver, id, of string) (Root, error) { return d.(complete).beneath(id, of) }

// Look calls fn with the tree that a chain's layers show, to be read only. fault.NotFound: no such chain.
func Look(d Driver, chain digest.Digest, fn func(dir *os.File) error) error {
	return d.(complete).look(chain, fn)
}

// Idle tells the driver that nobody has the root mounted any more. It may be called too often, and for a root that is gone.
func Idle(d Driver, id string) error { return d.(complete).idle(id) }

// Limit bounds what may be written to a root, in bytes; it holds until the root is deleted. fault.Unsupported says why the driver can't.
func Limit(d Driver, id string, bytes int64) error { return d.(complete).limit(id, bytes) }

// MakeRoom lets a root be mounted by another process though it is full to its bound; end, to be called when it is mounted and never nil, takes that
// back. Where mounting needs no room nothing is done.
func MakeRoom(d Driver, id string) (end func() error, err error) {
	if o, ok := d.(*overlay); ok {
		if end, err = o.quotas.makeRoom(id); err != nil {
			err = fmt.Errorf("make room to mount root %s: %w", id, err)
		}
		return end, err
	}
	return func() error { return nil }, nil
}

// View mounts r where no process can reach it by path, calls fn with its directory and unmounts it. The
// directory is fn's only for the call. r must not be in use: two mounts of one root disagree about it.
func View(r Root, fn func(dir *os.File) error) (err error) {
	m, end, err := r.mount()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	defer fault.Close(m, &err)
	dir, err := kernel.OpenIn(m, ".", kernel.ODirectory, 0, 0)
	if err != nil {
		return fmt.Errorf("open root %s: %w", r.ID, err)
	}
	defer fault.Close(dir, &err)
	return fn(dir)
}

// clearVolatile removes overlay's note that a volatile mount used the directory, without which it can't be mounted again.
// (overlayfs.rst, "Volatile mount").
func clearVolatile(work string) error {
	return os.RemoveAll(filepath.Join(work, "work", "incompat"))
}
