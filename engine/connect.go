package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"

	"berth/container"
	"berth/engine/networks"
	"berth/fault"
	"berth/network"

	"github.com/moby/moby/api/types/events"
	wire "github.com/moby/moby/api/types/network"
)

// connector puts containers on networks and takes them off. What is wished is on disk before anything is wired, and a
// restart makes what is wired equal to it.
type connector struct{ *Containers }

// Connect puts a container on a further network: at once if it runs, else from its next start on. fault.Denied: it is on it, or can't be.
func (c *Containers) Connect(ctx context.Context, ref, net string, e *wire.EndpointSettings) error {
	i, err := c.index.Get(ref)
	if err != nil {
		return err
	}
	n, err := c.nets.Inspect(net)
	if err != nil {
		return err
	}
	i.op.Lock()
	defer i.op.Unlock()
	if err := mayConnect(i.record(), n.Name); err != nil {
		return err
	}
	if e == nil {
		e = &wire.EndpointSettings{}
	}
	if err := c.nets.CheckWish(n.Name, e); err != nil {
		return err
	}
	before := i.record()
	wishes := maps.Clone(networks.Wishes(before))
	if wishes == nil {
		wishes = map[string]*wire.EndpointSettings{}
	}
	if _, there := wishes[n.Name]; there {
		return fault.New(fault.Denied, "endpoint with name %s already exists in network %s", before.Name, n.Name)
	}
	wishes[n.Name] = networks.Wish(e)
	return connector{c}.change(ctx, i, wishes)
}

// Disconnect takes a container off a network. With force, one that is not there is no error.
func (c *Containers) Disconnect(ctx context.Context, ref, net string, force bool) error {
	n, err := c.nets.Inspect(net)
	if err != nil {
		return err
	}
	i, err := c.index.Get(ref)
	if err != nil {
		if force && errors.Is(err, fault.NotFound) {
			return nil // its endpoint went with it
		}
		return err
	}
	i.op.Lock()
	defer i.op.Unlock()
	r := i.record()
	if r.HostConfig.NetworkMode.IsHost() {
		return fault.New(fault.Conflict, "cannot disconnect container from host network - container was created in host network mode")
	}
	wishes := maps.Clone(networks.Wishes(r))
	if _, there := wishes[n.Name]; !there {
		return fault.New(fault.Denied, "container %s is not connected to network %s", r.ID, n.Name)
	}
	delete(wishes, n.Name)
	return connector{c}.change(ctx, i, wishes)
}

// mayConnect refuses what modes exclude, in the field's words.
func mayConnect(r *container.Record, name string) error {
	mode := r.HostConfig.NetworkMode
	switch {
	case mode.IsContainer():
		return fault.New(fault.Denied, "container sharing network namespace with another container or host cannot be connected to any other network")
	case mode.IsHost() || name == networks.Host:
		return fault.New(fault.Denied, "container cannot be connected to host network, or disconnected from it")
	case mode.IsNone() || name == networks.None || r.Config.NetworkDisabled:
		return fault.New(fault.Denied, "container cannot be connected to multiple networks with one of the networks in private (none) mode")
	case r.State.Status == container.Removing || r.State.Status == container.Dead:
		return fault.New(fault.Denied, "container %s is marked for removal and cannot be connected or disconnected to the network", r.ID)
	}
	return nil
}

// change makes wishes what the container has. The caller holds op.
func (c connector) change(ctx context.Context, i *instance, wishes map[string]*wire.EndpointSettings) error {
	before := i.record()
	next := before.Clone()
	next.Networks = wishes
	if live, err := i.current(); err == nil && live.attachment == nil && networks.Own(next) {
		return fault.New(fault.Conflict, "container %s runs without a network of its own: stop it first, and it is on the new one from its next start on", next.Name)
	}
	if err := c.store.Save(next); err != nil {
		return err
	}
	i.snap.Store(next)
	if err := c.follow(context.WithoutCancel(ctx), i); err != nil {
		now := i.record().Clone()
		now.Networks = before.Networks
		i.snap.Store(now)
		return errors.Join(err, c.store.Save(now))
	}
	return nil
}

// follow wires a container that runs as its record wishes. The caller holds op.
func (c connector) follow(ctx context.Context, i *instance) error {
	live, err := i.current()
	if err != nil || live.attachment == nil && !networks.Own(i.record()) {
		return nil
	}
	if live.attachment == nil {
		return nil // from its next start on
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", live.shim.Pid()))
	if err != nil {
		return fault.New(fault.Conflict, "container %s ends just now: %w", i.record().Name, err)
	}
	defer ns.Close()
	r := i.record()
	for _, e := range live.attachment.Endpoints {
		if _, wished := networks.Wishes(r)[e.Network]; wished {
			continue
		}
		held, err := c.nets.Host.Disconnect(ctx, live.attachment, e.NetworkID, ns)
		if held != nil {
			err = errors.Join(err, c.settle(i, live, held))
		}
		if err != nil {
			return err
		}
		c.nets.TellMember(r.ID, events.ActionDisconnect, &network.Attachment{Endpoints: []network.Endpoint{e}}, "")
	}
	for name, wish := range networks.Wishes(r) {
		join, err := c.nets.Join(r, name, wish)
		if err != nil {
			return err
		}
		if live.attachment.On(join.Network) != nil {
			continue
		}
		held, err := c.nets.Host.Connect(ctx, live.attachment, join, ns)
		if err != nil {
			return err
		}
		if err := c.settle(i, live, held); err != nil {
			former, undoErr := c.nets.Host.Disconnect(ctx, held, join.Network, ns)
			if former != nil {
				i.mu.Lock()
				live.attachment = former
				i.mu.Unlock()
			}
			return errors.Join(err, undoErr)
		}
		c.nets.TellMember(r.ID, events.ActionConnect, held, join.Network)
	}
	return nil
}

// settle records what a container holds now, and writes its files anew.
func (c connector) settle(i *instance, live *run, held *network.Attachment) error {
	i.mu.Lock()
	live.attachment = held
	i.mu.Unlock()
	next := i.record().Clone()
	err := setAttachment(next, held)
	if err == nil {
		err = c.store.SaveState(next)
	}
	if err == nil {
		i.snap.Store(next)
		err = errors.Join(c.writeFiles(c.store.Dir(i.id), next, held), c.names.Follow(next, held, live.shim.Pid()))
	}
	return err
}
