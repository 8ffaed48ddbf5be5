package oci

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"
	"runtime"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/fault"
	"berth/kernel"
	"berth/kernel/cgroup"
	"berth/kernel/namespace"
)

// InitMain takes over when this program was executed by Create as the
// process that sets a container up from the inside, or as a container's --init; it returns at once otherwise. Every program
// that calls Create (tests included) calls it first thing in main.
func InitMain() {
	if len(os.Args) < 2 {
		return
	}
	switch os.Args[0] {
	case setupName:
		runtime.LockOSThread()
		os.Exit(setupMain())
	case reaperName:
		os.Exit(reaperMain(os.Args[1:]))
	}
}

// inside is the re-executed init.
type inside struct {
	builder
	socket, gate, status *os.File
	lines                *bufio.Reader
	pid                  int
}

func setupMain() int {
	first, err := strconv.Atoi(os.Args[1])
	if err != nil {
		return 1
	}
	i := &inside{}
	i.socket = kernel.Inherited(first, "socket")
	i.gate = kernel.Inherited(first+1, "gate")
	i.status = kernel.Inherited(first+2, "status")
	s, err := i.prepare()
	if err == nil {
		err = i.say(answer{Program: i.program, Warnings: i.warnings}, i.master)
	}
	if err != nil {
		i.say(answerOf(err), nil)
		return 1
	}
	kernel.CloseAll([]*os.File{i.master, i.socket})
	if err := i.await(); err != nil {
		return 1
	}
	if err := i.runHooks(hooksOf(i.spec).StartContainer, i.pid, specs.StateCreated); err != nil {
		kernel.ReportFailure(i.status, err)
		return 1
	}
	kernel.ReportFailure(i.status, s.Run())
	return 126
}

// await waits for the gate.
func (i *inside) await() error {
	n, err := i.gate.Read(make([]byte, 1))
	if err == nil && n != 1 {
		err = errors.New("nobody will open the gate")
	}
	return err
}

func answerOf(err error) answer {
	a := answer{Error: err.Error(), Kind: fault.Of(err)}
	var s *StartError
	if errors.As(err, &s) {
		a.Code = s.Code
	}
	return a
}

// say sends one line to the parent, with a file.
func (i *inside) say(a answer, f *os.File) error {
	data, err := json.Marshal(a)
	if err != nil {
		return err
	}
	var files []*os.File
	if f != nil {
		files = append(files, f)
	}
	return kernel.SendFiles(i.socket, append(data, '\n'), files)
}

// prepare sets the container up and returns what is left to be done after the gate.
func (i *inside) prepare() (*kernel.Script, error) {
	o, given, err := receiveOrder(i.socket)
	if err != nil {
		return nil, err
	}
	var served gifts
	if given[servedRoot] != nil {
		given, served = nil, given
	}
	i.lines = bufio.NewReader(i.socket)
	spec := *o.Bundle.Spec
	if spec.Linux == nil {
		spec.Linux = &specs.Linux{}
	}
	i.pid = o.Pid
	i.builder = builder{
		tree:     tree{bundle: o.Bundle, spec: &spec, console: o.Console, noPivot: o.NoPivot, given: given, served: served, first: true},
		preserve: o.Preserve, inNS: true, ask: i.askHooks,
	}
	i.ns.fresh = o.Kinds
	i.ns.joined = []joined{{kind: o.Joined}}
	if path := spec.Linux.CgroupsPath; path != "" {
		i.group = cgroup.Load(path)
	}
	for n := range i.stdio {
		if i.stdio[n], err = kernel.HighDup(kernel.Inherited(n, "stdio")); err != nil {
			return nil, err
		}
	}
	r, _, err := planRights(spec.Process, kernel.BoundingSet())
	if err != nil {
		return nil, err
	}
	r.oomScore = "" // the parent has set it
	if r.filter, err = o.Bundle.filter(); err != nil {
		return nil, err
	}
	if o.Bundle.Init {
		if i.self, err = kernel.SealedSelf(); err != nil {
			return nil, err
		}
	}
	uids, gids, err := namespace.ReadMaps("/proc/self")
	if err != nil {
		return nil, err
	}
	if err := i.setup(); err != nil {
		return nil, err
	}
	var early, late kernel.Script
	i.joinAndMount(&early)
	if err := early.Run(); err != nil {
		return nil, err
	}
	if err := errors.Join(i.settle(), i.user.mapped(uids, gids)); err != nil {
		return nil, err
	}
	i.protectByPath(&late)
	stdioOf(&late, i.stdio, i.terminal, i.preserve)
	run := i.execution()
	run.status = i.status
	dropAndExec(&late, spec.Process, i.user, r, nil, i.proc, run)
	return &late, nil
}

// askHooks has the parent run the runtime's hooks, and then runs those of the container's namespaces.
func (i *inside) askHooks() error {
	h := hooksOf(i.spec)
	if len(prestart(h))+len(h.CreateRuntime) > 0 {
		if err := i.say(answer{Hooks: true}, nil); err != nil {
			return err
		}
		if _, err := i.lines.ReadByte(); err != nil {
			return err
		}
	}
	return i.runHooks(h.CreateContainer, i.pid, specs.StateCreating)
}
