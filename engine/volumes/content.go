package volumes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"berth/archive/compress"
	"berth/container"
	"berth/fault"
	"berth/volume"

	"github.com/moby/moby/api/types/events"
	wire "github.com/moby/moby/api/types/volume"
)

// Contents is the part of a Service that works with what is in volumes.
type Contents struct{ *Service }

// Copy is what was made of a volume.
type Copy struct {
	Name     string
	Warnings []string
}

// Snapshot is one in the API's words.
type Snapshot struct {
	Name, Volume string
	Created      time.Time
	Size         int64
	Shared       bool
}

// access gives the directory where a volume's content lies for as long as work lasts, with the right to work on the volume. writing: nobody who runs may have
// it; else, what is to be known when somebody has it, unless pause stops them meanwhile.
func (s Contents) access(ctx context.Context, name string, pause bool, work func(v *volume.Volume, dir string) error) (warnings []string, err error) {
	v, err := s.Store.Get(name)
	if err != nil {
		return nil, err
	}
	user := "work-" + container.NewID() // no container, so that the next engine knows of no need for the mount
	dir, err := s.Mount(ctx, name, user)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Unmount(context.WithoutCancel(ctx), user)) }()
	running := s.Running(name)
	switch {
	case len(running) == 0:
	case pause:
		resume, err := s.Pause(ctx, running)
		if err != nil {
			return nil, err
		}
		defer resume()
	default:
		warnings = append(warnings, fmt.Sprintf("volume %s is in use by %s: files that are written meanwhile may be of different moments; --pause stops who writes for that time", name, s.names(running)))
	}
	defer s.lock(name)()
	return warnings, work(v, dir)
}

// idle is fault.Conflict while a container that runs, or a build, has the volume.
func (s Contents) idle(what, name string) error {
	s.mu.Lock()
	for user := range s.claims[name] {
		if strings.HasPrefix(user, OfBuild) {
			s.mu.Unlock()
			return fault.New(fault.Conflict, "%s %s: volume is in use by a build: wait for its end", what, name)
		}
	}
	s.mu.Unlock()
	if running := s.Running(name); len(running) > 0 {
		names := s.names(running)
		return fault.New(fault.Conflict, "%s %s: volume is in use by running containers - [%s]; stop them first (%s)", what, name, strings.Join(running, ", "), names)
	}
	return nil
}

// Running lists the containers that run and have the volume, by ID.
func (s *Service) Running(name string) (ids []string) {
	for _, r := range s.Containers() {
		for _, m := range r.Mounts {
			if m.Name == name && r.State.Status.Alive() {
				ids = append(ids, r.ID)
				break
			}
		}
	}
	return ids
}

func (s *Service) names(ids []string) string {
	var names []string
	for _, r := range s.Containers() {
		for _, id := range ids {
			if r.ID == id {
				names = append(names, r.Name)
			}
		}
	}
	return strings.Join(names, ", ")
}

// Export writes a volume's content as a tar archive to what begin gives, which is called when nothing but writing can fail any more.
func (s Contents) Export(ctx context.Context, name string, pause bool, begin func() io.Writer) error {
	_, err := s.access(ctx, name, pause, func(_ *volume.Volume, dir string) error { return volume.Pack(ctx, begin(), dir) })
	return err
}

// Import fills a volume, made when it is missing, with what a tar archive has. fault.Conflict: it has content already, and replace is not set.
func (s Contents) Import(ctx context.Context, name string, archive io.Reader, replace bool) (err error) {
	if err := s.idle("import", name); err != nil {
		return err
	}
	plain, _, err := compress.Open(archive)
	if err != nil {
		return fault.Wrap(fault.Invalid, err)
	}
	defer plain.Close()
	if _, err = s.Store.Get(name); fault.Of(err) == fault.NotFound {
		if _, _, err = s.make(ctx, volume.Volume{Name: name}); err == nil {
			defer func() {
				if err != nil {
					err = errors.Join(err, s.Drop(context.WithoutCancel(ctx), name))
				}
			}()
		}
	}
	if err != nil {
		return err
	}
	_, err = s.access(ctx, name, false, func(v *volume.Volume, dir string) error {
		empty, err := volume.Empty(dir)
		switch {
		case err != nil:
			return err
		case !empty && !replace:
			return fault.New(fault.Conflict, "import %s: the volume has content; import into a new one, or replace what is there (--replace)", name)
		case !empty && v.Away():
			return fault.New(fault.Unsupported, "import %s: the content lies outside of the engine's data (driver or options of the volume), where it can't be replaced in one step; empty it first", name)
		case v.Away():
			return volume.Unpack(ctx, dir, plain)
		}
		return s.Store.Replace(name, func(dir string) error { return volume.Unpack(ctx, dir, plain) })
	})
	return err
}

