package disk

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"berth/build"
	"berth/engine/images"
	"berth/image"
	"berth/union"
	"berth/volume"

	"github.com/moby/moby/api/types/container"
	wire "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/system"
	volumes "github.com/moby/moby/api/types/volume"
	"github.com/opencontainers/go-digest"
)

// Usage is what takes the data root's space. All sizes are allocated bytes as du(1) counts them.
type Usage struct {
	system.DiskUsage
	Other *Other `json:"Other,omitempty"`
}

// Other is what lies in the data root beside the API's four kinds; with them it is all that there is.
type Other struct {
	DataRoot    string
	TotalSize   int64 // of the kinds below
	Reclaimable int64
	Items       []OtherItem
}

// OtherItem is one kind of it.
type OtherItem struct {
	Name        string
	Count       int64
	Size        int64
	Reclaimable int64 // by a prune of images or a repair
}

// Want selects what is measured.
type Want struct {
	Images, Containers, Volumes, BuildCache, Other bool
}

// Usage measures what is wanted, with all items. Calls at the same time share one run; nobody may change what they get.
func (s *Service) Usage(ctx context.Context, w Want) (*Usage, error) {
	run := s.runs.DoChan(fmt.Sprint(w), func() (any, error) { return s.measure(context.WithoutCancel(ctx), w) })
	select {
	case r := <-run:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.(*Usage), nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// census is one look at all there is.
type census struct {
	s          *Service
	containers []Container
	layers     map[digest.Digest]layerSize
	blobs      map[digest.Digest]int64 // allocated bytes
	holdings   []image.Holding
	claimed    map[digest.Digest]bool // by operations under way
	entries    []build.Entry          // of the build cache
	kept       map[string][]Kept      // for builds, by type, after lookKept
	ofImages   map[digest.Digest]bool // made by held
	standing   map[digest.Digest]bool // layers below containers
	counted    map[string]bool        // paths that are in some figure
}

func (s *Service) look() (*census, error) {
	c := &census{s: s, containers: s.Containers(), blobs: map[digest.Digest]int64{}, counted: map[string]bool{}}
	var err error
	if c.layers, err = s.layerSizes(); err != nil {
		return nil, err
	}
	files, err := s.Blobs.Files()
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		c.blobs[f.Digest] = f.Disk
		c.counted[f.Path] = true
	}
	for chain := range c.layers {
		c.counted[s.inventory().Dir(chain)] = true
	}
	for _, dir := range s.inventory().Apart() {
		c.counted[dir] = true
	}
	c.holdings, c.claimed = image.Holdings(s.store())
	c.entries = s.Cache()
	c.standing, err = s.standing(nil)
	return c, err
}

// standing are the layers below roots, except for those of the roots named.
func (s *Service) standing(except map[string]bool) (map[digest.Digest]bool, error) {
	places, err := s.inventory().Places()
	if err != nil {
		return nil, err
	}
	layers, err := s.Layers.Layers()
	if err != nil {
		return nil, err
	}
	parent := map[digest.Digest]digest.Digest{}
	for _, l := range layers {
		parent[l.Chain] = l.Parent
	}
	all := map[digest.Digest]bool{}
	for _, p := range places {
		if p.Kind != union.RootPlace || except[p.Name] {
			continue
		}
		for chain := p.Below(); chain != "" && !all[chain]; chain = parent[chain] {
			all[chain] = true
		}
	}
	return all, nil
}

// size is what a blob or a layer takes.
func (c *census) size(d digest.Digest) int64 { return c.blobs[d] + c.layers[d].Disk }

// each calls fn for all blobs and layers that are here.
func (c *census) each(fn func(d digest.Digest)) {
	for d := range c.blobs {
		fn(d)
	}
	for d := range c.layers {
		if _, both := c.blobs[d]; !both { // an uncompressed layer's blob and its chain may have one name
			fn(d)
		}
	}
}

// content are the blobs and layers of a holding.
func content(h image.Holding) map[digest.Digest]bool {
	all := map[digest.Digest]bool{}
	for d := range h.Blobs {
		all[d] = true
	}
	for d := range h.Chains {
		all[d] = true
	}
	return all
}

func (s *Service) measure(ctx context.Context, w Want) (*Usage, error) {
	c, err := s.look()
	if err != nil {
		return nil, err
	}
	u := &Usage{}
	if w.Images || w.Other {
		if u.ImageUsage, err = c.images(); err != nil {
			return nil, err
		}
	}
	if w.Containers || w.Other {
		if u.ContainerUsage, err = c.containersUsage(ctx); err != nil {
			return nil, err
		}
	}
	if w.Volumes || w.Other {
		if u.VolumeUsage, err = c.volumes(); err != nil {
			return nil, err
		}
	}
	if w.BuildCache || w.Other {
		if err := c.lookKept(); err != nil {
			return nil, err
		}
	}
	if w.BuildCache {
		u.BuildCacheUsage = c.cache()
	}
	if w.Other {
		if u.Other, err = c.other(); err != nil {
			return nil, err
		}
	}
	if !w.Images {
		u.ImageUsage = nil
	}
	if !w.Containers {
		u.ContainerUsage = nil
	}
	if !w.Volumes {
		u.VolumeUsage = nil
	}
	return u, nil
}

func (c *census) images() (*wire.DiskUsage, error) {
	used := map[digest.Digest]int64{}
	for _, one := range c.containers {
		used[one.Image]++
	}
	holders := map[digest.Digest]int{}
	active := map[digest.Digest]bool{}
	byID := map[digest.Digest]image.Holding{}
	for _, h := range c.holdings {
		byID[h.ID] = h
		for d := range content(h) {
			holders[d]++
			active[d] = active[d] || used[h.ID] > 0
		}
	}
	u := &wire.DiskUsage{Items: []wire.Summary{}}
	for d := range holders {
		u.TotalSize += c.size(d)
		if !active[d] {
			u.Reclaimable += c.size(d)
		}
	}
	list, err := c.s.Images.List(images.ListRequest{})
	if err != nil {
		return nil, err
	}
	for _, one := range list {
		id := digest.Digest(one.ID)
		one.Size, one.SharedSize, one.Containers = 0, 0, used[id]
		for d := range content(byID[id]) {
			one.Size += c.size(d)
			if holders[d] > 1 {
				one.SharedSize += c.size(d)
			}
		}
		u.TotalCount++
		if one.Containers > 0 {
			u.ActiveCount++
		}
		u.Items = append(u.Items, one)
	}
	return u, nil
}

func (c *census) containersUsage(ctx context.Context) (*container.DiskUsage, error) {
	list, err := c.s.Summaries(ctx)
	if err != nil {
		return nil, err
	}
	alive := map[string]bool{}
	for _, one := range c.containers {
		alive[one.ID] = one.Alive
	}
	u := &container.DiskUsage{Items: []container.Summary{}, TotalCount: int64(len(list))}
	for _, one := range list {
		if root, err := c.s.Layers.Open(one.ID); err == nil {
			if space, err := root.Written(); err == nil {
				one.SizeRw = space.Content()
				if root.Stacked != nil {
					c.counted[root.Stacked.Upper] = true
				}
			}
		}
		one.SizeRootFs, one.ImageManifestDescriptor = one.SizeRw, nil // that is the list's alone
		if img, err := c.s.store().Get(one.ImageID); err == nil {
			one.SizeRootFs += img.Unpacked
		}
		u.TotalSize += one.SizeRw
		if alive[one.ID] {
			u.ActiveCount++
		} else {
			u.Reclaimable += one.SizeRw
		}
		u.Items = append(u.Items, one)
	}
	return u, nil
}

// users counts the containers of each volume.
func users(list []Container) map[string]int64 {
	n := map[string]int64{}
	for _, c := range list {
		for _, v := range c.Volumes {
			n[v]++
		}
	}
	return n
}

func (c *census) volumes() (*volumes.DiskUsage, error) {
	list, _ := c.s.Volumes.List() // those whose record can't be read count among the other things
	used := users(c.containers)
	u := &volumes.DiskUsage{Items: []volumes.Volume{}}
	for _, v := range list {
		one := c.s.Describe(v)
		size, err := c.volume(v)
		if err != nil {
			continue // it goes just now
		}
		told := size
		if v.Away() { // what is in it takes none of our space
			told = -1
		}
		one.UsageData = &volumes.UsageData{RefCount: used[v.Name], Size: told}
		u.TotalCount++
		u.TotalSize += size
		if used[v.Name] > 0 {
			u.ActiveCount++
		} else {
			u.Reclaimable += size
		}
		u.Items = append(u.Items, one)
	}
	return u, nil
}

func (c *census) volume(v *volume.Volume) (int64, error) {
	space, err := union.Measure(v.Path, nil)
	if err == nil {
		c.counted[v.Path] = true
	}
	return space.Content(), err
}

// other measures what is in none of the figures above.
func (c *census) other() (*Other, error) {
	o := &Other{DataRoot: c.s.Root}
	o.Items = append(o.Items, c.leftovers()...)
	logs, err := c.logs()
	if err != nil {
		return nil, err
	}
	downloads := OtherItem{Name: "Downloads"}
	partials, err := c.s.Blobs.Partials()
	if err != nil {
		return nil, err
	}
	for _, f := range partials {
		downloads.Count++
		downloads.Size += f.Disk
		c.counted[f.Path] = true
	}
	events, err := c.tree("Events", filepath.Join(c.s.Root, "events"))
	if err != nil {
		return nil, err
	}
	snapshots, err := c.snapshots()
	if err != nil {
		return nil, err
	}
	o.Items = append(o.Items, logs, downloads, events, snapshots)
	places, err := c.places()
	if err != nil {
		return nil, err
	}
	o.Items = append(o.Items, places...)
	// Directories stand where something in them was counted: all of those is here.
	rest, err := union.Measure(c.s.Root, func(path string) bool { return c.counted[path] })
	if err != nil {
		return nil, err
	}
	records := OtherItem{Name: "Records", Count: rest.Files, Size: rest.Disk}
	for path, top := range c.tops() {
		if c.counted[path] {
			records.Size += top
		}
	}
	o.Items = append(o.Items, records)
	for _, one := range o.Items {
		o.TotalSize += one.Size
		o.Reclaimable += one.Reclaimable
	}
	return o, nil
}

// tops are the directories whose content was counted without them.
func (c *census) tops() map[string]int64 {
	all := map[string]int64{}
	for path := range c.counted {
		base := filepath.Base(path)
		if base != "diff" && base != "_data" || filepath.Base(filepath.Dir(filepath.Dir(path))) == "snapshots" {
			continue
		}
		if info, err := os.Lstat(path); err == nil {
			all[path] = allocated(info)
		}
	}
	return all
}

// leftovers are the content that no image has: of containers whose image is gone, of operations under way, and of nobody.
func (c *census) leftovers() []OtherItem {
	held := c.held()
	standing, under, nobody := OtherItem{Name: "Layers of containers only"}, OtherItem{Name: "Content under way"}, OtherItem{Name: "Unreferenced content"}
	builds := cached(c.entries)
	c.each(func(d digest.Digest) {
		var item *OtherItem
		switch {
		case held[d], builds[d]:
			return
		case c.standing[d]:
			item = &standing
		case c.claimed[d]:
			item = &under
		default:
			item = &nobody
			nobody.Reclaimable += c.size(d)
		}
		item.Count++
		item.Size += c.size(d)
	})
	return []OtherItem{nobody, under, standing}
}

// logs counts the files in which containers' output is kept.
func (c *census) logs() (OtherItem, error) {
	item := OtherItem{Name: "Logs"}
	for _, one := range c.containers {
		dir := c.s.Records.Dir(one.ID)
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue // it goes just now
		}
		for _, e := range entries {
			if !e.Type().IsRegular() || !strings.Contains(e.Name(), ".log") {
				continue
			}
			info, err := e.Info()
			if err != nil {
				continue
			}
			path := filepath.Join(dir, e.Name())
			item.Count++
			item.Size += allocated(info)
			c.counted[path] = true
		}
	}
	return item, nil
}

