package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"berth/container"
	"berth/engine/bundle"
	"berth/engine/stream"
	"berth/fault"
	"berth/oci"
	"berth/oci/shim"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
)

// execution is a further process in a container.
type execution struct {
	id     string
	i      *instance
	live   *run
	config api.ExecCreateRequest

	mu      sync.Mutex
	tools   func(*oci.ExecSpec) (release func(), err error) // lends it tools; nil for an ordinary one
	release func()                                          // of the tools, at the end
	started bool
	running bool
	pid     int
	code    *int

	launched chan struct{} // closed when the supervisor has answered
	done     chan struct{} // closed when the exit code is known
}

// keptExecs is how many ended ones of a container can still be asked for.
const keptExecs = 64

// ExecCreate prepares a further process in a running container.
func (c *execs) ExecCreate(_ context.Context, ref string, r api.ExecCreateRequest) (id string, err error) {
	i, err := c.index.Get(ref)
	if err != nil {
		return "", err
	}
	if len(r.Cmd) == 0 {
		return "", invalid("No exec command specified")
	}
	if _, err := stream.ParseKeys(r.DetachKeys); err != nil {
		return "", err
	}
	live, err := c.runnable(i, ref)
	if err != nil {
		return "", err
	}
	return c.prepare(i, live, r).id, nil
}

// prepare makes a further process known, and tells of it.
func (c *execs) prepare(i *instance, live *run, r api.ExecCreateRequest) *execution {
	e := &execution{id: container.NewID(), i: i, live: live, config: r, launched: make(chan struct{}), done: make(chan struct{})}
	c.mu.Lock()
	c.byID[e.id] = e
	c.mu.Unlock()
	i.mu.Lock()
	i.execs, i.active = append(i.execs, e.id), append(i.active, e.id)
	i.mu.Unlock()
	c.pruneExecs(i)
	c.announce(i.record(), events.Action(fmt.Sprintf("%s: %s", events.ActionExecCreate, strings.Join(r.Cmd, " "))), "execID", e.id)
	return e
}

// forgetExec drops one that nobody else knows.
func (c *execs) forgetExec(e *execution) {
	c.mu.Lock()
	delete(c.byID, e.id)
	c.mu.Unlock()
	e.i.mu.Lock()
	defer e.i.mu.Unlock()
	e.i.execs = slices.DeleteFunc(e.i.execs, func(id string) bool { return id == e.id })
	e.i.active = slices.DeleteFunc(e.i.active, func(id string) bool { return id == e.id })
}

// runnable is the run of a container that can take further processes; ref is what errors call it, as the client does.
func (c *execs) runnable(i *instance, ref string) (*run, error) {
	live, err := i.current()
	if err != nil {
		if i.record().State.Status == container.Restarting {
			err = i.restarting()
		}
		return nil, err
	}
	if r := i.record(); r.State.Status == container.Paused {
		return nil, fault.New(fault.Conflict, "Container %s is paused, unpause the container before exec", ref)
	}
	return live, nil
}

func (c *execs) exec(id string) (*execution, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.byID[id]; ok {
		return e, nil
	}
	return nil, fault.New(fault.NotFound, "No such exec instance: %s", id)
}

// pruneExecs forgets the oldest ended ones.
func (c *execs) pruneExecs(i *instance) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for k := 0; k < len(i.execs) && len(i.execs) > keptExecs; {
		c.mu.Lock()
		e := c.byID[i.execs[k]]
		if e != nil && !e.over() {
			c.mu.Unlock()
			k++
			continue
		}
		delete(c.byID, i.execs[k])
		c.mu.Unlock()
		i.execs = slices.Delete(i.execs, k, k+1)
	}
}

func (e *execution) over() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.started && !e.running
}

// endExecs forgets those of a container that ended which can't be started any more. Those that ran with it stay,
// as their clients come for the exit code.
func (c *execs) endExecs(i *instance) {
	c.forgetExecs(i, func(e *execution) bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		return !e.started
	})
}

// dropExecs forgets those of a container that is removed.
func (c *execs) dropExecs(i *instance) {
	c.forgetExecs(i, func(*execution) bool { return true })
}

