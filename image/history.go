package image

import (
	"slices"

	"github.com/opencontainers/go-digest"
)

// HistoryItem is one line of an image's history, the newest first.
type HistoryItem struct {
	ID        string // the image's ID on the first line, else "<missing>"
	Created   int64  // Unix seconds
	CreatedBy string
	Comment   string
	Tags      []string // on the first line
	Size      int64    // bytes of the unpacked layer; 0 for a line without one
}

// History returns what the image's config tells of its making. Layers that the config
// does not tell of get lines of their own.
func (s *Store) History(img *Image) ([]HistoryItem, error) {
	sizes, err := s.layerSizes()
	if err != nil {
		return nil, err
	}
	return history(img, sizes), nil
}

func history(img *Image, sizes map[digest.Digest]int64) []HistoryItem {
	left := chains(img.DiffIDs)
	var list []HistoryItem
	for _, h := range img.Config.History {
		item := HistoryItem{ID: "<missing>", CreatedBy: h.CreatedBy, Comment: h.Comment}
		if h.Created != nil {
			item.Created = h.Created.Unix()
		}
		if !h.EmptyLayer && len(left) > 0 {
			item.Size, left = sizes[left[0]], left[1:]
		}
		list = append(list, item)
	}
	for _, c := range left {
		list = append(list, HistoryItem{ID: "<missing>", Created: max(0, img.Created().Unix()), Size: sizes[c]})
	}
	slices.Reverse(list)
	if len(list) > 0 {
		list[0].ID, list[0].Tags = string(img.ID), img.Tags()
	}
	return list
}
