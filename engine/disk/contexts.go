package disk

import (
	"errors"

	"berth/build/contexts"
	"berth/fault"
)

// Contexts are the files that clients build from, as they are kept for their next builds.
func Contexts(s *contexts.Store) Keeper {
	return Keeper{
		Type: "source.local",
		List: func() ([]Kept, error) {
			list, err := s.List()
			var all []Kept
			for _, k := range list {
				all = append(all, Kept{ID: k.Key, Description: "build context " + k.From, Size: k.Size, Made: k.Made, Used: k.Used, InUse: k.Busy})
			}
			return all, err
		},
		Remove: func(ids []string) (err error) {
			for _, id := range ids {
				if rmErr := s.Remove(id); !errors.Is(rmErr, fault.Conflict) { // a build has taken it meanwhile
					err = errors.Join(err, rmErr)
				}
			}
			return err
		},
	}
}
