package disk

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"berth/engine/journal"
	"berth/engine/request"
	"berth/fault"
	"berth/image"
	"berth/union"
	"berth/volume"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	wire "github.com/moby/moby/api/types/image"
	volumes "github.com/moby/moby/api/types/volume"
	"github.com/opencontainers/go-digest"
)

var errBusy = fault.New(fault.Conflict, "a prune operation is already running")

// filter reads a prune's filters: until, label, label! and the extra keys given, which are the caller's.
func filter(f journal.Filters, now time.Time, until bool, extra ...string) (func(labels map[string]string, created time.Time) bool, error) {
	var before time.Time
	for key, values := range f {
		switch {
		case key == "label" || key == "label!" || slices.Contains(extra, key):
		case key == "until" && until:
			if len(values) > 1 {
				return nil, fault.New(fault.Invalid, "more than one until filter specified")
			}
			for _, v := range values {
				at, err := request.ParseUntil(v, now)
				if err != nil {
					return nil, err
				}
				before = at
			}
		default:
			return nil, fault.New(fault.Invalid, "invalid filter '%s'", key)
		}
	}
	return func(labels map[string]string, created time.Time) bool {
		has := func(want string) bool { return journal.HasLabel(labels, want) }
		switch {
		case !before.IsZero() && !created.Before(before):
			return false
		case slices.ContainsFunc(f["label"], func(w string) bool { return !has(w) }):
			return false
		}
		return !slices.ContainsFunc(f["label!"], has)
	}, nil
}

// truth reads a filter that is on or off.
func truth(f journal.Filters, key string, missing bool) (bool, error) {
	values := f[key]
	if len(values) > 1 {
		return false, fault.New(fault.Invalid, "invalid filter '%s=[%s]': only one value is expected", key, strings.Join(values, " "))
	}
	if len(values) == 0 {
		return missing, nil
	}
	is, err := strconv.ParseBool(values[0])
	if err != nil {
		return false, fault.New(fault.Invalid, "invalid filter '%s=[%s]': use true or false", key, values[0])
	}
	return is, nil
}

// imageChoice tells what a prune takes of an image. gone are containers that count as removed.
func (s *Service) imageChoice(f journal.Filters, gone map[string]bool) (func(*image.Image) image.Choice, error) {
	fits, err := filter(f, time.Now(), true, "dangling")
	if err != nil {
		return nil, err
	}
	dangling, err := truth(f, "dangling", true)
	if err != nil {
		return nil, err
	}
	return func(img *image.Image) image.Choice {
		if dangling && !img.Dangling() || !fits(img.Config.Config.Labels, img.Created()) {
			return image.Choice{}
		}
		var users []string
		for _, c := range s.Containers() {
			if c.Image == img.ID && !gone[c.ID] {
				users = append(users, c.ImageName)
			}
			if name, shown := c.Shows[img.ID]; shown && !gone[c.ID] {
				users = append(users, name)
			}
		}
		if len(users) == 0 {
			return image.Choice{Whole: true}
		}
		return image.Choice{Names: spare(img.Names, users)}
	}, nil
}

// spare are the names of an image in use that no container was made by; one stays in any case, the last in their order.
func spare(names []reference.Named, users []string) []reference.Named {
	used := map[string]bool{}
	for _, u := range users {
		if named, err := image.ParseName(u); err == nil {
			used[named.String()] = true
		}
	}
	left := slices.DeleteFunc(slices.Clone(names), func(n reference.Named) bool { return used[n.String()] })
	if len(left) == len(names) && len(left) > 0 {
		slices.SortFunc(left, func(a, b reference.Named) int { return strings.Compare(a.String(), b.String()) })
		left = left[:len(left)-1]
	}
	return left
}

// PruneImages removes the images that no container has and that the filters leave (dangling, until, label, label!), those without a name
// alone unless dangling=false says otherwise, and all content that nobody refers to. Of an image that containers have, names that none of them was made by
// go with dangling=false. dry only tells. fault.Conflict: another prune is at work.
func (s *Service) PruneImages(ctx context.Context, f journal.Filters, dry bool) (r wire.PruneReport, err error) {
	choose, err := s.imageChoice(f, nil)
	if err != nil {
		return r, err
	}
	if !s.pruning.TryLock() {
		return r, errBusy
	}
	defer s.pruning.Unlock()
	s.Settle() // what removed containers leave stands on layers
	if dry {
		items, err := s.planImages(choose, nil)
		for _, one := range items {
			r.SpaceReclaimed += uint64(one.Size)
			if img, getErr := s.store().Get(one.ID); one.Kind == ImageItem && getErr == nil {
				r.ImagesDeleted = append(r.ImagesDeleted, deletions(one.ID, img.Familiar())...)
			} else if one.Kind == TagItem {
				r.ImagesDeleted = append(r.ImagesDeleted, deletions("", one.Names)...)
			}
		}
		return r, err
	}
	before, err := s.snapshot()
	if err != nil {
		return r, err
	}
	gone, err := image.Discard(s.store(), choose)
	if err != nil {
		return r, err
	}
	for _, one := range gone {
		for _, name := range one.Names {
			s.Images.Gone(events.ActionUnTag, one.ID.String(), name)
		}
		if !one.Whole {
			r.ImagesDeleted = append(r.ImagesDeleted, deletions("", one.Names)...)
			continue
		}
		r.ImagesDeleted = append(r.ImagesDeleted, deletions(one.ID.String(), one.Names)...)
		s.Images.Gone(events.ActionDelete, one.ID.String(), one.ID.String())
	}
	_, err = s.store().Sweep(ctx)
	err = errors.Join(err, s.inventory().Settle(ctx))
	r.SpaceReclaimed = uint64(s.freed(before))
	s.Events.Publish(events.ImageEventType, events.ActionPrune, "", reclaimed(r.SpaceReclaimed))
	return r, err
}

