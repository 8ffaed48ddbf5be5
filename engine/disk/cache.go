package disk

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"berth/build"
	"berth/engine/journal"
	"berth/engine/request"
	"berth/fault"
	"berth/union"

	wire "github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
)

// Keeper is one kind of what is kept for builds beside steps' results: contexts, cache mounts, repositories.
type Keeper struct {
	Type   string // as BuildKit calls it: source.local, exec.cachemount, source.git.checkout
	List   func() ([]Kept, error)
	Remove func(ids []string) error // of those that are not in use
}

// Kept is one of them.
type Kept struct {
	ID, Description string
	Path            string // what it takes, below the data root; "": that counts elsewhere
	Size            int64  // in bytes; measured here where there is a Path
	Made, Used      time.Time
	Uses            int
	InUse           bool
}

// stepType is what a step's result is called.
const stepType = "regular"

// CachePrune says what of the build cache may go.
type CachePrune struct {
	All      bool            // what images have, too
	Reserved int64           // bytes that stay in any case, the latest used
	MaxUsed  int64           // bytes that may stay; 0: as many as there are
	MinFree  int64           // bytes that the disk should have free
	Unused   time.Duration   // for how long it must not have been of use
	Types    []string        // none: any
	IDs      []string        // nil: any
	Filters  journal.Filters // until, unused-for, id, parent, type, description, inuse, shared, private
	Dry      bool            // tell, and remove nothing
}

// cacheRecord is something in the build cache.
type cacheRecord struct {
	wire.CacheRecord
	digests []digest.Digest // its content, of a step
	away    bool            // its size counts elsewhere
}

// cache describes what is kept of builds. What images have too is theirs.
func (c *census) cache() *wire.DiskUsage {
	u := &wire.DiskUsage{Items: []wire.CacheRecord{}}
	seen := map[digest.Digest]bool{}
	for _, r := range c.records() {
		u.Items = append(u.Items, r.CacheRecord)
		u.TotalCount++
		own := c.own(r, seen)
		u.TotalSize += own
		if r.InUse {
			u.ActiveCount++
		} else {
			u.Reclaimable += own
		}
	}
	return u
}

// lookKept looks for what is kept of builds beside steps' results.
func (c *census) lookKept() error {
	c.kept = map[string][]Kept{}
	for _, k := range c.s.Keepers {
		list, err := k.List()
		if err != nil {
			return err
		}
		for _, one := range list {
			if one.Path != "" {
				space, err := union.Measure(one.Path, nil)
				if err != nil {
					continue // it goes just now
				}
				one.Size, c.counted[one.Path] = space.Disk, true
			}
			c.kept[k.Type] = append(c.kept[k.Type], one)
		}
	}
	return nil
}

// own is what a record takes that neither images nor those seen before have.
func (c *census) own(r cacheRecord, seen map[digest.Digest]bool) (size int64) {
	if r.Type != stepType && !r.away {
		return r.Size
	}
	held := c.held()
	for _, d := range r.digests {
		if !seen[d] && !held[d] {
			seen[d] = true
			size += c.size(d)
		}
	}
	return size
}

// records lists the build cache, those used last at the end.
func (c *census) records() (all []cacheRecord) {
	held := c.held()
	made := map[digest.Digest][]string{} // by what comes of them
	for _, e := range c.entries {
		made[e.Chain] = append(made[e.Chain], e.ID)
	}
	for _, e := range c.entries {
		r := cacheRecord{CacheRecord: wire.CacheRecord{ID: e.ID, Type: stepType, Description: e.Place, CreatedAt: e.Made, LastUsedAt: &e.Used, UsageCount: e.Uses}}
		if e.Base != "" {
			r.Parents = made[e.Base]
		}
		if e.Chain != "" {
			r.digests, r.Shared = slices.Compact([]digest.Digest{e.Blob, e.Chain}), held[e.Chain]
		}
		for _, d := range r.digests {
			r.Size += c.size(d)
		}
		all = append(all, r)
	}
	for kind, list := range c.kept {
		for _, k := range list {
			all = append(all, cacheRecord{away: k.Path == "", CacheRecord: wire.CacheRecord{ID: k.ID, Type: kind, Description: k.Description, InUse: k.InUse, Size: k.Size, CreatedAt: k.Made, LastUsedAt: &k.Used, UsageCount: k.Uses}})
		}
	}
	slices.SortFunc(all, func(a, b cacheRecord) int {
		if n := a.LastUsedAt.Compare(*b.LastUsedAt); n != 0 {
			return n
		}
		return strings.Compare(a.ID, b.ID)
	})
	return all
}

