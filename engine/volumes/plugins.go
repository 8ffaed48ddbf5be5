package volumes

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"berth/fault"
	"berth/volume"
	"berth/volume/plugin"

	wire "github.com/moby/moby/api/types/volume"
)

// Plugins are the volume plugins of this machine as Drivers.
type Plugins struct{ Set plugin.Set }

// Find implements Drivers.
func (p *Plugins) Find(ctx context.Context, name string) (Driver, error) {
	d, err := p.Set.Driver(ctx, name)
	if err != nil {
		return nil, err
	}
	return foreign{d}, nil
}

// Names implements Drivers.
func (p *Plugins) Names() []string { return p.Set.Names() }

// List implements Drivers.
func (p *Plugins) List(ctx context.Context) (all map[string][]Found, failed map[string]error) {
	if len(p.Set.Names()) == 0 {
		return nil, nil
	}
	lists, failed := p.Set.List(ctx)
	all = map[string][]Found{}
	for name, list := range lists {
		for _, v := range list {
			all[name] = append(all[name], found(v))
		}
	}
	return all, failed
}

// foreign is one plugin as a Driver.
type foreign struct{ plugin *plugin.Driver }

func (f foreign) Create(ctx context.Context, name string, options map[string]string) error {
	if _, err := f.plugin.Get(ctx, name); err == nil {
		return nil
	}
	return failed("create", name, f.plugin.Create(ctx, name, options))
}

func (f foreign) Remove(ctx context.Context, name string) error {
	err := f.plugin.Remove(ctx, name)
	if err != nil {
		if _, getErr := f.plugin.Get(ctx, name); fault.Of(getErr) == fault.NotFound {
			return nil // a removal before got so far
		}
	}
	return failed("remove", name, err)
}

func (f foreign) Get(ctx context.Context, name string) (Found, error) {
	v, err := f.plugin.Get(ctx, name)
	return found(v), failed("get", name, err)
}

func (f foreign) Mount(ctx context.Context, name, user string) (string, error) {
	return f.plugin.Mount(ctx, name, user)
}

func (f foreign) Unmount(ctx context.Context, name, user string) error {
	return f.plugin.Unmount(ctx, name, user)
}

func (f foreign) Scope(context.Context) string { return f.plugin.Scope() }

// failed says in the field's words what a plugin was asked for.
func failed(verb, name string, err error) error {
	if err == nil {
		return nil
	}
	prefix := verb + " " + name + ": "
	if strings.HasPrefix(err.Error(), prefix) {
		return err
	}
	if kind := fault.Of(err); kind != "" {
		return fault.New(kind, "%s%w", prefix, err)
	}
	return errors.New(prefix + err.Error())
}

func found(v plugin.Volume) Found {
	made, _ := time.Parse(time.RFC3339Nano, v.CreatedAt) // plugins may leave it out
	return Found{Name: v.Name, Mountpoint: v.Mountpoint, Created: made, Status: v.Status}
}

// lists asks all drivers what they have. One that doesn't answer is left out.
func (s *Service) lists(ctx context.Context) map[string][]Found {
	if s.Drivers == nil {
		return nil
	}
	all, failed := s.Drivers.List(ctx)
	for driver, err := range failed {
		s.Log.Warn("list the volumes of a plugin", "driver", driver, "error", err)
	}
	return all
}

// withForeign describes known volumes with what their drivers say of them, and then those that drivers have and we have no record
// of; of two drivers that have the same name the first one does.
func withForeign(known []*volume.Volume, lists map[string][]Found) (all []wire.Volume) {
	taken := map[string]bool{}
	for _, v := range known {
		taken[v.Name] = true
		f := Found{}
		if k := slices.IndexFunc(lists[v.Driver], func(f Found) bool { return f.Name == v.Name }); k >= 0 {
			f = lists[v.Driver][k]
		}
		if v.Driver == "" {
			all = append(all, Describe(v))
		} else {
			all = append(all, describeFound(v, f))
		}
	}
	for _, driver := range slices.Sorted(maps.Keys(lists)) {
		for _, f := range lists[driver] {
			if !taken[f.Name] {
				taken[f.Name] = true
				all = append(all, describeFound(&volume.Volume{Name: f.Name, Driver: driver, Created: f.Created}, f))
			}
		}
	}
	slices.SortFunc(all, func(a, b wire.Volume) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// describeFound shows a volume with what its driver says of it.
func describeFound(v *volume.Volume, f Found) wire.Volume {
	d := Describe(v)
	d.Mountpoint, d.Status = f.Mountpoint, f.Status
	if v.Created.IsZero() {
		d.CreatedAt = ""
	}
	return d
}

// lookLimit bounds how long a look at a volume waits for its driver.
const lookLimit = 5 * time.Second

// inspectForeign shows a volume of another driver; v is nil when we have no record of it. One whose driver doesn't answer shows what is known
// here, and why that is all.
func (s *Service) inspectForeign(ctx context.Context, name string, v *volume.Volume) (wire.Volume, error) {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	if v == nil {
		driver := s.keeper(ctx, name)
		if driver == "" {
			return wire.Volume{}, fault.New(fault.NotFound, "get %s: no such volume", name)
		}
		v = &volume.Volume{Name: name, Driver: driver}
	}
	var f Found
	d, err := s.driver(ctx, v.Driver)
	if err == nil {
		f, err = d.Get(ctx, name)
	}
	if err != nil {
		return describeFound(v, Found{Status: map[string]any{"Error": err.Error()}}), nil
	}
	if v.Created.IsZero() {
		v.Created = f.Created
	}
	shown := describeFound(v, f)
	shown.Scope = d.Scope(ctx)
	return shown, nil
}

// keeper is the driver that has a volume of which we have no record; "": none.
func (s *Service) keeper(ctx context.Context, name string) string {
	for _, one := range withForeign(nil, s.lists(ctx)) {
		if one.Name == name {
			return one.Driver
		}
	}
	return ""
}