func (c *execs) forgetExecs(i *instance, gone func(*execution) bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	i.execs = slices.DeleteFunc(i.execs, func(id string) bool {
		e := c.byID[id]
		if e != nil && !gone(e) {
			return false
		}
		delete(c.byID, id)
		return true
	})
	i.active = slices.DeleteFunc(i.active, func(id string) bool { return !slices.Contains(i.execs, id) })
}

// CheckExec tells, before the connection is hijacked, whether the exec can be started.
func (c *execs) CheckExec(id string) error {
	e, err := c.exec(id)
	if err != nil {
		return err
	}
	if _, err := c.runnable(e.i, e.i.id); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.running:
		return fault.New(fault.Conflict, "exec command %s is already running", id)
	case e.started:
		return fault.New(fault.Conflict, "exec command %s has already run", id)
	}
	return nil
}

// ExecStart runs it. The connection in r.Attach is closed or handed over in any case; a server that
// has answered 101 already tells its client of a failure on a descriptor of its own.
func (c *execs) ExecStart(ctx context.Context, id string, r ExecStartRequest) error {
	e, request, err := c.prepareExec(id, r)
	if err != nil {
		if r.Attach != nil {
			err = errors.Join(err, r.Attach.Conn.Close())
		}
		return err
	}
	pid, err := c.launchExec(context.WithoutCancel(ctx), e, request)
	if err != nil {
		code := 126
		if se := (*oci.StartError)(nil); errors.As(err, &se) {
			code = se.Code
			err = fault.Wrap(fault.Invalid, fmt.Errorf("OCI runtime exec failed: exec failed: unable to start container process: %w", err))
		}
		e.end(code)
		close(e.launched)
		return err
	}
	e.mu.Lock()
	e.pid = pid
	e.mu.Unlock()
	close(e.launched)
	c.announce(e.i.record(), events.Action(fmt.Sprintf("%s: %s", events.ActionExecStart, strings.Join(e.config.Cmd, " "))), "execID", e.id)
	c.watchers.Add(1)
	go c.watchExec(e)
	return nil
}

// lent tells whether it gets tools; those end with their client.
func (e *execution) lent() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.tools != nil
}

// launchExec lends the tools and starts the process. The clients' connections are closed when it fails.
func (c *execs) launchExec(ctx context.Context, e *execution, request shim.ExecRequest) (pid int, err error) {
	if e.lent() {
		release, err := e.tools(&request.Spec)
		e.mu.Lock()
		e.release = release
		e.mu.Unlock()
		if err != nil {
			for _, a := range request.Attach {
				err = errors.Join(err, a.Conn.Close())
			}
			return 0, err
		}
	}
	return e.live.shim.Exec(ctx, request)
}

// end records the exit code and wakes who waits for it.
func (e *execution) end(code int) {
	e.i.mu.Lock()
	e.i.active = slices.DeleteFunc(e.i.active, func(id string) bool { return id == e.id })
	e.i.mu.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.release != nil {
		e.release()
		e.release = nil
	}
	e.running, e.code = false, &code
	close(e.done)
}

// prepareExec makes the request and takes the exec, so that nobody else can start it.
func (c *execs) prepareExec(id string, r ExecStartRequest) (*execution, shim.ExecRequest, error) {
	if err := c.CheckExec(id); err != nil {
		return nil, shim.ExecRequest{}, err
	}
	e, err := c.exec(id)
	if err != nil {
		return nil, shim.ExecRequest{}, err
	}
	rec := e.i.record()
	spec, err := bundle.Exec(rec, e.config, c.linkEnv(rec), c.defaults.Defaults)
	if err != nil {
		return nil, shim.ExecRequest{}, err
	}
	request := shim.ExecRequest{ID: id, Spec: spec, Terminal: e.config.Tty}
	size := r.ConsoleSize
	if size == nil {
		size = e.config.ConsoleSize
	}
	if size != nil {
		request.Size = shim.ConsoleSize{Height: uint16(size[0]), Width: uint16(size[1])}
	}
	// Taken before the client hears of it: its next call may be for the terminal's size.
	if err := e.take(); err != nil {
		return nil, request, err
	}
	if r.Attach != nil {
		attach := *r.Attach
		attach.Stdin, attach.Stdout, attach.Stderr = e.config.AttachStdin, e.config.AttachStdout, e.config.AttachStderr
		attach.Stream = true
		if e.config.DetachKeys != "" {
			attach.DetachKeys = e.config.DetachKeys
		}
		a, err := attachment(attach)
		if err == nil {
			err = shim.Greet(attach.Conn, attach.Greeting)
		}
		if err != nil {
			e.leave()
			return nil, request, err
		}
		a.HangUp = e.lent() || r.Attach.HangUp
		request.Attach = []shim.Attachment{a}
	}
	return e, request, nil
}

