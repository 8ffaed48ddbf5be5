package engine

import (
	"berth/engine/networks"
	"context"
	"errors"
	"os"
	"runtime"
	"syscall"
	"time"

	"berth/archive"
	"berth/container"
	"berth/engine/depend"
	"berth/engine/link"
	"berth/engine/mounts"
	"berth/engine/request"
	"berth/fault"
	"berth/image"
	"berth/oci"
	"berth/union"
	"berth/volume"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
	wire "github.com/moby/moby/api/types/network"
)

// Create makes a container; name "" draws a random one. fault.NotFound: no such image ("No such image: x:latest").
func (c *maker) Create(ctx context.Context, name string, r CreateRequest) (id string, warnings []string, err error) {
	if r.Config == nil {
		return "", nil, invalid("config cannot be empty in order to create a container")
	}
	if name != "" {
		if name, err = container.CheckName(name); err != nil {
			return "", nil, err
		}
	}
	rec, img, warnings, err := c.draft(ctx, r)
	if err != nil {
		return "", nil, err
	}
	var u undo
	defer func() {
		if err != nil {
			u.run()
		}
	}()
	if name == "" {
		name = c.index.ReserveRandom(rec.ID)
	} else if err := c.index.Reserve(name, rec.ID); err != nil {
		return "", nil, err
	}
	u.push(func() { c.index.Release(name, rec.ID) })
	rec.Name = name
	if err := (depend.Graph{Containers: others{shared: c.shared}}).Check(name, rec.Settings); err != nil {
		return "", nil, err
	}
	if err := c.claimIDs(rec); err != nil {
		return "", nil, err
	}
	defer c.ids.Settle(rec.ID)
	c.volumes.Claim(rec)
	defer c.volumes.Settle(rec.ID)
	if err := c.build(ctx, rec, &u); err != nil {
		return "", nil, err
	}
	c.index.Add(rec.ID, newInstance(rec))
	if !rec.IDs.IsZero() && !c.mapsLayers() {
		warnings = append(warnings, "the image's layers are copied for the container's ids: "+noMapping)
	}
	if img == nil {
		warnings = append(warnings, "the container has no image: its root is empty")
	}
	c.announce(rec, events.ActionCreate)
	return rec.ID, append(warnings, c.nets.PortNotes(rec)...), nil
}

// draft decides everything about a new container but its name; nothing is made yet.
func (c *maker) draft(ctx context.Context, r CreateRequest) (*container.Record, *image.Image, []string, error) {
	img, err := c.images.ForCreate(ctx, r.Config.Image, r.Platform)
	if err != nil {
		return nil, nil, nil, err
	}
	config, err := request.Merge(r.Config, img.Config.Config)
	if err != nil {
		return nil, nil, nil, err
	}
	hostname, err := os.Hostname()
	if err != nil {
		return nil, nil, nil, err
	}
	host, warnings, err := request.Complete(r.HostConfig, config, c.machine())
	if err == nil {
		err = request.NetClass(r.Settings.NetClass, c.machine())
	}
	if err != nil {
		return nil, nil, nil, err
	}
	if _, warning := oci.OOMScore(host.OomScoreAdj); warning != "" {
		warnings = append(warnings, warning)
	}
	if err := request.CheckSettings(r.Settings, config); err != nil {
		return nil, nil, nil, err
	}
	rec := &container.Record{
		Schema: container.Schema, ID: container.NewID(), Created: time.Now().UTC(),
		Config: config, HostConfig: host,
		Image: img.ID, Manifest: &img.Manifest, ImageName: r.Config.Image, Platform: img.Config.OS, Chain: img.Chain, Driver: c.layers.Name(),
		State: container.State{Status: container.Created}, Settings: r.Settings,
	}
	command := append(append([]string{}, config.Entrypoint...), config.Cmd...)
	rec.Path, rec.Args = command[0], command[1:]
	if host.LogConfig.Type != "none" {
		rec.LogPath = c.logPath(rec.ID, host.LogConfig.Type)
	}
	if err := errors.Join(c.settleNetwork(rec, r, hostname), link.Settle(host, c.find)); err != nil {
		return nil, nil, nil, err
	}
	rec.Mounts, err = request.Mounts(config, host, func(ref string) ([]container.Mount, error) {
		other, err := c.index.Get(ref)
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, err) // 404 would make clients pull the image
		}
		return other.record().Mounts, nil
	})
	if err != nil {
		return nil, nil, nil, err
	}
	for k := range rec.Mounts {
		m := &rec.Mounts[k]
		if m.Type == mount.TypeVolume && m.Name == "" {
			m.Name = container.NewID()
		}
		if m.Type == mount.TypeVolume {
			if err := volume.CheckName(m.Name); err != nil {
				return nil, nil, nil, err
			}
		}
		if err := mounts.CheckBindSource(*m); err != nil {
			return nil, nil, nil, err
		}
	}
	return rec, img, warnings, c.shown().Settle(ctx, rec.Mounts)
}