// held are the blobs and layers of images.
func (c *census) held() map[digest.Digest]bool {
	if c.ofImages == nil {
		c.ofImages = map[digest.Digest]bool{}
		for _, h := range c.holdings {
			for d := range content(h) {
				c.ofImages[d] = true
			}
		}
	}
	return c.ofImages
}

// cached are the blobs and layers that the build cache has.
func cached(entries []build.Entry) map[digest.Digest]bool {
	all := map[digest.Digest]bool{}
	for _, e := range entries {
		all[e.Blob], all[e.Chain] = true, true
	}
	return all
}

// choose picks the records that go, those first that were of no use for the longest time, and tells what is freed.
func (c *census) choose(p CachePrune, free int64) (gone []cacheRecord, err error) {
	fits, err := p.fits(time.Now())
	if err != nil {
		return nil, err
	}
	total := c.cache().TotalSize
	keep := p.keep(total, free)
	all := c.records()
	needs := map[digest.Digest]int{} // how many records have it
	for _, r := range all {
		for _, d := range r.digests {
			needs[d]++
		}
	}
	held := c.held()
	for _, r := range all {
		if keep > 0 && total <= keep {
			break
		}
		if r.InUse || r.Shared && !p.All || !fits(r) {
			continue
		}
		gone = append(gone, r)
		if r.Type != stepType && !r.away {
			total -= r.Size
		}
		for _, d := range r.digests {
			if needs[d]--; needs[d] == 0 && !held[d] {
				total -= c.size(d)
			}
		}
	}
	return gone, nil
}

// keep is how many bytes may stay of total, when so many are free on the disk; 0: none need to.
func (p *CachePrune) keep(total, free int64) int64 {
	keep := p.MaxUsed
	if lacking := p.MinFree - free; p.MinFree > 0 && lacking > 0 {
		if keep == 0 || total-lacking < keep {
			keep = max(1, total-lacking)
		}
	} else if p.MinFree > 0 && keep == 0 && p.Reserved == 0 {
		return total // nothing lacks
	}
	return max(keep, p.Reserved)
}