// snapshots counts those of all volumes. Blocks that they share with the volume count twice, as du has it.
func (c *census) snapshots() (OtherItem, error) {
	item := OtherItem{Name: "Volume snapshots"}
	list, _ := c.s.Volumes.List()
	for _, v := range list {
		all, _ := c.s.Volumes.Snapshots(v.Name) // one that can't be read counts as a record
		for _, one := range all {
			space, err := union.Measure(one.Path, nil)
			if err != nil {
				continue // it goes just now
			}
			item.Count++
			item.Size += space.Disk
			c.counted[one.Path] = true
		}
	}
	return item, nil
}

func (c *census) tree(name, path string) (OtherItem, error) {
	item := OtherItem{Name: name}
	space, err := union.Measure(path, nil)
	if os.IsNotExist(err) {
		return item, nil
	}
	item.Count, item.Size = space.Files, space.Disk
	c.counted[path] = true
	return item, err
}

// places measures what the layers' driver has beside layers and what containers wrote.
func (c *census) places() ([]OtherItem, error) {
	places, err := c.s.inventory().Places()
	if err != nil {
		return nil, err
	}
	prepared, trash := OtherItem{Name: "Prepared roots"}, OtherItem{Name: "Being removed"}
	for _, p := range places {
		item := &prepared
		switch p.Kind {
		case union.StagePlace, union.TrashPlace:
			item = &trash
		case union.InitPlace, union.SparePlace, union.MergedPlace:
		default:
			continue
		}
		size, err := p.Size()
		if err != nil {
			continue // it goes just now
		}
		item.Count++
		item.Size += size
		c.counted[p.Path] = true
	}
	return []OtherItem{prepared, trash}, nil
}
