package build

import (
	"archive/tar"
	"context"
	"io"
	"os"

	"berth/build/dockerfile"
)

// Files is a tree of files from outside of the build: a context, a repository, what an address gave. Nobody writes to it.
type Files struct {
	Top *os.File // its directory, open; whoever made it closes it when the build is over

	// Each tells all that lies at p and below it, in the order and the form in which package archive packs it under its own path, with the digests of
	// the files' contents. It reads no file. ok is false when it does not know. nil: never.
	Each func(p string, fn func(hdr *tar.Header, digest string)) (ok bool)
}

// Client is whoever asked for a build, as far as the build asks back. Its methods may be called concurrently.
type Client interface {
	// Files brings a tree; "" is the build context. patterns say what is needed of it, as COPY names it; nil: all.
	Files(ctx context.Context, name string, patterns []string) (*Files, error)
	// Secret gives a secret's content; fault.NotFound when there is none of that id.
	Secret(ctx context.Context, id string) ([]byte, error)
	// Agent opens a connection to an ssh agent, closed by the caller; fault.NotFound when there is none of that id.
	Agent(ctx context.Context, id string) (io.ReadWriteCloser, error)
}

// Finder looks for what an ADD, or a named context, takes from another place. It asks c for what that place wants, and tells how far it is.
type Finder func(ctx context.Context, from *dockerfile.Source, c Client, tell func(Progress)) (*Remote, error)

// Remote is something in another place, as it was found there.
type Remote struct {
	Key  string // of its content: alike for what is alike
	Name string // of the one file that it is; "": it is a tree

	// Fetch brings it, once; Close gives it up, brought or not.
	Fetch func(ctx context.Context) (*Files, error)
	Close func() error
}

// Progress is how far a part of a step is.
type Progress struct {
	Part    string // what is under way, as it is shown
	Current int64  // bytes
	Total   int64  // 0: not known
	Done    bool
}
