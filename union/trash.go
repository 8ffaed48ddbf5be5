package union

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"berth/fault"
	"berth/kernel"
)

// trash removes directories in the background: taking one is a rename, freeing
// its blocks is the disk's pace. What a kill leaves in its directory is removed after the next start.
type trash struct {
	dir   string
	last  func(path string) error // is told of what is about to be removed; nil: nobody
	next  atomic.Uint64
	wake  chan struct{}
	asked chan chan struct{} // a sweep that somebody waits for
	stop  chan struct{}
	done  chan struct{}
}

func newTrash(dir string, last func(path string) error) *trash {
	t := &trash{dir: dir, last: last, wake: make(chan struct{}, 1), asked: make(chan chan struct{}), stop: make(chan struct{}), done: make(chan struct{})}
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
			// What can't be removed now (an immutable file, say) waits for the next round.
			_ = t.empty()
		case done := <-t.asked:
			_ = t.empty()
			close(done)
		}
	}
}

func (t *trash) empty() (err error) {
	dir, err := os.Open(t.dir)
	if err != nil {
		return err
	}
	defer fault.Close(dir, &err)
	if t.last != nil {
		err = each(t.dir, func(name string) error { return t.last(filepath.Join(t.dir, name)) })
	}
	return errors.Join(err, t.clear(dir))
}

var errStopped = errors.New("stopped")

// clear removes all in dir, until close asks it to stop: a tree may have a million files.
func (t *trash) clear(dir *os.File) error {
	names, err := dir.Readdirnames(-1)
	for _, name := range names {
		select {
		case <-t.stop:
			return errStopped
		default:
		}
		err = errors.Join(err, t.remove(dir, name))
	}
	return err
}

func (t *trash) remove(dir *os.File, name string) (err error) {
	if err := kernel.UnlinkIn(dir, name); !errors.Is(err, syscall.EISDIR) && !errors.Is(err, syscall.EPERM) {
		return err
	}
	if kernel.RmdirIn(dir, name) == nil {
		return nil
	}
	sub, err := kernel.OpenIn(dir, name, kernel.ODirectory|kernel.ONoFollow, 0, 0)
	if err != nil {
		return err
	}
	err = t.clear(sub)
	if fault.Close(sub, &err); err != nil {
		return err
	}
	return kernel.RmdirIn(dir, name)
}

// close stops the sweeping and waits for it; what is left is removed after the next start.
func (t *trash) close() {
	close(t.stop)
	<-t.done
}
