package shim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"berth/fault"
	"berth/kernel"
	"berth/oci"
)

const (
	// patience is how long the news of an exit waits for clients that don't take their output.
	patience = 2 * time.Second
	// packPatience is how long a next run waits for the old log's files to be compressed.
	packPatience = time.Second
)

// container is what the supervisor needs of an *oci.Process; the protocol's tests bring their own.
type container interface {
	Start() error
	Pid() int
	Console() *os.File
	Warnings() []string
	Wait() (oci.Exit, error)
	Signal(n int) error
	Pids() ([]int, error)
	Pause() error
	Resume() error
	KillRest() error
	Delete() error
	Hold() oci.Hold
}

// builder makes the processes.
type builder struct {
	create func(ctx context.Context, b *oci.Bundle, io oci.Stdio, netns *os.File) (container, error)
	exec   func(ctx context.Context, pid int, b *oci.Bundle, e oci.ExecSpec, io oci.Stdio) (container, error)
	adopt  func(h oci.Hold) container
}

// supervisor is the program's one object: a container and those who talk about it.
type supervisor struct {
	builder
	dir     string   // the run directory
	lock    *os.File // the directory, locked
	listen  *os.File
	boot    string
	self    identity
	source  source // the bundle
	init    container
	stdio   *stdio
	memory  memory
	settled bool // is not renewed: what is known of another runtime's processes, or of hooks, is not passed on
	chunks  sync.Pool

	// gate is held for reading by whoever does something, as opposed to waiting for something to do. Who gets
	// it for writing, which is only ever tried, finds nobody in the middle of anything.
	gate sync.RWMutex

	// signalling is held for reading until a signal is answered, which comes before the news of the end that it brings.
	signalling sync.RWMutex

	freezing sync.Mutex // one pause or resume at a time
	mu       sync.Mutex
	state    State // its LostLines and Execs are filled in when asked for
	exit     *oci.Exit
	peers    []*peer
	waiters  []pending
	execs    map[string]*execution
	order    []string // of the executions that ended, oldest first
	ending   bool     // no more execs
	running  sync.WaitGroup
}

// pending is a request that is answered later.
type pending struct {
	from   *peer
	number uint64
}

// peer is one connection of an engine.
type peer struct {
	conn    *os.File
	writing sync.Mutex
}

func (p *peer) answer(a *answer) {
	p.writing.Lock()
	defer p.writing.Unlock()
	if err := sendAnswer(p.conn, a); err != nil {
		p.conn.Close() // half a message would be the end anyway
	}
}

// serve runs one container on behalf of the first message on conn and returns
// when it has ended and all was delivered.
func serve(conn *os.File, dir string, b builder) error {
	boot, err := bootID()
	if err != nil {
		return err
	}
	self, err := identify(os.Getpid())
	if err != nil {
		return err
	}
	p := &peer{conn: conn}
	m, err := receiveCall(conn) // the spare's long wait
	if err != nil {
		return err // the engine ended without a use for this spare
	}
	if m.Op != opStart || m.Start == nil {
		return fault.New(fault.Invalid, "spare supervisor got a request to %s", m.Op)
	}
	sup := newSupervisor(b, filepath.Join(dir, m.Start.Bundle.ID))
	sup.boot, sup.self = boot, self
	sup.state.ID = m.Start.Bundle.ID
	sup.source.body = m.body
	if err := sup.start(m.Start); err != nil {
		p.answer(&answer{Number: m.Number, Error: toWire(err)})
		for _, a := range m.attachments() {
			a.Conn.Close() // those that nobody serves
		}
		if sup.stdio != nil {
			sup.stdio.finish()
		}
		return nil
	}
	p.answer(&answer{Number: m.Number, State: sup.tell()})
	if err := errors.Join(sup.crashInto(crashFile), sup.note(&m.Start.Bundle)); err != nil {
		sup.complain(err)
	}
	m = nil // with all that it holds
	sup.memory.used(worthwhile)
	sup.meet(p)
	sup.run()
	return nil
}

func newSupervisor(b builder, dir string) *supervisor {
	sup := &supervisor{builder: b, dir: dir, execs: make(map[string]*execution)}
	sup.chunks.New = func() any { return new(chunk) }
	sup.memory.renew = sup.renew
	return sup
}

// run serves until the container has ended and all was delivered.
func (sup *supervisor) run() {
	go sup.accept()
	kernel.AwaitReadable(sup.init.Hold().PidFD)
	sup.gate.RLock() // for good: the end is not put off any more
	sup.supervise()
}

// start brings the container up. On an error nothing is left but the connections
// of clients, which the caller closes.
func (sup *supervisor) start(r *Request) (err error) {
	if r.NetNS != nil {
		defer r.NetNS.Close()
	}
	if r.Ready != nil {
		defer r.Ready.Close()
	}
	if err = sup.occupy(); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			if sup.init != nil {
				sup.init.Delete()
			}
			if sup.stdio != nil {
				sup.stdio.end(0)
			}
			sup.vacate()
		}
	}()
	log, err := openLog(r.Log)
	if err != nil {
		return err
	}
	io, given, err := sup.newStdio(r.Terminal, r.OpenStdin, r.StdinOnce, log)
	if err != nil {
		return err
	}
	sup.stdio = io
	if err = sup.note(&r.Bundle); err != nil {
		return err
	}
	if r.Terminal && r.Bundle.Spec != nil && r.Bundle.Spec.Process != nil {
		r.Bundle.Spec.Process.ConsoleSize = r.Size.box()
	}
	if r.Bundle.Foreign != nil {
		r.Bundle.Dir, sup.settled = sup.dir, true
	}
	if err = sup.prepareHooks(&r.Bundle); err != nil {
		return err
	}
	if sup.init, err = sup.create(context.Background(), &r.Bundle, given, r.NetNS); err != nil {
		sup.init = nil
		return err
	}
	io.process.Store(&sup.init)
	if r.Terminal {
		if err = io.terminal(sup.init.Console(), r.OpenStdin, r.Size); err != nil {
			return err
		}
	}
	for _, a := range r.Attach {
		if err = io.attach(a); err != nil {
			return err
		}
	}
	io.begin()
	if err = r.awaitReady(); err != nil {
		return err
	}
	if err = sup.init.Start(); err != nil {
		return err
	}
	sup.state = State{
		Protocol: protocol, ID: sup.state.ID, Shim: os.Getpid(), Pid: sup.init.Pid(), StartedAt: time.Now(),
		Terminal: r.Terminal, Warnings: sup.init.Warnings(),
	}
	return nil
}