// fits makes what tells whether a record may go, of filters that are all right.
func (p *CachePrune) fits(now time.Time) (func(cacheRecord) bool, error) {
	var all []func(cacheRecord) bool
	if p.Unused > 0 {
		all = append(all, func(r cacheRecord) bool { return r.LastUsedAt.Before(now.Add(-p.Unused)) })
	}
	if len(p.Types) > 0 {
		all = append(all, func(r cacheRecord) bool { return slices.Contains(p.Types, r.Type) })
	}
	if p.IDs != nil {
		all = append(all, func(r cacheRecord) bool { return slices.Contains(p.IDs, r.ID) })
	}
	for key, values := range p.Filters {
		if strings.HasPrefix(key, "label") {
			continue // a system prune has them for others; results have none
		}
		if len(values) > 1 {
			return nil, fault.New(fault.Invalid, "filter '%s' expects only one value", key)
		}
		one, err := cacheFilter(key, strings.Join(values, ""), now)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return func(r cacheRecord) bool {
		return !slices.ContainsFunc(all, func(fits func(cacheRecord) bool) bool { return !fits(r) })
	}, nil
}

// Check is fault.Invalid when a filter is none.
func (p *CachePrune) Check() error {
	_, err := p.fits(time.Now())
	return err
}

// cacheFilter reads one filter.
func cacheFilter(key, value string, now time.Time) (func(cacheRecord) bool, error) {
	flags := map[string]func(cacheRecord) bool{
		"inuse":   func(r cacheRecord) bool { return r.InUse },
		"shared":  func(r cacheRecord) bool { return r.Shared },
		"private": func(r cacheRecord) bool { return !r.Shared },
	}
	if is := flags[key]; is != nil {
		switch value {
		case "", "1", "true":
			return is, nil
		case "0", "false":
			return func(r cacheRecord) bool { return !is(r) }, nil
		}
		return nil, fault.New(fault.Invalid, "invalid filter '%s=%s': it is true or false", key, value)
	}
	switch key {
	case "until", "unused-for":
		before, err := request.ParseUntil(value, now)
		return func(r cacheRecord) bool { return !r.LastUsedAt.After(before) }, err
	case "id":
		id, err := regexp.Compile(value)
		if err != nil {
			return nil, fault.New(fault.Invalid, "invalid filter 'id=%s': %w", value, err)
		}
		return func(r cacheRecord) bool { return id.MatchString(r.ID) }, nil
	case "parent":
		return func(r cacheRecord) bool { return slices.Contains(r.Parents, value) }, nil
	case "type":
		return func(r cacheRecord) bool { return r.Type == value }, nil
	case "description":
		return func(r cacheRecord) bool { return r.Description == value }, nil
	}
	return nil, fault.New(fault.Invalid, "invalid filter '%s'", key)
}

// PruneBuildCache forgets what is kept of builds, and frees what nothing else has of it.
func (s *Service) PruneBuildCache(ctx context.Context, p CachePrune) (r wire.CachePruneReport, err error) {
	s.pruning.Lock()
	defer s.pruning.Unlock()
	r.CachesDeleted = []string{}
	c, err := s.look()
	if err != nil {
		return r, err
	}
	if err := c.lookKept(); err != nil {
		return r, err
	}
	free, _, err := s.Blobs.Disk()
	if err != nil {
		return r, err
	}
	gone, err := c.choose(p, free)
	if err != nil {
		return r, err
	}
	before := c.cache().TotalSize
	ids := map[string][]string{} // by type
	for _, g := range gone {
		r.CachesDeleted, ids[g.Type] = append(r.CachesDeleted, g.ID), append(ids[g.Type], g.ID)
	}
	slices.Sort(r.CachesDeleted)
	if p.Dry {
		r.SpaceReclaimed = uint64(max(0, before-c.without(ids).cache().TotalSize))
		return r, nil
	}
	if err := s.drop(ctx, ids); err != nil {
		return r, err
	}
	if c, err = s.look(); err == nil {
		err = c.lookKept()
	}
	if err != nil {
		return r, err
	}
	r.SpaceReclaimed = uint64(max(0, before-c.cache().TotalSize))
	s.Events.Publish(events.BuilderEventType, events.ActionPrune, "", reclaimed(r.SpaceReclaimed))
	return r, nil
}

// without is the census after records, by type, are gone.
func (c *census) without(ids map[string][]string) *census {
	less := *c
	less.entries = slices.DeleteFunc(slices.Clone(c.entries), func(e build.Entry) bool { return slices.Contains(ids[stepType], e.ID) })
	less.kept = map[string][]Kept{}
	for kind, list := range c.kept {
		less.kept[kind] = slices.DeleteFunc(slices.Clone(list), func(k Kept) bool { return slices.Contains(ids[kind], k.ID) })
	}
	return &less
}

// drop removes records, by type.
func (s *Service) drop(ctx context.Context, ids map[string][]string) error {
	if err := s.Forget(ids[stepType]); err != nil {
		return err
	}
	for _, k := range s.Keepers {
		if len(ids[k.Type]) == 0 {
			continue
		}
		if err := k.Remove(ids[k.Type]); err != nil {
			return fmt.Errorf("remove %s of builds: %w", k.Type, err)
		}
	}
	_, err := s.store().Sweep(ctx)
	return err
}
