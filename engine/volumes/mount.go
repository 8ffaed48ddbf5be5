package volumes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"berth/fault"
	"berth/internal/record"
	"berth/volume"
	"berth/volume/hold"
)

// use is a volume that is mounted, and who has it. It is recorded before anything is mounted, so that the next engine finds it. A volume that is a
// directory of this host needs none.
type use struct {
	Name   string
	Driver string            `json:",omitempty"` // a plugin's
	Holder *hold.Held        `json:",omitempty"` // of a mount of ours
	Users  map[string]string // by ID of the container: where the volume lies for it; "": that was not known yet
}

// turn is the right to work on a volume.
type turn struct {
	sync.Mutex
	waiting int
}

// lock waits for the right to work on a volume, and returns what gives it back.
func (s *Service) lock(name string) (unlock func()) {
	s.mu.Lock()
	t := s.busy[name]
	if t == nil {
		if s.busy == nil {
			s.busy = map[string]*turn{}
		}
		t = &turn{}
		s.busy[name] = t
	}
	t.waiting++
	s.mu.Unlock()
	t.Lock()
	return func() {
		t.Unlock()
		s.mu.Lock()
		defer s.mu.Unlock()
		if t.waiting--; t.waiting == 0 {
			delete(s.busy, name)
		}
	}
}

// file is where a use is recorded. Names of volumes begin with no dot, and end in whatever they like.
func (s *Service) file(name string) string { return filepath.Join(s.Run, name+".json") }

// current is a copy of what is known of a volume's use. The caller has the volume locked.
func (s *Service) current(name string) *use {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := &use{Name: name, Users: map[string]string{}}
	if known := s.used[name]; known != nil {
		u.Driver, u.Holder = known.Driver, known.Holder
		maps.Copy(u.Users, known.Users)
	}
	if u.Driver == "" {
		maps.DeleteFunc(u.Users, func(user, _ string) bool { return s.gone[user] })
	}
	return u
}

