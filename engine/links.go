package engine

import (
	"path"
	"strings"

	"berth/container"
	"berth/engine/link"
	"berth/fault"
	"berth/network"
)

// find is a link.Find.
func (c *shared) find(ref string) (*container.Record, *network.Attachment, error) {
	i, err := c.index.Get(ref)
	if err != nil {
		return nil, nil, err
	}
	return i.record(), attachmentOf(i.record()), nil
}

// linkEnv are the variables that tell a container of those that it links to.
func (c *shared) linkEnv(r *container.Record) (env []string) {
	targets, _ := link.Targets(r, c.find) // whether one is missing is a start's business
	for _, t := range targets {
		env = append(env, t.Variables()...)
	}
	return env
}

// retellLinks writes the hosts files of those that link to a container anew, as it has a new address.
func (c *starter) retellLinks(id string) {
	for _, i := range c.index.All() {
		if r := i.record(); r.State.Status.Alive() && link.To(r.HostConfig, id) {
			c.logged("write the hosts file of a container that links to another", c.writeFiles(c.store.Dir(r.ID), r, attachmentOf(r)))
		}
	}
}

// Unlink takes the link that parent/alias names away: its line leaves the hosts file, the linked container stays.
func (c *starter) Unlink(name string) error {
	parent, alias := path.Split(strings.Trim(name, "/"))
	if parent = strings.Trim(parent, "/"); parent == "" {
		return fault.New(fault.Conflict, "Conflict, cannot remove the default link name of the container")
	}
	i, err := c.index.Get(parent)
	if err != nil {
		return fault.New(fault.NotFound, "Cannot get parent %s for link name %s", parent, name)
	}
	i.op.Lock()
	defer i.op.Unlock()
	next := i.record().Clone()
	less, ok := link.Without(next.HostConfig, alias)
	if !ok {
		return fault.New(fault.NotFound, "Could not find entity for %s: container %s has no such link", name, parent)
	}
	next.HostConfig = less
	if err := c.store.Save(next); err != nil {
		return err
	}
	i.snap.Store(next)
	if held := attachmentOf(next); held != nil && next.State.Status.Alive() {
		return c.writeFiles(c.store.Dir(i.id), next, held)
	}
	return nil
}
