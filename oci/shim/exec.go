package shim

import (
	"context"
	"errors"
	"time"

	"berth/fault"
	"berth/oci"
)

// keptExits is how many results of ended execs wait for someone to ask.
const keptExits = 64

// execution is one exec. Its fields are the supervisor's to lock.
type execution struct {
	process container // nil while it is being started
	stdio   *stdio
	exit    *oci.Exit
	waiters []pending
}

// execution finds one that runs.
func (sup *supervisor) execution(id string) (*execution, error) {
	sup.mu.Lock()
	defer sup.mu.Unlock()
	e, found := sup.execs[id]
	switch {
	case !found:
		return nil, fault.New(fault.NotFound, "no exec %s in container %s", id, sup.state.ID)
	case e.exit != nil:
		return nil, fault.New(fault.Conflict, "exec %s has ended", id)
	case e.process == nil:
		return nil, fault.New(fault.Conflict, "exec %s has not started yet", id)
	}
	return e, nil
}

// startExec runs one more process. The connections it was handed are closed when it fails.
func (sup *supervisor) startExec(r *ExecRequest) (pid int, err error) {
	e, err := sup.admit(r.ID)
	if err != nil {
		closeAll(r.Attach)
		return 0, err
	}
	defer sup.running.Done()
	if err = sup.launch(e, r); err != nil {
		sup.mu.Lock()
		delete(sup.execs, r.ID)
		sup.mu.Unlock()
		return 0, err
	}
	sup.running.Add(1)
	go sup.seeThrough(r.ID, e)
	return e.process.Pid(), nil
}

func closeAll(list []Attachment) {
	for _, a := range list {
		a.Conn.Close()
	}
}

// admit reserves the ID, and a place among those that the supervisor's end waits for.
func (sup *supervisor) admit(id string) (*execution, error) {
	sup.mu.Lock()
	defer sup.mu.Unlock()
	switch {
	case sup.exit != nil || sup.ending:
		return nil, sup.notRunning()
	case sup.state.Paused:
		return nil, fault.New(fault.Conflict, "container %s is paused, unpause the container before exec", sup.state.ID)
	case sup.execs[id] != nil:
		return nil, fault.New(fault.Exists, "exec %s exists already", id)
	}
	e := new(execution)
	sup.execs[id] = e
	sup.running.Add(1)
	return e, nil
}

// launch makes the process and connects it.
func (sup *supervisor) launch(e *execution, r *ExecRequest) (err error) {
	stdin := r.Terminal
	for _, a := range r.Attach {
		stdin = stdin || a.Stdin
	}
	bundle, err := sup.bundle()
	if err != nil {
		closeAll(r.Attach)
		return err
	}
	io, given, err := sup.newStdio(r.Terminal, stdin, true, nil)
	if err != nil {
		closeAll(r.Attach)
		return err
	}
	io.exec = r.ID
	if r.Terminal {
		r.Spec.Process.ConsoleSize = r.Size.box()
	}
	p, err := sup.exec(context.Background(), sup.init.Pid(), bundle, r.Spec, given)
	if err != nil {
		io.close()
		closeAll(r.Attach)
		return err
	}
	io.process.Store(&p)
	if r.Terminal {
		err = io.terminal(p.Console(), true, r.Size)
	}
	for _, a := range r.Attach {
		if err == nil {
			err = io.attach(a)
		} else {
			a.Conn.Close()
		}
	}
	io.begin()
	if err != nil {
		const kill = 9
		p.Signal(kill)
		_, failed := p.Wait()
		io.end(0)
		io.finish()
		return errors.Join(err, failed)
	}
	sup.mu.Lock()
	defer sup.mu.Unlock()
	e.process, e.stdio = p, io
	return nil
}

// seeThrough sees an exec to its end, in the same order as the container's.
func (sup *supervisor) seeThrough(id string, e *execution) {
	defer sup.running.Done()
	defer sup.memory.used(wholeRound)
	exit, err := e.process.Wait()
	if err != nil {
		exit = oci.Exit{Code: 255, At: time.Now(), Error: err.Error()}
	}
	e.stdio.end(patience)
	sup.mu.Lock()
	e.exit = &exit
	waiters := e.waiters
	e.waiters = nil
	sup.order = append(sup.order, id)
	if len(sup.order) > keptExits {
		delete(sup.execs, sup.order[0])
		sup.order = append(sup.order[:0], sup.order[1:]...)
	}
	sup.mu.Unlock()
	for _, w := range waiters {
		w.from.answer(&answer{Number: w.number, Exit: &exit})
	}
	io := e.stdio
	io.finish()
	sup.mu.Lock()
	e.process, e.stdio = nil, nil
	sup.mu.Unlock()
}

// endExecs waits until the execs of a container that has ended are told of, or for so long.
func (sup *supervisor) endExecs(patience time.Duration) {
	sup.mu.Lock()
	sup.ending = true // admits no more
	sup.mu.Unlock()
	done := make(chan struct{})
	go func() {
		sup.running.Wait()
		close(done)
	}()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}

func (sup *supervisor) execWait(w pending, id string) {
	sup.mu.Lock()
	e := sup.execs[id]
	var exit *oci.Exit
	if e != nil {
		if exit = e.exit; exit == nil {
			e.waiters = append(e.waiters, w)
		}
	}
	sup.mu.Unlock()
	switch {
	case e == nil:
		w.from.answer(&answer{Number: w.number, Error: toWire(fault.New(fault.NotFound, "no exec %s in container %s", id, sup.state.ID))})
	case exit != nil:
		w.from.answer(&answer{Number: w.number, Exit: exit})
	}
}
