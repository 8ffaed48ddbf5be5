package blob

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"

	"berth/fault"
	"berth/kernel"
)

// flushEvery is how many bytes are written between two flushes.
const flushEvery = 16 << 20

// flush lets the disk begin while more content comes, and what is unpacked from it, so that little is left for Sync, for which somebody waits.
type flush struct {
	written atomic.Int64 // bytes since the last one
	busy    sync.Mutex   // held by the one under way
	failed  error        // under busy: what the system reports once and no more
}

// failure waits for a flush under way and returns what went wrong since it was last asked.
func (f *flush) failure() error {
	f.busy.Lock()
	defer f.busy.Unlock()
	err := f.failed
	f.failed = nil
	return err
}

// wrote counts bytes, and starts a flush when there are enough and none is under way.
func (s *Store) wrote(n int) {
	if s.flush.written.Add(int64(n)) >= flushEvery {
		s.Flush()
	}
}

// Flush lets the disk begin with what was written, unless it has; it does not wait. A Sync that follows soon has less to do.
func (s *Store) Flush() {
	f := &s.flush
	if !f.busy.TryLock() {
		return
	}
	f.written.Store(0)
	go func() {
		defer f.busy.Unlock()
		f.failed = errors.Join(f.failed, s.syncFS())
	}()
}

func (s *Store) syncFS() (err error) {
	f, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	defer fault.Close(f, &err)
	return kernel.SyncFS(f)
}
