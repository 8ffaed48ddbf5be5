package engine

import (
	"context"

	"berth/container"
	"berth/engine/disk"
	"berth/engine/volumes"
	"berth/fault"
	"berth/union"

	api "github.com/moby/moby/api/types/container"
	"github.com/opencontainers/go-digest"
)

// account wires what accounts for the data root, frees and checks.
func (e *Engine) account() {
	c, d := e.Containers, e.Disk
	d.Layers, d.Images, d.Volumes, d.Records, d.Events = c.layers, e.Images, c.volumes.Store, c.store, e.Events
	d.Containers, d.Making, d.Describe, d.Prune, d.Settle, d.Kept, d.Rewrite = c.accounted, c.index.Reserved, volumes.Describe, c.Prune, c.settle, c.kept, c.rewrite
	d.Summaries = func(ctx context.Context) ([]api.Summary, error) { return c.List(ctx, ListRequest{All: true}) }
	d.Networks = e.Networks.Spare
	d.RemoveVolume = func(name string) error { return e.Volumes.Remove(context.Background(), name, false) }
}

// settle waits until what removed containers leave is off the disk.
func (c *shared) settle() {
	c.jobs.drain()
	c.logged("empty the trash", union.InventoryOf(c.layers).Settle(c.life))
}

// openRoot opens a container's root; fault.Conflict when it lies with another storage driver.
func (c *shared) openRoot(r *container.Record) (union.Root, error) {
	if have := c.layers.Name(); r.Driver != have {
		return union.Root{}, fault.New(fault.Conflict, "container %s lies with the storage driver %s, and the engine uses %s: start the engine with --storage-driver %s to use it", r.Name, r.Driver, have, r.Driver)
	}
	return c.layers.Open(r.ID)
}

// accounted lists the containers for those who count bytes.
func (c *shared) accounted() (all []disk.Container) {
	for _, i := range c.index.All() {
		r := i.record()
		s := r.State.Status
		one := disk.Container{ID: r.ID, Name: r.Name, Image: r.Image, ImageName: r.ImageName, Alive: s.Alive() || s == container.Restarting}
		for _, m := range r.Mounts {
			if m.Name != "" {
				one.Volumes = append(one.Volumes, m.Name)
			}
			if m.Image != "" {
				if one.Shows == nil {
					one.Shows = map[digest.Digest]string{}
				}
				one.Shows[m.Image] = m.Source
			}
		}
		all = append(all, one)
	}
	return all
}

// rewrite saves the record of a container as it is known. fault.NotFound: it was removed.
func (c *shared) rewrite(id string) error {
	return c.quiet(id, func(i *instance) error { return c.store.Save(i.record()) })
}

// kept waits for the verb that works on a container, and tells whether the container is there afterwards.
func (c *shared) kept(id string) bool {
	return c.quiet(id, func(*instance) error { return nil }) == nil
}

// quiet calls fn while no verb works on the container.
func (c *shared) quiet(id string, fn func(*instance) error) error {
	i, err := c.index.Get(id)
	if err != nil {
		return err
	}
	i.op.Lock()
	defer i.op.Unlock()
	if _, err := c.index.Get(id); err != nil {
		return err
	}
	return fn(i)
}

// contentSize is how many bytes the files in a directory have.
func contentSize(dir string) (int64, error) {
	space, err := union.Measure(dir, nil)
	return space.Content(), err
}
