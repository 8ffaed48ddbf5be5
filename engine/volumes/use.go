package volumes

import (
	"context"
	"errors"
	"os"
	"strconv"

	"berth/container"
	"berth/fault"
	"berth/volume"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
)

// Claim keeps the volumes of a container that is being made from being removed until Settle.
func (s *Service) Claim(r *container.Record) {
	for _, m := range r.Mounts {
		if m.Type == mount.TypeVolume {
			Contents{s}.Keep(m.Name, r.ID)
		}
	}
}

// OfBuild is how users are called that are programs of a build, before their ID.
const OfBuild = "build-"

// Keep keeps a volume from being removed until Settle; user is a container's ID, or what else tells who has it.
func (s Contents) Keep(name, user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.claims[name] == nil {
		if s.claims == nil {
			s.claims = map[string]map[string]bool{}
		}
		s.claims[name] = map[string]bool{}
	}
	s.claims[name][user] = true
}

// EnsureFilled makes a volume of the local driver that begins with what fill puts into its directory, unless it is there.
func (s Contents) EnsureFilled(v volume.Volume, fill func(dir string) error) error {
	made, created, err := s.Store.CreateFilled(v, fill)
	if err == nil && created {
		s.tell(events.ActionCreate, made, nil)
	}
	return err
}

// Ensure makes the volume that a container's mount names, unless it is there; created tells which.
func (s *Service) Ensure(ctx context.Context, m container.Mount) (v *volume.Volume, created bool, err error) {
	s.mu.Lock()
	moving := s.moving[m.Name]
	s.mu.Unlock()
	if moving {
		return nil, false, fault.New(fault.Conflict, "volume %s is being renamed", m.Name)
	}
	if v, err := s.Store.Get(m.Name); err == nil && m.Driver == "" {
		return v, false, nil
	}
	if m.Driver == "" && !m.Anonymous {
		m.Driver = s.keeper(ctx, m.Name)
	}
	return s.make(ctx, volume.Volume{Name: m.Name, Driver: m.Driver, Options: m.DriverOptions, Labels: m.Labels, Anonymous: m.Anonymous})
}

// Settle says that the container of that ID is among all containers by now, or will never be.
func (s *Service) Settle(user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, users := range s.claims {
		if delete(users, user); len(users) == 0 {
			delete(s.claims, name)
		}
	}
}

// Fill copies a tree into a volume that is still empty, owner and mode of its top included.
func (s *Service) Fill(ctx context.Context, name, user string, tree *os.File) error {
	v, err := s.Store.Get(name)
	if err != nil || !v.Away() {
		return errors.Join(err, s.Store.Fill(ctx, name, tree))
	}
	filler := "fill-" + user // no container, so that the next engine knows of no need for the mount
	dir, err := s.Mount(ctx, name, filler)
	if err == nil {
		unlock := s.lock(name)
		err = volume.FillIn(ctx, dir, tree)
		unlock()
	}
	if v.Driver != "" {
		s.end(name, filler)
		return errors.Join(err, s.unmount(ctx, name, filler))
	}
	return errors.Join(err, s.Unmount(ctx, filler))
}

// TellUse says that a container got its volumes, or gave them back.
func (s *Service) TellUse(r *container.Record, action events.Action) {
	for _, m := range r.Mounts {
		if m.Type != mount.TypeVolume {
			continue
		}
		v := &volume.Volume{Name: m.Name, Driver: m.Driver}
		if known, err := s.Store.Get(m.Name); err == nil {
			v = known
		}
		more := map[string]string{"container": r.ID}
		if action == events.ActionMount {
			more["destination"], more["read/write"], more["propagation"] = m.Destination, strconv.FormatBool(!m.ReadOnly), string(m.Propagation)
		}
		s.tell(action, v, more)
	}
}
