package disk

import (
	"context"
	"slices"
	"time"

	"berth/build"
	"berth/engine/journal"
	"berth/engine/request"
	"berth/fault"

	wire "github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
)

// CachePrune says what of the build cache may go.
type CachePrune struct {
	All  bool  // what images have, too
	Keep int64 // bytes that may stay, the latest used
	// Before is when a result must have been used last; zero: whenever.
	Before time.Time
	Dry    bool // tell, and remove nothing
}

// cache describes what is kept of builds. What images have too is theirs.
func (c *census) cache() *wire.DiskUsage {
	held := c.held()
	u := &wire.DiskUsage{Items: []wire.CacheRecord{}}
	seen := map[digest.Digest]bool{"": true}
	for _, e := range c.entries {
		one := wire.CacheRecord{ID: e.ID, Type: "regular", Description: e.Place, CreatedAt: e.Made, LastUsedAt: &e.Used, UsageCount: e.Uses, Shared: held[e.Chain]}
		for _, d := range slices.Compact([]digest.Digest{e.Blob, e.Chain}) {
			one.Size += c.size(d)
			if !seen[d] && !held[d] {
				seen[d] = true
				u.TotalSize += c.size(d)
			}
		}
		u.TotalCount++
		u.Items = append(u.Items, one)
	}
	u.Reclaimable = u.TotalSize
	return u
}

// held are the blobs and layers of images.
func (c *census) held() map[digest.Digest]bool {
	all := map[digest.Digest]bool{}
	for _, h := range c.holdings {
		for d := range content(h) {
			all[d] = true
		}
	}
	return all
}

// cached are the blobs and layers that the build cache has.
func cached(entries []build.Entry) map[digest.Digest]bool {
	all := map[digest.Digest]bool{}
	for _, e := range entries {
		all[e.Blob], all[e.Chain] = true, true
	}
	return all
}

// PruneBuildCache forgets results of builds, and frees what nothing else has of them.
func (s *Service) PruneBuildCache(ctx context.Context, p CachePrune) (wire.CachePruneReport, error) {
	s.pruning.Lock()
	defer s.pruning.Unlock()
	r := wire.CachePruneReport{CachesDeleted: []string{}}
	c, err := s.look()
	if err != nil {
		return r, err
	}
	entries := slices.Clone(c.entries)
	slices.SortFunc(entries, func(a, b build.Entry) int { return b.Used.Compare(a.Used) }) // the latest first
	kept := int64(0)
	held := c.held()
	before := c.cache().TotalSize
	for _, e := range entries {
		size := c.size(e.Blob) + c.size(e.Chain)
		switch {
		case held[e.Chain] && !p.All, !p.Before.IsZero() && e.Used.After(p.Before):
			continue
		case p.Keep > 0 && kept+size <= p.Keep:
			kept += size
			continue
		}
		r.CachesDeleted = append(r.CachesDeleted, e.ID)
	}
	slices.Sort(r.CachesDeleted)
	if p.Dry {
		c.entries = slices.DeleteFunc(c.entries, func(e build.Entry) bool { return slices.Contains(r.CachesDeleted, e.ID) })
		r.SpaceReclaimed = uint64(before - c.cache().TotalSize)
		return r, nil
	}
	if err := s.Forget(r.CachesDeleted); err != nil {
		return r, err
	}
	if _, err := s.store().Sweep(ctx); err != nil {
		return r, err
	}
	if c, err = s.look(); err != nil {
		return r, err
	}
	r.SpaceReclaimed = uint64(max(0, before-c.cache().TotalSize))
	s.Events.Publish(events.BuilderEventType, events.ActionPrune, "", reclaimed(r.SpaceReclaimed))
	return r, nil
}

// CacheFilters reads a prune's filters: until, or unused-for, which means the same.
func CacheFilters(f journal.Filters) (before time.Time, err error) {
	for key, values := range f {
		if key == "label" || key == "label!" {
			continue // results have none
		}
		if key != "until" && key != "unused-for" || len(values) != 1 {
			return before, fault.New(fault.Invalid, "invalid filter '%s'", key)
		}
		if before, err = request.ParseUntil(values[0], time.Now()); err != nil {
			return before, err
		}
	}
	return before, nil
}
