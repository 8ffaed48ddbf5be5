package union

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

// trash removes directories in the background: taking one is a rename, freeing
// its blocks is the disk's pace. What a kill leaves in its directory is removed after the next start.
type trash struct {
	dir  string
	next atomic.Uint64
	wake chan struct{}
	stop chan struct{}
	done chan struct{}
}

func newTrash(dir string) *trash {
	t := &trash{dir: dir, wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
	t.next.Store(uint64(time.Now().UnixNano())) // no name of an earlier process again
	go t.sweep()
	t.rouse()
	return t
}

// take moves path away. It is gone for everyone when take returns.
func (t *trash) take(path string) error {
	for {
		to := filepath.Join(t.dir, fmt.Sprintf("%x", t.next.Add(1)))
		err := os.Rename(path, to)
		if errors.Is(err, os.ErrExist) {
			continue
		}
		if err == nil {
			t.rouse()
		}
		return err
	}
}

func (t *trash) rouse() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

func (t *trash) sweep() {
	defer close(t.done)
	for {
		select {
		case <-t.stop:
			return
		case <-t.wake:
		}
		entries, err := os.ReadDir(t.dir)
		if err != nil {
			continue // the next start tries again
		}
		for _, e := range entries {
			select {
			case <-t.stop:
				return
			default:
			}
			// What can't be removed now (an immutable file, say) waits for the next round.
			_ = os.RemoveAll(filepath.Join(t.dir, e.Name()))
		}
	}
}

// close stops after the directory at hand.
func (t *trash) close() {
	close(t.stop)
	<-t.done
}
