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
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	var userNS *os.File
	err = kernel.Thread(func() error {
		for _, j := range b.ns.joined {
			if j.kind == namespace.User {
				userNS = j.file // only a process of one thread can join it
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
		for i, f := range b.stdio {
			if f == nil {
				f = null
			}
			s.Dup(s.F(f), i)
		}
		first := 3 + b.preserve
		for i, f := range []*os.File{theirs, st.gateIn, st.statusIn} {
			s.Dup(s.F(f), first+i)
		}
		s.CloseOnExec(first + 3)
		s.ExecFile(self, []string{setupName, strconv.Itoa(first)}, []string{"GOMAXPROCS=1"})
		child, err = s.Fork(uintptr(b.ns.fresh &^ namespace.Cgroup))
		return err
	})
	if err != nil {
		return nil, err
	}
	err = b.adopt(child.Pid, r)
	if err == nil {
		_, err = mapOut.Write([]byte{1})
	}
	if err != nil {
		mapOut.Close() // the child ends by itself
		kernel.Reap(child.PidFD)
		child.Close()
		child.PidFD.Close()
		return nil, err
	}
	if err := child.Started(); err != nil {
		kernel.Reap(child.PidFD)
		child.PidFD.Close()
		return nil, err
	}
	return child, nil
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
		if err := writeMap(dir+"gid_map", l.GIDMappings); err != nil {
			return err
		}
		if err := writeMap(dir+"uid_map", l.UIDMappings); err != nil {
			return err
		}
	}
	if r.oomScore != "" {
		if err := os.WriteFile(dir+"oom_score_adj", []byte(r.oomScore), 0); err != nil {
			return err
		}
	}
	for _, l := range r.limits {
		if err := kernel.SetLimit(pid, l); err != nil {
			return err
		}
	}
	return nil
}

func writeMap(path string, list []specs.LinuxIDMapping) error {
	var text []byte
	for _, m := range list {
		text = fmt.Appendf(text, "%d %d %d\n", m.ContainerID, m.HostID, m.Size)
	}
	return os.WriteFile(path, text, 0)
}

// guide tells the init what to do and serves it until it stands at its gate.
func (b *builder) guide(p *Process, s *os.File, r rights, o options) error {
	joined := 0
	for _, j := range b.ns.joined {
		joined |= j.kind
	}
	data, err := json.Marshal(order{
		Bundle: b.bundle, Console: b.console, Preserve: b.preserve, Kinds: b.ns.fresh, Joined: joined, Pid: p.Pid(), NoPivot: o.noPivot,
	})
	if err != nil {
		return err
	}
	if err := kernel.SendFiles(s, append(data, '\n'), nil); err != nil && !kernel.IsBrokenPipe(err) {
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

// receiveAnswer reads one line, and the files that came with it.
func receiveAnswer(s *os.File) (a answer, files []*os.File, err error) {
	var line []byte
	buf := make([]byte, 4096)
	for !bytes.HasSuffix(line, []byte("\n")) {
		n, more, err := kernel.ReceiveFiles(s, buf)
		files = append(files, more...)
		line = append(line, buf[:n]...)
		if errors.Is(err, io.EOF) {
			return a, files, errors.New("the container's first process was killed while it set the container up")
		}
		if err != nil {
			return a, files, err
		}
	}
	return a, files, json.Unmarshal(line, &a)
}
