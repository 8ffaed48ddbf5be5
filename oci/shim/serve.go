package shim

import (
	"errors"
	"os"
	"slices"

	"berth/fault"
	"berth/kernel"
)

// talk answers one engine until it goes away.
func (sup *supervisor) talk(p *peer) {
	for kernel.AwaitReadable(p.conn) == nil && sup.listenTo(p) {
	}
	sup.mu.Lock()
	sup.peers = slices.DeleteFunc(sup.peers, func(q *peer) bool { return p == q })
	sup.mu.Unlock()
	p.conn.Close()
}

// tellLeft tells every engine that a client detached.
func (sup *supervisor) tellLeft(exec string) {
	sup.mu.Lock()
	peers := slices.Clone(sup.peers)
	sup.mu.Unlock()
	for _, p := range peers {
		p.answer(&answer{Number: greeting, Left: &exec})
	}
}

// listenTo takes one request; false ends the conversation.
func (sup *supervisor) listenTo(p *peer) bool {
	sup.gate.RLock()
	defer sup.gate.RUnlock()
	m, err := receiveCall(p.conn)
	if err == nil {
		sup.handle(p, m)
		return true
	}
	if fault.Of(err) != "" {
		p.answer(&answer{Number: greeting, Error: toWire(err)})
	}
	return false
}

// meet begins to talk to an engine.
func (sup *supervisor) meet(p *peer) {
	sup.mu.Lock()
	sup.peers = append(sup.peers, p)
	sup.mu.Unlock()
	go sup.talk(p)
}

// handle answers a request, now or later. It doesn't wait itself.
func (sup *supervisor) handle(p *peer, m *call) {
	reply := func(a answer, err error) {
		a.Number, a.Error = m.Number, toWire(err)
		p.answer(&a)
	}
	later := func(f func() (answer, error)) {
		sup.gate.RLock()
		go func() {
			defer sup.gate.RUnlock()
			defer sup.memory.used(wholeRound)
			reply(f())
		}()
	}
	switch {
	case m.Op == opWait:
		sup.wait(pending{p, m.Number})
	case m.Op == opExecWait:
		sup.execWait(pending{p, m.Number}, m.ExecID)
	case m.Op == opSignal:
		sup.signalling.RLock()
		reply(answer{}, sup.signal(m.ExecID, m.Signal))
		sup.signalling.RUnlock()
	case m.Op == opResize && m.Size != nil:
		reply(answer{}, sup.resize(m.ExecID, *m.Size))
	case m.Op == opAttach && m.Attach != nil:
		reply(answer{}, sup.stdio.attach(*m.Attach))
	case m.Op == opExec && m.Exec != nil:
		later(func() (answer, error) {
			pid, err := sup.startExec(m.Exec)
			return answer{Pid: pid}, err
		})
	case m.Op == opPids:
		later(func() (answer, error) {
			if err := sup.alive(); err != nil {
				return answer{}, err
			}
			pids, err := sup.init.Pids()
			return answer{Pids: pids}, err
		})
	case m.Op == opPause, m.Op == opResume:
		later(func() (answer, error) { return answer{}, sup.freeze(m.Op == opPause) })
	case m.Op == opClearLog:
		reply(answer{}, sup.stdio.clearLog())
	case m.Op == opState:
		reply(answer{State: sup.tell()}, nil)
	default:
		for _, a := range m.attachments() {
			kernel.CloseAll(append(m.files, a.Conn))
		}
		reply(answer{}, fault.New(fault.Unsupported, "this supervisor does not know how to %s", m.Op))
	}
}

func (sup *supervisor) notRunning() error {
	return fault.New(fault.Conflict, "container %s is not running", sup.state.ID)
}

// alive is nil as long as the exit is not known.
func (sup *supervisor) alive() error {
	sup.mu.Lock()
	defer sup.mu.Unlock()
	if sup.exit != nil {
		return sup.notRunning()
	}
	return nil
}

func (sup *supervisor) wait(w pending) {
	sup.mu.Lock()
	exit := sup.exit
	if exit == nil {
		sup.waiters = append(sup.waiters, w)
	}
	sup.mu.Unlock()
	if exit != nil {
		w.from.answer(&answer{Number: w.number, Exit: exit})
	}
}

func (sup *supervisor) signal(execID string, n int) error {
	target := sup.init
	if execID != "" {
		e, err := sup.execution(execID)
		if err != nil {
			return err
		}
		target = e.process
	} else if err := sup.alive(); err != nil {
		return err
	}
	return gone(target.Signal(n))
}

func (sup *supervisor) resize(execID string, size ConsoleSize) error {
	if execID == "" {
		return sup.stdio.resize(size)
	}
	e, err := sup.execution(execID)
	if err != nil {
		return err
	}
	return e.stdio.resize(size)
}

// freeze pauses the container or lets it go on.
func (sup *supervisor) freeze(stop bool) error {
	sup.freezing.Lock()
	defer sup.freezing.Unlock()
	if err := sup.alive(); err != nil {
		return err
	}
	act := sup.init.Resume
	if stop {
		act = sup.init.Pause
	}
	if err := act(); err != nil {
		return err
	}
	sup.mu.Lock()
	sup.state.Paused = stop
	sup.mu.Unlock()
	return nil
}

// gone names the failure to signal a process that has ended in the meantime.
func gone(err error) error {
	if errors.Is(err, os.ErrProcessDone) || errors.Is(err, fault.NotFound) {
		return fault.Wrap(fault.Conflict, err)
	}
	return err
}
