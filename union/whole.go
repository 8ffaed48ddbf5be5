package union

import (
	"context"
	"io"

	"berth/archive"
	"berth/fault"
)

// trees keeps whole file trees by name, each begun as a copy of another; copying is all that tells a backend from a directory. Names
// are drawn by the caller, [a-z0-9-]{1,64}, and never given twice. Different trees may be worked on at a time, and Mount of one too; one tree has one caller of Make or
// Remove. fault.NotFound: no such tree.
type trees interface {
	// Status returns the rows that `info` shows.
	Status() [][2]string
	// Make makes a writable tree as a copy of from, or an empty one for "", whose top is the root's with mode 0755. The tree is whole when it returns nil; after a
	// crash it may be there half-made, and is removed as no record has its name.
	Make(name, from string) error
	// Remove removes a tree with all that is in it, a half-made one too. One that is absent is no error; fault.Conflict while it is mounted.
	Remove(name string) error
	// List lists all trees, half-made ones too.
	List() ([]string, error)
	// Mount tells how the tree is mounted, by whoever gets to know it, in any process and after a restart of this one: as Mount of this package. What that needs, such as a device, is there when it returns.
	Mount(name string) (struct {
		Type, Source string
		Options      []string
	}, error)
	// Unmounted says that nobody mounts the tree any more: what Mount made for that may go. It may be called too often.
	Unmounted(name string) error
	// Freeze makes the tree read-only for all, where that can be done.
	Freeze(name string) error
	// Sync makes the tree survive a power cut as it is now.
	Sync(name string) error
	// Usage is how many bytes of the disk the tree takes that its origin doesn't: what Remove would free.
	Usage(name string) (own int64, err error)
	// Limit bounds what the tree may take beyond its origin, in bytes: fault.Unsupported with the reason where that can't be.
	Limit(name string, bytes int64) error
	// Close lets go of what is held. Trees stay mounted where they are.
	Close() error
}

// wholeRoot is a root that is a tree of its own.
type wholeRoot struct{}

func (r *wholeRoot) leave() error { return nil }

func (r *wholeRoot) changes(context.Context) ([]Change, error) {
	return nil, fault.New(fault.Unsupported, "not yet")
}

func (r *wholeRoot) pack(context.Context, io.Writer, archive.IDMap) error {
	return fault.New(fault.Unsupported, "not yet")
}

func (r *wholeRoot) written() (Space, error) { return Space{}, nil }

func (r *wholeRoot) kept() (int64, error) { return 0, nil }
