// Package volumes serves volumes to those who ask for them in the API's words, counts who uses them, and tells the journal of it.
//
// It keeps no files (package volume does, or a driver of somebody else's) and changes no container: it says where on this host a volume
// lies for a container that starts. Invariant: a volume that a container has is not removed, and one that is a mount is there as long as a container
// that runs has it, and no longer.
package volumes

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"berth/container"
	"berth/engine/journal"
	"berth/fault"
	"berth/volume"
	"berth/volume/hold"

	"github.com/moby/moby/api/types/events"
	wire "github.com/moby/moby/api/types/volume"
)

// Local is the name of the driver that is always there.
const Local = "local"

// Service is all that can be done with volumes. The exported fields are set once, before it is used.
type Service struct {
	Store   *volume.Store
	Events  *journal.Journal
	Drivers Drivers // beside the local one; nil: there are none
	Log     *slog.Logger
	// Containers are the records of all there are.
	Containers func() []*container.Record

	// Pause stops containers, by ID, until resume, which the next engine does when this one dies.
	Pause func(ctx context.Context, ids []string) (resume func(), err error)
	// Refer makes the containers that have the volume from have to instead; with to "" it only asks whether they may: fault.Conflict when one runs.
	Refer func(from, to string) error
	// Measure tells how many bytes the files in a directory have.
	Measure func(dir string) (int64, error)
	// Run is the directory where mounted volumes are recorded, best on a tmpfs; what is mounted there outlives this engine.
	Run    string
	Keeper *hold.Keeper
	// Background runs what nobody may have to wait for.
	Background func(func())

	mu     sync.Mutex
	busy   map[string]*turn           // volumes that somebody is at work on
	used   map[string]*use            // mounted volumes
	gone   map[string]bool            // users that have ended and whose mounts are not taken from them yet
	moving map[string]bool            // volumes that are being renamed
	ending map[ending]bool            // of plugins, which are told in the background
	claims map[string]map[string]bool // by volume: containers that are being made and not among Containers yet
}

// Driver keeps volumes in a way of its own. Errors are in the field's words.
type Driver interface {
	Create(ctx context.Context, name string, options map[string]string) error
	Remove(ctx context.Context, name string) error
	Get(ctx context.Context, name string) (Found, error)
	// Mount readies a volume for a user, a container's ID, and gives its directory on this host. Each Mount is followed by one Unmount of the
	// same user, be it by the next engine.
	Mount(ctx context.Context, name, user string) (path string, err error)
	Unmount(ctx context.Context, name, user string) error
	Scope(ctx context.Context) string // "local" or "global"
}

// Found is a volume as its driver knows it.
type Found struct {
	Name, Mountpoint string
	Created          time.Time
	Status           map[string]any
}

// Drivers finds drivers that are not the local one.
type Drivers interface {
	// Find gives the driver of that name. fault.NotFound: there is none.
	Find(ctx context.Context, name string) (Driver, error)
	// Names lists those that are known now.
	Names() []string
	// List gives the volumes of all of them by the driver's name; failed are those that don't answer.
	List(ctx context.Context) (all map[string][]Found, failed map[string]error)
}

func invalid(format string, args ...any) error { return fault.New(fault.Invalid, format, args...) }

// labels are a volume's own, and the one by which clients tell those that nobody named.
func labels(v *volume.Volume) map[string]string {
	all := map[string]string{}
	maps.Copy(all, v.Labels)
	if v.Anonymous {
		all["com.docker.volume.anonymous"] = ""
	}
	return all
}

// Describe shows a volume in the API's words.
func Describe(v *volume.Volume) wire.Volume {
	return wire.Volume{
		Name: v.Name, Driver: driverName(v.Driver), Mountpoint: v.Path, CreatedAt: v.Created.Format(time.RFC3339), Scope: "local",
		Labels: labels(v), Options: v.Options,
	}
}

func driverName(name string) string {
	if name == "" {
		return Local
	}
	return name
}

// driver finds a driver by name; nil is the local one. fault.NotFound in the field's words.
func (s *Service) driver(ctx context.Context, name string) (Driver, error) {
	switch {
	case name == "" || name == Local:
		return nil, nil
	case s.Drivers == nil:
		return nil, fault.New(fault.NotFound, "error looking up volume plugin %s: plugin %q not found", name, name)
	}
	return s.Drivers.Find(ctx, name)
}