// Clone makes a volume of another one's content and labels.
func (s Contents) Clone(ctx context.Context, name, to string, pause bool) (c Copy, err error) {
	if _, err := s.Store.Get(to); err == nil {
		return c, fault.New(fault.Exists, "clone %s: there is a volume %s already", name, to)
	}
	c.Warnings, err = s.access(ctx, name, pause, func(v *volume.Volume, dir string) error {
		made, created, err := s.Store.CreateFilled(volume.Volume{Name: to, Labels: v.Labels}, func(fresh string) error {
			_, err := volume.Copy(fresh, dir)
			return err
		})
		if err == nil && !created {
			err = fault.New(fault.Exists, "clone %s: there is a volume %s already", name, to)
		}
		if err == nil {
			c.Name = made.Name
			s.tell(events.ActionCreate, made, nil)
		}
		return err
	})
	return c, err
}

// Snapshot keeps a volume's content as it is now. A name "" is drawn from the time.
func (s Contents) Snapshot(ctx context.Context, name, snapshot string, pause bool) (c Copy, err error) {
	if snapshot == "" {
		snapshot = time.Now().UTC().Format("20060102-150405.000")
	}
	c.Name = snapshot
	c.Warnings, err = s.access(ctx, name, pause, func(_ *volume.Volume, dir string) error {
		_, err := s.Store.Snapshot(name, snapshot, func(fresh string) (bool, error) { return volume.Copy(fresh, dir) })
		return err
	})
	return c, err
}

// Snapshots describes those of a volume, the oldest first.
func (s Contents) Snapshots(name string) ([]Snapshot, error) {
	found, err := s.Store.Snapshots(name)
	all := make([]Snapshot, len(found))
	for k, one := range found {
		all[k] = Snapshot{Name: one.Name, Volume: name, Created: one.Created, Shared: one.Shared}
		if all[k].Size, err = s.Measure(one.Path); err != nil {
			return nil, err
		}
	}
	return all, err
}

// RemoveSnapshot removes one.
func (s Contents) RemoveSnapshot(name, snapshot string) error {
	defer s.lock(name)()
	return s.Store.RemoveSnapshot(name, snapshot)
}

// Rollback makes a volume's content what it was at a snapshot, "" the newest. fault.Conflict while a container that runs has it.
func (s Contents) Rollback(ctx context.Context, name, snapshot string) (c Copy, err error) {
	v, err := s.Store.Get(name)
	if err != nil {
		return c, err
	}
	defer s.lock(name)()
	one, err := s.Store.FindSnapshot(name, snapshot)
	if err != nil {
		return c, err
	}
	if v.Away() {
		return c, fault.New(fault.Unsupported, "rollback %s: the content lies outside of the engine's data (driver or options of the volume), where it can't be replaced in one step", name)
	}
	if err := s.idle("rollback", name); err != nil {
		return c, err
	}
	c.Name = one.Name
	return c, s.Store.Replace(name, func(dir string) error {
		_, err := volume.Copy(dir, one.Path)
		return err
	})
}

// Rename gives a volume another name; the containers that have it, none of which may run, go with it.
func (s Contents) Rename(ctx context.Context, name, to string) (err error) {
	v, err := s.Store.Get(name)
	if err != nil {
		return err
	}
	if err := volume.CheckName(to); err != nil {
		return err
	}
	if v.Driver != "" {
		return fault.New(fault.Unsupported, "rename %s: it is known by that name to its driver %s", name, v.Driver)
	}
	if name == to {
		return fault.New(fault.Exists, "rename %s: there is a volume %s already", name, to)
	}
	s.mu.Lock()
	if s.moving == nil {
		s.moving = map[string]bool{}
	}
	if s.moving[name] {
		s.mu.Unlock()
		return fault.New(fault.Conflict, "volume %s is being renamed", name)
	}
	if len(s.claims[name]) > 0 {
		s.mu.Unlock()
		return fault.New(fault.Conflict, "rename %s: volume is in use by a container that is being made", name)
	}
	s.moving[name] = true // no start gets past Ensure from here on
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.moving, name)
	}()
	defer s.lock(name)()
	if s.Mounted(name) {
		return fault.New(fault.Conflict, "rename %s: volume is in use", name)
	}
	if err := s.Refer(name, ""); err != nil {
		return err
	}
	if err := s.Store.Rename(name, to); err != nil {
		return err
	}
	if err := errors.Join(s.Refer(name, to), s.Store.Moved(to)); err != nil {
		return err
	}
	v.Name = to
	s.tell(events.ActionRename, v, map[string]string{"oldName": name})
	return nil
}

// FinishRenames tells the containers of renamings that a crash cut short.
func (s Contents) FinishRenames() error {
	moved, err := s.Store.Movings()
	for from, to := range moved {
		err = errors.Join(err, s.Refer(from, to))
		if err == nil {
			err = s.Store.Moved(to)
		}
	}
	return err
}

// Update is fault.Unavailable: only volumes of a swarm can be updated.
func (s Contents) Update(_ context.Context, name string) (wire.Volume, error) {
	return wire.Volume{}, fault.New(fault.Unavailable, "volume update only valid for cluster volumes, but swarm is unavailable")
}
