package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/fault"
	"berth/kernel"
	"berth/kernel/cgroup"
	"berth/kernel/namespace"
)

// Exec starts one more process inside the container whose first process is pid (as the caller sees it), with
// the limits, filter and rights that b and e give it, and returns when its program was executed; a StartError
// when it could not be. The process is the caller's child: Wait for it.
func Exec(ctx context.Context, pid int, bundle *Bundle, e ExecSpec, stdio Stdio) (*Process, error) {
	first, err := kernel.OpenPid(pid)
	if err != nil {
		return nil, fault.New(fault.Conflict, "container %s is not running", bundle.ID)
	}
	defer first.Close()
	return enter(ctx, first, pid, bundle, e, stdio)
}

// entrant makes one more process in a container, on a thread of the caller's that joined it.
type entrant struct {
	builder
	first *os.File // the container's first process
	pid   int
	spec  ExecSpec
	gids  []specs.LinuxIDMapping // beside builder.uids
	tools []*os.File             // the mounts of spec.Tools
}

// actAsRoot makes the thread, which stays outside of the container's user namespace, make files as root in there.
func (x *entrant) actAsRoot() error {
	if !x.mapped() {
		return nil
	}
	uids, gids, err := namespace.ReadMaps(fmt.Sprintf("/proc/%d", x.pid))
	if err != nil {
		return err
	}
	x.uids, x.gids = uids, gids
	uid, gid, err := mapIDs(uids, gids, 0, 0)
	if err != nil {
		return err
	}
	return kernel.ActAs(uid, gid)
}

func enter(ctx context.Context, first *os.File, pid int, bundle *Bundle, e ExecSpec, stdio Stdio) (_ *Process, err error) {
	if bundle.Spec == nil || bundle.Spec.Linux == nil {
		return nil, fault.New(fault.Invalid, "container %s: the bundle says nothing of Linux", bundle.ID)
	}
	if len(e.Process.Args) == 0 {
		return nil, &StartError{Code: 127, Err: errors.New("no command specified")}
	}
	found := *bundle
	found.MakeCwd = false // that is for the first process; a further one goes where it can, or fails
	bundle = &found
	x := &entrant{builder: builder{tree: tree{bundle: bundle, console: stdio.Console}}, first: first, pid: pid, spec: e}
	spec := *bundle.Spec
	spec.Process = &e.Process
	x.builder.spec = &spec
	defer x.close()
	if err := x.openStdio(stdio); err != nil {
		return nil, err
	}
	r, warnings, err := planRights(&e.Process, kernel.BoundingSet())
	if err != nil {
		return nil, err
	}
	x.warnings = warnings
	if r.filter, err = bundle.filter(); err != nil {
		return nil, err
	}
	if path := spec.Linux.CgroupsPath; path != "" {
		x.group = cgroup.Load(path)
	}
	child, err := x.fork(r)
	if err == nil {
		p := &Process{child: child, pidfd: child.PidFD, console: x.master, group: x.group, program: x.program, warnings: x.warnings}
		if err = p.executed(ctx); err == nil {
			return p, nil
		}
	}
	if x.master != nil {
		x.master.Close()
	}
	// While the first process ends, and takes all others of its PID namespace with it, no further one is let in (pid_namespaces(7)).
	if kernel.IsNoMemory(err) && kernel.AwaitEnd(first, dying) == nil {
		return nil, fault.New(fault.Conflict, "container %s is not running", bundle.ID)
	}
	return nil, err
}

// dying is how long a first process whose namespace is closed may take to end.
const dying = 5 * time.Second

// executed waits until the program was executed and takes the process away when it was not.
func (p *Process) executed(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { kernel.SignalPid(p.pidfd, kill) })
	err := p.child.Started()
	stop()
	if err = errors.Join(ctx.Err(), err); err == nil {
		return nil
	}
	p.discard()
	p.pidfd.Close()
	return execError(p.program, err)
}

// fork joins the container on a thread of its own and forks the process there.
func (x *entrant) fork(r rights) (child *kernel.Child, err error) {
	err = kernel.Thread(func() error {
		if err := x.openProc(); err != nil {
			return err
		}
		// What joins the container must not be open to its processes before it has dropped its rights.
		if err := kernel.SetDumpable(false); err != nil {
			return err
		}
		for _, step := range []func() error{x.openGroup, x.openTools, x.actAsRoot, x.join, x.attachTools} {
			if err := step(); err != nil {
				return err
			}
		}
		if err := x.prepare(); err != nil {
			return err
		}
		var s kernel.Script
		s.For("join the container's cgroup")
		for _, f := range x.groups {
			s.Write(s.F(f), "0")
		}
		if x.mapped() {
			limit(&s, r.limits) // which root of a user namespace may not raise
			r.limits = nil
			s.For("join the container's user namespace") // which only a process of one thread can
			s.Setns(s.F(x.first), namespace.User)
		}
		stdioOf(&s, x.stdio, x.terminal, 0)
		dropAndExec(&s, &x.spec.Process, x.user, r, nil, x.proc, execution{path: x.program, argv: x.spec.Process.Args, env: x.env})
		var err error
		child, err = s.Fork(0)
		return err
	})
	return child, err
}

// join enters the namespaces of the container's first process, all that differ from ours.
func (x *entrant) join() error {
	if err := kernel.UnshareFS(); err != nil {
		return err
	}
	const all = namespace.Mount | namespace.PID | namespace.Net | namespace.IPC | namespace.UTS | namespace.Cgroup
	err := namespace.Enter(x.first, all)
	if kernel.IsGone(err) {
		return fault.New(fault.Conflict, "container %s is not running", x.bundle.ID)
	}
	return err
}

// mapped tells whether the container has a user namespace of its own.
func (x *entrant) mapped() bool {
	for _, n := range x.bundle.Spec.Linux.Namespaces {
		if n.Type == specs.UserNamespace {
			return true
		}
	}
	return false
}

// prepare resolves user, directory and program inside the container.
func (x *entrant) prepare() error {
	if err := x.workingDirectory(); err != nil {
		return err
	}
	if x.console {
		root, err := kernel.OpenIn(nil, "/", kernel.OPath|kernel.ODirectory, 0, 0)
		if err != nil {
			return err
		}
		x.root = x.own(root)
		if err := x.openTerminal(); err != nil {
			return err
		}
	}
	var given *specs.User
	if x.spec.UserFromSpec {
		given = &x.spec.Process.User
	}
	u, err := findUser(x.spec.User, given, x.spec.GroupAdd)
	if err != nil {
		return err
	}
	if x.mapped() {
		if err := u.mapped(x.uids, x.gids); err != nil {
			return err
		}
	}
	x.user, x.env = u, withHome(x.spec.Process.Env, u)
	return errors.Join(x.giveStdio(), x.findProgram())
}