// Users lists the containers that have the volume, by ID.
func (s *Service) Users(name string) (ids []string) {
	for _, r := range s.Containers() {
		if slices.ContainsFunc(r.Mounts, func(m container.Mount) bool { return m.Name == name }) {
			ids = append(ids, r.ID)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.claims[name] {
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// List describes the volumes that fit, by name. fault.Invalid for an unknown filter.
func (s *Service) List(ctx context.Context, f journal.Filters) ([]wire.Volume, error) {
	for key, values := range f {
		if !slices.Contains([]string{"dangling", "driver", "label", "name"}, key) {
			return nil, invalid("invalid filter '%s'", key)
		}
		for _, v := range values {
			if key == "dangling" && !slices.Contains([]string{"1", "true", "0", "false"}, v) {
				return nil, invalid("invalid filter 'dangling=[%s]'", v)
			}
		}
	}
	found, err := s.Store.List()
	if err != nil {
		s.Log.Warn("list volumes", "error", err) // one that can't be read hides no other
	}
	all := []wire.Volume{}
	for _, one := range withForeign(found, s.lists(ctx)) {
		if s.fits(one, f) {
			all = append(all, one)
		}
	}
	return all, nil
}

func (s *Service) fits(one wire.Volume, f journal.Filters) bool {
	for key, values := range f {
		ok := len(values) == 0
		for _, want := range values {
			switch key {
			case "driver":
				ok = ok || want == one.Driver
			case "name":
				ok = ok || strings.Contains(one.Name, want)
			case "label":
				ok = ok || journal.HasLabel(one.Labels, want)
			case "dangling":
				ok = ok || (want == "true" || want == "1") == (len(s.Users(one.Name)) == 0)
			}
		}
		if !ok {
			return false
		}
	}
	return true
}

// Inspect describes one. fault.NotFound "get x: no such volume".
func (s *Service) Inspect(ctx context.Context, name string) (wire.Volume, error) {
	found, err := s.Store.Get(name)
	switch {
	case err == nil && found.Driver != "":
		return s.inspectForeign(ctx, name, found)
	case fault.Of(err) == fault.NotFound:
		return s.inspectForeign(ctx, name, nil)
	case err != nil:
		return wire.Volume{}, err
	}
	return Describe(found), nil
}

// Create makes a volume, or returns the one of that name. A name "" is drawn. fault.Conflict: the one there is has another driver or
// other options.
func (s *Service) Create(ctx context.Context, r wire.CreateRequest) (wire.Volume, error) {
	if r.ClusterVolumeSpec != nil {
		return wire.Volume{}, fault.New(fault.Unavailable, "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.")
	}
	anonymous := r.Name == ""
	if anonymous {
		r.Name = container.NewID()
	}
	made, _, err := s.make(ctx, volume.Volume{Name: r.Name, Driver: r.Driver, Labels: r.Labels, Options: r.DriverOpts, Anonymous: anonymous})
	if err != nil {
		return wire.Volume{}, err
	}
	return Describe(made), nil
}

func (s *Service) make(ctx context.Context, v volume.Volume) (made *volume.Volume, created bool, err error) {
	if v.Driver == Local {
		v.Driver = ""
	}
	d, err := s.driver(ctx, v.Driver)
	if err != nil {
		return nil, false, fmt.Errorf("create %s: %w", v.Name, err)
	}
	if d == nil {
		if _, _, err := volume.ParseOptions(v.Options); err != nil {
			return nil, false, fault.Wrap(fault.Invalid, fmt.Errorf("create %s: %w", v.Name, err))
		}
	}
	if d != nil {
		if err := d.Create(ctx, v.Name, v.Options); err != nil {
			return nil, false, err
		}
	}
	made, created, err = s.Store.Create(v)
	if err != nil {
		return nil, false, err
	}
	if !created && made.Driver != v.Driver {
		return nil, false, fault.New(fault.Conflict, "create %s: conflict: driver '%s' already has volume '%s': volume name must be unique", v.Name, driverName(made.Driver), v.Name)
	}
	if created {
		s.tell(events.ActionCreate, made, nil)
	}
	return made, created, nil
}

// Remove deletes one. fault.Conflict while a container has it; with force an absent one is no error.
func (s *Service) Remove(ctx context.Context, name string, force bool) error {
	v, err := s.Store.Get(name)
	if fault.Of(err) == fault.NotFound {
		if driver := s.keeper(ctx, name); driver != "" {
			v, err = &volume.Volume{Name: name, Driver: driver}, nil
		}
	}
	if err != nil {
		if !force || fault.Of(err) != fault.NotFound && fault.Of(err) != fault.Corrupt {
			return err
		}
		if fault.Of(err) == fault.NotFound {
			return nil
		}
		v = &volume.Volume{Name: name}
	}
	if users := s.Users(name); len(users) > 0 {
		return fault.New(fault.Conflict, "remove %s: volume is in use - [%s]", name, strings.Join(users, ", "))
	}
	err = s.erase(ctx, v)
	if kind := fault.Of(err); force && v.Driver != "" && (kind == fault.NotFound || kind == fault.Unavailable) {
		s.Log.Warn("forget a volume whose driver is gone", "volume", name, "error", err)
		err = s.Store.Remove(name)
	}
	return err
}

// Drop deletes the volume of a container that goes, which no other one has. An absent one is no error.
func (s *Service) Drop(ctx context.Context, name string) error {
	v, err := s.Store.Get(name)
	if fault.Of(err) == fault.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	return s.erase(ctx, v)
}

func (s *Service) erase(ctx context.Context, v *volume.Volume) error {
	defer s.lock(v.Name)()
	u := s.current(v.Name)
	for user := range u.Users {
		if u.Driver == "" || strings.Contains(user, "-") {
			continue // its content is just being worked on
		}
		if err := s.unmountLocked(ctx, u, user); err != nil { // of a container that is gone
			return err
		}
	}
	if len(u.Users) > 0 {
		return fault.New(fault.Conflict, "remove %s: volume is in use - [%s]", v.Name, strings.Join(slices.Sorted(maps.Keys(u.Users)), ", "))
	}
	if err := s.settle(u); err != nil {
		return err
	}
	d, err := s.driver(ctx, v.Driver)
	if err == nil && d != nil {
		err = d.Remove(ctx, v.Name)
	}
	if err == nil {
		if err = s.Store.Remove(v.Name); v.Driver != "" && fault.Of(err) == fault.NotFound {
			err = nil // the driver had it before us
		}
	}
	if err != nil {
		return err
	}
	s.tell(events.ActionDestroy, v, nil)
	return nil
}

func (s *Service) tell(action events.Action, v *volume.Volume, more map[string]string) {
	attributes := map[string]string{"driver": driverName(v.Driver)}
	maps.Copy(attributes, more)
	s.Events.Publish(events.VolumeEventType, action, v.Name, attributes)
}
