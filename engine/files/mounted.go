package files

import (
	"context"
	"sync"

	"berth/union"
)

// Mounted is the tree of a container that does not run, mounted for as long as somebody works in it. All share one mount, and a
// start waits for its end: two mounts of one root would disagree about it. The zero Mounted is ready for use.
type Mounted struct {
	mu   sync.Mutex
	tree *union.Tree // nil when not mounted
	refs int
	idle chan struct{} // closed when the mount has gone
}

// Join gives the tree that is mounted already, nil when none is. Each Join and each Open is ended by one Leave.
func (m *Mounted) Join() *union.Tree {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.tree != nil {
		m.refs++
	}
	return m.tree
}

// Open gives the tree, mounted by mount unless it is.
func (m *Mounted) Open(mount func() (*union.Tree, error)) (*union.Tree, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.tree == nil {
		t, err := mount()
		if err != nil {
			return nil, err
		}
		m.tree, m.idle = t, make(chan struct{})
	}
	m.refs++
	return m.tree, nil
}

// Leave ends one use.
func (m *Mounted) Leave() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.refs--; m.refs > 0 {
		return nil
	}
	err := m.tree.Close()
	m.tree = nil
	close(m.idle)
	return err
}

// Await returns when no tree is mounted. Whoever keeps others from Open meets no new one but of those who Join.
func (m *Mounted) Await(ctx context.Context) error {
	m.mu.Lock()
	tree, idle := m.tree, m.idle
	m.mu.Unlock()
	if tree == nil {
		return nil
	}
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
