package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"berth/container"
	"berth/engine/bundle"
	"berth/engine/device"
	"berth/engine/link"
	"berth/engine/networks"
	"berth/engine/request"
	"berth/engine/stream"
	"berth/fault"
	"berth/network"
	"berth/oci"
	"berth/oci/shim"
	"berth/union"

	"github.com/moby/moby/api/types/events"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// startPrefix are the words that tools look for before the cause of a failed start.
const startPrefix = "failed to create task for container: failed to create shim task: OCI runtime create failed: "

// startFailedCode is the exit code of a start that failed before the program was looked for.
const startFailedCode = 128

// Start runs it, after what it was told to depend on. fault.NotModified: it runs already. One that waits for its
// policy's delay starts at once.
func (c *Containers) Start(ctx context.Context, ref string) error {
	i, err := c.index.Get(ref)
	if err != nil {
		return err
	}
	if !i.record().State.Status.Alive() {
		if err := c.needs().Bring(ctx, i.record()); err != nil {
			return err
		}
	}
	i.op.Lock()
	defer i.op.Unlock()
	return c.start(context.WithoutCancel(ctx), i, byUser)
}

// starting is who starts a container.
type starting int

const (
	byUser   starting = iota // forgets what the restart policy counted
	byPolicy                 // a start that fails is tried again
	byHealth                 // counts as a restart, too
	byUpdate                 // a start that fails is put right by whoever asked for it
)

// start begins a run. The caller holds op.
func (c *Containers) start(ctx context.Context, i *instance, by starting) error {
	r := i.record()
	switch s := r.State.Status; {
	case s == container.Running:
		return fault.New(fault.NotModified, "container %s is running already", r.Name)
	case s == container.Paused:
		return fault.New(fault.Conflict, "cannot start a paused container, try unpause instead")
	case s == container.Removing || s == container.Dead:
		return fault.New(fault.Conflict, "container is marked for removal and cannot be started")
	}
	if err := i.awaitSettled(ctx); err != nil {
		return err
	}
	if err := i.mounted.Await(ctx); err != nil {
		return err
	}
	i.forgetRestart()
	next := r.Clone()
	status, err := container.Next(r.State.Status, container.Start)
	if err != nil {
		return err
	}
	next.State = container.State{Status: status, StartedAt: time.Now().UTC(), FinishedAt: r.State.FinishedAt}
	switch by {
	case byHealth:
		next.State.RestartCount = r.State.RestartCount + 1
	case byPolicy:
		next.State.RestartCount, next.State.RestartDelay = r.State.RestartCount, r.State.RestartDelay
	}
	probes, checked := container.ProbesOf(next.Config)
	if checked {
		next.State.Health = container.HealthAtStart(r.State.Health)
	}
	var u undo
	sh, held, err := c.launch(ctx, i, next, &u)
	if err != nil {
		u.run()
		return c.startFailed(i, r, err, by)
	}
	next.State.Pid, next.State.StartedAt = sh.Pid(), sh.StartedAt()
	live := &run{shim: sh, attachment: held, ended: make(chan struct{}), recheck: make(chan struct{})}
	i.mu.Lock()
	i.run, i.settled = live, make(chan struct{})
	late := i.pending // clients that came while the supervisor was at work
	i.pending = nil
	i.mu.Unlock()
	for _, a := range late {
		c.logged("attach", sh.Attach(ctx, a))
	}
	i.snap.Store(next)
	for _, w := range sh.Warnings() {
		c.log.Warn(w, "container", next.Name)
	}
	c.volumes.TellUse(next, events.ActionMount)
	c.nets.TellMember(next.ID, events.ActionConnect, held, "")
	c.announce(next, events.ActionStart)
	c.retellLinks(next.ID)
	c.watchers.Add(1)
	go c.watch(i, live)
	c.forwards.Begin(next, live.ended)
	if checked {
		c.watchers.Go(func() { prober{c}.monitor(i, live, probes, live.recheck) })
	}
	if !r.State.StartedAt.IsZero() { // others may have joined the run before
		c.watchers.Go(func() { c.needs().Rejoin(i.record()) })
	}
	return nil
}

