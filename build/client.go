package build

import (
	"context"
	"io"
	"os"
)

// Files is a tree of files from outside of the build: a context, a repository, what an address gave.
type Files struct {
	Top    *os.File                      // its directory, open; whoever made it closes it when the build is over
	Digest func(p string) (string, bool) // of a regular file's content, where it is known without reading; nil: never
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
