package union

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
)

// spares are roots made ahead, so that creating one is a rename: making its
// four inodes takes ext4 up to a millisecond while others are being deleted. They lie under
// spare, where the next start sweeps them.
type spares struct {
	build func(base) (dir string, err error)
	drop  func(dir string) error
	alive func(base) bool

	mu    sync.Mutex
	ready map[base][]string
	order []base // latest last

	want chan base
	stop chan struct{}
	done chan struct{}
}

// base is what a root stands on.
type base struct {
	chain digest.Digest
	below string // the directory right below it, under the driver's
}

const (
	sparesEach  = 4 // of one base
	sparesBases = 4
)

func newSpares(build func(base) (string, error), drop func(string) error, alive func(base) bool) *spares {
	s := &spares{build: build, drop: drop, alive: alive, ready: map[base][]string{},
		want: make(chan base, 1), stop: make(chan struct{}), done: make(chan struct{})}
	go s.fill()
	return s
}

// take hands a spare over to the caller, "" when there is none, and has more made.
func (s *spares) take(b base) (dir string) {
	s.mu.Lock()
	if list := s.ready[b]; len(list) > 0 {
		dir, s.ready[b] = list[0], list[1:]
	}
	s.mu.Unlock()
	select {
	case s.want <- b:
	default: // busy; the next one asks again
	}
	return dir
}

func (s *spares) fill() {
	defer close(s.done)
	for {
		select {
		case <-s.stop:
			return
		case b := <-s.want:
			for s.lacks(b) {
				dir, err := s.build(b)
				if err != nil || !s.add(b, dir) {
					break // Create will meet the same error and report it
				}
			}
		}
	}
}

func (s *spares) lacks(b base) bool {
	select {
	case <-s.stop:
		return false
	default:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.ready[b]) < sparesEach
}

// add keeps a spare unless its layers went meanwhile, and drops those of the base that was used least recently.
func (s *spares) add(b base, dir string) bool {
	s.mu.Lock()
	if !s.alive(b) {
		s.mu.Unlock()
		_ = s.drop(dir) // swept at the next start when this fails
		return false
	}
	s.order = append(slices.DeleteFunc(s.order, func(o base) bool { return o == b }), b)
	s.ready[b] = append(s.ready[b], dir)
	var old []string
	if len(s.order) > sparesBases {
		old = s.ready[s.order[0]]
		delete(s.ready, s.order[0])
		s.order = s.order[1:]
	}
	s.mu.Unlock()
	for _, dir := range old {
		_ = s.drop(dir)
	}
	return true
}

// forget drops the spares over a chain that is being removed.
func (s *spares) forget(chain digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var order []base
	for _, b := range s.order {
		if b.chain != chain {
			order = append(order, b)
			continue
		}
		for _, dir := range s.ready[b] {
			_ = s.drop(dir)
		}
		delete(s.ready, b)
	}
	s.order = order
}

func (s *spares) close() {
	close(s.stop)
	<-s.done
}

// newRoot makes a root over b under spare; the caller renames it into place.
func (o *overlay) newRoot(b base) (dir string, err error) {
	if dir, err = os.MkdirTemp(o.path("spare"), "root-"); err != nil {
		return "", err
	}
	err = makeUpper(filepath.Join(dir, "diff"), o.top(b.below))
	if err == nil {
		err = os.Mkdir(filepath.Join(dir, "work"), 0o700)
	}
	if err == nil {
		err = os.Symlink(filepath.Join("..", "..", b.below), filepath.Join(dir, "lower"))
	}
	if err != nil {
		return "", errors.Join(err, o.trash.take(dir))
	}
	return dir, nil
}

// top is the directory that a root over below sees first.
func (o *overlay) top(below string) string {
	if below == "empty" {
		return o.path(below)
	}
	return o.path(below, "diff")
}

func (o *overlay) alive(b base) bool {
	_, err := os.Lstat(o.top(b.below))
	return err == nil
}
