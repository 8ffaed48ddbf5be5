package shim

import (
	"runtime/debug"
	"sync/atomic"
	"time"
)

const (
	wholeRound  = 64 << 10 // about the garbage of an exec or a client
	outputShare = 64       // output makes hardly any
	worthwhile  = 1 << 20  // counts as much as a start
	tooMuch     = 8 << 20
	quiet       = time.Second
	attempts    = 6 // of beginning anew, each after twice the time: a client that asks something is in the way for a moment
)

// memory gives back to the system what work took, once it is over. A supervisor is idle nearly all of its life, and there is one per
// container. What a start leaves behind is less garbage than pages with something small on each, and a collection makes tables of its own, so
// the way to give it back is to begin anew (renew.go); a collection is for when that can't be done.
type memory struct {
	work  atomic.Int64 // since the last time, in bytes of garbage
	armed atomic.Bool
	renew func() // returns only when it can't be done now
}

// used counts work of a size.
func (m *memory) used(size int) {
	if m.work.Add(int64(size)) >= worthwhile && m.armed.CompareAndSwap(false, true) {
		m.watch(m.work.Load())
	}
}

// watch waits until nothing has been counted for a while.
func (m *memory) watch(seen int64) {
	time.AfterFunc(quiet, func() {
		if now := m.work.Load(); now != seen {
			m.watch(now)
			return
		}
		m.try(attempts, quiet)
	})
}

// try begins anew, or tries that again after pause.
func (m *memory) try(left int, pause time.Duration) {
	m.renew()
	if m.work.Load() >= tooMuch {
		debug.FreeOSMemory() // empties the pools of buffers
		debug.FreeOSMemory() // and frees what was in them
		m.work.Store(0)
	}
	if left > 1 {
		time.AfterFunc(pause, func() { m.try(left-1, 2*pause) })
		return
	}
	m.armed.Store(false) // the next one who counts tries again
}
