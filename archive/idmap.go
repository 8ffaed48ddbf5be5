package archive

import (
	"berth/fault"
)

// IDRange is a run of ids of a user namespace and what they are outside of it (user_namespaces(7), uid_map).
type IDRange struct {
	Container uint32 // the first inside
	Host      uint32 // the first outside
	Size      uint32
}

// IDMap says which ids of the host stand for those of a container. The zero IDMap is identity.
type IDMap struct {
	UIDs, GIDs []IDRange
}

// Overflow is what the kernel shows for an id that a map does not have (overflowuid in proc_sys_kernel(5)).
const Overflow = 65534

// AllIDs is the size of the range that a process outside of all user namespaces has (user_namespaces(7)).
const AllIDs = 1<<32 - 1

// Empty tells whether the map is the identity.
func (m IDMap) Empty() bool { return len(m.UIDs) == 0 && len(m.GIDs) == 0 }

// ToHost gives the host's ids for the container's; fault.Invalid for one that the map does not have.
func (m IDMap) ToHost(uid, gid uint32) (hostUID, hostGID uint32, err error) {
	u, knowsUID := shift(m.UIDs, uid, IDRange.inside)
	g, knowsGID := shift(m.GIDs, gid, IDRange.inside)
	if !knowsUID || !knowsGID {
		return 0, 0, fault.New(fault.Invalid, "owner %d:%d is outside of the ids that the container has: give it more by --userns auto:size=N, or a longer range in /etc/subuid and /etc/subgid", uid, gid)
	}
	return u, g, nil
}

// ToContainer gives the container's ids for the host's, Overflow for one that the map does not have.
func (m IDMap) ToContainer(uid, gid uint32) (containerUID, containerGID uint32) {
	u, knowsUID := shift(m.UIDs, uid, IDRange.outside)
	g, knowsGID := shift(m.GIDs, gid, IDRange.outside)
	if !knowsUID {
		u = Overflow
	}
	if !knowsGID {
		g = Overflow
	}
	return u, g
}

// inside gives where a range begins inside and outside, outside the reverse.
func (r IDRange) inside() (from, to uint32)  { return r.Container, r.Host }
func (r IDRange) outside() (from, to uint32) { return r.Host, r.Container }

// shift maps id by the range that has it; without ranges every id is its own.
func shift(ranges []IDRange, id uint32, ends func(IDRange) (from, to uint32)) (uint32, bool) {
	for _, r := range ranges {
		if from, to := ends(r); id >= from && id-from < r.Size {
			return to + (id - from), true
		}
	}
	return id, len(ranges) == 0
}