// launch starts the supervisor while the network is brought up and the run state is written; the program waits for
// the network. When the engine dies between, the new one ends a container that nobody was told of.
func (c *starter) launch(ctx context.Context, i *instance, next *container.Record, u *undo) (sh *shim.Shim, held *network.Attachment, err error) {
	u.push(func() { c.logged("give volumes back", c.volumes.Unmount(c.life, next.ID)) })
	held, err = c.reserve(next, u)
	if err != nil {
		return nil, nil, err
	}
	netns, connect, err := c.openNetwork(next, held)
	if err != nil {
		return nil, nil, err
	}
	if netns != nil {
		defer netns.Close()
	}
	u.push(func() { c.logged("forget names", c.names.Names.Drop(next.ID)) })
	ready, connected, err := whenReady(ctx, c.names.After(connect, next, held, netns))
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if ready != nil {
			ready.Close()
		}
		// Without a network there is no start, and that is the cause to tell.
		if netErr := <-connected; netErr != nil {
			sh, err = nil, fmt.Errorf("failed to set up container networking: %w", netErr)
		}
	}()
	request, err := c.request(ctx, next, held)
	if err != nil {
		return nil, nil, err
	}
	request.NetNS, request.Ready = netns, ready
	if err := setAttachment(next, held); err != nil {
		return nil, nil, err
	}
	saved := make(chan error, 1)
	go func() { saved <- c.store.SaveState(next) }()
	i.mu.Lock()
	request.Attach, i.pending = i.pending, nil
	i.mu.Unlock()
	full, err := union.MakeRoom(c.layers, next.ID)
	if err == nil {
		sh, err = c.shims.Start(ctx, request)
		err = errors.Join(err, full())
	}
	if err := errors.Join(err, <-saved); err != nil {
		if sh != nil { // it runs, but that can't be recorded
			err = errors.Join(err, sh.Signal(ctx, sigKill), sh.Close())
		}
		return nil, nil, err
	}
	c.logged("serve names", c.names.Names.Settle(next.ID, sh.Pid(), netns))
	return sh, held, nil
}

// reserve decides the container's addresses and ports; nil without a network of its own.
func (c *starter) reserve(r *container.Record, u *undo) (*network.Attachment, error) {
	joins, err := c.nets.Joins(r)
	if err != nil || !networks.Own(r) {
		return nil, err
	}
	ports, err := request.Ports(r.Config, r.HostConfig)
	if err != nil {
		return nil, err
	}
	held, err := c.nets.Host.Reserve(r.ID, joins, ports)
	if err != nil {
		return nil, fmt.Errorf("failed to set up container networking: %w", err)
	}
	u.push(func() { c.logged("release network", c.nets.Host.Release(held)) })
	return held, nil
}

// openNetwork opens the network namespace to run in, nil for the host's. connect, when not nil, makes it usable.
func (c *starter) openNetwork(r *container.Record, held *network.Attachment) (netns *os.File, connect func(context.Context) error, err error) {
	mode := r.HostConfig.NetworkMode
	switch {
	case held != nil:
		netns, connect, err = c.nets.Host.Take(held, network.Owner(r.IDs))
		if err != nil {
			return nil, nil, fmt.Errorf("failed to set up container networking: %w", err)
		}
		return netns, connect, nil
	case mode.IsHost():
		return nil, nil, nil
	case mode.IsContainer():
		pid, err := c.pidOf(mode.ConnectedContainer(), "network")
		if err != nil {
			return nil, nil, err
		}
		netns, err = os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
		return netns, nil, err
	default:
		netns, err = c.nets.Host.Loopback(network.Owner(r.IDs))
		return netns, nil, err
	}
}

// whenReady runs connect in the background. A byte can be read from ready when that went well, and its end without one
// when not; connected gives what it returned.
func whenReady(ctx context.Context, connect func(context.Context) error) (ready *os.File, connected <-chan error, err error) {
	result := make(chan error, 1)
	if connect == nil {
		result <- nil
		return nil, result, nil
	}
	ready, tell, err := os.Pipe()
	if err != nil {
		return nil, nil, errors.Join(err, connect(ctx))
	}
	go func() {
		err := connect(ctx)
		if err == nil {
			_, err = tell.Write([]byte{1})
			if errors.Is(err, syscall.EPIPE) { // the start has failed, and nobody waits any more
				err = nil
			}
		}
		result <- errors.Join(err, tell.Close())
	}()
	return ready, result, nil
}

// pidOf is the first process of another container that must run.
func (c *starter) pidOf(ref, what string) (int, error) {
	other, err := c.index.Get(ref)
	if err != nil {
		return 0, err
	}
	live, err := other.current()
	if err != nil {
		if what == "network" {
			return 0, fault.New(fault.Conflict, "cannot join network namespace of a non running container: container %s", other.record().Name)
		}
		return 0, fmt.Errorf("failed to join %s namespace: %v", what, err) // an internal error, as the field has it
	}
	return live.shim.Pid(), nil
}

