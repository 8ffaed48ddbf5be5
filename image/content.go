package image

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"

	"berth/blob"
	"berth/fault"
)

// content keeps a Sweep from taking away what running pulls, loads and imports rely on, though no name refers to it yet.
type content struct {
	mu    sync.Mutex // held for the whole of a Sweep
	users map[digest.Digest]int
}

// lease is one operation's claim on content. Digests of blobs and of chains go into
// the same set: a claim too many does no harm.
type lease struct {
	c    *content
	held map[digest.Digest]bool
}

func (s *Store) lease() *lease { return &lease{&s.content, map[digest.Digest]bool{}} }

// hold claims content, here or yet to come. Only what is found after that may be relied on.
func (l *lease) hold(list ...digest.Digest) {
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	if l.c.users == nil {
		l.c.users = map[digest.Digest]int{}
	}
	for _, d := range list {
		if !l.held[d] {
			l.held[d] = true
			l.c.users[d]++
		}
	}
}

// images claims all content of the images that find picks from a snapshot, and returns the snapshot in which they are all whole: who removes
// one meanwhile is asked again.
func (l *lease) images(s *Store, find func(*state) ([]*Image, error)) (*state, error) {
	for {
		st := s.now.Load()
		list, err := find(st)
		if err != nil {
			return nil, err
		}
		for _, img := range list {
			for d := range st.graphs[img.ID].blobs {
				l.hold(d)
			}
		}
		now := s.now.Load()
		if !slices.ContainsFunc(list, func(img *Image) bool { return now.graphs[img.ID] != st.graphs[img.ID] }) {
			return st, nil
		}
	}
}

// drop gives up one claim.
func (l *lease) drop(d digest.Digest) {
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	if l.held[d] {
		delete(l.held, d)
		if l.c.users[d]--; l.c.users[d] == 0 {
			delete(l.c.users, d)
		}
	}
}

// release gives up all claims; call it after the names are saved.
func (l *lease) release() {
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	for d := range l.held {
		if l.c.users[d]--; l.c.users[d] == 0 {
			delete(l.c.users, d)
		}
	}
	clear(l.held)
}

// remove takes manifests away, after which what lies below them is nobody's any more.
func (c *content) remove(blobs *blob.Store, list map[digest.Digest]bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for d := range list {
		if c.users[d] > 0 {
			return fault.New(fault.Conflict, "manifest %s is being pulled, pushed or saved: try again later", d)
		}
	}
	for d := range list {
		if err := blobs.Remove(d); err != nil {
			return err
		}
	}
	return nil
}

// Freed tells what a Sweep removed.
type Freed struct {
	Blobs, Layers int
	Bytes         int64 // on disk: blobs and unpacked layers
}

// Sweep frees content that no image and no running pull, load or import refers to, such as
// the leftovers of failed pulls. Layers that containers stand on stay. Content of images that are
// damaged stays too, as far as it can be found.
func (s *Store) Sweep(ctx context.Context) (Freed, error) {
	s.content.mu.Lock()
	defer s.content.mu.Unlock()
	live := s.live()
	var f Freed
	var dead []digest.Digest
	err := s.blobs.Walk(func(d digest.Digest, size int64) error {
		if !live[d] {
			dead = append(dead, d)
			f.Bytes += size
		}
		return ctx.Err()
	})
	if err != nil {
		return Freed{}, err
	}
	for _, d := range dead {
		if err := s.blobs.Remove(d); err != nil {
			return f, err
		}
		f.Blobs++
	}
	layers, err := s.layers.Layers()
	if err != nil {
		return f, err
	}
	// Parents come before children in the list, and a layer with children can't go.
	for i := len(layers) - 1; i >= 0; i-- {
		if live[layers[i].Chain] {
			continue
		}
		if err := ctx.Err(); err != nil {
			return f, err
		}
		err := s.layers.Remove(layers[i].Chain)
		if errors.Is(err, fault.Conflict) || errors.Is(err, fault.NotFound) {
			continue
		}
		if err != nil {
			return f, err
		}
		f.Layers++
		f.Bytes += layers[i].Size
	}
	return f, nil
}

// live returns the digests of all blobs and chains that something refers to. The caller
// holds content.mu: an operation saves its names before it releases its lease, so that it is seen by one of them.
func (s *Store) live() map[digest.Digest]bool {
	live := map[digest.Digest]bool{}
	for d := range s.content.users {
		live[d] = true
	}
	st := s.now.Load()
	for _, e := range st.record.Images {
		live[e.Target.Digest] = true
		g := st.graphs[e.Target.Digest]
		if g == nil {
			g, _ = s.walk(e.Target) // damaged: keep what can be read
		}
		if g == nil {
			continue
		}
		for d := range g.blobs {
			live[d] = true
		}
		for _, v := range g.variants {
			for _, c := range v.chains {
				live[c] = true
			}
		}
	}
	return live
}