func deletions(id string, names []string) (list []wire.DeleteResponse) {
	for _, n := range names {
		list = append(list, wire.DeleteResponse{Untagged: n})
	}
	if id == "" {
		return list
	}
	return append(list, wire.DeleteResponse{Deleted: id})
}

func reclaimed(n uint64) map[string]string {
	return map[string]string{"reclaimed": strconv.FormatUint(n, 10)}
}

// snapshot is what a sweep may free: sizes by path.
func (s *Service) snapshot() (map[string]snapped, error) {
	all := map[string]snapped{}
	files, err := s.Blobs.Files()
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		all[f.Path] = snapped{size: f.Disk}
	}
	layers, err := s.layerSizes()
	if err != nil {
		return nil, err
	}
	for chain, size := range layers {
		all[s.inventory().Dir(chain)] = snapped{size: size.Disk}
	}
	places, err := s.inventory().Places()
	if err != nil {
		return nil, err
	}
	for _, p := range places {
		one := snapped{}
		switch p.Kind {
		case union.InitPlace, union.MergedPlace:
		case union.SparePlace:
			one.below = p.Below()
		default:
			continue
		}
		if one.size, err = p.Size(); err == nil {
			all[p.Path] = one
		}
	}
	return all, nil
}

// snapped is a path of a snapshot. A spare root that is not there any more went with the layer below, or is a container's now.
type snapped struct {
	size  int64
	below digest.Digest
}

// freed is what of a snapshot is not there any more.
func (s *Service) freed(before map[string]snapped) (sum int64) {
	for path, one := range before {
		if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) && (one.below == "" || !s.Layers.Has(one.below)) {
			sum += one.size
		}
	}
	return sum
}

// chooseVolumes lists the volumes that a prune takes.
func (s *Service) chooseVolumes(f journal.Filters, gone map[string]bool) ([]*volume.Volume, error) {
	fits, err := filter(f, time.Now(), false, "all")
	if err != nil {
		return nil, err
	}
	all, err := truth(f, "all", false)
	if err != nil {
		return nil, err
	}
	list, _ := s.Volumes.List() // one whose record can't be read is not ours to remove
	used := map[string]bool{}
	for _, c := range s.Containers() {
		for _, v := range c.Volumes {
			used[v] = used[v] || !gone[c.ID]
		}
	}
	return slices.DeleteFunc(list, func(v *volume.Volume) bool {
		return used[v.Name] || !v.Anonymous && !all || len(v.Options) > 0 || v.Driver != "" || !fits(s.Describe(v).Labels, v.Created)
	}), nil
}

// volumeSize is what the removal of a volume frees.
func volumeSize(v *volume.Volume) int64 {
	space, err := union.Measure(filepath.Dir(v.Path), nil)
	if err != nil {
		return 0
	}
	return space.Disk
}

// PruneVolumes removes the volumes that no container has and that the filters leave (all, label, label!): those that nobody named, unless
// all is set. dry only tells. fault.Conflict: another prune is at work.
func (s *Service) PruneVolumes(ctx context.Context, f journal.Filters, dry bool) (r volumes.PruneReport, err error) {
	r.VolumesDeleted = []string{}
	if !s.pruning.TryLock() {
		return r, errBusy
	}
	defer s.pruning.Unlock()
	list, err := s.chooseVolumes(f, nil)
	if err != nil {
		return r, err
	}
	for _, v := range list {
		if err := ctx.Err(); err != nil {
			return r, fault.Wrap(fault.Canceled, err)
		}
		size := volumeSize(v)
		if !dry {
			if err := s.RemoveVolume(v.Name); err != nil {
				continue // a container has it by now, or it went
			}
		}
		r.VolumesDeleted = append(r.VolumesDeleted, v.Name)
		r.SpaceReclaimed += uint64(size)
	}
	if !dry {
		s.Events.Publish(events.VolumeEventType, events.ActionPrune, "", reclaimed(r.SpaceReclaimed))
	}
	return r, nil
}
