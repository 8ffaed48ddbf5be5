package oci

import (
	"context"
	"errors"
	"os"
	"path"
	"slices"
	"strings"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/fault"
	"berth/kernel"
	"berth/kernel/cgroup"
	"berth/kernel/namespace"
)

// options are what only some callers of create need.
type options struct {
	preserve     int      // files after stdio that the program inherits
	noPivot      bool     // move the root instead of pivoting
	gate, status *os.File // what connects the first process with whoever starts it, when that is not the creator
	builder      string   // "direct" or "indirect"; empty: what fits
}

// check refuses a bundle that can't be run, before anything is made.
func (b *Bundle) check() error {
	switch {
	case b.Spec == nil || b.Spec.Process == nil:
		return fault.New(fault.Invalid, "container %s: the bundle has no process to run", b.ID)
	case len(b.Spec.Process.Args) == 0:
		return &StartError{Code: 127, Err: errors.New("no command specified")}
	case b.Spec.Process.Cwd != "" && b.Spec.Process.Cwd[0] != '/':
		return fault.New(fault.Invalid, "the working directory %q is not absolute", b.Spec.Process.Cwd)
	}
	return nil
}

func create(ctx context.Context, bundle *Bundle, stdio Stdio, netns *os.File, o options) (p *Process, err error) {
	if err := errors.Join(ctx.Err(), bundle.check()); err != nil {
		return nil, err
	}
	spec := *bundle.Spec
	if spec.Linux == nil {
		spec.Linux = &specs.Linux{}
	}
	if err := unsupported(&spec); err != nil {
		return nil, err
	}
	b := &builder{tree: tree{bundle: bundle, spec: &spec, console: stdio.Console, noPivot: o.noPivot}, preserve: o.preserve}
	defer b.close()
	if b.ns, err = planNamespaces(spec.Linux.Namespaces, netns); err != nil {
		return nil, err
	}
	defer b.ns.close()
	if err := errors.Join(checkSysctls(&spec, b.ns), b.openStdio(stdio)); err != nil {
		return nil, err
	}
	r, warnings, err := planRights(spec.Process, kernel.BoundingSet())
	if err != nil {
		return nil, err
	}
	if r.filter, err = bundle.filter(); err != nil {
		return nil, err
	}
	b.warnings = warnings
	if bundle.Init {
		if b.self, err = kernel.SealedSelf(); err != nil {
			return nil, err
		}
		b.own(b.self)
	}
	b.grouped = b.makeGroup()
	defer func() {
		if err != nil {
			b.grouped()
			err = errors.Join(err, remove(b.group))
		}
	}()
	if o.builder == "direct" || o.builder == "" && o.gate == nil && b.fitsDirect() {
		return b.direct(ctx, r)
	}
	if err := b.grouped(); err != nil {
		return nil, err
	}
	return b.indirect(ctx, r, o)
}

// fitsDirect tells whether builder B can make this container. A user namespace takes a process of one
// thread, and hooks are programs that want to run between the steps.
func (b *builder) fitsDirect() bool {
	if b.ns.has(namespace.User) || b.noPivot || b.bundle.HasHooks() {
		return false
	}
	// What only the first process can mount is not there yet when paths are resolved.
	for _, late := range []string{"/proc", "/sys/fs/cgroup"} {
		if cwd := path.Clean(b.spec.Process.Cwd); cwd == late || strings.HasPrefix(cwd, late+"/") {
			return false
		}
		for _, m := range b.spec.Mounts {
			if _, in := below(late, m.Destination); in && (late != "/proc" || m.Type != "tmpfs" && m.Type != "bind" && !parseOptions(m.Options).bind) {
				return false
			}
		}
	}
	return true
}

// makeGroup makes the container's cgroup, when the bundle names one, beside what the caller does: with v1 it is a
// directory and its limits in each of nine hierarchies. What it returns waits for that, as often as one likes, and
// sets b.group and b.groups.
func (b *builder) makeGroup() func() error {
	if b.spec.Linux.CgroupsPath == "" {
		return func() error { return nil }
	}
	var group *cgroup.Group
	var files []*os.File
	var warnings []string
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		if group, warnings, err = cgroup.Create(b.spec.Linux.CgroupsPath, b.spec.Linux.Resources); err == nil {
			files, err = joinFiles(group)
		}
	}()
	return sync.OnceValue(func() error {
		<-done
		b.group, b.groups = group, files
		for _, f := range files {
			b.own(f)
		}
		b.warnings = append(b.warnings, warnings...)
		return err
	})
}

// awaitGroup waits for the cgroup; in the re-executed init it is there already.
func (t *tree) awaitGroup() error {
	if t.grouped == nil {
		return nil
	}
	return t.grouped()
}

// openStdio takes the files of the program, out of the way of its first descriptors.
func (b *builder) openStdio(s Stdio) error {
	if s.Console {
		return nil
	}
	for i, f := range []*os.File{s.Stdin, s.Stdout, s.Stderr} {
		if f == nil {
			null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
			if err != nil {
				return err
			}
			f = b.own(null)
		}
		high, err := kernel.HighDup(f)
		if err != nil {
			return err
		}
		b.stdio[i] = b.own(high)
	}
	return nil
}

// direct is builder B: the calling program's own thread enters the new namespaces and sets the container up;
// the first process is forked from it and goes on by a script of system calls, so no second program is started,
// and no file of ours can be reached from inside.
func (b *builder) direct(ctx context.Context, r rights) (*Process, error) {
	gateIn, gateOut, err := kernel.Pipe()
	if err != nil {
		return nil, err
	}
	defer gateIn.Close()
	var child *kernel.Child
	err = kernel.Thread(func() error {
		if err := errors.Join(kernel.SetDumpable(false), b.setup()); err != nil {
			return err
		}
		if err := b.settle(); err != nil {
			return err
		}
		var s kernel.Script
		s.CloseFile(gateOut)
		b.joinAndMount(&s)
		b.protectByPath(&s)
		stdioOf(&s, b.stdio, b.terminal, b.preserve)
		dropAndExec(&s, b.spec.Process, b.user, r, gateIn, b.proc, b.execution())
		child, err = s.Fork(uintptr(b.ns.fresh & namespace.PID))
		return err
	})
	if err != nil {
		gateOut.Close()
		if b.master != nil {
			b.master.Close()
		}
		return nil, err
	}
	p := &Process{
		child: child, pidfd: child.PidFD, gate: gateOut, console: b.master, group: b.group, owns: true,
		program: b.program, warnings: b.warnings, root: b.keepRoot(),
	}
	if err := p.awaitReady(ctx); err != nil {
		return nil, err
	}
	return p, nil
}

// keepRoot takes the root out of what is closed with the builder.
func (b *builder) keepRoot() *os.File {
	b.files = slices.DeleteFunc(b.files, func(f *os.File) bool { return f == b.root })
	return b.root
}

// awaitReady waits until the process stands at its gate.
func (p *Process) awaitReady(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { kernel.SignalPid(p.pidfd, kill) })
	err := p.child.Ready()
	stop()
	if err = errors.Join(ctx.Err(), err); err == nil {
		return nil
	}
	p.child.Close()
	p.discard()
	kernel.CloseAll([]*os.File{p.pidfd, p.gate, p.root})
	if p.console != nil {
		p.console.Close()
	}
	return err
}
