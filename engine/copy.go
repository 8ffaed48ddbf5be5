package engine

import (
	"context"
	"errors"
	"fmt"
	"io"

	"berth/engine/files"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
)

// StatPath describes a path of a container. fault.NotFound: "Could not find the file X in container Y".
func (c *insides) StatPath(ctx context.Context, ref, name string) (s api.PathStat, err error) {
	_, t, done, err := c.find(ctx, ref)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, done()) }()
	return files.Stat(t, name, ref)
}

// Archive writes files of a container as a tar stream, as files.Archive does.
func (c *insides) Archive(ctx context.Context, ref string, r files.ArchiveRequest, begin func(api.PathStat) io.Writer) (err error) {
	i, t, done, err := c.find(ctx, ref)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	if err := files.Archive(ctx, t, r, ref, begin); err != nil {
		return err
	}
	c.announce(i.record(), events.ActionArchivePath)
	return nil
}

// Extract unpacks a tar stream into a directory of a container, as files.Extract does; with asUser everything belongs to
// the user that the container runs as, if it names one.
func (c *insides) Extract(ctx context.Context, ref string, r files.ExtractRequest, asUser bool, body io.Reader) (err error) {
	i, t, done, err := c.find(ctx, ref)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	if asUser && r.Owner == "" {
		r.Owner = i.record().Config.User
	}
	if err := files.Extract(ctx, t, r, ref, body); err != nil {
		return err
	}
	c.announce(i.record(), events.ActionExtractToDir)
	return nil
}

// Export writes a container's own file system, as files.Export does.
func (c *insides) Export(ctx context.Context, ref string, begin func() io.Writer) (err error) {
	i, t, done, err := c.find(ctx, ref)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	if err := files.Export(ctx, t, begin); err != nil {
		return fmt.Errorf("export container %s: %w", i.record().Name, err)
	}
	c.announce(i.record(), events.ActionExport)
	return nil
}

// Changes lists what a container has beyond its image; nil when nothing.
func (c *insides) Changes(ctx context.Context, ref string) ([]api.FilesystemChange, error) {
	i, err := c.index.Get(ref)
	if err != nil {
		return nil, err
	}
	root, err := c.openRoot(i.record())
	if err != nil {
		return nil, err
	}
	return files.Changes(ctx, root)
}
