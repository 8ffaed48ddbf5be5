package container

import (
	"fmt"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// IDs are the ids that a container in a user namespace of its own has on the host. The zero value is the host's
// user namespace. They are recorded with the container, so that what is free follows from the records alone.
type IDs struct {
	UIDs, GIDs []specs.LinuxIDMapping
}

// IsZero tells whether the container is in the host's user namespace.
func (i IDs) IsZero() bool { return len(i.UIDs) == 0 && len(i.GIDs) == 0 }

// Equal tells whether two containers have the same ids.
func (i IDs) Equal(o IDs) bool { return slices.Equal(i.UIDs, o.UIDs) && slices.Equal(i.GIDs, o.GIDs) }

// Joins lists the containers, by name or ID, whose namespaces the container joins.
func (r *Record) Joins() (refs []string) {
	h := r.HostConfig
	if h.NetworkMode.IsContainer() {
		refs = append(refs, h.NetworkMode.ConnectedContainer())
	}
	if h.IpcMode.IsContainer() {
		refs = append(refs, h.IpcMode.Container())
	}
	if h.PidMode.IsContainer() {
		refs = append(refs, h.PidMode.Container())
	}
	return refs
}

// Root gives the host's ids of the container's root; 0, 0 in the host's user namespace.
func (i IDs) Root() (uid, gid uint32) { return rootOf(i.UIDs), rootOf(i.GIDs) }

func rootOf(list []specs.LinuxIDMapping) uint32 {
	for _, m := range list {
		if m.ContainerID == 0 {
			return m.HostID
		}
	}
	return 0
}

// String writes the maps as /proc/PID/uid_map does, a comma between the lines; those of groups only where they differ.
func (i IDs) String() string {
	text := mapLines(i.UIDs)
	if groups := mapLines(i.GIDs); groups != text {
		text += " groups " + groups
	}
	return text
}

func mapLines(list []specs.LinuxIDMapping) string {
	var all []string
	for _, m := range list {
		all = append(all, fmt.Sprintf("%d %d %d", m.ContainerID, m.HostID, m.Size))
	}
	return strings.Join(all, ",")
}
