package engine

import (
	"maps"
	"path"
	"slices"
	"strings"

	"berth/container"
	"berth/engine/link"
	"berth/fault"

	api "github.com/moby/moby/api/types/container"
)

// linksConflict is what a mode without a network of one's own makes of links.
const linksConflict = "conflicting options: host type networking can't be used with links. This would result in undefined behavior"

// settleLinks finds the containers that a new one links to, and notes them by ID, so that a later rename changes nothing.
func (c *maker) settleLinks(rec *container.Record) error {
	h := rec.HostConfig
	if len(h.Links) == 0 {
		return nil
	}
	if h.NetworkMode.IsHost() || h.NetworkMode.IsNone() {
		return invalid(linksConflict)
	}
	links := make([]string, len(h.Links))
	for k, s := range h.Links {
		l, err := link.Parse(s)
		if err != nil {
			return err
		}
		other, err := c.index.Get(l.Container)
		if err != nil {
			return invalid("could not get container for %s: %w", l.Container, err)
		}
		for mode := other.record().HostConfig.NetworkMode; mode.IsContainer(); mode = other.record().HostConfig.NetworkMode {
			if other, err = c.index.Get(mode.ConnectedContainer()); err != nil {
				return invalid("could not get container for %s: %w", mode.ConnectedContainer(), err)
			}
		}
		if other.record().HostConfig.NetworkMode.IsHost() {
			return invalid(linksConflict)
		}
		links[k] = link.Link{Container: other.id, Alias: l.Alias}.String()
	}
	h.Links = links
	return nil
}

// linkTargets describes the running containers that r links to. fault.Conflict: one does not run, and is not among them. One
// that was removed is no link any more.
func (c *starter) linkTargets(r *container.Record) ([]link.Target, error) {
	var all []link.Target
	var missing error
	for _, s := range r.HostConfig.Links {
		l, err := link.Parse(s)
		if err != nil {
			return nil, err
		}
		other, err := c.index.Get(l.Container)
		if err != nil {
			continue
		}
		o := other.record()
		ep := endpointOf(o)
		if !o.State.Status.Alive() || ep == nil {
			missing = fault.New(fault.Conflict, "Cannot link to a non running container: /%s AS /%s/%s", o.Name, r.Name, l.Alias)
			continue
		}
		all = append(all, link.Target{
			Alias: l.Alias, Name: o.Name, Hostname: o.Config.Hostname, Parent: r.Name, Address: ep.Address.Addr(),
			Ports: slices.Collect(maps.Keys(o.Config.ExposedPorts)), Env: o.Config.Env,
		})
	}
	return all, missing
}

// retellLinks writes the hosts files of those that link to a container anew, as it has a new address.
func (c *Containers) retellLinks(id string) {
	for _, i := range c.index.All() {
		r := i.record()
		if !r.State.Status.Alive() || !slices.ContainsFunc(r.HostConfig.Links, func(s string) bool { return strings.HasPrefix(s, id+":") }) {
			continue
		}
		c.logged("write the hosts file of a container that links to another", c.writeFiles(c.store.Dir(r.ID), r, endpointOf(r)))
	}
}

// shownLinks is h with its links as the field shows them.
func (c *views) shownLinks(r *container.Record) *api.HostConfig {
	if len(r.HostConfig.Links) == 0 {
		return r.HostConfig
	}
	h := *r.HostConfig
	h.Links = nil
	for _, s := range r.HostConfig.Links {
		l, err := link.Parse(s)
		if err != nil {
			continue
		}
		if other, err := c.index.Get(l.Container); err == nil {
			h.Links = append(h.Links, l.Shown(other.record().Name, r.Name))
		}
	}
	return &h
}

// Unlink takes the link that parent/alias names away: its line leaves the hosts file, the linked container stays.
func (c *Containers) Unlink(name string) error {
	parent, alias := path.Split(strings.Trim(name, "/"))
	parent = strings.Trim(parent, "/")
	if parent == "" {
		return fault.New(fault.Conflict, "Conflict, cannot remove the default link name of the container")
	}
	i, err := c.index.Get(parent)
	if err != nil {
		return fault.New(fault.NotFound, "Cannot get parent %s for link name %s", parent, name)
	}
	i.op.Lock()
	defer i.op.Unlock()
	next := i.record().Clone()
	h := *next.HostConfig
	h.Links = slices.DeleteFunc(slices.Clone(h.Links), func(s string) bool { return strings.HasSuffix(s, ":"+alias) })
	if len(h.Links) == len(next.HostConfig.Links) {
		return fault.New(fault.NotFound, "Could not find entity for %s: container %s has no such link", name, parent)
	}
	next.HostConfig = &h
	if err := c.store.Save(next); err != nil {
		return err
	}
	i.snap.Store(next)
	if ep := endpointOf(next); ep != nil && next.State.Status.Alive() {
		return c.writeFiles(c.store.Dir(i.id), next, ep)
	}
	return nil
}