// machine is what requests are judged by.
func (c *maker) machine() request.Machine {
	return request.Machine{CPUs: runtime.NumCPU(), Network: c.defaultNetwork(), Defaults: c.defaults, Remap: !c.ids.Remap.IsZero(), Limits: c.limits, AppArmor: hasAppArmor()}
}

// defaultNetwork is what a container gets that asks for none by name.
func (c *maker) defaultNetwork() string {
	if _, ok := c.nets.Host.Default(); !ok {
		return noneNetwork
	}
	return bridgeNetwork
}

// settleNetwork checks what the request says of networks, and names the host. A missing network or container is
// no fault.NotFound: clients take that answer for a missing image, and pull.
func (c *maker) settleNetwork(rec *container.Record, r CreateRequest, hostname string) error {
	config, host := rec.Config, rec.HostConfig
	var wishes map[string]*wire.EndpointSettings
	if r.Networking != nil {
		wishes = r.Networking.EndpointsConfig
	}
	if err := c.nets.Settle(rec, wishes); err != nil {
		return err
	}
	switch mode := host.NetworkMode; {
	case mode.IsBridge() && c.nets.ID(networks.Bridge) == "":
		return invalid("network bridge not found: the engine runs without a bridge")
	case mode.IsContainer():
		if config.Hostname != "" {
			return invalid("conflicting options: hostname and the network mode")
		}
		if len(r.Config.ExposedPorts) > 0 { // those that the image exposes are no wish of the user's
			return invalid("conflicting options: port exposing and the container type network mode")
		}
		other, err := c.index.Get(mode.ConnectedContainer())
		// Whose network is another's leads there.
		if err == nil && other.record().HostConfig.NetworkMode.IsContainer() {
			other, err = c.index.Get(other.record().HostConfig.NetworkMode.ConnectedContainer())
		}
		if err != nil {
			return fault.Wrap(fault.Invalid, err)
		}
		// By ID, so that a later rename of the other one changes nothing.
		host.NetworkMode = api.NetworkMode("container:" + other.id)
		config.Hostname = other.record().Config.Hostname
	case host.UTSMode.IsHost() && config.Hostname != "":
		return invalid("conflicting options: hostname and the UTS mode")
	case config.Hostname == "" && (mode.IsHost() || host.UTSMode.IsHost()):
		config.Hostname = hostname
	case config.Hostname == "":
		config.Hostname = container.ShortID(rec.ID)
	}
	return nil
}

// build makes the container's directory, root and volumes. The record is written before the volumes, so
// that a crash leaves none without an owner; a record without a root is swept.
func (c *maker) build(ctx context.Context, rec *container.Record, u *undo) error {
	if err := c.store.Create(rec.ID); err != nil {
		return err
	}
	u.push(func() { c.logged("remove directory", c.store.Delete(rec.ID)) })
	root, err := c.createRoot(ctx, rec)
	if errors.Is(err, fault.NotFound) {
		return fault.New(fault.NotFound, "No such image: %s", rec.ImageName) // removed meanwhile
	}
	if err != nil {
		return err
	}
	u.push(func() { c.logged("remove root", c.layers.Delete(rec.ID)) })
	err = c.shown().Hold(ctx, rec, func(root string) { u.push(func() { c.logged("let an image go", c.layers.Delete(root)) }) })
	if err != nil {
		return err
	}
	if err := c.store.Save(rec); err != nil {
		return err
	}
	return c.makeVolumes(ctx, rec, root, u)
}

// makeVolumes makes the volumes that do not exist yet and copies what the image has in their place.
func (c *maker) makeVolumes(ctx context.Context, rec *container.Record, root union.Root, u *undo) error {
	var fill []container.Mount
	for _, m := range rec.Mounts {
		if m.Type != mount.TypeVolume {
			continue
		}
		v, created, err := c.volumes.Ensure(ctx, m)
		if errors.Is(err, fault.NotFound) {
			err = fault.Wrap(fault.Invalid, err) // a driver; 404 would make clients pull the image
		}
		if err != nil {
			return err
		}
		if created {
			if err := own(v.Path, root.IDs); err != nil {
				return err
			}
			u.push(func() { c.logged("remove volume", c.volumes.Drop(c.life, v.Name)) })
		}
		if !m.NoCopy && m.Subpath == "" {
			fill = append(fill, m)
		}
	}
	if len(fill) == 0 {
		return nil
	}
	return union.View(root, func(top *os.File) error {
		for _, m := range fill {
			if err := c.fillVolume(ctx, top, rec.ID, m); err != nil {
				return err
			}
		}
		return nil
	})
}

func (c *maker) fillVolume(ctx context.Context, top *os.File, user string, m container.Mount) (err error) {
	tree, err := archive.OpenDir(top, m.Destination)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil // the image has nothing for it
	}
	if err != nil {
		return err
	}
	defer fault.Close(tree, &err)
	return c.volumes.Fill(ctx, m.Name, user, tree)
}

// logged keeps an error that nobody waits for.
func (c *shared) logged(what string, err error) {
	if err != nil && c.life.Err() == nil {
		c.log.Error(what, "error", err)
	}
}
