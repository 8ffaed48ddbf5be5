package builds

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"berth/build"
	"berth/engine/volumes"
	"berth/fault"
	"berth/internal/record"
	"berth/volume"

	wire "github.com/moby/moby/api/types/volume"
)

// CacheLabel is the label of a volume that is a build's cache; its value is the cache's id as Dockerfiles have it.
const CacheLabel = "berth.build.cache"

// Caches are the directories that RUN --mount=type=cache keeps. Each is a volume, and while a step has it, it can't be removed. The exported
// fields are set once.
//
//	DIR/VOLUME.json   when the cache was used
type Caches struct {
	Volumes *volumes.Service
	Dir     string

	mu    sync.Mutex
	taken map[string]*taken
	given chan struct{} // closed when a cache is given back; nil: nobody waits
}

// taken is a cache that steps have.
type taken struct {
	users int
	alone bool
}

// cacheUse is what is remembered of a cache.
type cacheUse struct {
	Used time.Time
	Uses int
}

// KeptCache is a cache for people, and for those who count bytes.
type KeptCache struct {
	Volume string
	ID     string // as Dockerfiles have it
	Made   time.Time
	Used   time.Time
	Uses   int
	Size   int64 // bytes of its files
	InUse  bool
}

var unfit = regexp.MustCompile(`[^a-zA-Z0-9_.-]+`)

// volumeOf is the name of the volume that a cache is: the id's words for people, and a digest for those ids whose words are the same.
func volumeOf(c build.CacheMount) string {
	all := fmt.Appendf(nil, "%s\n%s\n%o %d %d", c.ID, c.Begin, c.Mode, c.UID, c.GID)
	if !c.Shift.Empty() {
		all = fmt.Append(all, c.Shift)
	}
	sum := sha256.Sum256(all)
	words := strings.Trim(unfit.ReplaceAllString(c.ID, "-"), "-.")
	if len(words) > 60 {
		words = words[:60]
	}
	return strings.TrimSuffix("buildcache-"+words, "-") + "-" + hex.EncodeToString(sum[:4])
}

// Take gives the volumes of a step's caches, made where they are missing; see build.Builder. They are taken in an order that is the same for all
// steps, so that no two wait for each other.
func (c *Caches) Take(ctx context.Context, user string, all []build.CacheMount, waiting func(build.CacheMount)) (names []string, give func() error, err error) {
	names = make([]string, len(all))
	order := make([]int, len(all))
	for k := range all {
		order[k] = k
	}
	slices.SortStableFunc(order, func(a, b int) int { return strings.Compare(volumeOf(all[a]), volumeOf(all[b])) })
	mine := map[string]string{} // by the cache's name: the volume
	user = volumes.OfBuild + user
	give = func() error {
		c.Volumes.Settle(user)
		var err error
		for _, name := range mine {
			err = errors.Join(err, c.note(name))
			c.free(name)
		}
		return err
	}
	for _, k := range order {
		base := volumeOf(all[k])
		if mine[base] == "" {
			name, err := c.one(ctx, base, all, k, waiting)
			if err != nil {
				return nil, nil, errors.Join(err, give())
			}
			mine[base] = name
			c.contents().Keep(name, user)
			if err := c.make(name, all[k]); err != nil {
				return nil, nil, errors.Join(fmt.Errorf("make the cache %s: %w", all[k].ID, err), give())
			}
		}
		names[k] = mine[base]
	}
	return names, give, nil
}

// one takes the cache base for the mount k, and for all others of the step that are the same.
func (c *Caches) one(ctx context.Context, base string, all []build.CacheMount, k int, waiting func(build.CacheMount)) (string, error) {
	sharing := "shared"
	for _, other := range all {
		if volumeOf(other) == base && other.Sharing != "shared" && sharing != "locked" {
			sharing = other.Sharing
		}
	}
	for told := false; ; {
		name, given := c.try(base, sharing)
		if name != "" {
			return name, nil
		}
		if !told {
			waiting(all[k])
			told = true
		}
		select {
		case <-given:
		case <-ctx.Done():
			return "", fault.Wrap(fault.Canceled, ctx.Err())
		}
	}
}