// occupy makes the run directory ours and opens the socket in it.
func (sup *supervisor) occupy() (err error) {
	if err = os.Mkdir(sup.dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make run directory: %w", err)
	}
	fresh := err == nil
	if sup.lock, err = os.Open(sup.dir); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			sup.lock.Close()
		}
	}()
	free, err := kernel.TryLock(sup.lock)
	if err == nil && !free {
		// The last run's supervisor cleans up after its exit, in a moment, or the container runs.
		if _, none := loadExit(sup.dir); none != nil {
			return fault.New(fault.Conflict, "container %s is already running", sup.state.ID)
		}
		err = kernel.Lock(sup.lock)
	}
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(sup.dir)
		}
	}()
	if !fresh {
		for _, name := range []string{exitFile, runFile, socketFile, crashFile} {
			if err = os.Remove(filepath.Join(sup.dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	sup.listen, err = kernel.ListenUnix(sup.lock, socketFile)
	return err
}

// crashInto has the runtime write there what it says when this program falls.
func (sup *supervisor) crashInto(name string) error {
	crash, err := os.OpenFile(filepath.Join(sup.dir, name), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(debug.SetCrashOutput(crash, debug.CrashOptions{}), crash.Close())
}

// vacate undoes occupy.
func (sup *supervisor) vacate() {
	sup.listen.Close()
	os.RemoveAll(sup.dir)
	sup.lock.Close()
}

// note writes down what an engine needs to clean up should this process die: before there is
// anything, and again when the first process is known.
func (sup *supervisor) note(b *oci.Bundle) error {
	r := run{Protocol: protocol, ID: sup.state.ID, BootID: sup.boot, Shim: sup.self}
	if b.Spec != nil && b.Spec.Linux != nil {
		r.Cgroup = b.Spec.Linux.CgroupsPath
	}
	if sup.stdio.log != nil {
		r.Log = sup.stdio.log.Path
	}
	if sup.init != nil {
		var err error
		if r.Init, err = identify(sup.init.Pid()); err != nil && fault.Of(err) != fault.NotFound {
			return err
		}
	}
	return r.save(sup.dir)
}

// supervise sees the container to its end: reap, drain, record, hang up, tell.
func (sup *supervisor) supervise() {
	exit, err := sup.init.Wait()
	if err != nil {
		exit = oci.Exit{Code: 255, At: time.Now(), Error: err.Error()}
	}
	if exit.At.IsZero() {
		exit.At = time.Now()
	}
	// Whatever is left shares no pid namespace with the first process; it must not hold the output, nor outlive the container.
	if err := sup.init.KillRest(); err != nil && exit.Error == "" {
		exit.Error = err.Error()
	}
	sup.stdio.end(patience)
	sup.endExecs(patience)
	sup.signalling.Lock()
	err = saveExit(sup.dir, exit)
	sup.signalling.Unlock()
	if err != nil {
		sup.complain(err)
	}
	sup.mu.Lock()
	sup.exit = &exit
	waiters := sup.waiters
	sup.waiters = nil
	sup.mu.Unlock()
	for _, w := range waiters {
		w.from.answer(&answer{Number: w.number, Exit: &exit})
	}
	// The file system's last sync and nine control groups are nothing to wait for. Who dies here leaves them to Forget.
	if err := sup.init.Delete(); err != nil {
		sup.complain(err)
	}
	if log := sup.stdio.log; log != nil {
		log.settle(packPatience)
	}
	sup.poststop()
	kernel.Unlock(sup.lock) // a next run may begin
	sup.stdio.finish()
	sup.running.Wait()
}

// accept greets engines that come later.
func (sup *supervisor) accept() {
	for kernel.AwaitReadable(sup.listen) == nil && sup.greet() {
	}
}

func (sup *supervisor) greet() bool {
	sup.gate.RLock()
	defer sup.gate.RUnlock()
	conn, err := kernel.Accept(sup.listen)
	if err != nil {
		return false
	}
	p := &peer{conn: conn}
	p.answer(&answer{Number: greeting, State: sup.tell()})
	sup.meet(p)
	return true
}

// tell returns the current state.
func (sup *supervisor) tell() *State {
	sup.mu.Lock()
	defer sup.mu.Unlock()
	state := sup.state
	for id, e := range sup.execs {
		if e.exit == nil {
			state.Execs = append(state.Execs, id)
		}
	}
	slices.Sort(state.Execs)
	state.LostLines = sup.stdio.lostLines()
	return &state
}

// complain leaves a message where a crash would, for want of anybody to tell.
func (sup *supervisor) complain(err error) {
	os.WriteFile(filepath.Join(sup.dir, crashFile), []byte(err.Error()+"\n"), 0o600)
}
