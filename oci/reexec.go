package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/fault"
	"berth/kernel"
	"berth/kernel/namespace"
)

// setupName is the re-executed program's own name, by which InitMain knows what it is.
const setupName = "berth-oci: container setup"

// order is what the re-executed init is told.
type order struct {
	Bundle   *Bundle `json:"bundle"`
	Console  bool    `json:"console,omitempty"`
	Preserve int     `json:"preserve,omitempty"`
	Kinds    int     `json:"kinds"` // namespaces of the container's own
	Joined   int     `json:"joined"`
	Pid      int     `json:"pid"` // as the parent sees it
	NoPivot  bool    `json:"noPivot,omitempty"`
	// Given names the files that come with the order: what was made outside of a user namespace; nil when there is none.
	Given []string `json:"given,omitempty"`
}

// answer is what it says: an error, a request to run the runtime's hooks, or that it stands at its gate.
type answer struct {
	Error    string     `json:"error,omitempty"`
	Kind     fault.Kind `json:"kind,omitempty"`
	Code     int        `json:"code,omitempty"` // of a StartError
	Hooks    bool       `json:"hooks,omitempty"`
	Program  string     `json:"program,omitempty"`
	Warnings []string   `json:"warnings,omitempty"`
}

func (a answer) err() error {
	if a.Error == "" {
		return nil
	}
	err := errors.New(a.Error)
	if a.Code != 0 {
		return &StartError{Code: a.Code, Err: err}
	}
	if a.Kind != "" {
		return fault.Wrap(a.Kind, err)
	}
	return err
}

// indirect is builder A: a sealed copy of our program in memory is executed as the
// container's first process; it sets the container up from the inside, and becomes the container's program. It serves every case.
func (b *builder) indirect(ctx context.Context, r rights, o options) (_ *Process, err error) {
	self, err := kernel.SealedSelf()
	if err != nil {
		return nil, err
	}
	b.own(self)
	ours, theirs, err := kernel.SocketPair("init")
	if err != nil {
		return nil, err
	}
	defer ours.Close()
	high, err := kernel.HighDup(theirs)
	theirs.Close()
	if err != nil {
		return nil, err
	}
	defer high.Close()
	st, err := newStarter(o)
	if err != nil {
		return nil, err
	}
	p := &Process{group: b.group, owns: true, warnings: b.warnings, gate: st.gateOut}
	if p.child, err = b.spawn(self, high, ours, st, r); err != nil {
		st.abandon()
		return nil, err
	}
	p.pidfd = p.child.PidFD
	st.closeInner()
	high.Close()
	stop := context.AfterFunc(ctx, func() { kernel.SignalPid(p.pidfd, kill) })
	defer stop()
	if err = b.guide(p, ours, r, o); err == nil {
		err = ctx.Err()
	}
	if err != nil {
		st.abandon()
		p.discard()
		p.pidfd.Close()
		if p.console != nil {
			p.console.Close()
		}
		return nil, err
	}
	p.child = kernel.Follow(p.child, st.statusOut)
	if o.gate == nil {
		// Nothing is lost without it but some milliseconds at the end.
		p.root, _ = kernel.OpenIn(nil, fmt.Sprintf("/proc/%d/root", p.Pid()), kernel.OPath, 0, 0)
	}
	p.after = func() error { return b.runHooks(hooksOf(b.spec).Poststart, p.Pid(), specs.StateRunning) }
	return p, nil
}

// starter holds what connects a waiting first process with whoever starts it.
type starter struct {
	gateIn, gateOut, statusIn, statusOut *os.File
}

func newStarter(o options) (s starter, err error) {
	if o.gate != nil {
		return starter{gateIn: o.gate, statusIn: o.status}, nil
	}
	if s.gateIn, s.gateOut, err = kernel.Pipe(); err != nil {
		return s, err
	}
	if s.statusOut, s.statusIn, err = kernel.StatusPipe(); err != nil {
		s.gateIn.Close()
		s.gateOut.Close()
	}
	return s, err
}

func (s starter) closeInner() { kernel.CloseAll([]*os.File{s.gateIn, s.statusIn}) }

