package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"reflect"
	"slices"

	"berth/container"
	"berth/engine/bundle"
	"berth/engine/device"
	"berth/engine/request"
	"berth/fault"
	"berth/network"
	"berth/oci"

	"github.com/moby/moby/api/types/mount"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// changeLive makes a running container what to says, step by step, each of which pushes its inverse. It puts into to what
// is known only then (the published ports). errNotLive: not while it runs. The caller holds op.
func (c updater) changeLive(ctx context.Context, i *instance, from, to *container.Record, u *undo) (warnings []string, err error) {
	live, err := i.current()
	if err != nil {
		return nil, err
	}
	if warnings, err = c.changeLimits(from, to); err != nil {
		return warnings, err
	}
	u.push(func() {
		_, err := c.changeLimits(to, from)
		c.logged("put limits back", err)
	})
	if err := c.changePorts(i, live, from, to, u); err != nil {
		return warnings, err
	}
	if err := c.changeMounts(ctx, live, from, to, u); err != nil {
		return warnings, err
	}
	return warnings, c.changeHealth(i, live, from, to, u)
}

// changeHealth ends the health checks when they are others, and puts the new ones into to; watchHealth begins them when that is published.
func (c updater) changeHealth(i *instance, live *run, from, to *container.Record, u *undo) error {
	if !newHealth(from, to) {
		return nil
	}
	u.push(func() {
		c.logged("put the health check back", c.store.SaveState(from))
		c.watchHealth(i, live)
	})
	close(live.recheck)
	live.recheck = make(chan struct{})
	if to.State.Health = nil; hasCheck(to) {
		to.State.Health = container.HealthAtStart(nil)
	}
	return c.store.SaveState(to)
}

func hasCheck(r *container.Record) bool {
	_, ok := container.ProbesOf(r.Config)
	return ok
}

// watchHealth begins the checks that the published record wants.
func (c updater) watchHealth(i *instance, live *run) {
	if probes, ok := container.ProbesOf(i.record().Config); ok {
		changed := live.recheck
		c.watchers.Go(func() { prober(c).monitor(i, live, probes, changed) })
	}
}

// changeLimits sets what differs between two records in the container's cgroup.
func (c updater) changeLimits(from, to *container.Record) (warnings []string, err error) {
	if reflect.DeepEqual(from.HostConfig.Resources, to.HostConfig.Resources) {
		return nil, nil
	}
	devices, err := device.Block(from)
	if err != nil {
		return nil, err
	}
	more, err := device.Block(to)
	if err != nil {
		return nil, err
	}
	maps.Copy(devices, more)
	change, err := bundle.LimitChange(&from.HostConfig.Resources, &to.HostConfig.Resources, devices, specs.LinuxCPU{Cpus: c.limits.Cpus, Mems: c.limits.Mems})
	if err != nil {
		return nil, err
	}
	return oci.Update(bundle.CgroupsPath(c.cgroupParent, to), change)
}

// changePorts publishes and withdraws ports of a container.
func (c updater) changePorts(i *instance, live *run, from, to *container.Record, u *undo) error {
	before := live.attachment
	if before == nil || reflect.DeepEqual(from.HostConfig.PortBindings, to.HostConfig.PortBindings) && reflect.DeepEqual(from.Config.ExposedPorts, to.Config.ExposedPorts) {
		return nil
	}
	wanted, err := request.Ports(to.Config, to.HostConfig)
	if err != nil {
		return err
	}
	held, err := c.nets.Host.SetPorts(before, wanted)
	if err != nil {
		return err
	}
	put := func(r *container.Record, held *network.Attachment) error {
		i.mu.Lock()
		live.attachment = held
		i.mu.Unlock()
		return errors.Join(setAttachment(r, held), c.store.SaveState(r))
	}
	u.push(func() {
		former, err := c.nets.Host.SetPorts(held, samePorts(before))
		if err == nil {
			err = put(from.Clone(), former)
		}
		c.logged("put ports back", err)
	})
	return put(to, held)
}

