// Package userns decides which ids of the host a container in a user namespace gets.
//
// It makes no namespace and keeps nothing: what is in use follows from the containers' records, so nothing can leak
// over a crash. Invariant: ranges that it hands out overlap neither each other nor what /etc/subuid and /etc/subgid
// give to somebody else.
package userns

import (
	"slices"
	"strconv"
	"strings"

	"berth/container"
	"berth/fault"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Mode is --userns, read.
type Mode struct {
	Host bool   // the host's user namespace, whatever the daemon's default
	Auto bool   // a range of its own
	Size uint32 // of it, in ids; 0: DefaultSize
}

// DefaultSize is how many ids an automatic range has: what /etc/subuid gives to a user, too.
const DefaultSize = 65536

// Parse reads "", "host", "auto" and "auto:size=N".
func Parse(mode string) (m Mode, err error) {
	word, options, given := strings.Cut(mode, ":")
	switch {
	case mode == "":
		return m, nil
	case mode == "host":
		return Mode{Host: true}, nil
	case word != "auto" || given && options == "":
		return m, fault.New(fault.Invalid, "invalid userns mode: %s", mode)
	}
	m.Auto = true
	for option := range strings.SplitSeq(options, ",") {
		key, value, _ := strings.Cut(option, "=")
		switch key {
		case "":
		case "size":
			n, err := strconv.ParseUint(value, 10, 32)
			if err != nil || n == 0 || n > maxSize {
				return m, fault.New(fault.Invalid, "invalid userns mode: %s: the size is a number of ids from 1 to %d", mode, maxSize)
			}
			m.Size = uint32(n)
		default:
			return m, fault.New(fault.Invalid, "invalid userns mode: %s: the only option of auto is size=N", mode)
		}
	}
	return m, nil
}

// Range is a run of ids of the host.
type Range struct{ First, Size uint32 }

func (r Range) end() uint64 { return uint64(r.First) + uint64(r.Size) }

// The ids that automatic ranges come from when nobody set any aside: nothing hands these out by itself (they lie above what
// login.defs(5) gives to users by SUB_UID_MAX and systemd to its containers, and below 2³¹, where old programs see negative numbers).
const (
	poolFirst = 0x70000000
	maxSize   = 0x10000000
)

// PoolUser is whose lines in /etc/subuid and /etc/subgid say where automatic ranges come from.
const PoolUser = "containers"

// Pool lists the ids that automatic ranges come from: those of PoolUser that are the same in both files, or
// else our own region without what the files give to others.
func Pool(f Files) []Range {
	uids, gids := f.ranges(PoolUser, f.SubUIDs), f.ranges(PoolUser, f.SubGIDs)
	if len(uids) > 0 && len(gids) > 0 {
		var both []Range
		for _, u := range uids {
			for _, g := range gids {
				if r, ok := overlap(u, g); ok {
					both = append(both, r)
				}
			}
		}
		return both
	}
	return free([]Range{{poolFirst, maxSize}}, append(f.all(f.SubUIDs), f.all(f.SubGIDs)...))
}

func overlap(a, b Range) (Range, bool) {
	first, end := max(a.First, b.First), min(a.end(), b.end())
	if uint64(first) >= end {
		return Range{}, false
	}
	return Range{first, uint32(end - uint64(first))}, true
}

// free takes used out of pool.
func free(pool, used []Range) []Range {
	left := slices.Clone(pool)
	for _, u := range used {
		var next []Range
		for _, r := range left {
			cut, hit := overlap(r, u)
			if !hit {
				next = append(next, r)
				continue
			}
			if cut.First > r.First {
				next = append(next, Range{r.First, cut.First - r.First})
			}
			if cut.end() < r.end() {
				next = append(next, Range{uint32(cut.end()), uint32(r.end() - cut.end())})
			}
		}
		left = next
	}
	slices.SortFunc(left, func(a, b Range) int { return int(int64(a.First) - int64(b.First)) })
	return left
}

// Allocate finds a range of that many ids in the pool that none of the containers has. fault.Unavailable: there is none.
func Allocate(pool []Range, size uint32, taken []container.IDs) (container.IDs, error) {
	if size == 0 {
		size = DefaultSize
	}
	var used []Range
	for _, t := range taken {
		for _, m := range slices.Concat(t.UIDs, t.GIDs) {
			used = append(used, Range{m.HostID, m.Size})
		}
	}
	for _, r := range free(pool, used) {
		if r.Size >= size {
			ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: r.First, Size: size}}
			return container.IDs{UIDs: ids, GIDs: ids}, nil
		}
	}
	return container.IDs{}, fault.New(fault.Unavailable, "no %d ids in a row are left for a user namespace of its own (%d containers have some): "+
		"remove containers, ask for fewer by --userns auto:size=N, or give user %s longer ranges in /etc/subuid and /etc/subgid", size, len(taken), PoolUser)
}

// Shared gives the ids of containers whose namespaces are joined: all must have the same, as only root of the user
// namespace that owns a namespace may change it.
func Shared(names []string, ids []container.IDs) (container.IDs, error) {
	for i := 1; i < len(ids); i++ {
		if !ids[i].Equal(ids[0]) {
			return container.IDs{}, fault.New(fault.Invalid, "containers %s and %s are in different user namespaces: namespaces of both can't be joined", names[0], names[i])
		}
	}
	if len(ids) == 0 {
		return container.IDs{}, nil
	}
	return ids[0], nil
}
