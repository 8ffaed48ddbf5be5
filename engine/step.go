package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"berth/build"
	"berth/container"
	"berth/engine/bundle"
	"berth/engine/request"
	"berth/engine/stream"
	"berth/fault"
	"berth/oci/shim"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
)

// runStep runs the program of a build. It has a root, a directory and a supervisor as a container has, but no record: should the engine
// die, the next one takes it for a creation that was cut off, ends it and sweeps it.
func (c *Containers) runStep(ctx context.Context, p build.Program) (code int, err error) {
	r, err := c.stepRecord(p)
	if err != nil {
		return 0, err
	}
	var u undo
	defer func() { u.run() }()
	if err := c.index.Reserve(r.Name, r.ID); err != nil {
		return 0, err
	}
	u.push(func() { c.index.Release(r.Name, r.ID) })
	if err := c.store.Create(r.ID); err != nil {
		return 0, err
	}
	u.push(func() { c.logged("remove directory", c.store.Delete(r.ID)) })
	theirs, mine, err := shim.Pipe()
	if err != nil {
		return 0, err
	}
	defer fault.Close(mine, &err)
	i := newInstance(r)
	i.pending = []shim.Attachment{{Conn: theirs, Stdout: true, Stderr: true, Frames: true}}
	u.push(i.dropPending)
	u.push(func() { c.logged("forget run state", c.shims.Forget(r.ID)) })
	sh, _, err := (&starter{c.shared, besideStep(p)}).launch(ctx, i, r, &u)
	if err != nil {
		return 0, err
	}
	defer fault.Close(sh, &err)
	read := make(chan error, 1)
	go func() { read <- stream.Demultiplex(mine, p.Stdout, p.Stderr) }()
	end := func() error {
		kill, cancel := context.WithTimeout(context.WithoutCancel(ctx), killPatience)
		defer cancel()
		return sh.Signal(kill, sigKill)
	}
	stop := context.AfterFunc(ctx, func() { c.logged("end a build's step", end()) })
	defer stop()
	exit, err := sh.Wait(c.life)
	if c.life.Err() != nil { // the engine closes, and nobody waits for the build any more
		return 0, errors.Join(fault.Wrap(fault.Canceled, err), end())
	}
	if err != nil {
		return 0, errors.Join(fmt.Errorf("run a step: %w", err), c.shims.Reap(r.ID))
	}
	if err := <-read; err != nil && ctx.Err() == nil {
		return 0, fmt.Errorf("read a step's output: %w", err)
	}
	if ctx.Err() != nil {
		return 0, fault.Wrap(fault.Canceled, ctx.Err())
	}
	if exit.OOMKilled && exit.Code != 0 { // else one of its children was, and it made do
		return exit.Code, fault.New(fault.Invalid, "the command '%s' was killed as it used more memory than the build may: raise --memory", strings.Join(p.Run.Args, " "))
	}
	return exit.Code, nil
}

// stepRecord is what a container would be that runs p.
func (c *Containers) stepRecord(p build.Program) (*container.Record, error) {
	s := p.Settings
	mode := api.NetworkMode(p.Run.Network)
	if mode.IsDefault() || mode == "sandbox" {
		mode = api.NetworkMode(c.defaultNetwork())
	}
	config := &api.Config{Hostname: "buildkitsandbox", User: p.Run.User, WorkingDir: p.Run.Dir, Cmd: p.Run.Args, Env: slices.Concat(p.Run.Env, p.Run.Proxies, p.Env)}
	host := &api.HostConfig{NetworkMode: mode, ExtraHosts: s.Hosts, ShmSize: s.ShmSize, SecurityOpt: s.SecurityOpt, Privileged: p.Run.Security == "insecure",
		Resources: api.Resources{Memory: s.Memory, MemorySwap: s.MemorySwap, CPUShares: s.CPUShares, CPUPeriod: s.CPUPeriod, CPUQuota: s.CPUQuota, CpusetCpus: s.CPUSet, CpusetMems: s.CPUSetMems, CgroupParent: s.CgroupParent, Ulimits: s.Ulimits},
		LogConfig: api.LogConfig{Type: "none"}}
	host, _, err := request.Complete(host, config, c.machine())
	if err != nil && !c.ids.Remap.IsZero() && (p.Run.Security == "insecure" || mode.IsHost()) {
		err = fmt.Errorf("%w: build it by a daemon without --userns-remap", err)
	}
	if err != nil {
		return nil, err
	}
	r := &container.Record{
		Schema: container.Schema, ID: p.ID, Name: p.ID, Created: time.Now().UTC(), Config: config, HostConfig: host, Path: p.Run.Args[0], Args: p.Run.Args[1:],
		Platform: "linux", Driver: c.layers.Name(), State: container.State{Status: container.Running},
	}
	if err := c.claimIDs(r); err != nil {
		return nil, err
	}
	if !r.IDs.Equal(c.ids.Remap) { // its root may be a copy for those
		return nil, invalid("container %s has other user ids than builds: its network can't be joined by them", mode.ConnectedContainer())
	}
	for _, m := range p.Mounts {
		if m.Kind == build.Volume {
			r.Mounts = append(r.Mounts, container.Mount{Type: mount.TypeVolume, Name: m.Volume, Destination: m.Target, ReadOnly: m.ReadOnly, NoCopy: true})
		}
	}
	return r, nil
}

// besideStep are the mounts of a build's program that no container could have.
func besideStep(p build.Program) (all []bundle.Mount) {
	for _, m := range p.Mounts {
		one := bundle.Mount{Mount: container.Mount{Type: mount.TypeBind, Destination: m.Target, ReadOnly: m.ReadOnly, Subpath: m.Path}, Tree: m.Tree, Shifted: m.Shifted}
		switch m.Kind {
		case build.Volume:
			continue
		case build.Treed:
			one.Type = mount.TypeImage
		case build.InMemory:
			one.File = &bundle.File{Content: m.Content, Mode: uint32(m.Mode) & 0o7777, UID: m.UID, GID: m.GID}
		case build.Empty:
			one.Type, one.Options = mount.TypeTmpfs, []string{"exec", "mode=1777"}
			if m.Size > 0 {
				one.Options = append(one.Options, fmt.Sprintf("size=%d", m.Size))
			}
		}
		all = append(all, one)
	}
	return all
}
