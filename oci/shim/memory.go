package shim

import (
	"runtime/debug"
	"sync/atomic"
	"time"
)

const (
	wholeRound = 64 << 10 // about the garbage of an exec or a client
	worthwhile = 1 << 20
	quiet      = time.Second
)

// memory gives back to the system what a burst of work took, once it is over. A supervisor is idle nearly all of its life,
// and there is one per container. A collection makes tables that stay, some 150 KB, so after little work there is none.
type memory struct {
	work  atomic.Int64 // since the last time, in bytes of output or garbage
	armed atomic.Bool
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
		debug.FreeOSMemory() // empties the pools of buffers
		debug.FreeOSMemory() // and frees what was in them
		m.work.Store(0)
		m.armed.Store(false)
	})
}
