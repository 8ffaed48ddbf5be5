package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"

	"berth/container"
	"berth/fault"
	"berth/union"

	"github.com/moby/moby/api/types/mount"
)

// insides is the part of Containers that works with what lies in them.
type insides struct {
	*shared
	pause   func(ctx context.Context, i *instance, paused bool) error
	remove  func(ctx context.Context, ref string, o RemoveOptions) error
	pruning sync.Mutex // held by the one prune at a time
}

// tree opens a container's files; done gives them back.
func (c *insides) tree(ctx context.Context, i *instance) (t *union.Tree, done func() error, err error) {
	for {
		if t := i.mounted.Join(); t != nil { // also when a start holds op and waits for us
			return t, i.mounted.Leave, nil
		}
		t, done, ending, err := c.openTree(ctx, i)
		if ending == nil {
			return t, done, err
		}
		select { // it ends just now: look again when that is recorded
		case <-ending:
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
}

// openTree is tree once; ending, when not nil, is of a run that turned out to be over.
func (c *insides) openTree(ctx context.Context, i *instance) (t *union.Tree, done func() error, ending <-chan struct{}, err error) {
	i.op.Lock()
	defer i.op.Unlock()
	r := i.record()
	if live, err := i.current(); err == nil {
		pid := live.shim.Pid()
		t, err := union.RunningTree(pid, func() error {
			pids, err := live.shim.Pids(ctx)
			if err == nil && !slices.Contains(pids, pid) {
				err = fault.New(fault.NotFound, "process %d has ended", pid)
			}
			return err
		})
		if err == nil {
			return t, t.Close, nil, nil
		}
		if kind := fault.Of(err); kind == fault.Conflict || kind == fault.NotFound || errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			return nil, nil, live.ended, nil
		}
		return nil, nil, nil, fmt.Errorf("open the files of container %s: %w", r.Name, err)
	}
	if s := r.State.Status; s == container.Removing || s == container.Dead {
		return nil, nil, nil, fault.New(fault.Conflict, "container %s is marked for removal", r.Name)
	}
	root, err := c.openRoot(i.record())
	if err != nil {
		return nil, nil, nil, err
	}
	t, err = i.mounted.Open(func() (*union.Tree, error) {
		user := "files-" + r.ID // the tree has its own copies of the mounts
		defer func() { c.logged("give volumes back", c.volumes.Unmount(ctx, user)) }()
		return union.StoppedTree(root, c.binds(ctx, r, user), r.HostConfig.ReadonlyRootfs)
	})
	if err != nil {
		return nil, nil, nil, fmt.Errorf("open the files of container %s: %w", r.Name, err)
	}
	return t, i.mounted.Leave, nil, nil
}

// binds lists what shows in the tree of a container that does not run.
func (c *insides) binds(ctx context.Context, r *container.Record, user string) []union.Bind {
	var all []union.Bind
	for _, m := range r.Mounts {
		b := union.Bind{Target: m.Destination, ReadOnly: m.ReadOnly, Recursive: true}
		switch m.Type {
		case mount.TypeBind:
			b.Source, b.Recursive = m.Source, m.Recursive
		case mount.TypeVolume:
			source, err := c.volumes.Mount(ctx, m.Name, user)
			if err != nil {
				continue // a start will tell
			}
			b.Source, b.Subpath = source, m.Subpath
		default:
			continue
		}
		all = append(all, b)
	}
	return all
}

// find is the container that ref means, with its tree; done gives the tree back.
func (c *insides) find(ctx context.Context, ref string) (i *instance, t *union.Tree, done func() error, err error) {
	if i, err = c.index.Get(ref); err != nil {
		return nil, nil, nil, err
	}
	t, done, err = c.tree(ctx, i)
	return i, t, done, err
}
