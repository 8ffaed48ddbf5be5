package build

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"berth/image"
	"berth/internal/record"
)

// Cache remembers what steps made. It keeps the layers from being freed as long as it has them.
//
//	DIR/KEY.json   an entry
//	DIR/uses       when entries were of use
type Cache struct {
	dir    string
	images *image.Store
	draft  *image.Draft // under mu
	uses   uses         // under mu

	trees sync.Map // by treePart: the digest of what is there

	mu      sync.Mutex
	entries map[string]*entry
	latest  map[string]*entry // by place
}

// entry is a step's result. A layer without a DiffID says that it changed nothing.
type entry struct {
	Place string
	Parts map[string]string
	Below []image.Layer
	Layer image.Layer
	Made  time.Time
	Used  time.Time
	Uses  int

	hash string
}

// OpenCache reads the cache in dir, made when missing, and forgets what lost its layers. The caller closes it.
func OpenCache(dir string, images *image.Store) (*Cache, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the build cache: %w", err)
	}
	if err := record.Sweep(dir); err != nil {
		return nil, fmt.Errorf("open the build cache: %w", err)
	}
	c := &Cache{dir: dir, images: images, draft: images.Draft(), entries: map[string]*entry{}, latest: map[string]*entry{}}
	if err := c.read(); err != nil {
		c.draft.Release()
		return nil, fmt.Errorf("open the build cache: %w", err)
	}
	c.uses.path = filepath.Join(dir, "uses")
	if err := c.uses.open(c.entries); err != nil {
		c.draft.Release()
		return nil, err
	}
	return c, nil
}

// read takes in what is on disk. An entry that can't be trusted goes: one that was torn by a power cut is no JSON or has another hash, and its layers
// are dropped by their own store when they may have been torn with it.
func (c *Cache) read() error {
	names, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	var all errgroup.Group
	all.SetLimit(runtime.GOMAXPROCS(0))
	for _, n := range names {
		hash, ok := strings.CutSuffix(n.Name(), ".json")
		if !ok {
			continue
		}
		all.Go(func() error {
			e := &entry{hash: hash}
			if record.Load(c.path(hash), e) != nil || e.key() != hash || !c.hold(e) {
				return os.Remove(c.path(hash))
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			c.add(e)
			return nil
		})
	}
	return all.Wait()
}

// hold keeps the layers of an entry, and tells whether all are here.
func (c *Cache) hold(e *entry) bool {
	layers := e.layers()
	return c.draft.Hold(layers) == len(layers)
}

// key is what the entry should be called.
func (e *entry) key() string { return (&key{parts: e.Parts}).hash() }

func (c *Cache) path(hash string) string { return filepath.Join(c.dir, hash+".json") }

func (e *entry) layers() []image.Layer {
	if e.Layer.DiffID == "" {
		return e.Below
	}
	return append(slices.Clone(e.Below), e.Layer)
}

func (c *Cache) add(e *entry) {
	c.entries[e.hash] = e
	if l := c.latest[e.Place]; l == nil || e.Made.After(l.Made) {
		c.latest[e.Place] = e
	}
}

// find gives the layers after a step whose result is here, and when it was made; draft then holds them too.
func (c *Cache) find(k *key, below []image.Layer, draft *image.Draft) ([]image.Layer, time.Time, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[k.hash()]
	if e == nil {
		return nil, time.Time{}, false
	}
	layers := below
	if e.Layer.DiffID != "" {
		layers = append(below[:len(below):len(below)], e.Layer)
	}
	if draft.Hold(layers) < len(layers) { // damaged, or removed by force
		return nil, time.Time{}, false
	}
	e.Used = time.Now().UTC()
	e.Uses++
	c.uses.add(e)
	e.Place = k.place
	c.latest[k.place] = e
	return layers, e.Made, true
}

// keep remembers a step's result. A power cut may lose it.
func (c *Cache) keep(k *key, below []image.Layer, l image.Layer, now time.Time) error {
	e := &entry{Place: k.place, Parts: k.parts, Below: below, Layer: l, Made: now, Used: now, hash: k.hash()}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.draft.Hold(e.layers())
	if err := record.Put(c.path(e.hash), e); err != nil {
		return fmt.Errorf("remember a step's result: %w", err)
	}
	c.add(e)
	return nil
}

// Entry is what the cache has of one step, for people and those who count bytes.
type Entry struct {
	ID    string
	Place string
	Base  digest.Digest // chain that it began with
	Chain digest.Digest // of its layer; "" when it changed nothing
	Blob  digest.Digest
	Made  time.Time
	Used  time.Time
	Uses  int
}

// Entries lists all.
func (c *Cache) Entries() (all []Entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.entries {
		one := Entry{ID: e.hash, Place: e.Place, Base: chain(e.Below), Made: e.Made, Used: e.Used, Uses: e.Uses}
		if e.Layer.DiffID != "" {
			one.Chain, one.Blob = chain(e.layers()), e.Layer.Desc.Digest
		}
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b Entry) int { return strings.Compare(a.ID, b.ID) })
	return all
}

// Remove forgets entries; their layers go with the next sweep of the images unless something else has them.
func (c *Cache) Remove(ids []string) error {
	c.trees.Clear() // of layers that may go with the entries
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range ids {
		e := c.entries[id]
		if e == nil {
			continue
		}
		if err := os.Remove(c.path(id)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("forget a step's result: %w", err)
		}
		delete(c.entries, id)
		if c.latest[e.Place] == e {
			delete(c.latest, e.Place)
		}
	}
	kept := c.images.Draft()
	for _, e := range c.entries {
		kept.Hold(e.layers())
	}
	c.draft.Release()
	c.draft = kept
	return nil
}

// Close lets go of what the cache has.
func (c *Cache) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.draft.Release()
	return c.uses.f.Close()
}