// samePorts asks for exactly the ports that a has.
func samePorts(a *network.Attachment) (all []network.PortRequest) {
	for _, p := range a.Ports {
		r := network.PortRequest{HostIP: p.HostIP, HostPort: p.HostPort, Port: p.Port, Proto: p.Proto}
		if !slices.Contains(all, r) {
			all = append(all, r)
		}
	}
	return all
}

// changeMounts adds and removes mounts of a running container. What is replaced goes right before what comes, what is
// only removed goes at the end: a tmpfs that is gone can't be put back with what it held.
func (c updater) changeMounts(ctx context.Context, live *run, from, to *container.Record, u *undo) error {
	pid := live.shim.Pid()
	added := newMounts(from, to)
	removed := removedMounts(from, to)
	if len(added)+len(removed) == 0 {
		return nil
	}
	if !from.IDs.IsZero() {
		return errNotLive // what is made and mounted there is for its own ids
	}
	ready, err := c.readyMounts(ctx, pid, to, added, u)
	if err != nil {
		return err
	}
	for k, m := range added {
		if at := slices.Index(removed, m.Destination); at >= 0 {
			if err := c.unmountLive(pid, from, m.Destination, u); err != nil {
				return err
			}
			removed = slices.Delete(removed, at, at+1)
		}
		if err := mountLive(pid, ready[k]); err != nil {
			return err
		}
		u.push(func() { c.logged("take a mount back", oci.UnmountIn(pid, m.Destination)) })
	}
	for _, dst := range removed {
		if err := c.unmountLive(pid, from, dst, u); err != nil {
			return err
		}
	}
	return nil
}

// removedMounts lists where from has a mount that to has not.
func removedMounts(from, to *container.Record) (all []string) {
	for _, m := range newMounts(to, from) {
		all = append(all, m.Destination)
	}
	for dst := range from.HostConfig.Tmpfs {
		if _, kept := to.HostConfig.Tmpfs[dst]; !kept {
			all = append(all, path.Clean(dst))
		}
	}
	return all
}

// readyMounts makes what added needs on the host, volumes with what the container has in their place, and gives them as the container format has them.
func (c updater) readyMounts(ctx context.Context, pid int, r *container.Record, added []container.Mount, u *undo) ([]specs.Mount, error) {
	for _, m := range added {
		if m.Type != mount.TypeVolume {
			continue
		}
		v, created, err := c.volumes.Ensure(ctx, m)
		if err != nil {
			return nil, err
		}
		if !created {
			continue
		}
		u.push(func() { c.logged("remove volume", c.volumes.Drop(c.life, v.Name)) })
		if m.NoCopy || m.Subpath != "" {
			continue
		}
		top, err := os.Open(fmt.Sprintf("/proc/%d/root", pid))
		if err != nil {
			return nil, err
		}
		if err := errors.Join(c.fillVolume(ctx, top, r.ID, m), top.Close()); err != nil {
			return nil, err
		}
	}
	part := r.Clone()
	part.Mounts = added
	found, err := c.findMounts(c.life, part)
	if err != nil {
		return nil, err
	}
	ready := make([]specs.Mount, len(found))
	for k, m := range found {
		ready[k] = bundle.UserMount(m)
	}
	return ready, nil
}

func mountLive(pid int, m specs.Mount) error {
	err := oci.MountIn(pid, m)
	if errors.Is(err, fault.Unsupported) {
		return errors.Join(errNotLive, err)
	}
	return err
}

// unmountLive takes a mount away. One that the container took away itself is no error.
func (c updater) unmountLive(pid int, from *container.Record, dst string, u *undo) error {
	err := oci.UnmountIn(pid, dst)
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	part := from.Clone()
	part.Mounts = slices.DeleteFunc(part.Mounts, func(m container.Mount) bool { return m.Destination != dst })
	u.push(func() {
		found, err := c.findMounts(c.life, part)
		if len(found) > 0 && err == nil {
			err = oci.MountIn(pid, bundle.UserMount(found[0]))
		}
		c.logged("put a mount back", err)
	})
	return nil
}