func (s starter) abandon() {
	kernel.CloseAll([]*os.File{s.gateIn, s.gateOut, s.statusIn, s.statusOut})
}

// spawn starts the re-executed init in its namespaces. Its files after stdio and those preserved are
// its end of the socket, the gate and the status.
func (b *builder) spawn(self, theirs, ours *os.File, st starter, r rights) (child *kernel.Child, err error) {
	mapped, mapOut, err := kernel.Pipe()
	if err != nil {
		return nil, err
	}
	defer mapped.Close()
	defer mapOut.Close()
	child, again, err := b.fork(self, []*os.File{theirs, st.gateIn, st.statusIn}, mapped, mapOut)
	if err != nil {
		return nil, err
	}
	err = b.adopt(child.Pid, r)
	if err == nil {
		_, err = mapOut.Write([]byte{1})
	}
	if err != nil {
		kernel.SignalPid(child.PidFD, kill)
		kernel.Reap(child.PidFD)
		child.Close()
		child.PidFD.Close()
		return nil, err
	}
	if again {
		if child, err = child.Again(); err != nil {
			return nil, err
		}
	}
	if err := child.Started(); err != nil {
		kernel.Reap(child.PidFD)
		child.PidFD.Close()
		return nil, err
	}
	return child, nil
}

// fork starts the process in its namespaces, where it waits for mapped, whose other end is mapOut, and then executes
// self with the files given. again: what is executed is a further process, that the first one forks.
func (b *builder) fork(self *os.File, files []*os.File, mapped, mapOut *os.File) (child *kernel.Child, again bool, err error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, false, err
	}
	defer null.Close()
	userNS := b.ns.find(namespace.User) // only a process of one thread can join it
	kinds, later := b.ns.fresh&^namespace.Cgroup, 0
	if userNS != nil {
		kinds, later = 0, kinds // the others are to belong to it
	}
	err = kernel.Thread(func() error {
		for _, j := range b.ns.joined {
			if j.kind == namespace.User {
				continue
			}
			if err := namespace.Enter(j.file, j.kind); err != nil {
				return err
			}
		}
		var s kernel.Script
		s.For("start the container's first process")
		s.CloseFile(mapOut)
		s.Await(mapped)
		if userNS != nil {
			s.Setns(s.F(userNS), namespace.User)
		}
		if b.ns.has(namespace.User) {
			kernel.Rights{Script: &s}.Identity(0, 0, nil)
			kernel.Rights{Script: &s}.KeepCaps(false)
		}
		switch {
		case later&namespace.PID != 0:
			s.ForkAgain(later)
		case later != 0:
			s.Unshare(later)
		}
		for i, f := range b.stdio {
			if f == nil {
				f = null
			}
			s.Dup(s.F(f), i)
		}
		first := 3 + b.preserve
		for i, f := range files {
			s.Dup(s.F(f), first+i)
		}
		s.CloseOnExec(first + len(files))
		s.ExecFile(self, []string{setupName, strconv.Itoa(first)}, []string{"GOMAXPROCS=1"})
		child, err = s.Fork(uintptr(kinds))
		return err
	})
	return child, later&namespace.PID != 0, err
}

// adopt does to the new process what takes rights that it won't have in a user namespace.
func (b *builder) adopt(pid int, r rights) error {
	if b.group != nil {
		if err := b.group.Add(pid); err != nil {
			return err
		}
	}
	dir := fmt.Sprintf("/proc/%d/", pid)
	if b.ns.fresh&namespace.User != 0 {
		l := b.spec.Linux
		if len(l.UIDMappings) == 0 || len(l.GIDMappings) == 0 {
			return fault.New(fault.Invalid, "a user namespace needs uidMappings and gidMappings")
		}
		if err := namespace.WriteMaps(dir, l.UIDMappings, l.GIDMappings); err != nil {
			return fmt.Errorf("map the container's ids: %w", err)
		}
	}
	if r.oomScore != "" {
		if err := os.WriteFile(dir+"oom_score_adj", []byte(r.oomScore), 0); err != nil {
			return err
		}
	}
	own, err := kernel.FileLimit()
	if err != nil {
		return err
	}
	for _, l := range r.limits {
		if l.Resource == own.Resource && l.Hard <= own.Hard {
			continue // it needs its own files until then, and has no need of us to lower it
		}
		if err := kernel.SetLimit(pid, l); err != nil {
			return err
		}
	}
	return nil
}