// take makes the exec the caller's to start.
func (e *execution) take() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.started {
		return fault.New(fault.Conflict, "exec command %s is already running", e.id)
	}
	e.started, e.running = true, true
	return nil
}

// leave undoes take: nothing was started.
func (e *execution) leave() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.started, e.running = false, false
}

// watchExec records how an exec ends.
func (c *execs) watchExec(e *execution) {
	defer c.watchers.Done()
	exit, err := e.live.shim.ExecWait(c.life, e.id)
	if c.life.Err() != nil {
		return
	}
	if err != nil { // its container, or the supervisor, has ended
		exit = oci.Exit{Code: 128 + sigKill}
	}
	e.end(exit.Code)
	c.announce(e.i.record(), events.ActionExecDie, "execID", e.id, "exitCode", strconv.Itoa(exit.Code))
}

// exitPatience bounds the wait for a code that is on its way.
const exitPatience = 5 * time.Second

// settle waits for the code of a process that is gone, so that a client whose stream has ended gets it. It
// does not wait for a process that runs.
func (e *execution) settle() {
	e.mu.Lock()
	running := e.running
	e.mu.Unlock()
	if !running {
		return
	}
	timer := time.NewTimer(exitPatience)
	defer timer.Stop()
	select {
	case <-e.launched:
	case <-timer.C:
		return
	}
	e.mu.Lock()
	pid := e.pid
	e.mu.Unlock()
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); pid == 0 || err == nil {
		return
	}
	select {
	case <-e.done:
	case <-timer.C:
	}
}

// ExecInspect describes it.
func (c *execs) ExecInspect(id string) (api.ExecInspectResponse, error) {
	e, err := c.exec(id)
	if err != nil {
		return api.ExecInspectResponse{}, err
	}
	e.settle()
	e.mu.Lock()
	defer e.mu.Unlock()
	x := e.config
	keys, err := stream.ParseKeys(x.DetachKeys)
	return api.ExecInspectResponse{
		ID: e.id, Running: e.running, ExitCode: e.code, ContainerID: e.i.id, Pid: e.pid, DetachKeys: keys,
		OpenStdin: x.AttachStdin, OpenStdout: x.AttachStdout, OpenStderr: x.AttachStderr, CanRemove: e.started && !e.running,
		ProcessConfig: &api.ExecProcessConfig{Tty: x.Tty, Entrypoint: x.Cmd[0], Arguments: x.Cmd[1:], Privileged: &x.Privileged, User: x.User},
	}, err
}

// ExecResize sets its terminal's size in characters. One that is about to start is waited for: clients send
// the size as soon as they have their stream.
func (c *execs) ExecResize(ctx context.Context, id string, height, width uint) error {
	e, err := c.exec(id)
	if err != nil {
		return err
	}
	if _, err := c.runnable(e.i, e.i.id); err != nil {
		return err
	}
	e.mu.Lock()
	running := e.running
	e.mu.Unlock()
	if !running {
		return fault.New(fault.Conflict, "exec command %s is not running", id)
	}
	select {
	case <-e.launched:
	case <-ctx.Done():
		return ctx.Err()
	}
	return e.live.shim.ExecResize(ctx, id, shim.ConsoleSize{Height: uint16(height), Width: uint16(width)})
}
