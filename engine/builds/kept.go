package builds

import (
	"context"
	"errors"
	"path/filepath"
	"strings"

	"berth/build/contexts"
	"berth/build/remote"
	"berth/engine/disk"
	"berth/fault"
)

// Keepers are what is kept for builds beside their steps' results: contexts, cache mounts, and copies of what lies elsewhere, which fetched has
// in dir.
func (s *Service) Keepers(fetched *remote.Store, dir string) []disk.Keeper {
	each := func(ids []string, remove func(id string) error) (err error) {
		for _, id := range ids {
			if one := remove(id); !errors.Is(one, fault.NotFound) && !errors.Is(one, fault.Conflict) { // gone already, or in use again
				err = errors.Join(err, one)
			}
		}
		return err
	}
	elsewhere := func(kind, prefix string) disk.Keeper {
		return disk.Keeper{Type: kind, Remove: fetched.Remove,
			List: func() (all []disk.Kept, err error) {
				for _, e := range fetched.Entries() {
					if strings.HasPrefix(e.ID, prefix) {
						all = append(all, disk.Kept{ID: e.ID, Description: e.From, Made: e.Made, Used: e.Used, Uses: e.Uses, Path: filepath.Join(dir, e.ID)})
					}
				}
				return all, nil
			}}
	}
	return []disk.Keeper{
		{Type: "source.local", List: func() ([]disk.Kept, error) { return s.keptContexts(s.Contexts) },
			Remove: func(ids []string) error { return each(ids, s.Contexts.Remove) }},
		{Type: "exec.cachemount", List: s.keptCaches,
			Remove: func(ids []string) error {
				return each(ids, func(id string) error { return s.Caches.Remove(context.Background(), id) })
			}},
		elsewhere("source.git.checkout", "git/"),
		elsewhere("source.http", "http/"),
	}
}

func (s *Service) keptContexts(store *contexts.Store) (all []disk.Kept, err error) {
	list, err := store.List()
	for _, k := range list {
		all = append(all, disk.Kept{ID: k.Key, Description: "build context " + k.From, Made: k.Made, Used: k.Used, InUse: k.Busy, Path: filepath.Join(s.Dir, k.Key)})
	}
	return all, err
}

func (s *Service) keptCaches() (all []disk.Kept, err error) {
	list, err := s.Caches.List(context.Background())
	for _, k := range list {
		all = append(all, disk.Kept{ID: k.Volume, Description: "cached mount " + k.ID, Made: k.Made, Used: k.Used, Uses: k.Uses, Size: k.Size, InUse: k.InUse})
	}
	return all, err
}