// guide tells the init what to do and serves it until it stands at its gate.
func (b *builder) guide(p *Process, s *os.File, r rights, o options) error {
	joined := 0
	for _, j := range b.ns.joined {
		joined |= j.kind
	}
	todo := order{
		Bundle: b.bundle, Console: b.console, Preserve: b.preserve, Kinds: b.ns.fresh, Joined: joined, Pid: p.Pid(), NoPivot: o.noPivot,
	}
	var files []*os.File
	if b.ns.has(namespace.User) {
		out, err := newOutside(&b.tree, p.Pid())
		if err != nil {
			return err
		}
		defer out.close()
		if err := out.makeAll(b.stdio[:]); err != nil {
			return err
		}
		todo.Given, files = out.names, out.made
	} else if b.bundle.rootIsServed() {
		root, err := mountOfRoot(&b.tree, nil)
		if err != nil {
			return err
		}
		defer root.Close()
		todo.Given, files = []string{servedRoot}, []*os.File{root}
	}
	if err := sendOrder(s, todo, files); err != nil && !kernel.IsBrokenPipe(err) {
		return err
	}
	for {
		a, files, err := receiveAnswer(s)
		if len(files) == 1 {
			p.console = files[0]
		} else {
			kernel.CloseAll(files)
		}
		if err == nil {
			err = a.err()
		}
		if err != nil || !a.Hooks {
			p.program = a.Program
			p.warnings = append(p.warnings, a.Warnings...)
			return err
		}
		h := hooksOf(b.spec)
		if err := errors.Join(b.runHooks(prestart(h), p.Pid(), specs.StateCreating), b.runHooks(h.CreateRuntime, p.Pid(), specs.StateCreating)); err != nil {
			return err
		}
		if err := kernel.SendFiles(s, []byte{1}, nil); err != nil {
			return err
		}
	}
}

// sendOrder sends one line. Files that don't go with it travel ahead, with a blank each time.
func sendOrder(s *os.File, o order, files []*os.File) error {
	data, err := json.Marshal(o)
	for err == nil && len(files) > kernel.MaxFiles {
		err = kernel.SendFiles(s, []byte(" "), files[:kernel.MaxFiles])
		files = files[kernel.MaxFiles:]
	}
	if err != nil {
		return err
	}
	return kernel.SendFiles(s, append(data, '\n'), files)
}

// receiveOrder reads it, with the files by their names.
func receiveOrder(s *os.File) (o order, given gifts, err error) {
	line, files, err := receiveLine(s)
	if err == nil {
		err = json.Unmarshal(line, &o)
	}
	if err == nil && len(files) != len(o.Given) {
		err = fmt.Errorf("%d files came where %d were sent", len(files), len(o.Given))
	}
	if err != nil || len(files) == 0 {
		kernel.CloseAll(files)
		return o, nil, err
	}
	given = gifts{}
	for i, name := range o.Given {
		given[name] = append(given[name], files[i])
	}
	return o, given, nil
}

// receiveAnswer reads one line, and the files that came with it.
func receiveAnswer(s *os.File) (a answer, files []*os.File, err error) {
	line, files, err := receiveLine(s)
	if errors.Is(err, io.EOF) {
		err = errors.New("the container's first process was killed while it set the container up")
	}
	if err != nil {
		return a, files, err
	}
	return a, files, json.Unmarshal(line, &a)
}

// receiveLine reads up to the end of a line, after which the other side waits.
func receiveLine(s *os.File) (line []byte, files []*os.File, err error) {
	buf := make([]byte, 4096)
	for !bytes.HasSuffix(line, []byte("\n")) {
		n, more, err := kernel.ReceiveFiles(s, buf)
		files = append(files, more...)
		line = append(line, buf[:n]...)
		if err != nil {
			return nil, files, err
		}
	}
	return line, files, nil
}