// save records a use, or that there is none any more.
func (s *Service) save(u *use) error {
	idle := len(u.Users) == 0 && u.Holder == nil
	var err error
	if idle {
		if err = os.Remove(s.file(u.Name)); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	} else if err = os.MkdirAll(s.Run, 0o700); err == nil {
		err = record.Put(s.file(u.Name), u)
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used == nil {
		s.used = map[string]*use{}
	}
	if s.used[u.Name] = u; idle {
		delete(s.used, u.Name)
	}
	return nil
}

// ReadOnly tells whether the options of a volume let nobody write. A bind of it must say so again.
func (s *Service) ReadOnly(name string) bool {
	v, err := s.Store.Get(name)
	if err != nil || len(v.Options) == 0 {
		return false
	}
	m := v.Mounting()
	return m != nil && m.ReadOnly()
}

// Mounted tells whether a volume is mounted for somebody.
func (s *Service) Mounted(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used[name] != nil
}

// Mount readies a volume for a user, a container's ID, and gives the directory where it lies; "/proc/PID/root/…" is in the mount namespace of that
// process. The same user gets the same directory. Unmount ends it.
func (s *Service) Mount(ctx context.Context, name, user string) (path string, err error) {
	v, err := s.Store.Get(name)
	if err != nil {
		return "", err
	}
	m := v.Mounting()
	switch {
	case v.Driver != "":
		return s.mountByDriver(ctx, v, user)
	case m == nil:
		return v.Path, nil
	case m.Plain():
		if info, err := os.Stat(m.Device); err != nil || !info.IsDir() {
			if err == nil {
				err = syscall.ENOTDIR
			}
			return "", mountError(v, *m, err)
		}
		return filepath.Clean(m.Device), nil
	}
	defer s.lock(name)()
	if v, err = s.Store.Get(name); err != nil { // it was removed meanwhile
		return "", err
	}
	u := s.current(name)
	if u.Holder != nil && !u.Holder.Alive() {
		s.Log.Warn("the mount of a volume was lost; containers that have it keep it, and others get it mounted anew", "volume", name)
		u.Holder = nil
	}
	if u.Holder != nil && len(u.Users) == 0 { // it ends just now, with what was in it
		if err := s.settle(u); err != nil {
			return "", err
		}
	}
	if u.Holder == nil {
		if err := s.hold(ctx, v, *m, u); err != nil {
			return "", err
		}
	}
	u.Users[user] = u.Holder.Path()
	return u.Users[user], s.save(u)
}

// hold mounts a volume in a holder, which is recorded in u.
func (s *Service) hold(ctx context.Context, v *volume.Volume, m hold.Mounting, u *use) error {
	m, err := volume.Resolve(ctx, m, volume.Lookup)
	if err == nil {
		_, err = s.Keeper.Start(ctx, m, func(h hold.Held) error {
			u.Holder = &h
			return s.save(u)
		})
	}
	if err == nil {
		return nil
	}
	u.Holder = nil
	return errors.Join(mountError(v, m, err), s.save(u))
}

// mountError says why a volume can't be mounted, in the field's words, and what can be done.
func mountError(v *volume.Volume, m hold.Mounting, cause error) error {
	with := ""
	if options := volume.Masked(m.Options); options != "" {
		with = ", data: " + options
	}
	err := fmt.Errorf("error while mounting volume '%s': failed to mount local volume: mount %s:%s%s: %s%s", v.Path, m.Device, v.Path, with, words(cause), advice(m, cause))
	if kind := fault.Of(cause); kind != "" {
		return fault.Wrap(kind, err)
	}
	return fault.Wrap(fault.Invalid, err)
}

// words is the cause without the objects that the message names already, and without secrets.
func words(cause error) string {
	if p := (*os.PathError)(nil); errors.As(cause, &p) {
		cause = p.Err
	}
	text := cause.Error()
	for _, key := range []string{"password=", "pass="} {
		if before, after, found := strings.Cut(text, key); found {
			_, rest, _ := strings.Cut(after, ",")
			text = before + key + "********" + rest
		}
	}
	return text
}

// advice is the next step for one whose volume can't be mounted.
func advice(m hold.Mounting, cause error) string {
	bind, _ := m.IsBind()
	switch network := strings.HasPrefix(m.Type, "nfs") || m.Type == "cifs"; {
	case errors.Is(cause, syscall.ENODEV):
		return fmt.Sprintf(": this kernel has no file system %s; load its module (modprobe %s), or correct type=", m.Type, m.Type)
	case errors.Is(cause, fault.Unavailable) || network && (errors.Is(cause, syscall.ETIMEDOUT) || errors.Is(cause, syscall.EHOSTUNREACH) || errors.Is(cause, syscall.ECONNREFUSED)):
		return ": the server was not reached; look at addr=, the server and the firewalls between"
	case network && (errors.Is(cause, syscall.EACCES) || errors.Is(cause, syscall.EPERM)):
		return ": the server lets this host not have it; look at its exports, or at the user and password in o="
	case bind && errors.Is(cause, fs.ErrNotExist):
		return ": make the directory first, or correct device="
	case bind && errors.Is(cause, syscall.ENOTDIR):
		return ": device= must be a directory"
	case errors.Is(cause, fs.ErrNotExist):
		return ": correct device=, or make it"
	case errors.Is(cause, syscall.ENOTBLK):
		return ": device= is no block device; attach an image file to one first (losetup -f --show FILE)"
	case errors.Is(cause, syscall.EINVAL):
		return fmt.Sprintf(": look at the options in o=, and whether device= holds %s (blkid)", m.Type)
	case errors.Is(cause, syscall.EBUSY):
		return ": it is mounted elsewhere in another way"
	}
	return ""
}

// mountByDriver has a plugin mount a volume.
func (s *Service) mountByDriver(ctx context.Context, v *volume.Volume, user string) (path string, err error) {
	d, err := s.driver(ctx, v.Driver)
	if err != nil {
		return "", err
	}
	defer s.lock(v.Name)()
	u := s.current(v.Name)
	ended := s.takeEnding(v.Name, user)
	if path := u.Users[user]; path != "" && !ended {
		return path, nil
	}
	if ended { // the run before, whose end the plugin was not told of yet
		if err := d.Unmount(ctx, v.Name, user); err != nil {
			s.Log.Warn("give a volume back to its plugin", "volume", v.Name, "error", err)
		}
	}
	u.Driver, u.Users[user] = v.Driver, ""
	if err := s.save(u); err != nil {
		return "", err
	}
	if path, err = d.Mount(ctx, v.Name, user); err != nil {
		delete(u.Users, user)
		return "", errors.Join(fmt.Errorf("error while mounting volume '%s': %w", v.Path, err), s.save(u))
	}
	u.Users[user] = path
	return path, s.save(u)
}

// Leave says that a user has ended, and waits for nothing: who comes from here on shares no mount with it. Unmount is next.
func (s *Service) Leave(user string) {
	if names, foreign := s.usedBy(user); len(names)+len(foreign) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone == nil {
		s.gone = map[string]bool{}
	}
	s.gone[user] = true
}

// usedBy lists the mounted volumes of a user, and those that plugins have mounted for it.
func (s *Service) usedBy(user string) (names, foreign []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, u := range s.used {
		if _, has := u.Users[user]; has && u.Driver == "" {
			names = append(names, name)
		} else if has {
			foreign = append(foreign, name)
		}
	}
	return names, foreign
}

// Unmount ends all of a user's use of volumes. Plugins are told in the background, as nobody may have to wait for one that doesn't answer.
func (s *Service) Unmount(ctx context.Context, user string) (err error) {
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.gone, user)
	}()
	names, foreign := s.usedBy(user)
	for _, name := range foreign {
		s.end(name, user)
		s.Background(func() { s.giveBack(ctx, name, user) })
	}
	for _, name := range names {
		err = errors.Join(err, s.unmount(ctx, name, user))
	}
	return err
}