// try takes a cache if it can be had now. Else given is closed when that may have changed.
func (c *Caches) try(base, sharing string) (name string, given <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.taken == nil {
		c.taken = map[string]*taken{}
	}
	name = base
	for n := 2; sharing == "private" && c.taken[name] != nil; n++ {
		name = fmt.Sprintf("%s-%d", base, n)
	}
	t := c.taken[name]
	if t == nil {
		t = &taken{alone: sharing != "shared"}
		c.taken[name] = t
	} else if t.alone || sharing == "locked" {
		if c.given == nil {
			c.given = make(chan struct{})
		}
		return "", c.given
	}
	t.users++
	return name, nil
}

func (c *Caches) free(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t := c.taken[name]; t != nil {
		if t.users--; t.users == 0 {
			delete(c.taken, name)
		}
	}
	if c.given != nil {
		close(c.given)
		c.given = nil
	}
}

// make makes the volume, with what it begins with, unless it is there.
func (c *Caches) make(name string, m build.CacheMount) error {
	v := volume.Volume{Name: name, Labels: map[string]string{CacheLabel: m.ID}}
	return c.contents().EnsureFilled(v, func(dir string) error {
		d, err := os.Open(dir)
		if err != nil {
			return err
		}
		defer d.Close()
		if m.Fill != nil {
			if err := m.Fill(d); err != nil {
				return err
			}
		}
		if m.Keep {
			return nil
		}
		uid, gid, err := m.Shift.ToHost(m.UID, m.GID)
		return errors.Join(err, d.Chown(int(uid), int(gid)), d.Chmod(m.Mode))
	})
}

func (c *Caches) path(name string) string { return filepath.Join(c.Dir, name+".json") }

func (c *Caches) contents() volumes.Contents { return volumes.Contents{Service: c.Volumes} }

// note remembers that a cache was used. A power cut may lose it.
func (c *Caches) note(name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var u cacheUse
	if err := record.Load(c.path(name), &u); err != nil && fault.Of(err) != fault.NotFound {
		u = cacheUse{}
	}
	u.Used, u.Uses = time.Now().UTC(), u.Uses+1
	return record.Put(c.path(name), &u)
}

// Open makes the records ready.
func (c *Caches) Open() error {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return fmt.Errorf("open the builds' caches: %w", err)
	}
	return record.Sweep(c.Dir)
}

// List lists all caches, by name.
func (c *Caches) List(ctx context.Context) ([]KeptCache, error) {
	found, err := c.Volumes.List(ctx, map[string][]string{"label": {CacheLabel}})
	if err != nil {
		return nil, err
	}
	var all []KeptCache
	for _, v := range found {
		one, err := c.describe(v)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}

func (c *Caches) describe(v wire.Volume) (k KeptCache, err error) {
	k = KeptCache{Volume: v.Name, ID: v.Labels[CacheLabel], InUse: len(c.Volumes.Users(v.Name)) > 0}
	k.Made, err = time.Parse(time.RFC3339, v.CreatedAt)
	if err != nil {
		return k, err
	}
	var u cacheUse
	if err := record.Load(c.path(v.Name), &u); err == nil {
		k.Used, k.Uses = u.Used, u.Uses
	} else {
		k.Used = k.Made
	}
	k.Size, err = c.Volumes.Measure(v.Mountpoint)
	return k, err
}

// Remove removes a cache by its volume's name. fault.Conflict: a step or a container has it.
func (c *Caches) Remove(ctx context.Context, name string) error {
	if err := c.Volumes.Remove(ctx, name, false); err != nil {
		return err
	}
	if err := os.Remove(c.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
