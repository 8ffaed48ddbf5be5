package engine

import "sync"

// queue runs what nobody waits for, one after the other, on a goroutine that exists only while there is work.
type queue struct {
	mu   sync.Mutex
	jobs []func()
	busy bool
	idle chan struct{} // closed when the work ends; nil when idle
}

// add puts a job at the end.
func (q *queue) add(job func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.jobs = append(q.jobs, job)
	if !q.busy {
		q.busy, q.idle = true, make(chan struct{})
		go q.work()
	}
}

func (q *queue) work() {
	for {
		q.mu.Lock()
		if len(q.jobs) == 0 {
			q.busy = false
			close(q.idle)
			q.mu.Unlock()
			return
		}
		job := q.jobs[0]
		q.jobs[0] = nil
		q.jobs = q.jobs[1:]
		q.mu.Unlock()
		job()
	}
}

// drain waits until all that was added before is done.
func (q *queue) drain() {
	q.mu.Lock()
	idle, busy := q.idle, q.busy
	q.mu.Unlock()
	if busy {
		<-idle
	}
}

// undo is a list of inverses: each step that succeeds pushes its own.
type undo []func()

func (u *undo) push(f func()) { *u = append(*u, f) }

// run undoes the steps, the last one first, and forgets them.
func (u *undo) run() {
	for i := len(*u) - 1; i >= 0; i-- {
		(*u)[i]()
	}
	*u = nil
}