// giveBack tells a plugin that a user has ended, as soon as the plugin can be told; else the next engine does.
func (s *Service) giveBack(ctx context.Context, name, user string) {
	const longest = time.Minute
	for pause := time.Second / 4; ; pause = min(2*pause, longest) {
		err := s.unmount(ctx, name, user)
		if err == nil || ctx.Err() != nil {
			return
		}
		s.Log.Warn("give a volume back to its plugin: this is tried again", "error", err)
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// ending is a use of a plugin's volume that is over, and the plugin was not told yet.
type ending struct{ name, user string }

// end says that a use is over.
func (s *Service) end(name, user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending == nil {
		s.ending = map[ending]bool{}
	}
	s.ending[ending{name, user}] = true
}

// takeEnding tells whether it is, to one who will tell the plugin. The caller has the volume locked.
func (s *Service) takeEnding(name, user string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.ending[ending{name, user}]
	delete(s.ending, ending{name, user})
	return was
}

func (s *Service) unmount(ctx context.Context, name, user string) (err error) {
	defer s.lock(name)()
	u := s.current(name)
	if u.Driver != "" && !s.takeEnding(name, user) {
		return nil // the user is back
	}
	err = s.unmountLocked(ctx, u, user)
	if err != nil && u.Driver != "" {
		s.end(name, user)
	}
	return err
}

// unmountLocked is unmount for who has the volume locked.
func (s *Service) unmountLocked(ctx context.Context, u *use, user string) error {
	if _, has := u.Users[user]; has && u.Driver != "" {
		d, err := s.driver(ctx, u.Driver)
		if err == nil {
			err = d.Unmount(ctx, u.Name, user)
		}
		if err != nil {
			return fmt.Errorf("unmount volume %s: %w", u.Name, err) // it stays recorded, and the next engine tries again
		}
	}
	delete(u.Users, user)
	return s.settle(u)
}

// settle ends a mount that nobody has any more, and records what is left.
func (s *Service) settle(u *use) error {
	if len(u.Users) == 0 && u.Holder != nil {
		if err := u.Holder.End(); err != nil {
			return errors.Join(fmt.Errorf("unmount volume %s: %w", u.Name, err), s.save(u))
		}
		u.Holder = nil
	}
	return s.save(u)
}

// Restore takes over what the engine before had mounted, and ends what no container that runs has. Plugins, which may not be there, are asked by later, which
// need not be waited for. alive are the IDs of the containers that run.
func (s *Service) Restore(ctx context.Context, alive func(id string) bool) (later func(), err error) {
	entries, err := os.ReadDir(s.Run)
	if errors.Is(err, fs.ErrNotExist) {
		return func() {}, nil
	}
	if err != nil {
		return nil, err
	}
	err = record.Sweep(s.Run)
	var plugins []func()
	for _, e := range entries {
		u := &use{}
		if filepath.Ext(e.Name()) != ".json" || record.Load(filepath.Join(s.Run, e.Name()), u) != nil || u.Name == "" {
			continue
		}
		if u.Users == nil {
			u.Users = map[string]string{}
		}
		for user := range u.Users {
			switch {
			case alive(user):
			case u.Driver != "":
				plugins = append(plugins, func() { s.giveBack(ctx, u.Name, user) })
				s.end(u.Name, user)
			default:
				delete(u.Users, user)
			}
		}
		err = errors.Join(err, s.settle(u))
	}
	return func() {
		for _, end := range plugins {
			s.Background(end)
		}
	}, err
}
