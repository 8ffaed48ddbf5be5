package disk

import (
	"context"
	"maps"

	"berth/engine/journal"
	"berth/image"
	"berth/union"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// PlanRequest says what a prune of everything would be allowed to take.
type PlanRequest struct {
	All     bool // images with names too
	Volumes bool // volumes that nobody named
	Filters journal.Filters
}

// Plan is all that a prune would remove, and what each removal frees in allocated bytes.
type Plan struct {
	Items          []Item
	SpaceReclaimed int64
}

// Item is one object that would go.
type Item struct {
	Kind  string   // one of the kinds below
	ID    string   // of a container, a network or an image, or a volume's name
	Names []string // a container's or network's name, an image's familiar names
	Size  int64    // what goes with it alone: what several share counts for the last of them
}

// The kinds of items.
const (
	ContainerItem = "container"
	NetworkItem   = "network"
	VolumeItem    = "volume"
	ImageItem     = "image"
	TagItem       = "tag"      // names of an image that stays
	LeftoverItem  = "leftover" // content that nobody refers to
)

// Plan tells what a prune of stopped containers, networks, volumes and images, in this order, would remove now.
func (s *Service) Plan(ctx context.Context, r PlanRequest) (*Plan, error) {
	p := &Plan{Items: []Item{}}
	s.Settle()
	report, err := s.Prune(ctx, r.Filters, true)
	if err != nil {
		return nil, err
	}
	names := map[string]string{}
	for _, c := range s.Containers() {
		names[c.ID] = c.Name
	}
	gone := map[string]bool{}
	for _, id := range report.ContainersDeleted {
		gone[id] = true
		p.Items = append(p.Items, Item{Kind: ContainerItem, ID: id, Names: []string{names[id]}, Size: s.ContainerSize(id)})
	}
	networks, err := s.Networks(r.Filters, gone)
	if err != nil {
		return nil, err
	}
	for _, n := range networks {
		p.Items = append(p.Items, Item{Kind: NetworkItem, ID: n.ID, Names: []string{n.Name}})
	}
	if r.Volumes {
		list, err := s.chooseVolumes(r.Filters, gone)
		if err != nil {
			return nil, err
		}
		for _, v := range list {
			p.Items = append(p.Items, Item{Kind: VolumeItem, ID: v.Name, Size: volumeSize(v)})
		}
	}
	f := journal.Filters{}
	maps.Copy(f, r.Filters)
	if r.All {
		f["dangling"] = []string{"false"}
	}
	choose, err := s.imageChoice(f, gone)
	if err != nil {
		return nil, err
	}
	items, err := s.planImages(choose, gone)
	if err != nil {
		return nil, err
	}
	p.Items = append(p.Items, items...)
	for _, one := range p.Items {
		p.SpaceReclaimed += one.Size
	}
	return p, nil
}

// ContainerSize is what the removal of a container frees: its directory with the log, and what it wrote.
func (s *Service) ContainerSize(id string) (sum int64) {
	if root, err := s.Layers.Open(id); err == nil {
		if bytes, err := root.Kept(); err == nil {
			sum += bytes
		}
	}
	if space, err := union.Measure(s.Records.Dir(id), nil); err == nil {
		sum += space.Disk
	}
	return sum
}

// planImages tells what the removal of the images chosen would free, gone being containers that count as removed.
func (s *Service) planImages(choose func(*image.Image) image.Choice, gone map[string]bool) ([]Item, error) {
	c, err := s.look()
	if err != nil {
		return nil, err
	}
	if c.standing, err = s.standing(gone); err != nil {
		return nil, err
	}
	list, err := s.store().List()
	if err != nil {
		return nil, err
	}
	holders := map[digest.Digest]int{}
	held := map[digest.Digest]map[digest.Digest]bool{}
	for _, h := range c.holdings {
		held[h.ID] = content(h)
		for d := range held[h.ID] {
			holders[d]++
		}
	}
	freeable := func(d digest.Digest) bool { return holders[d] == 0 && !c.claimed[d] }
	beside, err := s.beside()
	if err != nil {
		return nil, err
	}
	take := func(d digest.Digest) int64 {
		sum := c.blobs[d]
		if _, layer := c.layers[d]; layer && !c.standing[d] {
			sum += c.layers[d].Disk + beside[d]
		}
		return sum
	}
	left := Item{Kind: LeftoverItem, ID: "unreferenced content"}
	c.each(func(d digest.Digest) {
		if freeable(d) {
			left.Size += take(d)
		}
	})
	items := []Item{}
	for _, img := range list {
		choice := choose(img)
		if !choice.Whole {
			if len(choice.Names) > 0 {
				one := Item{Kind: TagItem, ID: img.ID.String()}
				for _, n := range choice.Names {
					one.Names = append(one.Names, reference.FamiliarString(n))
				}
				items = append(items, one)
			}
			continue
		}
		one := Item{Kind: ImageItem, ID: img.ID.String(), Names: img.Tags()}
		if len(one.Names) == 0 {
			one.Names = img.Digests()
		}
		for d := range held[img.ID] {
			if holders[d]--; freeable(d) {
				one.Size += take(d)
			}
		}
		items = append(items, one)
	}
	if left.Size > 0 {
		items = append(items, left)
	}
	return items, nil
}

// beside is what was made from a chain and goes with it.
func (s *Service) beside() (map[digest.Digest]int64, error) {
	places, err := s.inventory().Places()
	if err != nil {
		return nil, err
	}
	sums := map[digest.Digest]int64{}
	for _, p := range places {
		chain := p.Chain()
		switch p.Kind {
		case union.InitPlace, union.MergedPlace:
		case union.SparePlace:
			chain = p.Below()
		default:
			continue
		}
		if size, err := p.Size(); err == nil && chain != "" {
			sums[chain] += size
		}
	}
	return sums, nil
}
