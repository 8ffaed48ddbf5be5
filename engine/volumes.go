package engine

import (
	"maps"
	"slices"
	"strings"
	"time"

	"berth/container"
	"berth/engine/journal"
	"berth/fault"
	"berth/volume"

	"github.com/moby/moby/api/types/events"
	wire "github.com/moby/moby/api/types/volume"
)

// Volumes makes, describes and removes named directories.
type Volumes struct{ *shared }

// labels are a volume's own, and the one by which clients tell those that nobody named.
func labels(v *volume.Volume) map[string]string {
	all := map[string]string{}
	maps.Copy(all, v.Labels)
	if v.Anonymous {
		all["com.docker.volume.anonymous"] = ""
	}
	return all
}

func describeVolume(v *volume.Volume) wire.Volume {
	return wire.Volume{
		Name: v.Name, Driver: "local", Mountpoint: v.Path, CreatedAt: v.Created.Format(time.RFC3339), Scope: "local",
		Labels: labels(v), Options: v.Options,
	}
}

// users lists the containers that have the volume.
func (v *Volumes) users(name string) (ids []string) {
	for _, i := range v.index.All() {
		if slices.ContainsFunc(i.record().Mounts, func(m container.Mount) bool { return m.Name == name }) {
			ids = append(ids, i.id)
		}
	}
	return ids
}

// List describes the volumes that fit, by name. fault.Invalid for an unknown filter.
func (v *Volumes) List(f Filters) ([]wire.Volume, error) {
	for key := range f {
		if !slices.Contains([]string{"dangling", "driver", "label", "name"}, key) {
			return nil, invalid("invalid filter '%s'", key)
		}
	}
	found, err := v.volumes.List()
	if err != nil {
		return nil, err
	}
	all := make([]wire.Volume, 0, len(found))
	for _, one := range found {
		if v.fits(one, f) {
			all = append(all, describeVolume(one))
		}
	}
	return all, nil
}

func (v *Volumes) fits(one *volume.Volume, f Filters) bool {
	for key, values := range f {
		ok := len(values) == 0
		for _, want := range values {
			switch key {
			case "driver":
				ok = ok || want == "local"
			case "name":
				ok = ok || strings.Contains(one.Name, want)
			case "label":
				ok = ok || journal.HasLabel(labels(one), want)
			case "dangling":
				ok = ok || (want == "true" || want == "1") == (len(v.users(one.Name)) == 0)
			}
		}
		if !ok {
			return false
		}
	}
	return true
}

// Inspect describes one. fault.NotFound "get x: no such volume".
func (v *Volumes) Inspect(name string) (wire.Volume, error) {
	found, err := v.volumes.Get(name)
	if err != nil {
		return wire.Volume{}, err
	}
	return describeVolume(found), nil
}

// Create makes a volume, or returns the one of that name. A name "" is drawn.
func (v *Volumes) Create(r wire.CreateRequest) (wire.Volume, error) {
	if r.Driver != "" && r.Driver != "local" {
		return wire.Volume{}, fault.New(fault.NotFound, "create %s: error looking up volume plugin %s: plugin %q not found", r.Name, r.Driver, r.Driver)
	}
	if len(r.DriverOpts) > 0 {
		return wire.Volume{}, fault.New(fault.Unsupported, "create %s: options of the local driver are not supported yet", r.Name)
	}
	anonymous := r.Name == ""
	if anonymous {
		r.Name = container.NewID()
	}
	made, created, err := v.volumes.Create(volume.Volume{Name: r.Name, Labels: r.Labels, Anonymous: anonymous})
	if err != nil {
		return wire.Volume{}, err
	}
	if created {
		v.events.Publish(events.VolumeEventType, events.ActionCreate, made.Name, map[string]string{"driver": "local"})
	}
	return describeVolume(made), nil
}

// Remove deletes one. fault.Conflict while a container has it; with force an absent one is no error.
func (v *Volumes) Remove(name string, force bool) error {
	if _, err := v.volumes.Get(name); err != nil && !(force && fault.Of(err) == fault.Corrupt) {
		if force && fault.Of(err) == fault.NotFound {
			return nil
		}
		return err
	}
	if users := v.users(name); len(users) > 0 {
		return fault.New(fault.Conflict, "remove %s: volume is in use - [%s]", name, strings.Join(users, ", "))
	}
	if err := v.volumes.Remove(name); err != nil {
		return err
	}
	v.events.Publish(events.VolumeEventType, events.ActionDestroy, name, map[string]string{"driver": "local"})
	return nil
}
