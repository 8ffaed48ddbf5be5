package disk

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Collection is how the build cache is kept small; the zero value is as good as the machine suggests.
type Collection struct {
	Off      bool
	Budget   Budget
	Policies []CachePrune // instead of those that follow from the budget
}

// Collector begins to keep the build cache small. The caller closes it.
func (s *Service) Collector(o Collection, log *slog.Logger) (*Collector, error) {
	c := &Collector{disk: s, log: log, every: time.Minute}
	if o.Off {
		return c, nil
	}
	if c.policies = o.Policies; len(c.policies) == 0 {
		_, size, err := s.Blobs.Disk()
		if err != nil {
			return nil, err
		}
		c.policies = policies(o.Budget, size)
	}
	return c, nil
}

// Collector prunes the build cache by policies after builds, once a minute at most.
type Collector struct {
	policies []CachePrune // the first is applied first; none: nothing is collected
	every    time.Duration
	disk     *Service
	log      *slog.Logger

	mu     sync.Mutex
	last   time.Time
	again  *time.Timer // a build ended meanwhile
	busy   sync.WaitGroup
	closed bool
}

// Ended says that a build has ended. It returns at once.
func (c *Collector) Ended() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || len(c.policies) == 0 || c.again != nil {
		return
	}
	c.busy.Add(1)
	c.again = time.AfterFunc(max(0, c.every-time.Since(c.last)), c.collect)
}

func (c *Collector) collect() {
	defer c.busy.Done()
	c.mu.Lock()
	c.again, c.last = nil, time.Now()
	c.mu.Unlock()
	for _, p := range c.policies {
		r, err := c.disk.PruneBuildCache(context.Background(), p)
		if err != nil {
			c.log.Warn("the build cache is not collected", "error", err)
			return
		}
		if len(r.CachesDeleted) > 0 {
			c.log.Info("build cache collected", "records", len(r.CachesDeleted), "bytes", r.SpaceReclaimed)
		}
	}
}

// Close waits for a collection under way; there is none afterwards.
func (c *Collector) Close() error {
	c.mu.Lock()
	c.closed = true
	if c.again != nil && c.again.Stop() {
		c.busy.Done()
	}
	c.mu.Unlock()
	c.busy.Wait()
	return nil
}

// The kinds of records that are made again with little effort.
var cheap = []string{"source.local", "exec.cachemount", "source.git.checkout"}

// Of the policies that a machine without a configuration has.
const (
	cheapBytes  = 512 << 20
	cheapUnused = 48 * time.Hour
	staleUnused = 60 * 24 * time.Hour
)

// Budget is what the build cache may take, in bytes; 0 is what the disk's size suggests.
type Budget struct{ Reserved, MaxUsed, MinFree int64 }

// policies are those of a budget, for a disk of that many bytes: what is made again easily goes first, then what was of no use for long,
// then what no image has, and at last all. Without a budget a tenth of the disk is reserved, four fifths may be used and a fifth stays free.
func policies(b Budget, size int64) []CachePrune {
	if b == (Budget{}) {
		b = Budget{Reserved: size / 10, MaxUsed: size / 5 * 4, MinFree: size / 5}
	}
	bounded := CachePrune{Reserved: b.Reserved, MaxUsed: b.MaxUsed, MinFree: b.MinFree}
	stale, all := bounded, bounded
	stale.Unused, all.All = staleUnused, true
	return []CachePrune{{Types: cheap, Unused: cheapUnused, MaxUsed: min(cheapBytes, max(b.Reserved, 1))}, stale, bounded, all}
}