// request makes all that a supervisor needs but the network namespace and the attachments.
func (c *starter) request(ctx context.Context, r *container.Record, held *network.Attachment) (shim.Request, error) {
	b, err := c.makeBundle(ctx, r, held)
	if err != nil {
		return shim.Request{}, err
	}
	l, err := stream.Log(r, c.packer)
	if err != nil {
		return shim.Request{}, err
	}
	console := r.HostConfig.ConsoleSize
	return shim.Request{
		Bundle: *b, Terminal: r.Config.Tty, OpenStdin: r.Config.OpenStdin, StdinOnce: r.Config.StdinOnce,
		Size: shim.ConsoleSize{Height: uint16(console[0]), Width: uint16(console[1])}, Log: l,
	}, nil
}

// makeBundle looks up the facts and makes the bundle.
func (c *starter) makeBundle(ctx context.Context, r *container.Record, held *network.Attachment) (b *oci.Bundle, err error) {
	f := &bundle.Facts{Record: r, CgroupParent: c.cgroupParent, Files: c.store.Dir(r.ID), Seccomp: c.seccomp, Defaults: c.defaults.Defaults, AppArmor: hasAppArmor(), Join: map[specs.LinuxNamespaceType]string{}}
	if mode := r.HostConfig.NetworkMode; mode.IsContainer() {
		f.Files = c.store.Dir(mode.ConnectedContainer())
	} else if err := c.writeFiles(f.Files, r, held); err != nil {
		return nil, err
	}
	if err := c.joinNamespaces(r, f); err != nil {
		return nil, err
	}
	if _, err := link.Targets(r, c.find); err != nil {
		return nil, err
	}
	f.LinkEnv = c.linkEnv(r)
	if err := c.joinUserns(r, f.Join); err != nil {
		return nil, err
	}
	if f.Foreign, err = c.foreign(r.HostConfig.Runtime); err != nil {
		return nil, err
	}
	if f.Root, err = c.openRoot(r); err != nil {
		return nil, err
	}
	if f.Mounts, err = c.findMounts(ctx, r); err != nil {
		return nil, err
	}
	if f.Devices, err = device.Find(r); err != nil {
		return nil, err
	}
	if f.BlockDevices, err = device.Block(r); err != nil {
		return nil, err
	}
	if r.HostConfig.Privileged {
		f.HostDevices = device.Host()
	}
	if r.Settings.Debug == nil {
		devices := device.CDI{Dirs: c.defaults.CDISpecDirs}
		names, err := devices.Select(r.HostConfig.DeviceRequests)
		if err != nil {
			return nil, err
		}
		if b, err = bundle.New(f); err != nil {
			return nil, err
		}
		return b, devices.Inject(b.Spec, names)
	}
	tools, err := c.addTools(r, f)
	if err != nil {
		return nil, err
	}
	if b, err = bundle.New(f); err == nil {
		b.Spec.Mounts = append(b.Spec.Mounts, tools)
	}
	return b, err
}

// startFailed records why a start failed, and returns it in the field's words.
func (c *Containers) startFailed(i *instance, before *container.Record, cause error, by starting) error {
	code, kind := startFailedCode, fault.Of(cause)
	err := cause
	if se := (*oci.StartError)(nil); errors.As(cause, &se) {
		code, kind = se.Code, fault.Invalid
		err = fmt.Errorf("%s%w", startPrefix, cause)
	} else if kind == "" {
		err = fmt.Errorf("%s%w", startPrefix, cause)
	}
	r := before.Clone()
	r.State.Error, r.State.ExitCode, r.State.FinishedAt, r.State.Pid = err.Error(), code, time.Now().UTC(), 0
	again, nextErr := false, error(nil)
	if by == byPolicy {
		again, nextErr = wantedAgain(r, code, 0)
	}
	if !again {
		r.State.Status, nextErr = container.Next(before.State.Status, container.Fail)
	}
	i.dropPending()
	if saveErr := errors.Join(nextErr, setAttachment(r, nil), c.saveState(i, r)); saveErr != nil {
		c.logged("record a failed start", saveErr)
	}
	c.logged("forget run state", c.shims.Forget(i.id))
	if r.HostConfig.AutoRemove && by != byUpdate {
		c.logged("remove after a failed start", c.erase(i, true))
	} else {
		i.tell(false)
	}
	if again {
		restarts{c}.schedule(i)
	}
	if kind != "" {
		return fault.Wrap(kind, err)
	}
	return err
}

// dropPending hangs up on clients that attached before a start that won't come.
func (i *instance) dropPending() {
	i.mu.Lock()
	pending := i.pending
	i.pending = nil
	i.mu.Unlock()
	for _, a := range pending {
		a.Conn.Close()
	}
}

// awaitSettled waits until what the last run left is cleared away.
func (i *instance) awaitSettled(ctx context.Context) error {
	i.mu.Lock()
	settled := i.settled
	i.mu.Unlock()
	if settled == nil {
		return nil
	}
	select {
	case <-settled:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
