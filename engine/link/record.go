package link

import (
	"maps"
	"slices"
	"strings"

	"berth/container"
	"berth/fault"
	"berth/network"

	api "github.com/moby/moby/api/types/container"
)

// Find looks a container up by name or ID, with what it holds of networks; nil where that is nothing.
type Find func(ref string) (*container.Record, *network.Attachment, error)

// conflict is what a mode without a network of one's own makes of links.
const conflict = "conflicting options: host type networking can't be used with links. This would result in undefined behavior"

// Settle notes the containers that a new one links to by ID, so that a later rename changes nothing.
func Settle(h *api.HostConfig, find Find) error {
	if len(h.Links) == 0 {
		return nil
	}
	if h.NetworkMode.IsHost() || h.NetworkMode.IsNone() {
		return fault.New(fault.Invalid, conflict)
	}
	links := make([]string, len(h.Links))
	for k, s := range h.Links {
		l, err := Parse(s)
		if err != nil {
			return err
		}
		other, _, err := find(l.Container)
		if err == nil && other.HostConfig.NetworkMode.IsContainer() {
			other, _, err = find(other.HostConfig.NetworkMode.ConnectedContainer())
		}
		if err != nil {
			return fault.New(fault.Invalid, "could not get container for %s: %w", l.Container, err)
		}
		if other.HostConfig.NetworkMode.IsHost() {
			return fault.New(fault.Invalid, conflict)
		}
		links[k] = Link{Container: other.ID, Alias: l.Alias}.String()
	}
	h.Links = links
	return nil
}

// Targets describes the running containers that r links to. fault.Conflict: one does not run, and is not among them. One
// that was removed is no link any more.
func Targets(r *container.Record, find Find) (all []Target, missing error) {
	if r.HostConfig.NetworkMode.IsUserDefined() {
		return nil, nil // there, a link is an alias for the name server (package engine/resolver)
	}
	for _, s := range r.HostConfig.Links {
		l, err := Parse(s)
		if err != nil {
			return nil, err
		}
		o, held, err := find(l.Container)
		if err != nil {
			continue
		}
		if !o.State.Status.Alive() || held == nil || held.Way(false) == nil {
			missing = fault.New(fault.Conflict, "Cannot link to a non running container: /%s AS /%s/%s", o.Name, r.Name, l.Alias)
			continue
		}
		all = append(all, Target{
			Alias: l.Alias, Name: o.Name, Hostname: o.Config.Hostname, Parent: r.Name, Address: held.Way(false).Address.Addr(),
			Ports: slices.Collect(maps.Keys(o.Config.ExposedPorts)), Env: o.Config.Env,
		})
	}
	return all, missing
}

// Shown is r's HostConfig with links as the field shows them.
func Shown(r *container.Record, find Find) *api.HostConfig {
	if len(r.HostConfig.Links) == 0 {
		return r.HostConfig
	}
	h := *r.HostConfig
	h.Links = nil
	for _, s := range r.HostConfig.Links {
		if l, err := Parse(s); err == nil {
			if other, _, err := find(l.Container); err == nil {
				h.Links = append(h.Links, l.Shown(other.Name, r.Name))
			}
		}
	}
	return &h
}

// To tells whether h links to the container with this ID.
func To(h *api.HostConfig, id string) bool {
	return slices.ContainsFunc(h.Links, func(s string) bool { return strings.HasPrefix(s, id+":") })
}

// Without is h without the link called alias; ok is false when there is none.
func Without(h *api.HostConfig, alias string) (less *api.HostConfig, ok bool) {
	less = new(*h)
	less.Links = slices.DeleteFunc(slices.Clone(h.Links), func(s string) bool { return strings.HasSuffix(s, ":"+alias) })
	return less, len(less.Links) < len(h.Links)
}
